//! This machine's units as the agent last saw them, and the hands that change them.
//!
//! Nothing here decides: `plan` does. Each round looks at what may have changed (`observe`), plans,
//! and carries the plan out (`execute`); what its jobs led to is seen in a later round, when
//! systemd has said that something changed.

mod execute;
mod marks;
mod observe;
pub(super) mod unit_file;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fleet_core::plan::{Action, Desired, Observed, Plan, plan};
use fleet_core::systemd::State;
use fleet_core::unit::UnitName;
use tokio::time::Instant;

pub(super) use self::marks::Marks;
use self::unit_file::InPlace;
use super::report_base::Units;
use super::unit_report::{Availability, Row};
use crate::health::Heart;
use crate::systemd::{Details, Dirty, Systemd, SystemdError};

/// Rounds before the agent stops to report. A unit needs three at the most (stop, remove, start of
/// what waited); the rest is for changes that arrive meanwhile.
const ROUNDS: usize = 8;

/// Why units are looked at.
pub(super) enum Cause {
    /// They may have changed here.
    Host(Dirty),
    /// What went wrong with these may go right by now.
    Retry(BTreeSet<UnitName>),
    /// Something else is wanted of these. Nothing says that they changed here.
    Wanted(BTreeSet<UnitName>),
}

/// This machine's units.
pub(super) struct Host {
    systemd: Arc<dyn Systemd>,
    /// Beats with every answer: a plan for a thousand units may take minutes.
    heart: Heart,
    marks: Marks,
    files: BTreeMap<UnitName, InPlace>,
    linked: BTreeSet<UnitName>,
    states: BTreeMap<UnitName, State>,
    foreign: BTreeMap<UnitName, String>,
    details: BTreeMap<UnitName, Details>,
    /// What went wrong with a unit in its last plan, until a plan for it succeeds.
    failures: BTreeMap<UnitName, String>,
    /// Those of which a job failed. Signals of that job, and of the next, are no reason to try
    /// again.
    patient: BTreeSet<UnitName>,
    /// Those that a stop did not end: it is asked for again, and they are up as before.
    busy: BTreeSet<UnitName>,
    refused: BTreeMap<UnitName, String>,
    /// Units on their way out, which may take long.
    leaving: BTreeMap<UnitName, String>,
    /// Units for which the last plan left something to do, to await or to refuse: the next one is
    /// for them too.
    open: BTreeSet<UnitName>,
    availability: Availability,
    /// What the registry is told of the units that fleet has put here, as they were when they were
    /// last looked at; none before that.
    reports: Option<Arc<Units>>,
    /// Why the marks are not on file.
    unsaved: Option<String>,
    /// Units that stay as they are, though nothing says that they are wanted.
    pub(super) unknown: BTreeSet<UnitName>,
    /// Whether everything was looked at, and every look since then went well.
    looked: bool,
}

impl Host {
    pub(super) fn new(systemd: Arc<dyn Systemd>, heart: Heart, marks: Marks) -> Self {
        Self {
            systemd,
            heart,
            marks,
            files: BTreeMap::new(),
            linked: BTreeSet::new(),
            states: BTreeMap::new(),
            foreign: BTreeMap::new(),
            details: BTreeMap::new(),
            failures: BTreeMap::new(),
            patient: BTreeSet::new(),
            busy: BTreeSet::new(),
            refused: BTreeMap::new(),
            leaving: BTreeMap::new(),
            open: BTreeSet::new(),
            availability: Availability::default(),
            reports: None,
            unsaved: None,
            unknown: BTreeSet::new(),
            looked: false,
        }
    }

    /// What was left alone or went wrong, and why: units, by name, and the file of marks.
    pub(super) fn problems(&self) -> BTreeMap<String, String> {
        let units = self.refused.iter().chain(&self.leaving);
        let units = units.chain(&self.failures);
        let units = units.map(|(name, why)| (name.to_string(), why.clone()));
        let marks = self.marks.unknown().or(self.unsaved.as_deref());
        let marks = marks.map(|why| ("marks.json".to_owned(), why.to_owned()));
        units.chain(marks).collect()
    }

    /// Whether anything went wrong that may go right if it is tried again.
    pub(super) fn wants_retry(&self) -> bool {
        !self.failures.is_empty() || !self.refused.is_empty() || self.unsaved.is_some()
    }

    /// Whether nothing went wrong but stops of units that are busy.
    pub(super) fn is_only_busy(&self) -> bool {
        let mut failed = self.failures.keys();
        self.refused.is_empty()
            && self.unsaved.is_none()
            && !self.busy.is_empty()
            && failed.all(|name| self.busy.contains(name))
    }

