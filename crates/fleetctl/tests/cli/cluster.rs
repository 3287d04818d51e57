//! The real API of fleetd on an embedded store. Tests write the values of machines and leaders.

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::SystemTime;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::record::{
    self, Candidate, Event, EventKind, Grant, Known, MachineRecord, MachineReport, Outcome, Owner,
    Past, Progress, Revision, UnitRecord, UnitReport,
};
use fleet_core::rollout::Phase;
use fleet_core::unit::{TargetState, UnitName};
use fleetd::registry::Registry;
use fleetd::store::{Embedded, Write};
use tokio::net::UnixListener;
use tokio::runtime::{Builder, Runtime};

use crate::session::{Session, transcript};

/// 2026-11-22 06:40:41 UTC, the time of all past events.
pub(crate) const THEN: u64 = 1_795_329_641_000;

/// Four machines in two zones; the last one is offline.
pub(crate) const MACHINES: [(&str, &str); 4] = [
    ("190c6f8fbbd25efb88aad49e6c499b79", "1"),
    ("3f3fab35461707ed4699d4df0c87385e", "1"),
    ("6650bd8acb14499365bce5a3533bd6c5", "1"),
    ("c46a8ace19a84d6d8d7e0a5d2c1f9b03", "2"),
];

pub(crate) const WEB: &str = "[Service]\nExecStart=/bin/web\n\n[X-Fleet]\nGlobal=true\n";

pub(crate) struct Cluster {
    session: Session,
    registry: Registry,
    runtime: Runtime,
}

pub(crate) fn id(machine: usize) -> MachineId {
    MachineId::parse(MACHINES[machine].0).expect("valid")
}

pub(crate) fn web() -> UnitName {
    UnitName::parse("web.service").expect("valid")
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).expect("not for long")
}

fn runtime() -> Runtime {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime")
}

impl Cluster {
    /// Starts a cluster. `web.service` is launched in its second revision, and runs on the three
    /// live machines.
    pub(crate) fn start() -> Self {
        let session = Session::start();
        let registry = Registry::new(Arc::new(Embedded::in_memory()));
        let router = fleetd::api::router(registry.clone(), 100);
        let socket = session.path("real.sock");
        let (ready, listens) = std::sync::mpsc::channel();
        thread::spawn(move || {
            runtime().block_on(async {
                let listener = UnixListener::bind(socket).expect("the socket is free");
                ready.send(()).expect("the test waits");
                axum::serve(listener, router).await
            })
        });
        listens.recv().expect("it listens");
        let cluster = Self {
            session,
            registry,
            runtime: runtime(),
        };
        cluster.populate();
        cluster
    }

    fn populate(&self) {
        for (number, (_, az)) in MACHINES.into_iter().enumerate() {
            let here = number < 3;
            let machine = MachineRecord {
                primary_ip: format!("10.99.1.{}", number + 1),
                metadata: [("az".to_owned(), az.to_owned())].into(),
                version: "0.1.0".to_owned(),
                session: session(number),
            };
            if here {
                self.write(keys::machine(&id(number)), &machine);
                self.reports(number, 2, true);
            }
            let known = Known {
                machine,
                offline_since: (!here).then_some(THEN),
            };
            self.write(keys::known(&id(number)), &known);
        }
        let past = Past {
            revision: revision(
                1,
                "[Service]\nExecStart=/bin/old\n\n[X-Fleet]\nGlobal=true\n",
            ),
            dropped: None,
        };
        self.write(keys::history(&web(), 1), &past);
        self.record(None, None);
    }

    /// Writes the unit, with an update in that phase or with the outcome of the last one.
    pub(crate) fn record(&self, phase: Option<(Phase, &str)>, last: Option<Outcome>) {
        let candidate = phase.map(|(phase, reason)| Candidate {
            revision: revision(3, &WEB.replace("/bin/web", "/bin/new")),
            phase,
            reason: reason.to_owned(),
            since: now(),
            failed_on: [].into(),
        });
        let record = UnitRecord {
            target: TargetState::Launched,
            stable: revision(2, WEB),
            candidate,
            last,
            owners: [Owner::Api].into(),
        };
        self.write(keys::unit(&web()), &record);
    }

