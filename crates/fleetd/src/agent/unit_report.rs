//! What the report says of one unit: whether it does what it should, and since when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fleet_core::plan::{Desired, Observed, reads_same};
use fleet_core::record::UnitReport;
use fleet_core::systemd::{Course, JobResult, TRIAL, Trial, failed, ready};
use fleet_core::unit::{Hash, UnitFile, UnitName};
use tokio::time::Instant;

use super::host::unit_file::InPlace;
use crate::systemd::Details;

/// A unit that fleet has put here, as it was last seen.
pub(super) struct Row<'a> {
    pub(super) name: &'a UnitName,
    pub(super) file: &'a InPlace,
    pub(super) seen: Observed,
    pub(super) details: Details,
    /// Its own conditions keep it from starting.
    pub(super) skipped: bool,
    /// How its start ended, if that was not done.
    pub(super) start: Option<&'a JobResult>,
    pub(super) want: Option<&'a Desired>,
}

impl Row<'_> {
    /// What a process of it that fleet started depends on.
    fn launched(&self) -> Option<&String> {
        self.seen.mark.as_ref()?.launched.as_ref()
    }

    fn runs_as_wanted(&self) -> bool {
        let wanted = self.want.filter(|want| want.launch);
        wanted.is_some_and(|want| self.launched() == Some(&want.process))
    }

    /// The revision that its run began with, if another one is in place since.
    fn outdated(&self) -> Option<u64> {
        let run = self.want.and_then(|want| self.seen.outdated_run(want));
        run.map(|run| run.revision)
    }

    fn is_ready(&self) -> bool {
        let Some(want) = self.want else { return false };
        let state = &self.seen.state;
        let as_wanted = if want.launch {
            let (kind, service) = (self.name.kind(), self.file.service);
            self.runs_as_wanted()
                && self.outdated().is_none()
                && ready(
                    kind,
                    service,
                    state,
                    &self.details.result,
                    self.skipped,
                    self.start,
                )
        } else {
            state.load == "loaded"
        };
        let file = self.seen.file.as_ref();
        as_wanted && file.is_some_and(|file| reads_same(file, &want.content))
    }

    /// Of what is wanted, if systemd reads the same in that as in the file.
    fn hash(&self) -> String {
        let file = self.seen.file.as_ref();
        match self.want {
            Some(want)
                if file.is_some_and(|it| *it != want.content && reads_same(it, &want.content)) =>
            {
                let wanted = UnitFile::parse(want.content.as_bytes());
                Hash::of(wanted.options()).to_string()
            }
            _ => self.file.hash.to_string(),
        }
    }

    /// When it becomes available, or became it, if nothing happens to it; none if it is not even
    /// ready.
    fn available_at(&self, now: Instant) -> Option<Instant> {
        let want = self.want.filter(|_| self.is_ready())?;
        let lasts = want.launch && self.seen.state.active != "inactive";
        if lasts && !want.min_ready.is_zero() {
            // Another run has another time, whoever started it.
            self.details.active_since?.checked_add(want.min_ready)
        } else {
            // What is only loaded, and what has done its work, cannot crash any more.
            Some(now)
        }
    }

    /// `failure`: what went wrong with it in the last plan.
    pub(super) fn report(
        self,
        failure: Option<&String>,
        availability: &Availability,
    ) -> UnitReport {
        let available = availability.are.contains(self.name);
        let course = Course {
            launched: self.runs_as_wanted(),
            state: &self.seen.state,
            result: &self.details.result,
            restarts: self.details.restarts,
            was_available: availability.trial(self.name),
            skipped: self.skipped,
            start: self.start,
            outdated: self.outdated(),
            file: self.seen.file.as_ref(),
        };
        let failed = || {
            let failed = || failed(self.name.kind(), self.file.service, course);
            failure.cloned().or_else(failed)
        };
        let wanted = self.want.is_some();
        UnitReport {
            failed: (wanted && !available).then(failed).flatten(),
            ready: self.is_ready(),
            available,
            settled: availability.trial(self.name).is_some_and(|it| it.passed),
            skipped: self.runs_as_wanted() && self.skipped,
            deferred: self.want.is_some_and(|want| want.deferred),
            leaving: self.want.is_some_and(|want| want.leaving),
            grant: self.want.map_or(0, |want| want.grant),
            launched: self.launched().is_some(),
            // A restart that is under way has not ended the run before, and one that was refused,
            // or did not end that run, is the fault of the revision in place.
            revision: match self.outdated().filter(|_| {
                failure.is_none() && self.start.is_none() && self.seen.state.job.is_none()
            }) {
                Some(runs) => runs,
                None => self.seen.mark.as_ref().map_or(0, |mark| mark.revision),
            },
            hash: self.hash(),
            load: self.seen.state.load,
            active: self.seen.state.active,
            sub: self.seen.state.sub,
            since: self.details.since,
            restarts: self.details.restarts,
            result: self.details.result,
        }
    }
}

