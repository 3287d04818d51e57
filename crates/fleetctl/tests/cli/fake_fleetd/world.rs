//! The registry and the machines behind the fake API.

use std::collections::{BTreeMap, BTreeSet};

use fleet_core::api::{
    ClusterStatus, Machine, MetadataOp, Unit, UnitOnMachine, UnitReport, UnitState, UnitStatus,
};
use fleet_core::unit::{Content, Parsed, UnitName};

use super::Answer;

/// The registry and the machines.
pub(crate) struct World {
    /// The count of all changes.
    pub(crate) revision: u64,
    /// The target state of every PUT, in order.
    pub(crate) targets: Vec<String>,
    /// The number of connections made.
    pub(crate) connections: usize,
    /// Units whose records cannot be read. No listing has them.
    pub(crate) damaged: Vec<String>,
    /// Whether the machines do nothing for now.
    pub(crate) held: bool,
    /// The method for which the registry is unreachable, and the number of its requests.
    pub(crate) away: &'static str,
    pub(crate) unanswered: usize,
    /// The number of listings of states that end early because the registry has compacted their
    /// revision.
    pub(crate) forgets: usize,
    units: BTreeMap<String, Stored>,
    machines: BTreeMap<String, Machine>,
    reports: BTreeMap<(String, String), UnitReport>,
}

struct Stored {
    content: Content,
    parsed: Parsed,
    target: String,
    revision: u64,
}

impl Default for World {
    fn default() -> Self {
        let machine = |id: &str, n: u8| {
            let machine = Machine {
                id: id.into(),
                metadata: [("host".to_owned(), format!("n{n}"))].into(),
                primary_ip: format!("10.99.1.{n}"),
                version: "0.1.0".into(),
                ..Machine::default()
            };
            (id.to_owned(), machine)
        };
        Self {
            revision: 1,
            targets: Vec::new(),
            connections: 0,
            damaged: Vec::new(),
            held: false,
            away: "",
            unanswered: 0,
            forgets: 0,
            units: BTreeMap::new(),
            machines: BTreeMap::from([
                machine("3f3fab35461707ed4699d4df0c87385e", 3),
                machine("631e82f9bbd25efb88aad49e6c499b79", 1),
                machine("6650bd8acb14499365bce5a3533bd6c5", 2),
            ]),
            reports: BTreeMap::new(),
        }
    }
}

impl World {
    pub(super) fn machines(&self) -> Vec<&Machine> {
        self.machines.values().collect()
    }

    pub(super) fn patch(&mut self, ops: &[MetadataOp]) -> Answer {
        for op in ops {
            let [_, id, _, key] = op.path.split('/').collect::<Vec<_>>()[..] else {
                return Answer::error(400, "machine metadata path invalid");
            };
            let metadata = &mut self.machines.get_mut(id).expect("known").metadata;
            match &op.value {
                Some(value) => metadata.insert(key.into(), value.as_str().into()),
                None => metadata.remove(key),
            };
        }
        self.changed();
        Answer::empty(204)
    }

    pub(super) fn units(&self) -> Vec<Unit> {
        self.units
            .keys()
            .filter(|name| !self.damaged.contains(name))
            .filter_map(|name| self.unit(name, false))
            .collect()
    }

    pub(super) fn unit(&self, name: &str, content: bool) -> Option<Unit> {
        let stored = self.units.get(name)?;
        Some(Unit {
            name: name.into(),
            content: content.then(|| stored.content.clone()),
            options: stored.parsed.file.options().to_vec(),
            desired_state: stored.target.clone(),
            current_state: "inactive".into(),
            ..Unit::default()
        })
    }

    pub(super) fn put(&mut self, name: &str, unit: Unit) -> Answer {
        let mut answer = Answer::empty(if self.units.contains_key(name) {
            204
        } else {
            201
        });
        self.targets.push(unit.desired_state.clone());
        let parsed = unit.content.as_ref().map(|content| {
            let name = UnitName::parse(name).expect("fleetctl checks names");
            Parsed::parse(name, content)
        });
        let effective = match (&parsed, self.units.get(name)) {
            (Some(parsed), _) => parsed,
            (None, Some(stored)) => &stored.parsed,
            (None, None) => return Answer::error(409, "unit does not exist"),
        };
        if name == "refused.service" {
            return Answer::error(409, "the name is taken on a machine");
        }
        if unit.desired_state != "inactive" && !effective.options.global {
            let text = format!("unit {name} is not global: set Global=true in [X-Fleet]");
            return Answer::error(409, text);
        }
        let notes = parsed.iter().flat_map(Parsed::notes);
        answer.warnings = notes.map(|note| format!("Unit {name}: {note}")).collect();
        match (unit.content.zip(parsed), self.units.get_mut(name)) {
            (Some((content, parsed)), known) => {
                let revision = known.map_or(1, |known| known.revision + 1);
                let stored = Stored {
                    content,
                    parsed,
                    target: unit.desired_state,
                    revision,
                };
                self.units.insert(name.into(), stored);
            }
            (None, Some(known)) => known.target = unit.desired_state,
            (None, None) => {}
        }
        self.changed();
        answer
    }

