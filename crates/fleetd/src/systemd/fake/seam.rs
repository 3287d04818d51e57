//! The calls of fleet, as the fake answers them.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use fleet_core::systemd::State;
use fleet_core::unit::{Content, UnitName};
use tokio::time::sleep_until;

use super::unit::Unit;
use super::{BOOTED, Fake, World, tell};
use crate::systemd::{Details, Dirty, Ended, Links, OnDisk, Result, Systemd, SystemdError};

#[async_trait]
impl Systemd for Fake {
    async fn changed(&self) -> Dirty {
        loop {
            let next = self.world().settled.and_then(|until| until.0);
            let transition = async {
                match next {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                dirty = self.changes.next() => return dirty,
                () = self.planned.notified() => {}
                () = transition => {}
            }
        }
    }

    fn looking(&self, names: &BTreeSet<UnitName>) -> BTreeSet<UnitName> {
        self.changes.looking(names)
    }

    fn ended(&self, name: &UnitName) -> Option<Ended> {
        self.world().units_ended.remove(name)
    }

    fn forget(&self, name: &UnitName) {
        self.changes.forget(name);
    }

    async fn soft_reboots(&self) -> Result<u32> {
        Ok(self.call("soft_reboots")?.soft_reboots)
    }

    async fn files(&self) -> Result<BTreeMap<UnitName, Content>> {
        Ok(self.world().files.clone())
    }

    async fn on_disk(&self, name: &UnitName) -> Result<OnDisk> {
        let world = self.world();
        Ok(OnDisk {
            file: world.files.get(name).cloned(),
            linked: world.links.contains_key(name),
        })
    }

    async fn states(&self, names: &BTreeSet<UnitName>) -> Result<BTreeMap<UnitName, State>> {
        for name in names {
            self.changes.follow(name);
        }
        let mut world = self.call("states")?;
        let mut state = |name: &UnitName| {
            world
                .load(name)
                .map_or_else(State::not_found, |unit| unit.state())
        };
        Ok(names
            .iter()
            .map(|name| (name.clone(), state(name)))
            .collect())
    }

    async fn details(&self, name: &UnitName, _state: &State) -> Result<Details> {
        let mut world = self.call("details")?;
        let booted = world.booted;
        Ok(world
            .load(name)
            .map(|unit| unit.details(|at| BOOTED + at.duration_since(booted).as_millis() as u64))
            .unwrap_or_default())
    }

    async fn foreign(&self, name: &UnitName, _state: &State) -> Result<Option<String>> {
        Ok(self.call("foreign")?.foreign(name))
    }

    async fn write(&self, name: &UnitName, content: &Content) -> Result<()> {
        self.changes.follow(name);
        let mut world = self.world();
        world.log.push(format!("write {name}"));
        world.files.insert(name.clone(), content.clone());
        Ok(())
    }

    async fn link(&self, name: &UnitName, links: Links) -> Result<()> {
        let mut world = self.call("link")?;
        if !world.files.contains_key(name) {
            return Err(SystemdError::Refused(format!(
                "Unit file {name} does not exist."
            )));
        }
        if let Some(origin) = world.foreign(name) {
            return Err(SystemdError::Refused(format!(
                "unit {name} is there already: {origin}"
            )));
        }
        world.log.push(format!("link {name}"));
        world.links.insert(name.clone(), links.install);
        Ok(())
    }

    async fn remove(&self, name: &UnitName) -> Result<()> {
        let mut world = self.call("remove")?;
        world.log.push(format!("remove {name}"));
        world.links.remove(name);
        world.files.remove(name);
        if let Some(unit) = world.unit_mut(name) {
            unit.forget_failure();
            let (unit, observer) = (&world.units[name], &world.observer);
            tell(observer, name, unit, Some("remove"), unit.is_active());
        }
        Ok(())
    }

    async fn reload(&self) -> Result<()> {
        let mut world = self.call("reload")?;
        world.log.push("reload".to_owned());
        let World {
            files,
            links,
            units,
            ..
        } = &mut *world;
        for (name, unit) in units {
            match files.get(name).filter(|_| links.contains_key(name)) {
                Some(content) => unit.define(content.clone()),
                None => unit.lose(),
            }
        }
        world.settled = None;
        self.changes.mark_reloaded();
        Ok(())
    }

    async fn is_shutting_down(&self) -> bool {
        self.call("is_shutting_down")
            .is_ok_and(|world| world.shutting_down)
    }

    async fn start(&self, name: &UnitName) -> Result<()> {
        self.job("start", name, Unit::start)
    }

    async fn restart(&self, name: &UnitName) -> Result<()> {
        self.job("restart", name, Unit::restart)
    }

    async fn stop(&self, name: &UnitName) -> Result<()> {
        self.job("stop", name, Unit::stop)
    }
}
