//! Rights over the API: root has all rights, one group may read, another may change.
//!
//! The kernel identifies the peer of a unix socket. A TLS certificate identifies a peer on the
//! network. The caller looks up the id and the members of each group on this machine.

use std::collections::BTreeSet;
use std::fmt;

/// The user id of root.
const ROOT: u32 = 0;

/// The right that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// Permission to read units, unit files, machines and events.
    Read,
    /// Permission to change units, metadata and rollouts. It allows running anything as root on
    /// every machine.
    Change,
}

/// A group that has a right on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name in fleet.conf.
    pub name: String,
    /// The group id. `None` if this machine has no such group.
    pub id: Option<u32>,
}

/// The users and groups that have each right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// The user that fleetd runs as. It has every right, as root does.
    pub own_user: u32,
    /// The group whose members may read.
    pub read: Group,
    /// The group whose members may read and change.
    pub change: Group,
}

/// The process at the other end of a unix socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// The user id.
    pub user: u32,
    /// The user's name. `None` if this machine has no name for the id.
    pub name: Option<String>,
    /// The groups of the process, with supplementary ones.
    pub groups: BTreeSet<u32>,
}

/// The error for a peer that lacks a right. Its text ends with the next step.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Denied {
    peer: Peer,
    right: Right,
    group: Group,
}

/// Checks that the peer has the right.
pub fn decide(rules: &Rules, peer: &Peer, right: Right) -> Result<(), Denied> {
    if peer.user == ROOT || peer.user == rules.own_user {
        return Ok(());
    }
    let groups: &[&Group] = match right {
        Right::Read => &[&rules.read, &rules.change],
        Right::Change => &[&rules.change],
    };
    let is_in = |group: &&Group| group.id.is_some_and(|id| peer.groups.contains(&id));
    if groups.iter().any(is_in) {
        return Ok(());
    }
    Err(Denied {
        peer: peer.clone(),
        right,
        group: groups[0].clone(),
    })
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let user = match &self.peer.name {
            Some(name) => name.clone(),
            None => self.peer.user.to_string(),
        };
        let (verb, option) = match self.right {
            Right::Read => ("read", "api_read_group"),
            Right::Change => ("change", "api_change_group"),
        };
        let group = &self.group.name;
        write!(
            f,
            "user {user} may not {verb} the fleet: only root and the group {group} may ({option} in fleet.conf); "
        )?;
        match self.group.id {
            Some(_) => write!(
                f,
                "try sudo, or join the group (usermod --append --groups {group} {user}) and log in again"
            ),
            None => write!(
                f,
                "this machine has no such group, so try sudo, or make the group (groupadd --system {group})"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str, id: u32) -> Group {
        Group {
            name: name.to_owned(),
            id: (id != 0).then_some(id),
        }
    }

    fn rules(read: Group, change: Group) -> Rules {
        Rules {
            own_user: 0,
            read,
            change,
        }
    }

    fn peer(user: u32, groups: &[u32]) -> Peer {
        Peer {
            user,
            name: (user == 1000).then(|| "alice".to_owned()),
            groups: groups.iter().copied().collect(),
        }
    }

    /// Returns whether the peer may read, and whether it may change.
    fn may(rules: &Rules, peer: &Peer) -> (bool, bool) {
        let may = |right| decide(rules, peer, right).is_ok();
        (may(Right::Read), may(Right::Change))
    }

    #[test]
    fn groups_grant_their_right_and_change_includes_read() {
        let rules = rules(group("readers", 10), group("changers", 20));
        for (who, expected) in [
            (peer(0, &[]), (true, true)),
            (peer(1000, &[]), (false, false)),
            (peer(1000, &[5, 10]), (true, false)),
            (peer(1000, &[20]), (true, true)),
            (peer(1000, &[10, 20]), (true, true)),
        ] {
            assert_eq!(may(&rules, &who), expected, "{who:?}");
        }
    }

    #[test]
    fn missing_group_grants_no_right() {
        let rules = rules(group("fleet", 0), group("fleet", 0));
        assert_eq!(may(&rules, &peer(1000, &[0, 10])), (false, false));
        assert_eq!(may(&rules, &peer(0, &[])), (true, true));
    }

    #[test]
    fn fleetd_without_root_serves_its_own_user() {
        let rules = Rules {
            own_user: 1000,
            ..rules(group("fleet", 0), group("fleet", 0))
        };
        assert_eq!(may(&rules, &peer(1000, &[])), (true, true));
        assert_eq!(may(&rules, &peer(1001, &[])), (false, false));
    }

    #[test]
    fn denial_names_the_user_the_group_and_the_next_step() {
        let told = |rules: &Rules, who: &Peer, right| {
            decide(rules, who, right).expect_err("denied").to_string()
        };
        let known = rules(group("readers", 10), group("changers", 20));
        assert_eq!(
            told(&known, &peer(1000, &[10]), Right::Change),
            "user alice may not change the fleet: only root and the group changers may (api_change_group in fleet.conf); \
             try sudo, or join the group (usermod --append --groups changers alice) and log in again"
        );
        let unknown = rules(group("fleet", 0), group("fleet", 0));
        assert_eq!(
            told(&unknown, &peer(1001, &[]), Right::Read),
            "user 1001 may not read the fleet: only root and the group fleet may (api_read_group in fleet.conf); this \
             machine has no such group, so try sudo, or make the group (groupadd --system fleet)"
        );
    }
}
