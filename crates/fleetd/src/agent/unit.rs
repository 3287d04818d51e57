//! One unit of the index: what its revisions say, and which of them this machine takes.

use std::collections::BTreeSet;
use std::time::Duration;

use fleet_core::machine::{Scheduling, SessionId};
use fleet_core::place::{Placeable, Reason, conflict};
use fleet_core::plan::Desired;
use fleet_core::record::{Grant, Revision, UnitRecord, must_restart};
use fleet_core::rollout::{Choice, Present, choose, confirms};
use fleet_core::unit::{Content, FleetOptions, Parsed, TargetState, UnitName, service_type};

/// One revision of a unit, read.
#[derive(Debug)]
struct Read {
    /// What it was read from.
    content: Content,
    restarts: u64,
    options: FleetOptions,
    /// What a running process depends on.
    process: String,
    install: bool,
    min_ready: Duration,
}

impl Read {
    fn new(name: &UnitName, revision: &Revision) -> Self {
        let parsed = Parsed::parse(name.clone(), &revision.content);
        let mut assignments = parsed.file.assignments().iter();
        let policy = parsed.options.policy;
        Self {
            content: revision.content.clone(),
            restarts: revision.restarts,
            process: revision.process(&parsed.file),
            // systemd enables instances, and a person says which.
            install: !name.is_template()
                && assignments.any(|assignment| assignment.section == "Install"),
            min_ready: policy.min_ready(name.kind(), service_type(&parsed.file)),
            options: parsed.options,
        }
    }

    fn is_of(&self, revision: &Revision) -> bool {
        self.content == revision.content && self.restarts == revision.restarts
    }
}

/// A unit's record, its revisions read.
#[derive(Debug)]
pub(super) struct Indexed {
    record: UnitRecord,
    created: u64,
    stable: Read,
    candidate: Option<Read>,
}

impl Indexed {
    /// The content of the newest revision.
    pub(super) fn newest(&self) -> &Content {
        &self.record.newest().content
    }

    /// `known`: what was read of the unit before, which need not be read again where it is the
    /// same.
    pub(super) fn new(
        name: &UnitName,
        record: UnitRecord,
        created: u64,
        known: Option<Self>,
    ) -> Self {
        let mut known: Vec<Read> = known
            .into_iter()
            .flat_map(|known| std::iter::once(known.stable).chain(known.candidate))
            .collect();
        let mut read = |revision: &Revision| {
            let same = known.iter().position(|read| read.is_of(revision));
            same.map_or_else(|| Read::new(name, revision), |at| known.swap_remove(at))
        };
        Self {
            stable: read(&record.stable),
            candidate: record.candidate.as_ref().map(|it| read(&it.revision)),
            record,
            created,
        }
    }

    /// Chooses the revision for this machine. `session`: its present one. `present`: what it should
    /// have had so far of a unit of that name. `grant`: with the store revision that wrote it.
    pub(super) fn choose<'a>(
        &'a self,
        grant: Option<&(Grant, u64)>,
        session: Option<SessionId>,
        present: Option<&'a Desired>,
    ) -> Chosen<'a> {
        let grant =
            grant.filter(|(grant, _)| grant.unit == self.created && Some(grant.session) == session);
        let to_run = grant.filter(|(grant, _)| !grant.leaves);
        let granted = to_run.map(|(grant, _)| grant.revision);
        let confirmed = grant.filter(|(grant, _)| confirms(&self.record, grant.revision));
        // A unit that was destroyed and made again is another one.
        let present = present.filter(|it| [0, self.created].contains(&it.created));
        let number = present.map_or(0, |present| self.number_of(present));
        let now = present.map(|present| Present {
            revision: number,
            process: &present.process,
            // Where it is not to run any more, no change of revision takes it down.
            launched: present.launch && self.is_launched(),
        });
        let choice = choose(&self.record, granted, now, &self.stable.process);
        let candidate = self.record.candidate.as_ref().zip(self.candidate.as_ref());
        let (revision, read) = match (choice, candidate) {
            (Choice::Candidate, Some((candidate, read))) => (&candidate.revision, read),
            _ => (&self.record.stable, &self.stable),
        };
        Chosen {
            indexed: self,
            revision,
            read,
            present,
            number,
            keeps: choice == Choice::Keep,
            // Each lets it go once: what began after it waits for the next one.
            may_leave: confirmed.is_some_and(|(grant, written)| {
                grant.leaves && present.is_some_and(|present| present.grant < *written)
            }),
            grant: confirmed.map_or(0, |(_, written)| *written),
        }
    }

    /// Whether any of its revisions keeps other units away.
    pub(super) fn excludes(&self) -> bool {
        let mut all = std::iter::once(&self.stable).chain(&self.candidate);
        all.any(|read| !read.options.conflicts.is_empty())
    }

    /// The number of what the machine has; 0 where another file stands behind it: the registry went
    /// back to a backup and came to the number again.
    fn number_of(&self, present: &Desired) -> u64 {
        let candidate = self.record.candidate.iter();
        let mut all = std::iter::once(&self.record.stable).chain(candidate.map(|it| &it.revision));
        let is_another =
            all.any(|it| it.number == present.revision && it.content != present.content);
        if is_another { 0 } else { present.revision }
    }

    fn is_launched(&self) -> bool {
        self.record.target == TargetState::Launched
    }
}

