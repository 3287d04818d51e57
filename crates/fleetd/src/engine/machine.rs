//! A machine as the leader knows it.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use fleet_core::machine::{Metadata, Scheduling, overlay};
use fleet_core::place::Verdict;
use fleet_core::record::{
    self, Grant, Known, MachineRecord, MachineReport, MetadataRecord, RecordError,
};
use fleet_core::rollout::Presence;
use fleet_core::unit::UnitName;

use crate::store::Entry;

/// A value that is there, and the store revision that wrote it.
#[derive(Clone, Debug)]
pub(super) struct Written<T> {
    /// None if it cannot be read.
    pub(super) value: Option<T>,
    /// A newer version wrote it: nothing is to take its place.
    pub(super) is_newer: bool,
    pub(super) at: u64,
}

/// What a machine's reports are written over.
#[derive(Clone, Debug)]
pub(super) struct ReportBase {
    bytes: Arc<[u8]>,
    may_defer: bool,
}

impl ReportBase {
    pub(super) fn new(entry: &Entry) -> Self {
        Self {
            bytes: entry.value.clone(),
            may_defer: may_defer(&entry.value),
        }
    }
}

/// Whether it may say of a unit that it waits for its turn: whether the word is in it.
fn may_defer(bytes: &[u8]) -> bool {
    const WORD: &[u8] = b"\"deferred\"";
    bytes.windows(WORD.len()).any(|part| part == WORD)
}

/// A machine's report. It is decoded only when it is asked for: every machine writes reports with
/// each change, and few of them matter to a rollout.
#[derive(Debug)]
pub(super) struct Report {
    bytes: Arc<[u8]>,
    base: Option<ReportBase>,
    /// The store revision that wrote it.
    pub(super) at: u64,
    /// None if it cannot be read.
    read: OnceLock<Option<MachineReport>>,
}

impl Report {
    pub(super) fn new(entry: &Entry, base: Option<ReportBase>) -> Self {
        Self {
            bytes: entry.value.clone(),
            base,
            at: entry.modified,
            read: OnceLock::new(),
        }
    }

    /// What it says; none if it cannot be read.
    pub(super) fn value(&self) -> Option<&MachineReport> {
        self.read.get_or_init(|| self.decode().ok()).as_ref()
    }

    /// What it says is read again when somebody asks.
    pub(super) fn forget(&mut self) {
        self.read.take();
    }

    #[cfg(test)]
    pub(super) fn is_read(&self) -> bool {
        self.read.get().is_some()
    }

    /// Reads it, for why it cannot be read.
    pub(super) fn decode(&self) -> Result<MachineReport, RecordError> {
        let base = self.base.as_ref().map(|base| &*base.bytes);
        record::decode_report(&self.bytes, base)
    }

    /// Whether it may say of a unit that it waits for its turn.
    pub(super) fn may_defer(&self) -> bool {
        may_defer(&self.bytes) || self.base.as_ref().is_some_and(|base| base.may_defer)
    }
}

/// All that the registry says of one machine.
#[derive(Debug, Default)]
pub(super) struct Machine {
    pub(super) presence: Option<Written<MachineRecord>>,
    pub(super) report: Option<Report>,
    /// What its next report may be written over.
    pub(super) report_base: Option<ReportBase>,
    pub(super) metadata: Option<Written<MetadataRecord>>,
    pub(super) known: Option<Written<Known>>,
    pub(super) grants: BTreeMap<UnitName, Written<Grant>>,
    /// Whether it was here at any time since this leader began.
    pub(super) was_here: bool,
    /// What belongs on it; none until somebody asks, and after every change that may matter to it.
    pub(super) belongs: Option<Arc<BTreeMap<UnitName, Verdict>>>,
}

impl Machine {
    /// Whether it is here. `awaited_until`: until when a machine that this leader never saw may be
    /// on its way back, if that time is not over.
    pub(super) fn presence(&self, awaited_until: Option<u64>) -> Option<Presence> {
        if let Some(presence) = &self.presence {
            // A session of no machine if it cannot be read.
            let session = presence.value.as_ref().map_or(0, |it| it.session);
            return Some(Presence::Live(session));
        }
        let known = self.known.as_ref()?.value.as_ref()?;
        Some(match (known.offline_since, awaited_until) {
            (None, Some(until)) if !self.was_here => Presence::Awaited(until),
            (since, _) => Presence::Offline(since),
        })
    }

    /// Returns whether it can be read what may start there. If not, the machine may be drained.
    pub(super) fn is_scheduling_known(&self) -> bool {
        let set = self.metadata.as_ref();
        set.is_none_or(|set| set.value.is_some())
    }

    /// What may start there.
    pub(super) fn scheduling(&self) -> Scheduling {
        match &self.metadata {
            None => Scheduling::Normal,
            // Its agent keeps what runs, too.
            Some(set) => match &set.value {
                None => Scheduling::Cordoned,
                Some(set) => set.scheduling,
            },
        }
    }

    /// What units select it by; none where that cannot be read.
    pub(super) fn labels(&self) -> Option<Metadata> {
        let presence = self.presence.as_ref().and_then(|it| it.value.as_ref());
        // It wrote both at once.
        let known = || Some(&self.known.as_ref()?.value.as_ref()?.machine);
        let own = &presence.or_else(known)?.metadata;
        match &self.metadata {
            Some(set) => Some(overlay(own, &set.value.as_ref()?.set)),
            None => Some(own.clone()),
        }
    }

    /// Whether a leader has noted that it is offline.
    pub(super) fn is_noted_offline(&self) -> bool {
        let known = self.known.as_ref().and_then(|known| known.value.as_ref());
        known.is_some_and(|known| known.offline_since.is_some())
    }

    /// Whether nothing at all is known of it.
    pub(super) fn is_empty(&self) -> bool {
        self.presence.is_none()
            && self.report.is_none()
            && self.report_base.is_none()
            && self.metadata.is_none()
            && self.known.is_none()
            && self.grants.is_empty()
    }
}
