//! A registry in memory, as units directories see it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use fleet_core::directory::{Fingerprint, Known};
use fleet_core::unit::{Content, TargetState, UnitName};

use super::{PublishError, Publisher};

/// A unit of the fake: its contents, the newest last, and its owners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) contents: Vec<Content>,
    pub(super) owners: BTreeSet<&'static str>,
    pub(super) target: Option<TargetState>,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) units: BTreeMap<String, Unit>,
    /// The contents that destroyed units had.
    pub(super) gone: BTreeMap<String, Vec<Content>>,
    /// Every change that was asked for, a line each.
    pub(super) log: Vec<String>,
    /// How often it was asked anything.
    pub(super) calls: usize,
    pub(super) away: bool,
    /// What somebody else submits in the moment before the next adoption.
    pub(super) overtakes: Option<Content>,
    /// The unit it will not take.
    pub(super) refuses: Option<&'static str>,
}

/// The registry, shared by the directories of several machines.
#[derive(Clone, Default)]
pub(super) struct FakeRegistry(Arc<Mutex<Inner>>);

impl FakeRegistry {
    pub(super) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0
            .lock()
            .expect("no test panics while it holds the lock")
    }

    pub(super) fn seen_from(&self, machine: &'static str) -> Arc<dyn Publisher> {
        Arc::new(FakePublisher {
            registry: self.clone(),
            machine,
        })
    }

    /// The newest content of a unit, as text.
    pub(super) fn newest(&self, unit: &str) -> Option<String> {
        let inner = self.inner();
        Some(
            inner
                .units
                .get(unit)?
                .contents
                .last()?
                .to_text()
                .into_owned(),
        )
    }

    fn call(&self) -> Result<MutexGuard<'_, Inner>, PublishError> {
        let mut inner = self.inner();
        inner.calls += 1;
        if inner.away {
            return Err(PublishError::Unavailable("registry unavailable".to_owned()));
        }
        Ok(inner)
    }
}

struct FakePublisher {
    registry: FakeRegistry,
    machine: &'static str,
}

#[async_trait]
impl Publisher for FakePublisher {
    async fn known(&self, names: &[UnitName]) -> Result<BTreeMap<UnitName, Known>, PublishError> {
        let inner = self.registry.call()?;
        let known = names.iter().filter_map(|name| {
            let unit = inner.units.get(name.as_str());
            let gone = inner.gone.get(name.as_str());
            let newest = unit.and_then(|unit| unit.contents.last());
            let newest = newest.map(Fingerprint::of);
            let contents = unit.map(|unit| &unit.contents).into_iter().chain(gone);
            let known = Known {
                older: contents
                    .flatten()
                    .map(Fingerprint::of)
                    .filter(|content| newest.as_ref() != Some(content))
                    .collect(),
                newest,
                rolled_back: BTreeSet::new(),
            };
            (unit.is_some() || gone.is_some()).then(|| (name.clone(), known))
        });
        Ok(known.collect())
    }

    async fn publish(
        &self,
        name: &UnitName,
        content: &Content,
        target: TargetState,
    ) -> Result<(), PublishError> {
        let mut inner = self.registry.call()?;
        if inner.refuses == Some(name.as_str()) {
            return Err(PublishError::Refused(
                "clashes with a unit of the system".to_owned(),
            ));
        }
        inner.log.push(format!(
            "{} publish {name} {}",
            self.machine,
            content.to_text()
        ));
        let unit = inner.units.entry(name.to_string()).or_default();
        unit.contents.push(content.clone());
        unit.owners.insert(self.machine);
        unit.target.get_or_insert(target);
        Ok(())
    }

    async fn adopt(
        &self,
        name: &UnitName,
        content: Option<&Fingerprint>,
    ) -> Result<bool, PublishError> {
        let mut inner = self.registry.call()?;
        let overtaken = inner.overtakes.take();
        if let (Some(other), Some(unit)) = (overtaken, inner.units.get_mut(name.as_str())) {
            unit.contents.push(other);
        }
        let Some(unit) = inner.units.get_mut(name.as_str()) else {
            return Ok(true);
        };
        let newest = unit.contents.last().map(Fingerprint::of);
        if content.is_some() && newest.as_ref() != content {
            return Ok(false);
        }
        unit.owners.insert(self.machine);
        inner.log.push(format!("{} adopt {name}", self.machine));
        Ok(true)
    }

    async fn disown(&self, name: &UnitName) -> Result<(), PublishError> {
        let mut inner = self.registry.call()?;
        inner.log.push(format!("{} disown {name}", self.machine));
        if let Some(unit) = inner.units.get_mut(name.as_str()) {
            unit.owners.remove(self.machine);
            if unit.owners.is_empty() {
                let contents = unit.contents.clone();
                inner.units.remove(name.as_str());
                inner
                    .gone
                    .entry(name.to_string())
                    .or_default()
                    .extend(contents);
            }
        }
        Ok(())
    }
}