/// A unit as this machine takes it.
pub(super) struct Chosen<'a> {
    indexed: &'a Indexed,
    /// Where the machine keeps another one: the one that says whether the unit still belongs there.
    revision: &'a Revision,
    read: &'a Read,
    present: Option<&'a Desired>,
    /// The number of what the machine has.
    number: u64,
    keeps: bool,
    /// Whether the leader lets this machine give it up.
    may_leave: bool,
    /// The store revision that wrote the grant which led here.
    grant: u64,
}

impl<'a> Chosen<'a> {
    /// Whether the machine has it already.
    pub(super) fn is_here(&self) -> bool {
        self.present.is_some()
    }

    /// Whether it stays although it does not belong here, for that reason, any more: it runs, and
    /// the leader counts how many machines give it up at once.
    pub(super) fn stays(&self, reason: &Reason) -> bool {
        let runs = self.present.is_some_and(|present| present.launch) && self.indexed.is_launched();
        runs && reason.narrows() && !self.may_leave
    }

    /// Whether it tolerates any other unit beside it.
    pub(super) fn excludes_none(&self) -> bool {
        self.read.options.conflicts.is_empty()
    }

    /// The grant that led to that revision. The leader removes it once it was followed; what was
    /// reported of it stays.
    fn grant_to(&self, revision: u64) -> u64 {
        let before = self.present.filter(|_| self.number == revision);
        match self.grant {
            0 => before.map_or(0, |present| present.grant),
            grant => grant,
        }
    }

    pub(super) fn placeable(&self, name: &'a UnitName) -> Placeable<'a> {
        Placeable {
            name,
            created: self.indexed.created,
            target: self.indexed.record.target,
            options: &self.read.options,
        }
    }

    /// `rivals`: the units that may conflict with it. `leaving`: it does not belong here any more.
    pub(super) fn desired(
        &self,
        name: &'a UnitName,
        rivals: &[Placeable<'_>],
        scheduling: Scheduling,
        leaving: bool,
    ) -> Desired {
        let this = self.placeable(name);
        let excludes: BTreeSet<UnitName> = rivals
            .iter()
            .filter(|other| other.name != name && conflict(&this, other))
            .map(|other| other.name.clone())
            .collect();
        // What is only loaded on a cordoned machine is there, but would start now.
        let scheduling = self.read.options.scheduling_on(scheduling);
        let may_start = scheduling.is_normal() || self.present.is_some_and(|it| it.launch);
        let launch = self.indexed.is_launched() && may_start;
        let created = self.indexed.created;
        match self.present {
            Some(present) if self.keeps || leaving => Desired {
                revision: self.number,
                launch,
                excludes,
                created,
                deferred: true,
                leaving,
                grant: self.grant_to(self.number),
                ..present.clone()
            },
            _ => Desired {
                revision: self.revision.number,
                content: self.revision.content.clone(),
                process: match self.present {
                    Some(present) if !must_restart(&present.process, &self.read.process) => {
                        present.process.clone()
                    }
                    _ => self.read.process.clone(),
                },
                install: self.read.install,
                launch,
                excludes,
                created,
                min_ready: self.read.min_ready,
                deferred: false,
                leaving: false,
                grant: self.grant_to(self.revision.number),
            },
        }
    }
}
