//! Identifies the client of a unix socket, and reads which groups have which right.
//!
//! The kernel reports the user, the first group and the process of the client (`SO_PEERCRED`). The
//! other groups are in `/proc/PID/status`. The process may have ended since, and another one may
//! have its number, so that file counts only if its user is the same. A client gains nothing that
//! other processes of its user could not do anyway.

use std::collections::BTreeSet;
use std::fs;

use fleet_core::access::{Group, Peer, Rules};
use tokio::net::UnixStream;

use crate::config::Settings;

/// The names of the groups in fleet.conf.
#[derive(Clone, Debug)]
pub(super) struct Groups {
    read: String,
    change: String,
}

impl Groups {
    pub(super) fn of(settings: &Settings) -> Self {
        Self {
            read: settings.api_read_group.clone(),
            change: settings.api_change_group.clone(),
        }
    }

    /// Returns the present rules. Groups change independently of fleetd.
    pub(super) fn rules(&self) -> Rules {
        let groups = fs::read_to_string("/etc/group").unwrap_or_default();
        let group = |name: &str| Group {
            name: name.to_owned(),
            id: group_id(&groups, name),
        };
        Rules {
            own_user: rustix::process::geteuid().as_raw(),
            read: group(&self.read),
            change: group(&self.change),
        }
    }

    /// Logs once which groups do not exist. They may be created at any time.
    pub(super) fn tell(&self) {
        let rules = self.rules();
        let mut missing: Vec<_> = [rules.read, rules.change]
            .into_iter()
            .filter(|group| group.id.is_none())
            .map(|group| group.name)
            .collect();
        missing.dedup();
        for name in missing {
            tracing::info!(
                "this machine has no group {name}: until it has one, the group gives no access to the API"
            );
        }
    }
}

/// Returns the client that connected. `None` if the kernel does not report it.
pub(super) fn peer(stream: &UnixStream) -> Option<Peer> {
    let connected = stream.peer_cred().ok()?;
    let user = connected.uid();
    let mut groups = BTreeSet::from([connected.gid()]);
    // A process of a container with its own process space has no number here.
    let pid = connected.pid().filter(|pid| *pid > 0);
    let status = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
    groups.extend(groups_in(&status.unwrap_or_default(), user));
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    Some(Peer {
        user,
        name: user_name(&users, user),
        groups,
    })
}

/// Returns the supplementary groups in the text of `/proc/PID/status`, if all user ids of that
/// process are this user's.
fn groups_in(status: &str, user: u32) -> Vec<u32> {
    let numbers = |field: &str| -> Vec<u32> {
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let words = line.into_iter().flat_map(str::split_whitespace);
        words.filter_map(|word| word.parse().ok()).collect()
    };
    let users = numbers("Uid:");
    if users.is_empty() || users.iter().any(|uid| *uid != user) {
        return Vec::new();
    }
    numbers("Groups:")
}

/// Returns the number of a group from the text of `/etc/group`.
pub(super) fn group_id(groups: &str, name: &str) -> Option<u32> {
    if let Ok(number) = name.parse() {
        return Some(number);
    }
    groups.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok())?
    })
}

/// Returns the name of a user from the text of `/etc/passwd`.
fn user_name(users: &str, user: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(user)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tbash\nUid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\nGroups:\t27 991 1000 \n";

    #[test]
    fn groups_count_only_while_the_process_is_the_same_users() {
        assert_eq!(groups_in(STATUS, 1000), [27, 991, 1000]);
        assert_eq!(groups_in(STATUS, 1001), [0; 0]);
        let set_user_id = STATUS.replace("\t1000\t1000\t1000\t1000\nGid", "\t1000\t0\t0\t0\nGid");
        assert_eq!(groups_in(&set_user_id, 1000), [0; 0]);
        assert_eq!(groups_in("", 0), [0; 0]);
    }

    #[test]
    fn names_and_numbers_are_read_from_this_machine() {
        let groups = "root:x:0:\nfleet:x:991:alice,bob\nfleet2:x:992:\n";
        assert_eq!(group_id(groups, "fleet"), Some(991));
        assert_eq!(group_id(groups, "flee"), None);
        assert_eq!(group_id(groups, "12"), Some(12));
        let users = "root:x:0:0:root:/root:/bin/bash\nalice:x:1000:1000::/home/alice:\n";
        assert_eq!(user_name(users, 1000).as_deref(), Some("alice"));
        assert_eq!(user_name(users, 991), None);
    }

    #[tokio::test]
    async fn the_kernel_says_who_connected() {
        let (one, _other) = UnixStream::pair().expect("a pair");
        let peer = peer(&one).expect("a peer");
        assert_eq!(peer.user, rustix::process::geteuid().as_raw());
        assert!(peer.groups.contains(&rustix::process::getegid().as_raw()));
    }
}
