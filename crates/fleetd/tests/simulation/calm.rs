//! What must be so once everything is mended: the fleet has become what its registry says, and
//! nothing is left to do.

use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::Scheduling;
use fleet_core::record::{self, ClusterRecord};
use fleet_core::rollout::{Order, Phase};
use fleet_core::trust::Memory;
use fleet_core::unit::{TargetState, UnitName};
use fleetd::store::{Snapshot, Store as _, Write};
use tokio::time::sleep;

use super::draw::UNITS;
use super::ledger::Ledger;
use super::ledger::version;
use super::nature::file;
use super::play::{Play, submit};
use super::referee::short;
use crate::fleet::{quiet, unit};
use crate::weather::Sky;

/// How often it is looked whether it is quiet yet, and how long it takes each time.
const ROUNDS: usize = 400;
const ROUND: Duration = Duration::from_secs(30);

/// Versions that are submitted in the end.
const LAST: u32 = 1_000_000;

impl Play {
    /// Everything is mended, and everybody reaches everybody; then nothing is left to do.
    pub(super) async fn calm_down(&mut self) -> Result<(), String> {
        self.find_home().await;
        let leaves = self.story.fleet.leaves;
        for at in 0..self.world.beside.len() {
            self.world.end(at).await;
            self.world.show(at, self.world.home);
            let ways = self.world.ways(at);
            ways.iter().for_each(|way| way.turn(Sky::Clear));
            self.world.fleet.machines[at].systemd.set_available(true);
            if !leaves {
                (0..UNITS.len()).for_each(|unit| self.foreign(at, unit, false));
            }
            self.world.start(at);
        }
        self.world.nature.mend();
        quiet().await;
        for round in 0..ROUNDS {
            self.judged()?;
            let waits = self.mend(round).await;
            if !waits && self.astray().is_empty() {
                return Ok(());
            }
            sleep(ROUND).await;
        }
        let astray = self.astray();
        let candidates = self.candidates();
        Err(format!("it does not end: {candidates:?}, {astray:#?}"))
    }

    /// Where the fleet's registry was wiped, an operator restores the newest copy there is of it;
    /// or it is accepted as it is.
    async fn find_home(&mut self) {
        let is_open = self.world.referee.ask(|ledger| ledger.rightful.clone());
        let store = &self.world.stores[self.world.home];
        let all = store.list(&[keys::CLUSTER]).await.expect("lists").entries;
        let entry = all.get(keys::CLUSTER);
        let made = entry.map(|entry| entry.created);
        let Some((id, first)) = is_open else { return };
        if made == Some(first) {
            // What somebody has written over it is put right.
            self.put(
                keys::CLUSTER.to_owned(),
                record::encode(&ClusterRecord { id }),
            )
            .await;
        } else if let Some(last) = self.world.backups.len().checked_sub(1) {
            let number = self.world.restore(last).await;
            self.world.home = number;
            self.world.referee.move_home(number);
        }
    }

    /// People do what they are told to do. Answers whether there was anything.
    async fn mend(&mut self, round: usize) -> bool {
        let mut waits = self.heal();
        for at in 0..self.world.beside.len() {
            let trust = self.world.fleet.machines[at].trust().borrow().clone();
            if trust.held().is_none() {
                continue;
            }
            waits = true;
            if matches!(trust.memory, Memory::Lost(_)) {
                self.world.end(at).await;
                let desired = self.world.fleet.machines[at].desired_file();
                let _ = std::fs::remove_file(desired);
                self.world.referee.forgets(&self.world.id(at));
                self.world.start(at);
            } else {
                self.accept(at).await;
            }
        }
        waits |= self.mend_records(round).await;
        let stays_paused = self.story.fleet.seed.is_multiple_of(3);
        for (name, phase) in self.candidates() {
            if phase != Phase::Paused {
                waits = true;
            } else if !stays_paused {
                waits = true;
                let registry = self.world.registry(0);
                let _ = registry.order(&unit(&name), Order::Resume, "x").await;
            }
        }
        waits
    }

