//! This machine's units as the agent last saw them, and the hands that change them.
//!
//! Nothing here decides: `plan` does. Each round looks at what may have changed, plans, and carries the plan out;
//! what its jobs led to is seen in a later round, when systemd has said that something changed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fleet_core::plan::{Action, Desired, Observed, Plan, Task, plan};
use fleet_core::record::UnitReport;
use fleet_core::systemd::{State, ready};
use fleet_core::unit::{Content, Hash, ServiceType, UnitFile, UnitName, service_type};
use futures_util::StreamExt as _;
use futures_util::stream;

use super::marks::Marks;
use crate::systemd::{Details, Dirty, Systemd, SystemdError};

/// Rounds before the agent stops to report. A unit needs three at the most (stop, remove, start of what waited);
/// the rest is for changes that arrive meanwhile.
const ROUNDS: usize = 8;

/// Calls to systemd that wait for an answer at once. PID 1 serves them one after the other; more only queue there.
const CALLS: usize = 16;

/// A unit file that fleet has put here.
struct InPlace {
    content: Content,
    hash: Hash,
    service: ServiceType,
}

impl InPlace {
    fn new(content: Content) -> Self {
        let file = UnitFile::parse(content.as_bytes());
        Self {
            hash: Hash::of(file.options()),
            service: service_type(&file),
            content,
        }
    }
}

/// This machine's units.
pub(super) struct Host {
    systemd: Arc<dyn Systemd>,
    marks: Marks,
    files: BTreeMap<UnitName, InPlace>,
    states: BTreeMap<UnitName, State>,
    foreign: BTreeMap<UnitName, String>,
    details: BTreeMap<UnitName, Details>,
    /// What went wrong with a unit in its last plan, until a plan for it succeeds.
    failures: BTreeMap<UnitName, String>,
    refused: BTreeMap<UnitName, String>,
    /// Whether everything was looked at once.
    looked: bool,
}

impl Host {
    pub(super) fn new(systemd: Arc<dyn Systemd>, marks: Marks) -> Self {
        Self {
            systemd,
            marks,
            files: BTreeMap::new(),
            states: BTreeMap::new(),
            foreign: BTreeMap::new(),
            details: BTreeMap::new(),
            failures: BTreeMap::new(),
            refused: BTreeMap::new(),
            looked: false,
        }
    }

    /// Units that were left alone or went wrong, and why.
    pub(super) fn problems(&self) -> impl Iterator<Item = (&UnitName, &String)> {
        self.refused.iter().chain(&self.failures)
    }

    /// Whether anything went wrong that may go right if it is tried again.
    pub(super) fn wants_retry(&self) -> bool {
        !self.failures.is_empty()
    }

    /// Makes this machine's systemd agree with `desired`, as far as that can be done now. Without a desired state it
    /// only looks.
    pub(super) async fn converge(
        &mut self,
        desired: Option<&BTreeMap<UnitName, Desired>>,
        dirty: Dirty,
    ) -> Result<(), SystemdError> {
        let mut skip: BTreeSet<UnitName> = BTreeSet::new();
        let mut look = match dirty {
            Dirty::Units(names) if self.looked => {
                // What failed is tried again after a while, or when something about it changed.
                skip.extend(self.failures.keys().cloned());
                skip.retain(|name| !names.contains(name));
                names
            }
            _ => self.everything(desired).await?,
        };
        for _ in 0..ROUNDS {
            self.look(&look, desired).await?;
            let Some(desired) = desired else { break };
            let mut plan = plan(desired, &self.observed(desired));
            self.note_refusals(&plan);
            let stands = |name: &UnitName| plan.tasks.iter().any(|t| t.unit.as_ref() == Some(name));
            self.failures.retain(|name, _| stands(name));
            plan.tasks
                .retain(|task| task.unit.as_ref().is_none_or(|name| !skip.contains(name)));
            // The reload of a unit that is skipped waits with it.
            if plan.tasks.iter().all(|task| task.action == Action::Reload) {
                break;
            }
            look = self.carry_out(plan.tasks, desired).await?;
            skip.extend(self.failures.keys().cloned());
        }
        Ok(())
    }

    /// Reads the files anew and names every unit there is to look at.
    async fn everything(
        &mut self,
        desired: Option<&BTreeMap<UnitName, Desired>>,
    ) -> Result<BTreeSet<UnitName>, SystemdError> {
        let files = self.systemd.files().await?;
        self.looked = true;
        self.files = files
            .into_iter()
            .map(|(name, content)| (name, InPlace::new(content)))
            .collect();
        self.settle_marks().await?;
        let marked = self.marks.names().cloned();
        let wanted = desired.into_iter().flatten().map(|(name, _)| name.clone());
        Ok(self
            .files
            .keys()
            .cloned()
            .chain(marked)
            .chain(wanted)
            .collect())
    }