    pub(super) fn destroy(&mut self, name: &str) -> Answer {
        if self.units.remove(name).is_none() {
            return Answer::error(404, "unit does not exist");
        }
        self.changed();
        Answer::empty(204)
    }

    pub(super) fn states(&self) -> Vec<UnitState> {
        self.reports
            .iter()
            .map(|((name, machine), report)| UnitState {
                name: name.clone(),
                machine_id: machine.clone(),
                hash: report.hash.clone(),
                systemd_active_state: report.active.clone(),
                systemd_load_state: report.load.clone(),
                systemd_sub_state: report.sub.clone(),
                report: Some(report.clone()),
            })
            .collect()
    }

    pub(super) fn cluster_status(&self) -> ClusterStatus {
        ClusterStatus {
            registry_revision: 0, // The transcripts are not to depend on how often anything changed.
            cluster: "0123456789abcdef0123456789abcdef".into(),
            leader: self.machines.keys().next().cloned().unwrap_or_default(),
            machines: self.machines.len(),
            offline: Vec::new(),
            units: self.units.len(),
            problems: Vec::new(),
        }
    }

    pub(super) fn unit_status(&self, name: &str) -> Option<UnitStatus> {
        let stored = self.units.get(name)?;
        let machines = self.machines.values().map(|machine| {
            let refused = refusal(stored, machine);
            UnitOnMachine {
                machine_id: machine.id.clone(),
                primary_ip: machine.primary_ip.clone(),
                placed: refused.is_none(),
                reason: refused.unwrap_or_default(),
                report: self
                    .reports
                    .get(&(name.to_owned(), machine.id.clone()))
                    .cloned(),
                problem: None,
                ..UnitOnMachine::default()
            }
        });
        Some(UnitStatus {
            registry_revision: self.revision,
            name: name.into(),
            desired_state: stored.target.clone(),
            global: true,
            description: stored.parsed.file.description().into(),
            revision: stored.revision,
            hash: stored.parsed.hash.to_string(),
            machines: machines.collect(),
            ..UnitStatus::default()
        })
    }

    fn changed(&mut self) {
        self.revision += 1;
        if !self.held {
            self.settle();
        }
    }

    /// Makes every machine do what is wanted of it, and report it.
    pub(super) fn settle(&mut self) {
        self.reports.clear();
        for (name, stored) in &self.units {
            let (active, sub) = match stored.target.as_str() {
                "inactive" => continue,
                "loaded" => ("inactive", "dead"),
                _ if stored.parsed.file.last("Service", "ExecStart") == Some("/does/not/exist") => {
                    ("failed", "failed")
                }
                _ => ("active", "running"),
            };
            let result = if active == "failed" {
                "exit-code"
            } else {
                "success"
            };
            let report = UnitReport {
                load: "loaded".into(),
                active: active.into(),
                sub: sub.into(),
                revision: stored.revision,
                hash: stored.parsed.hash.to_string(),
                since: 0,
                restarts: 0,
                result: result.into(),
                launched: stored.target == "launched",
                ready: active == "active",
                available: active == "active",
                ..UnitReport::default()
            };
            for machine in self.machines.values() {
                if refusal(stored, machine).is_none() {
                    let key = (name.clone(), machine.id.clone());
                    self.reports.insert(key, report.clone());
                }
            }
        }
    }

    /// Makes the unit fail on that machine, without a restart by systemd.
    pub(crate) fn fail(&mut self, unit: &str, machine: &str) {
        let key = self
            .reports
            .keys()
            .find(|(name, id)| name == unit && id.starts_with(machine))
            .cloned()
            .expect("the unit is there");
        let report = self.reports.get_mut(&key).expect("found above");
        report.available = false;
        report.active = "failed".into();
        report.sub = "failed".into();
        report.result = "exit-code".into();
        report.ready = false;
    }
}

/// Returns why a unit does not belong on a machine. `None` if it does.
fn refusal(stored: &Stored, machine: &Machine) -> Option<String> {
    let wanted = &stored.parsed.options.machine_metadata;
    let differs = |(key, values): (&String, &BTreeSet<String>)| {
        let value = machine.metadata.get(key);
        (!value.is_some_and(|value| values.contains(value)))
            .then(|| format!("{key} does not match"))
    };
    wanted.iter().find_map(differs)
}