    /// Starts the rollout of the third revision: the first machine has it, the second has a grant.
    pub(crate) fn rolling(&self) {
        self.record(Some((Phase::Rolling, "")), None);
        let created = self.created();
        for machine in 0..2 {
            let grant = Grant {
                unit: created,
                revision: 3,
                session: session(machine),
                was_available: true,
                proved: false,
                leaves: false,
            };
            self.write(keys::grant(&id(machine), &web()), &grant);
        }
        let progress = Progress {
            unit: created,
            revision: 3,
            done: 1,
            at: now(),
        };
        self.write(keys::rollout(&web()), &progress);
        self.reports(0, 3, true);
    }

    /// Returns the store revision that created the unit.
    fn created(&self) -> u64 {
        let key = keys::unit(&web());
        let prefixes = [&*key];
        let listed = self.registry.store().list(&prefixes);
        let listed = self.runtime.block_on(listed).expect("listed");
        listed.entries[&key].created
    }

    /// Writes a machine's report that it has that revision.
    pub(crate) fn reports(&self, machine: usize, revision: u64, available: bool) {
        let state = |up, down| if available { up } else { down };
        let report = UnitReport {
            load: "loaded".to_owned(),
            active: state("active", "failed").to_owned(),
            sub: state("running", "failed").to_owned(),
            revision,
            hash: "e83c16edc9c35e3b86d078e1c4c8841f42bf397b".to_owned(),
            since: THEN,
            launched: true,
            ready: available,
            available,
            failed: (!available).then(|| "it ended with exit code 1".to_owned()),
            ..UnitReport::default()
        };
        let report = MachineReport {
            units: BTreeMap::from([(web(), report)]),
            ..MachineReport::default()
        };
        self.write(keys::report(&id(machine)), &report);
    }

    /// Writes a machine's report that it has no unit.
    pub(crate) fn reports_nothing(&self, machine: usize) {
        self.write(keys::report(&id(machine)), &<MachineReport>::default());
    }

    /// Writes an event of a leader, `seconds` later.
    pub(crate) fn event(&self, seconds: u64, kind: EventKind, machines: &[usize], reason: &str) {
        let leading = kind == EventKind::Leading;
        let event = Event {
            at: THEN + seconds * 1000,
            kind,
            unit: (!leading).then(web),
            revision: if leading { 0 } else { 3 },
            machines: machines.iter().map(|machine| id(*machine)).collect(),
            reason: reason.to_owned(),
        };
        self.write(keys::event(event.at, 0), &event);
    }

    fn write<T: serde::Serialize>(&self, key: String, value: &T) {
        let put = Write::Put {
            key,
            value: record::encode(value),
            lease: None,
        };
        let committed = self.registry.store().commit(Vec::new(), vec![put]);
        self.runtime.block_on(committed).expect("written");
    }

    /// Returns a command for the shell, not started yet.
    pub(crate) fn command(&self, command: &str) -> Command {
        let mut shell = self.session.command(command);
        let socket = self.session.path("real.sock");
        shell.env("FLEETCTL_ENDPOINT", format!("unix://{}", socket.display()));
        shell
    }

    /// Runs a command and returns it as a transcript.
    pub(crate) fn run(&self, command: &str) -> String {
        let output = self.command(command).output().expect("sh runs");
        transcript(command, &output)
    }

    /// Writes a file in the folder of the commands.
    pub(crate) fn file(&self, name: &str, content: &str) {
        std::fs::write(self.session.path(name), content).expect("written");
    }
}

fn session(machine: usize) -> i64 {
    10 + i64::try_from(machine).expect("few")
}

fn revision(number: u64, content: &str) -> Revision {
    Revision {
        number,
        at: THEN + number * 60_000,
        content: content.into(),
        restarts: 0,
    }
}

/// Returns the outcome of a rollout of the third revision.
pub(crate) fn ended(ended: fleet_core::rollout::Ended, reason: &str) -> Outcome {
    Outcome {
        revision: 3,
        ended,
        reason: reason.to_owned(),
        at: THEN + 300_000,
    }
}