    /// After a crash between a mark and its start, systemd knows which of the two was last.
    async fn settle_marks(&mut self) -> Result<(), SystemdError> {
        for name in self.marks.unsettled() {
            if self.systemd.details(&name).await?.started {
                self.marks.settled(&name);
            } else {
                self.marks.launched(&name, None);
            }
        }
        Ok(())
    }

    /// Looks at these units.
    async fn look(
        &mut self,
        names: &BTreeSet<UnitName>,
        desired: Option<&BTreeMap<UnitName, Desired>>,
    ) -> Result<(), SystemdError> {
        if names.is_empty() {
            return Ok(());
        }
        let states = self.systemd.states(names).await?;
        let systemd = &self.systemd;
        let foreign: Vec<_> = stream::iter(names)
            .map(|name| {
                let wanted = desired.is_some_and(|desired| desired.contains_key(name));
                let asked = wanted || self.files.contains_key(name);
                async move {
                    match asked {
                        true => (name, systemd.foreign(name).await),
                        false => (name, Ok(None)),
                    }
                }
            })
            .buffer_unordered(CALLS)
            .collect()
            .await;
        for (name, foreign) in foreign {
            match foreign? {
                Some(origin) => self.foreign.insert(name.clone(), origin),
                None => self.foreign.remove(name),
            };
        }
        let ours = names.iter().filter(|name| self.files.contains_key(*name));
        let details: Vec<_> = stream::iter(ours)
            .map(|name| async move { (name.clone(), systemd.details(name).await) })
            .buffer_unordered(CALLS)
            .collect()
            .await;
        for (name, details) in details {
            self.details.insert(name, details?);
        }
        self.states.extend(states);
        Ok(())
    }

    fn observed(&self, desired: &BTreeMap<UnitName, Desired>) -> BTreeMap<UnitName, Observed> {
        let names: BTreeSet<&UnitName> = desired
            .keys()
            .chain(self.files.keys())
            .chain(self.marks.names())
            .collect();
        names
            .into_iter()
            .map(|name| (name.clone(), self.observe(name)))
            .collect()
    }

    fn observe(&self, name: &UnitName) -> Observed {
        Observed {
            file: self.files.get(name).map(|file| file.content.clone()),
            mark: self.marks.get(name).cloned(),
            state: self
                .states
                .get(name)
                .cloned()
                .unwrap_or_else(State::not_found),
            foreign: self.foreign.get(name).cloned(),
        }
    }

    fn note_refusals(&mut self, plan: &Plan) {
        for (name, why) in &plan.refused {
            if self.refused.get(name) != Some(why) {
                tracing::warn!(unit = %name, "not touched: {why}");
            }
        }
        self.refused.clone_from(&plan.refused);
    }

    /// Carries a plan out and names the units to look at after it. What fails for one unit ends that unit's part.
    async fn carry_out(
        &mut self,
        tasks: Vec<Task>,
        desired: &BTreeMap<UnitName, Desired>,
    ) -> Result<BTreeSet<UnitName>, SystemdError> {
        let touched: BTreeSet<UnitName> =
            tasks.iter().filter_map(|task| task.unit.clone()).collect();
        let mut failed: BTreeMap<UnitName, String> = BTreeMap::new();
        let mut linked: Vec<UnitName> = Vec::new();
        let mut tasks = tasks.as_slice();
        while let Some(first) = tasks.first() {
            let same = |task: &Task| {
                std::mem::discriminant(&task.action) == std::mem::discriminant(&first.action)
            };
            let end = tasks
                .iter()
                .position(|task| !same(task))
                .unwrap_or(tasks.len());
            let (phase, rest) = tasks.split_at(end);
            tasks = rest;
            let phase: Vec<&Task> = phase
                .iter()
                .filter(|task| {
                    task.unit
                        .as_ref()
                        .is_none_or(|unit| !failed.contains_key(unit))
                })
                .collect();
            // A file counts as linked once systemd has read it too: a reload that fails is made up for.
            if first.action > Action::Reload {
                self.mark_linked(&mut linked, desired);
            }
            self.before(&phase, desired);
            let systemd = &self.systemd;
            let results: Vec<_> = stream::iter(phase)
                .map(|task| async move { (task, act(&**systemd, task).await) })
                .buffer_unordered(CALLS)
                .collect()
                .await;
            for (task, result) in results {
                match (result, &task.unit) {
                    (Ok(()), unit) => {
                        tracing::info!(unit = unit.as_ref().map(UnitName::as_str), "{task}");
                        if let Some(name) = unit {
                            self.after(name, &task.action, desired, &mut linked);
                        }
                    }
                    (Err(error @ SystemdError::Unavailable(_)), _) => return Err(error),
                    (Err(error), Some(unit)) => {
                        tracing::error!(unit = %unit, %error, "{task}");
                        if task.action == Action::Start {
                            self.marks.launched(unit, None);
                        }
                        failed.insert(unit.clone(), error.to_string());
                    }
                    (Err(error), None) => return Err(error),
                }
            }
        }
        self.mark_linked(&mut linked, desired);
        self.save_marks();
        self.failures.retain(|name, _| !touched.contains(name));
        self.failures.extend(failed.clone());
        // What failed is tried again later, not in the next round.
        Ok(touched
            .into_iter()
            .filter(|name| !failed.contains_key(name))
            .collect())
    }

