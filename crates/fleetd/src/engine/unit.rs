//! A unit as the leader knows it.

use std::sync::Arc;
use std::time::Duration;

use fleet_core::record::{Candidate, UnitRecord};
use fleet_core::rollout::Phase;
use fleet_core::unit::{Content, FleetOptions, UnitFile, UnitName, service_type};

use crate::store::Entry;

/// A unit whose record can be read.
#[derive(Debug)]
pub(super) struct Unit {
    pub(super) record: UnitRecord,
    /// The store revision that made it.
    pub(super) created: u64,
    /// The one that last wrote it.
    pub(super) modified: u64,
    /// When the leader first looked at the rollout in its present phase, by its own clock.
    pub(super) since: Option<u64>,
    stable: Arc<Options>,
    candidate: Option<Arc<Options>>,
}

/// What a revision asks of fleet.
#[derive(Debug)]
struct Options {
    fleet: FleetOptions,
    min_ready: Duration,
}

impl Unit {
    /// `before`: the unit as it was, whose files need not be parsed again.
    pub(super) fn new(
        name: &UnitName,
        record: UnitRecord,
        entry: &Entry,
        before: Option<&Self>,
    ) -> Self {
        let parse = |content: &Content| match before.and_then(|before| before.parsed(content)) {
            Some(options) => options,
            None => {
                let file = UnitFile::parse(content.as_bytes());
                let fleet = FleetOptions::read(name, &file);
                let min_ready = fleet.policy.min_ready(name.kind(), service_type(&file));
                Arc::new(Options { fleet, min_ready })
            }
        };
        let candidate = record.candidate.as_ref();
        let is_as_it_was = |before: &&Self| {
            let phase = |it: &Candidate| (it.revision.number, it.phase, it.since);
            let was = before.record.candidate.as_ref();
            before.created == entry.created && was.map(phase) == candidate.map(phase)
        };
        Self {
            since: before.filter(is_as_it_was).and_then(|before| before.since),
            stable: parse(&record.stable.content),
            candidate: candidate.map(|it| parse(&it.revision.content)),
            record,
            created: entry.created,
            modified: entry.modified,
        }
    }

    fn parsed(&self, content: &Content) -> Option<Arc<Options>> {
        if self.record.stable.content == *content {
            return Some(self.stable.clone());
        }
        let candidate = self.record.candidate.as_ref()?;
        let same = candidate.revision.content == *content;
        self.candidate.clone().filter(|_| same)
    }

    /// The options of the newest revision, whose policy rules.
    pub(super) fn newest(&self) -> &FleetOptions {
        &self.candidate.as_ref().unwrap_or(&self.stable).fleet
    }

    /// How long the newest revision must be ready before it counts as available.
    pub(super) fn min_ready(&self) -> Duration {
        self.candidate.as_ref().unwrap_or(&self.stable).min_ready
    }

    /// The options of the revision that machines are on the way to.
    pub(super) fn wanted(&self) -> &FleetOptions {
        match &self.record.candidate {
            Some(candidate) if candidate.phase != Phase::RollingBack => self.newest(),
            _ => &self.stable.fleet,
        }
    }

    /// Whether it belongs on the same machines as the other, and keeps the same units away.
    pub(super) fn places_like(&self, other: &Self) -> bool {
        let (one, other_one) = (self.wanted(), other.wanted());
        self.created == other.created
            && self.record.target == other.record.target
            && one.global == other_one.global
            && one.machine_metadata == other_one.machine_metadata
            && one.conflicts == other_one.conflicts
            && one.unreadable() == other_one.unreadable()
    }
}
