//! Other machines that have this one's id, as clones of one disk do.
//!
//! The registry knows a machine by its id, so only one of them can be there. It is the one that
//! came last, which nobody can tell from a fleetd that was restarted. The one before finds its
//! presence replaced while its own lease holds, and no restart does that: it stands aside, says so
//! below the presence, where the other one sees it, and comes back when that presence is gone. So
//! both know, people are told on both, and nobody fights.

use std::collections::BTreeMap;

use fleet_core::keys;
use fleet_core::machine::{MachineId, SessionId};
use fleet_core::record::{self, MachineRecord};

use crate::store::{Entry, Snapshot};

const HELP: &str = "give one of them an id of its own: rm /etc/machine-id /var/lib/dbus/machine-id; systemd-machine-id-setup; reboot";

/// Whose presence is in the registry under this machine's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// That of this session.
    Ours,
    /// Nobody's, or one from before this session.
    Lost,
    /// That of a machine which came after this session did.
    Taken,
}

/// What the registry has under this machine's id.
pub(super) struct Twins {
    me: MachineId,
    session: SessionId,
    /// The store revision that wrote this session's presence.
    since: u64,
    /// The address of the presence that is there, and the store revision that wrote it.
    present: Option<(String, u64)>,
    /// The addresses of those that stand aside.
    aside: BTreeMap<String, String>,
}

impl Twins {
    /// For a session whose presence was written by that commit.
    pub(super) fn new(me: MachineId, session: SessionId, since: u64) -> Self {
        Self {
            me,
            session,
            since,
            present: Some((String::new(), since)),
            aside: BTreeMap::new(),
        }
    }

    /// Its presence was written again, since the machine has another address, say.
    pub(super) fn moved(&mut self, since: u64) {
        self.since = since;
        self.present = Some((String::new(), since));
    }

    /// It has another lease now, and stands aside as before.
    pub(super) fn move_to(&mut self, session: SessionId) {
        self.session = session;
    }

    /// Takes what there is now.
    pub(super) fn see(&mut self, snapshot: &Snapshot) {
        self.present = None;
        self.aside.clear();
        for (key, entry) in &snapshot.entries {
            self.put(key, entry);
        }
    }

    fn put(&mut self, key: &str, entry: &Entry) {
        let machine = record::decode::<MachineRecord>(&entry.value).ok();
        let session = machine.as_ref().map(|machine| machine.session);
        let address = || {
            let address = machine.map(|machine| machine.primary_ip);
            let address = address.filter(|address| !address.is_empty());
            address.unwrap_or_else(|| "another machine".to_owned())
        };
        if key == keys::machine(&self.me) {
            // A write of this session that got no answer.
            if session == Some(self.session) {
                self.since = entry.modified;
            }
            self.present = Some((address(), entry.modified));
        } else if keys::twin_of(key).is_some_and(|(id, twin)| id == self.me && twin != self.session)
        {
            self.aside.insert(key.to_owned(), address());
        }
    }

    pub(super) fn place(&self) -> Place {
        match &self.present {
            Some((_, at)) if *at == self.since => Place::Ours,
            // One that was written earlier is of a backup.
            Some((_, at)) if *at > self.since => Place::Taken,
            _ => Place::Lost,
        }
    }

    /// What people are told; none where no other machine has this id.
    pub(super) fn problem(&self) -> Option<String> {
        if self.place() == Place::Taken {
            let (address, _) = self.present.as_ref()?;
            return Some(format!(
                "{address} has the id of this machine too, and is listed under it, so this one stands aside: its units run \
                 on, but nobody sees them, and no update that restarts one of them reaches it; {HELP}"
            ));
        }
        let addresses: Vec<&str> = self.aside.values().map(String::as_str).collect();
        (!addresses.is_empty()).then(|| {
            format!(
                "{} has the id of this machine too, and stands aside: units run on there, but nobody sees them, and no \
                 update that restarts one of them reaches it; {HELP}",
                addresses.join(", ")
            )
        })
    }
}