    /// What nobody can read is written anew by whoever wants it.
    async fn mend_records(&mut self, round: usize) -> bool {
        let mut waits = false;
        let store = self.world.stores[self.world.home].clone();
        let all = store.list(&[""]).await.expect("lists").entries;
        let is_bad = |key: &str| record::decode::<serde_json::Value>(&all[key].value).is_err();
        // Where it is not known what the id was, it is deleted, as people are told; then another
        // one is made.
        for key in [keys::CLUSTER, keys::ACCEPTANCE] {
            if all.contains_key(key) && is_bad(key) {
                waits = true;
                let gone = vec![Write::Delete(key.to_owned())];
                let _ = store.commit(vec![], gone).await;
            }
        }
        let registry = self.world.registry(0);
        for at in 0..self.world.beside.len() {
            let id = self.world.id(at);
            let key = keys::metadata(&id);
            let is = all.get(&key).and_then(super::ledger::decode);
            let is: Option<record::MetadataRecord> = is;
            let normal = is.is_some_and(|it| it.scheduling == Scheduling::Normal);
            if all.contains_key(&key) && !normal {
                waits = true;
                let _ = registry.set_scheduling(&id, Scheduling::Normal).await;
            }
            if all.contains_key(&key) && is_bad(&key) {
                let label = (id, "gpu".to_owned(), Some("yes".to_owned()));
                let _ = registry.set_metadata(&[label]).await;
            }
        }
        for (number, (name, placed)) in UNITS.iter().enumerate() {
            let key = keys::unit(&unit(name));
            if all.contains_key(&key) && is_bad(&key) && !self.story.fleet.leaves {
                waits = true;
                let _ = registry.destroy(&unit(name)).await;
                let version = LAST + (round * UNITS.len() + number) as u32;
                let _ = submit(&registry, &unit(name), file(version, placed, "|")).await;
            }
        }
        waits
    }

    /// An operator restarts by hand what does not run as it should. Answers whether there was
    /// anything.
    fn heal(&self) -> bool {
        let mut mended = false;
        let referee = &self.world.referee;
        for machine in &self.world.fleet.machines {
            for name in machine.systemd.links().into_keys() {
                let seat = (machine.id.clone(), name);
                let runs_well =
                    referee.runs(&seat).is_some() && !machine.systemd.will_crash(&seat.1);
                // Of one whose record cannot be read nobody knows whether it should run.
                let should =
                    |ledger: &Ledger| ledger.belongs(&seat) && !ledger.unreadable.contains(&seat.1);
                // Nor is there anything to heal where the name is another's, and fleet touches
                // nothing.
                if referee.ask(should) && !runs_well && !referee.is_foreign(&seat) {
                    referee.by_hand(|| machine.systemd.heal(&seat.1));
                    mended = true;
                }
            }
        }
        mended
    }

    fn candidates(&self) -> Vec<(String, Phase)> {
        self.world.referee.ask(|ledger| {
            let readable = ledger.units.iter();
            let readable = readable.filter(|(name, _)| !ledger.unreadable.contains(*name));
            let candidates = readable.filter_map(|(name, unit)| {
                let candidate = unit.record.candidate.as_ref()?;
                unit.is_launched()
                    .then(|| (name.to_string(), candidate.phase))
            });
            candidates.collect()
        })
    }

    /// Machines that do not run what they should: of a unit without a candidate the stable
    /// revision, and available; of one that is paused, something.
    fn astray(&self) -> Vec<String> {
        let mut astray = Vec::new();
        let referee = &self.world.referee;
        for machine in &self.world.fleet.machines {
            let foreign = |name: &UnitName| referee.is_foreign(&(machine.id.clone(), name.clone()));
            let foreign: Vec<UnitName> = UNITS
                .iter()
                .map(|(name, _)| unit(name))
                .filter(foreign)
                .collect();
            referee.ask(|ledger| {
                for (name, unit) in &ledger.units {
                    let seat = (machine.id.clone(), name.clone());
                    let is_left = foreign.contains(name) || ledger.unreadable.contains(name);
                    if is_left || !ledger.belongs(&seat) || unit.record.candidate.is_some() {
                        continue;
                    }
                    let report = ledger.report(&seat);
                    let stable = unit.record.stable.number;
                    let is = report.is_some_and(|it| it.available && it.revision == stable);
                    if !is {
                        let id = short(&machine.id);
                        astray.push(format!("{name} on {id} should be {stable}: {report:?}"));
                    }
                }
            });
        }
        astray
    }

    /// Whether it is the report of a machine where a unit crashes without end, which no operator
    /// can stop: its record cannot be read.
    fn is_of_a_loop(&self, key: &str, value: &[u8]) -> bool {
        // Of its base as well.
        let report = record::decode::<record::ReportChanges>(value);
        let Some(report) = report.ok().filter(|_| key.starts_with(keys::REPORTS)) else {
            return false;
        };
        let loops = report.units.iter().filter(|(_, unit)| unit.restarts > 0);
        let mut names = loops.map(|(name, _)| name);
        self.world
            .referee
            .ask(|ledger| names.any(|name| ledger.unreadable.contains(name)))
    }