/// Which units are available. Noted when a unit was just looked at, so that the time alone makes
/// none of them available.
#[derive(Default)]
pub(super) struct Availability {
    are: BTreeSet<UnitName>,
    /// Those that were since they were started.
    were: BTreeMap<UnitName, Was>,
    /// Those that become it unless something happens to them, and when.
    will: BTreeMap<UnitName, Instant>,
}

/// A unit that was available.
struct Was {
    /// What its process depends on.
    process: String,
    /// Whether it still is.
    is_up: bool,
    /// When its trial is over.
    until: Instant,
    trial: Trial,
}

impl Was {
    fn now(process: String, now: Instant, row: &Row<'_>, passed: bool) -> Self {
        let min_ready = row.want.map_or(Duration::ZERO, |want| want.min_ready);
        Self {
            process,
            is_up: true,
            until: now + TRIAL.max(min_ready),
            trial: Trial {
                passed,
                restarts: row.details.restarts,
            },
        }
    }
}

impl Availability {
    /// Notes how it stands with a unit; `row`: none where fleet has not put it here.
    pub(super) fn note(&mut self, name: &UnitName, row: Option<&Row<'_>>) {
        let now = Instant::now();
        let at = row.and_then(|row| row.available_at(now));
        let is = at.is_some_and(|at| at <= now);
        let launched = row.and_then(Row::launched);
        match is {
            true => self.are.insert(name.clone()),
            false => self.are.remove(name),
        };
        let was = self.were.get_mut(name);
        let was = was.filter(|was| Some(&was.process) == launched);
        match (launched, was) {
            (Some(_), Some(was)) if is && was.is_up => was.trial.passed |= now >= was.until,
            (Some(process), was) if is => {
                let passed = was.is_some_and(|was| was.trial.passed);
                if let Some(row) = row {
                    let was = Was::now(process.clone(), now, row, passed);
                    self.were.insert(name.clone(), was);
                }
            }
            // Down for now, in the same process.
            (Some(_), Some(was)) => {
                was.trial.passed |= was.is_up && now >= was.until;
                was.is_up = false;
            }
            _ => {
                self.were.remove(name);
            }
        }
        match at.filter(|_| !is) {
            Some(at) => self.will.insert(name.clone(), at),
            None => self.will.remove(name),
        };
    }

    /// How its trial went, if it was available since it was started.
    fn trial(&self, name: &UnitName) -> Option<Trial> {
        let was = self.were.get(name)?;
        Some(Trial {
            passed: was.trial.passed || was.is_up && Instant::now() >= was.until,
            ..was.trial
        })
    }

    /// When the next of these units becomes available, and which.
    pub(super) fn next(&self) -> Option<(Instant, UnitName)> {
        let next = self.will.iter().min_by_key(|(_, at)| **at);
        next.map(|(name, at)| (*at, name.clone()))
    }
}