    /// What must be remembered before systemd is asked.
    fn before(&mut self, phase: &[&Task], desired: &BTreeMap<UnitName, Desired>) {
        for task in phase {
            if let (Action::Start, Some(name)) = (&task.action, &task.unit) {
                self.marks.starting(name, &desired[name].process);
            }
        }
        self.save_marks();
    }

    /// What a task that went well leaves behind.
    fn after(
        &mut self,
        name: &UnitName,
        action: &Action,
        desired: &BTreeMap<UnitName, Desired>,
        linked: &mut Vec<UnitName>,
    ) {
        match action {
            Action::Remove => {
                self.marks.forget(name);
                self.files.remove(name);
                self.states.remove(name);
                self.details.remove(name);
            }
            Action::Write(content) => {
                self.files
                    .insert(name.clone(), InPlace::new(content.clone()));
            }
            Action::Link { .. } => linked.push(name.clone()),
            Action::Reload => {}
            Action::Stop => self.marks.launched(name, None),
            Action::Start => self.marks.settled(name),
            Action::Restart => self
                .marks
                .launched(name, Some(desired[name].process.clone())),
        }
    }

    fn mark_linked(&mut self, linked: &mut Vec<UnitName>, desired: &BTreeMap<UnitName, Desired>) {
        for name in linked.drain(..) {
            self.marks.linked(&name, desired[&name].revision);
        }
    }

    fn save_marks(&mut self) {
        if let Err(error) = self.marks.save() {
            // Without them a restarted fleetd would find the units running and only start done oneshots again.
            tracing::error!(%error, "cannot keep the marks of started units: is /run full?");
        }
    }

    /// Every unit that fleet has put here, as it was last seen.
    pub(super) fn report(
        &self,
        desired: Option<&BTreeMap<UnitName, Desired>>,
    ) -> BTreeMap<UnitName, UnitReport> {
        let none = BTreeMap::new();
        let desired = desired.unwrap_or(&none);
        self.files
            .iter()
            .filter(|(name, _)| !self.foreign.contains_key(*name))
            .map(|(name, file)| (name.clone(), self.report_one(name, file, desired.get(name))))
            .collect()
    }

    fn report_one(&self, name: &UnitName, file: &InPlace, want: Option<&Desired>) -> UnitReport {
        let seen = self.observe(name);
        let details = self.details.get(name).cloned().unwrap_or_default();
        let launched = seen.mark.as_ref().and_then(|mark| mark.launched.as_ref());
        let ready = want.is_some_and(|want| {
            let in_place = seen.file.as_ref() == Some(&want.content);
            let as_wanted = if want.launch {
                launched == Some(&want.process)
                    && ready(name.kind(), file.service, &seen.state, &details.result)
            } else {
                seen.state.load == "loaded"
            };
            in_place && as_wanted
        });
        UnitReport {
            load: seen.state.load,
            active: seen.state.active,
            sub: seen.state.sub,
            revision: seen.mark.map_or(0, |mark| mark.revision),
            hash: file.hash.to_string(),
            since: details.since,
            restarts: details.restarts,
            result: details.result,
            ready,
        }
    }
}

async fn act(systemd: &dyn Systemd, task: &Task) -> Result<(), SystemdError> {
    let Some(name) = &task.unit else {
        return systemd.reload().await;
    };
    match &task.action {
        Action::Remove => systemd.remove(name).await,
        Action::Write(content) => systemd.write(name, content).await,
        Action::Link { install } => systemd.link(name, *install).await,
        Action::Reload => systemd.reload().await,
        Action::Stop => systemd.stop(name).await,
        Action::Restart => systemd.restart(name).await,
        Action::Start => systemd.start(name).await,
    }
}