    /// What must be so once nothing is left to do.
    pub(super) async fn is_at_rest(&mut self) -> Result<(), String> {
        self.runs_what_it_should().await?;
        quiet().await;
        self.world.fleet.take_logs();
        let before = self.everything().await;
        // An hour in some of them only: it is much of the work.
        let is_long = self.story.fleet.seed.is_multiple_of(20);
        let idle = Duration::from_secs(if is_long { 3600 } else { 120 });
        sleep(idle).await;
        let after = self.everything().await;
        let entries = after.entries.iter();
        let written = entries.filter(|(_, entry)| entry.modified > before.revision);
        let (loops, written): (Vec<_>, Vec<_>) =
            written.partition(|(key, entry)| self.is_of_a_loop(key, &entry.value));
        let only_loops = !loops.is_empty()
            && written.is_empty()
            && after.entries.keys().eq(before.entries.keys());
        if after.revision != before.revision && !only_loops {
            let written: Vec<_> = written
                .iter()
                .map(|(key, entry)| (key, String::from_utf8_lossy(&entry.value)))
                .collect();
            return Err(format!(
                "{idle:?} with nothing to do changed the registry: {written:#?}"
            ));
        }
        for at in 0..self.world.beside.len() {
            self.world.end(at).await;
            self.world.start(at);
        }
        quiet().await;
        let logs = self.world.fleet.take_logs();
        for (log, machine) in logs.iter().zip(&self.world.fleet.machines) {
            if !log.is_empty() {
                return Err(format!("a second pass on {}: {log:?}", machine.id));
            }
        }
        let astray = self.astray();
        if !astray.is_empty() {
            return Err(format!("after a second pass: {astray:#?}"));
        }
        self.boots_without().await
    }

    /// One machine boots, and finds no registry.
    async fn boots_without(&mut self) -> Result<(), String> {
        let on = self.story.fleet.seed as usize % self.world.beside.len();
        let before = self.world.fleet.machines[on].running().await;
        let on_disk = self.world.fleet.machines[on].on_disk();
        self.reboot(on, true).await;
        quiet().await;
        let after = self.world.fleet.machines[on].running().await;
        let referee = &self.world.referee;
        // Of one whose record cannot be read only that file says what it was, unless it was lost
        // too.
        let unreadable = referee.ask(|ledger| ledger.unreadable.clone());
        let is_unknown = |name: &UnitName| unreadable.contains(name) && !on_disk.contains(name);
        // A unit that is only loaded runs because it was started by hand, or because a foreign unit
        // had its name when it was stopped. No boot starts it again.
        let loaded = referee.ask(|ledger| {
            let units = ledger.units.iter();
            let loaded = units.filter(|(_, unit)| unit.record.target == TargetState::Loaded);
            loaded.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        });
        let is_left = |name: &&String| {
            let name = unit(name);
            let is_loaded = loaded.contains(&name);
            is_unknown(&name) || is_loaded || referee.is_foreign(&(self.world.id(on), name))
        };
        match before.difference(&after).find(|name| !is_left(name)) {
            Some(lost) => Err(format!("{lost} is lost by a reboot without a registry")),
            None => Ok(()),
        }
    }

    async fn runs_what_it_should(&self) -> Result<(), String> {
        let referee = &self.world.referee;
        for machine in &self.world.fleet.machines {
            let running = machine.running().await;
            let seat = |name: &UnitName| (machine.id.clone(), name.clone());
            let id = short(&machine.id);
            let (units, unreadable) = referee.ask(|ledger| {
                let units = ledger.units.iter();
                let units: Vec<_> = units
                    .map(|(name, unit)| {
                        let stable = version(&unit.record.stable.content);
                        let candidate = unit.record.candidate.is_some();
                        let is_loaded = unit.record.target == TargetState::Loaded;
                        let belongs = ledger.belongs(&seat(name));
                        (name.clone(), belongs, stable, candidate, is_loaded)
                    })
                    .collect();
                (units, ledger.unreadable.clone())
            });
            let is_left =
                |name: &UnitName| unreadable.contains(name) || referee.is_foreign(&seat(name));
            for (name, belongs, stable, candidate, is_loaded) in &units {
                let runs = running.contains(name.as_str());
                // Somebody may have started it by hand.
                if is_left(name) || *is_loaded && referee.is_anybodys(&seat(name)) {
                    continue;
                }
                if runs != *belongs {
                    return Err(format!(
                        "{name} runs on {id}: {runs}, belongs there: {belongs}"
                    ));
                }
                let version = referee.runs(&seat(name));
                if runs && !candidate && version != *stable {
                    return Err(format!(
                        "{name} on {id} runs {version:?}, and {stable:?} is stable"
                    ));
                }
            }
            let known = |name: &str| units.iter().any(|it| it.0.as_str() == name);
            if let Some(name) = running
                .iter()
                .find(|name| !known(name) && !is_left(&unit(name)))
            {
                return Err(format!("{name} runs on {id}, and there is no such unit"));
            }
        }
        Ok(())
    }

    async fn everything(&self) -> Snapshot {
        let all = self.world.stores[self.world.home].list(&[""]).await;
        all.expect("lists")
    }
}