    /// The units to look at when it is tried again. A file that systemd never read may free a name
    /// without a signal.
    pub(super) fn to_retry(&self) -> BTreeSet<UnitName> {
        let failed = self.failures.keys();
        failed.chain(self.refused.keys()).cloned().collect()
    }

    /// Makes this machine's systemd agree with `desired`, as far as that can be done now. Without a
    /// desired state it only looks. What failed is tried again only if `cause` names it.
    pub(super) async fn converge(
        &mut self,
        desired: Option<&BTreeMap<UnitName, Desired>>,
        cause: Cause,
    ) -> Result<(), SystemdError> {
        let (dirty, mut at_rest, unchanged) = match cause {
            Cause::Host(dirty) => (dirty, BTreeSet::new(), None),
            Cause::Retry(names) => {
                self.patient.clear();
                (Dirty::Units(names), BTreeSet::new(), None)
            }
            Cause::Wanted(names) => {
                let at_rest = names.iter().filter(|name| self.is_at_rest(name));
                let at_rest = at_rest.cloned().collect();
                (Dirty::Units(names), at_rest, Some(BTreeSet::new()))
            }
        };
        // Without knowing what was started it would all be started again.
        let desired = desired.filter(|_| self.marks.unknown().is_none());
        let mut skip: BTreeSet<UnitName> = self.failures.keys().cloned().collect();
        if let Dirty::Units(names) = &dirty {
            skip.retain(|name| !names.contains(name) || self.patient.contains(name));
        }
        let looked = std::mem::take(&mut self.looked);
        let (mut look, mut changed) = match dirty {
            Dirty::Units(names) if looked => (names, unchanged),
            // Every reload ends here, those of a plan too: were failures tried again at once, a
            // plan that fails after its reload would have systemd reload without end.
            Dirty::Reloaded(names) if looked => (self.everything(desired).await?, Some(names)),
            _ => (self.everything(desired).await?, None),
        };
        let mut seen = look.clone();
        let mut planned = BTreeSet::new();
        for round in 0..ROUNDS {
            self.look(&look, &at_rest, changed.take().as_ref(), round > 0, desired)
                .await?;
            at_rest.clear();
            skip.extend(self.patient.iter().cloned());
            let Some(desired) = desired else {
                // Once it is known what is wanted, what is not may be any of them.
                self.open = self.names().cloned().collect();
                break;
            };
            planned.extend(self.open.iter().cloned());
            look.append(&mut self.open);
            look.retain(|name| !self.unknown.contains(name));
            let mut plan = plan(&look, desired, &self.observed(&look, desired));
            self.open = open(&plan, &look);
            self.note_refusals(&plan, desired);
            let tasks: BTreeSet<_> = plan.tasks.iter().map(|task| task.unit.as_ref()).collect();
            self.note_busy(&plan);
            self.failures
                .retain(|name, _| tasks.contains(&Some(name)) || self.busy.contains(name));
            self.patient.retain(|name| self.failures.contains_key(name));
            plan.tasks
                .retain(|task| task.unit.as_ref().is_none_or(|name| !skip.contains(name)));
            // The reload of a unit that is skipped waits with it.
            let nothing_is_read = self.removed(desired).is_empty();
            if plan
                .tasks
                .iter()
                .all(|task| task.action == Action::Reload && nothing_is_read)
            {
                break;
            }
            look = self.carry_out(plan.tasks, desired).await?;
            seen.extend(look.iter().cloned());
            // Looked at in the next round, for the report, and tried again later.
            skip.extend(self.failures.keys().cloned());
        }
        self.save_marks();
        self.note(&seen, desired);
        planned.retain(|name| !seen.contains(name));
        self.tell(&planned, desired);
        self.forget_strangers(desired);
        self.looked = true;
        Ok(())
    }

    /// Another registry has other numbers: by these no unit is another one than before.
    pub(in crate::agent) fn forget_created(&mut self) {
        self.marks.forget_created();
    }

    /// Whether the desired state on disk is older than what was done here since the boot.
    pub(in crate::agent) fn is_desired_stale(&self) -> bool {
        self.marks.is_desired_stale()
    }

    /// Notes that where a full disk does not reach, before anything is done.
    pub(in crate::agent) fn note_desired_stale(&mut self, is_stale: bool) {
        self.marks.set_desired_stale(is_stale);
        self.save_marks();
    }

    /// Every unit that fleet has a file or a mark of.
    fn names(&self) -> impl Iterator<Item = &UnitName> {
        self.files.keys().chain(self.marks.names())
    }

    /// Units that are no longer fleet's need not be followed: names come and go for as long as the
    /// machine is up.
    fn forget_strangers(&mut self, desired: Option<&BTreeMap<UnitName, Desired>>) {
        let Some(desired) = desired else { return };
        let is_known = |name: &UnitName| {
            desired.contains_key(name)
                || self.files.contains_key(name)
                || self.marks.get(name).is_some()
                || self.foreign.contains_key(name)
        };
        let known: BTreeSet<UnitName> = desired.keys().cloned().collect();
        let strangers = self.states.keys().filter(|name| !is_known(name));
        let strangers: BTreeSet<UnitName> = strangers.cloned().collect();
        if strangers.is_empty() {
            return;
        }
        for name in &strangers - &self.triggers(&known, Some(desired)) {
            self.states.remove(&name);
            self.details.remove(&name);
            self.systemd.forget(&name);
        }
    }

    /// What was launched here and has its file, as it would be wanted by a registry in which no
    /// number stands for it.
    pub(super) async fn in_place(&self) -> BTreeMap<UnitName, Desired> {
        let files = self.systemd.files().await.unwrap_or_default();
        let launched = files.into_iter().filter_map(|(name, content)| {
            let mark = self.marks.get(&name)?;
            let desired = Desired {
                revision: 0,
                content,
                process: mark.launched.clone()?,
                install: mark.installed,
                launch: true,
                excludes: BTreeSet::new(),
                created: 0,
                min_ready: Duration::ZERO,
                deferred: false,
                leaving: false,
                grant: 0,
            };
            Some((name, desired))
        });
        launched.collect()
    }

    /// Reads the files anew and names every unit there is to look at.
    async fn everything(
        &mut self,
        desired: Option<&BTreeMap<UnitName, Desired>>,
    ) -> Result<BTreeSet<UnitName>, SystemdError> {
        let files = self.systemd.files().await?;
        let mut known = std::mem::take(&mut self.files);
        self.files = files
            .into_iter()
            .map(|(name, content)| match known.remove(&name) {
                Some(file) if file.content == content => (name, file),
                _ => (name, InPlace::new(content)),
            })
            .collect();
        self.settle_marks().await?;
        self.note_soft_reboots().await?;
        // What was here, too: what is told of it is told no more.
        let told = self.reports.iter().flat_map(|reports| reports.keys());
        let known = known.keys().chain(told);
        let wanted = desired.into_iter().flatten().map(|(name, _)| name);
        Ok(self.names().chain(known).chain(wanted).cloned().collect())
    }

    /// After a crash between a mark and its job, systemd knows which of the two was last.
    async fn settle_marks(&mut self) -> Result<(), SystemdError> {
        let unsettled = self.marks.unsettled();
        if unsettled.is_empty() {
            return Ok(());
        }
        let states = self.systemd.states(&unsettled).await?;
        for (name, state) in states {
            match self.systemd.details(&name, &state).await {
                Ok(details) => {
                    self.marks.settle(&name, &state, &details.run);
                }
                Err(error @ SystemdError::Unavailable(_)) => return Err(error),
                // Asked again when everything is looked at the next time.
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// A soft reboot ends units as any reboot does, and leaves the marks: /run outlives it. Units
    /// that it spared run on, and those that systemd itself has started again are up.
    async fn note_soft_reboots(&mut self) -> Result<(), SystemdError> {
        let times = self.systemd.soft_reboots().await?;
        if times == self.marks.soft_reboots() {
            return Ok(());
        }
        let marked = self.marks.names().cloned().collect();
        let mut states = self.systemd.states(&marked).await?;
        states.retain(|_, state| state.is_up());
        let up = states.into_keys().collect();
        tracing::info!("systemd has rebooted without the kernel: units that are down start again");
        self.marks.soft_rebooted(times, &up);
        self.save_marks();
        Ok(())
    }

    /// What this machine has of these units, and of those that they exclude.
    fn observed(
        &self,
        names: &BTreeSet<UnitName>,
        desired: &BTreeMap<UnitName, Desired>,
    ) -> BTreeMap<UnitName, Observed> {
        let excluded = names
            .iter()
            .filter_map(|name| desired.get(name))
            .flat_map(|want| &want.excludes)
            .filter(|name| !self.unknown.contains(*name));
        let triggers = self.triggers(names, Some(desired));
        let leaving = self
            .names()
            .filter(|name| desired.get(*name).is_none_or(|it| it.leaving));
        let leaving = leaving.filter(|name| !self.unknown.contains(*name));
        names
            .iter()
            .chain(excluded)
            .chain(&triggers)
            .chain(leaving)
            .map(|name| (name.clone(), self.observe(name)))
            .collect()
    }

    fn observe(&self, name: &UnitName) -> Observed {
        Observed {
            file: self.files.get(name).map(|file| file.content.clone()),
            linked: self.linked.contains(name),
            mark: self.marks.get(name).cloned(),
            state: self
                .states
                .get(name)
                .cloned()
                .unwrap_or_else(State::not_found),
            foreign: self.foreign.get(name).cloned(),
            run: self
                .details
                .get(name)
                .map_or_else(String::new, |it| it.run.clone()),
            members: self
                .details
                .get(name)
                .map_or_else(BTreeSet::new, |it| it.members.clone()),
        }
    }

    /// Forgets units that are busy and stay, or stop at last.
    fn note_busy(&mut self, plan: &Plan) {
        let stops = plan.tasks.iter().filter(|task| task.action == Action::Stop);
        let stops: BTreeSet<_> = stops.filter_map(|task| task.unit.as_ref()).collect();
        let states = &self.states;
        self.busy.retain(|name| {
            stops.contains(name) || states.get(name).is_some_and(State::is_stopping)
        });
    }

    fn note_refusals(&mut self, plan: &Plan, desired: &BTreeMap<UnitName, Desired>) {
        let leaving = plan.waits.iter();
        let leaving = leaving.filter(|(name, _)| !desired.contains_key(*name));
        self.leaving = leaving
            .map(|(name, why)| (name.clone(), why.clone()))
            .collect();
        for (name, why) in &plan.refused {
            if self.refused.get(name) != Some(why) {
                tracing::warn!(unit = %name, "not touched: {why}");
            }
        }
        self.refused.clone_from(&plan.refused);
    }

    /// The unit as it was last seen, if fleet has put it here.
    fn row<'a>(
        &'a self,
        name: &'a UnitName,
        desired: Option<&'a BTreeMap<UnitName, Desired>>,
    ) -> Option<Row<'a>> {
        let file = self.files.get(name)?;
        (!self.foreign.contains_key(name)).then(|| Row {
            name,
            file,
            seen: self.observe(name),
            details: self.details.get(name).cloned().unwrap_or_default(),
            skipped: self.marks.is_skipped(name),
            start: self.marks.not_started(name),
            want: desired.and_then(|desired| desired.get(name)),
        })
    }

    /// Notes how it stands with these units, which were just looked at.
    fn note(&mut self, names: &BTreeSet<UnitName>, desired: Option<&BTreeMap<UnitName, Desired>>) {
        let mut availability = std::mem::take(&mut self.availability);
        for name in names {
            availability.note(name, self.row(name, desired).as_ref());
        }
        self.availability = availability;
        self.tell(names, desired);
    }

    /// Tells anew of these units.
    fn tell(&mut self, names: &BTreeSet<UnitName>, desired: Option<&BTreeMap<UnitName, Desired>>) {
        let mut reports = self.reports.take().unwrap_or_default();
        for name in names {
            // It was up before that try, and most likely is after it: nothing is new meanwhile.
            let is_tried = |state: &State| state.job.is_some() || state.is_stopping();
            if self.busy.contains(name) && self.states.get(name).is_some_and(is_tried) {
                continue;
            }
            let row = self.row(name, desired);
            let failure = self.failures.get(name).or_else(|| self.refused.get(name));
            let report = row.map(|row| row.report(failure, &self.availability));
            if reports.get(name).map(|told| &**told) == report.as_ref() {
                continue;
            }
            let reports = Arc::make_mut(&mut reports);
            match report {
                Some(report) => reports.insert(name.clone(), Arc::new(report)),
                None => reports.remove(name),
            };
        }
        self.reports = Some(reports);
    }

    /// When the next unit becomes available, and which; none while systemd is away.
    pub(super) fn next_available(&self) -> Option<(Instant, UnitName)> {
        self.looked.then(|| self.availability.next()).flatten()
    }

    /// Whether systemd was about to change one of them when it was last looked at.
    pub(super) fn is_moving(&self) -> bool {
        let mut ours = self.files.keys().filter_map(|name| self.states.get(name));
        ours.any(|state| state.job.is_some())
    }

    /// What the registry is told of them; none before they were looked at.
    pub(super) fn report(&self) -> Option<&Arc<Units>> {
        self.reports.as_ref()
    }
}

/// The units that a plan for these leaves something to do for.
fn open(plan: &Plan, names: &BTreeSet<UnitName>) -> BTreeSet<UnitName> {
    // A reload does not say which unit needs it.
    if plan.tasks.iter().any(|task| task.unit.is_none()) {
        return names.clone();
    }
    let tasks = plan.tasks.iter().filter_map(|task| task.unit.as_ref());
    let others = plan.waits.keys().chain(plan.refused.keys());
    tasks.chain(others).cloned().collect()
}
