//! The machines that statements are tried on, and what is done to them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fleet_core::unit::{Content, UnitName};
use fleetd::systemd::dbus::Dbus;
use fleetd::systemd::fake::Fake;
use fleetd::systemd::{Details, Dirty, Ended, Links, State, Systemd};
use tokio::time::timeout;

/// Longer than anything here takes, shorter than a patient person waits.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Where administrators put unit files.
pub(crate) const ETC: &str = "/etc/systemd/system";
/// Where links go that a reboot ends.
pub(crate) const RUN: &str = "/run/systemd/system";
const UNITS: &str = "/run/fleet/units";

pub(crate) fn unit(name: &str) -> UnitName {
    UnitName::parse(name).expect("valid name")
}

/// A machine to try a statement on.
pub(crate) enum Host {
    Fake(Box<Fake>),
    Real(Box<Dbus>),
}

impl Host {
    pub(crate) fn systemd(&self) -> &dyn Systemd {
        match self {
            Self::Fake(fake) => &**fake,
            Self::Real(real) => &**real,
        }
    }

    pub(crate) async fn link(&self, name: &str, content: &str) {
        self.write(name, content).await;
        let links = Links {
            install: true,
            anew: true,
        };
        let linked = self.systemd().link(&unit(name), links).await;
        linked.unwrap_or_else(|error| panic!("{name} is linked: {error}"));
    }

    pub(crate) async fn write(&self, name: &str, content: &str) {
        let written = self
            .systemd()
            .write(&unit(name), &Content::from(content))
            .await;
        written.expect("the file is written");
    }

    pub(crate) async fn start(&self, name: &str) {
        let started = self.systemd().start(&unit(name)).await;
        started.unwrap_or_else(|error| panic!("{name} is started: {error}"));
    }

    pub(crate) async fn restart(&self, name: &str) {
        let restarted = self.systemd().restart(&unit(name)).await;
        restarted.unwrap_or_else(|error| panic!("{name} is restarted: {error}"));
    }

    pub(crate) async fn run(&self, name: &str, content: &str) {
        self.link(name, content).await;
        self.start(name).await;
        self.becomes(name, "active").await;
    }

    pub(crate) async fn reload(&self) {
        self.systemd().reload().await.expect("systemd reloads");
    }

    pub(crate) async fn states(&self, names: &[&str]) -> BTreeMap<UnitName, State> {
        let names = names.iter().map(|name| unit(name)).collect();
        self.systemd()
            .states(&names)
            .await
            .expect("states are told")
    }

    pub(crate) async fn state(&self, name: &str) -> State {
        self.states(&[name])
            .await
            .remove(&unit(name))
            .expect("each is in the answer")
    }

    pub(crate) async fn details(&self, name: &str) -> Details {
        let state = self.state(name).await;
        let details = self.systemd().details(&unit(name), &state).await;
        details.expect("details are told")
    }

    pub(crate) async fn foreign(&self, name: &str) -> Option<String> {
        let state = self.state(name).await;
        let foreign = self.systemd().foreign(&unit(name), &state).await;
        foreign.expect("the owner is told")
    }

    /// Waits as the agent does: looks when something changed, and never else.
    pub(crate) async fn becomes(&self, name: &str, active: &str) {
        let wait = async {
            while self.state(name).await.active != active {
                self.systemd().changed().await;
            }
        };
        if timeout(SOON, wait).await.is_err() {
            panic!("{name} should be {active}, is {:?}", self.state(name).await);
        }
    }

    /// Waits until the job that was asked for last has ended.
    pub(crate) async fn ends(&self, name: &str) -> Ended {
        let ended = async {
            loop {
                if let Some(ended) = self.systemd().ended(&unit(name)) {
                    return ended;
                }
                self.systemd().changed().await;
            }
        };
        timeout(SOON, ended).await.expect("the job ends")
    }

    /// Waits until a change of this unit is told.
    pub(crate) async fn tells(&self, name: &str) {
        let told = async {
            loop {
                match self.systemd().changed().await {
                    Dirty::Units(units) if units.contains(&unit(name)) => return,
                    Dirty::Units(_) | Dirty::Reloaded(_) | Dirty::All => {}
                }
            }
        };
        timeout(SOON, told).await.expect("the change is told");
    }

    /// Takes all that is told until nothing is for a while.
    pub(crate) async fn quiet(&self) {
        while timeout(Duration::from_millis(500), self.systemd().changed())
            .await
            .is_ok()
        {}
    }

    pub(crate) async fn remove(&self, names: &[&str]) {
        for (name, state) in self.states(names).await {
            if state.active != "inactive" {
                self.systemd().stop(&name).await.expect("it is stopped");
            }
        }
        for name in names {
            let stopped = async {
                while !matches!(&*self.state(name).await.active, "inactive" | "failed") {
                    self.systemd().changed().await;
                }
            };
            timeout(SOON, stopped).await.expect("it stops");
            self.systemd()
                .remove(&unit(name))
                .await
                .expect("it is removed");
        }
    }
}

pub(crate) fn on_fake(statement: impl AsyncFn(&Host)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async { statement(&Host::Fake(Box::default())).await });
}

pub(crate) fn on_real(statement: impl AsyncFn(&Host)) {
    /// There is one machine only.
    static MACHINE: Mutex<()> = Mutex::new(());
    if std::env::var_os("FLEET_TEST_SYSTEM_BUS").is_none_or(|value| value != "1") {
        println!(
            "skipped: needs a machine whose systemd may be played with (FLEET_TEST_SYSTEM_BUS=1)"
        );
        return;
    }
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let links = || [below(ETC), below(RUN)];
    let before = links();
    runtime.block_on(async { statement(&Host::Real(Box::new(Dbus::new(UNITS.into())))).await });
    assert_eq!(
        links(),
        before,
        "what was there before is there, and nothing else"
    );
}

pub(crate) fn shell(command: &str) {
    let status = Command::new("sh").args(["-c", command]).status();
    assert!(status.expect("sh runs").success(), "{command}");
}

/// All files and links below a directory, and directories that are empty.
pub(crate) fn below(directory: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![PathBuf::from(directory)];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).expect("read") {
            let entry = entry.expect("read");
            let path = entry.path();
            let is_dir = entry.file_type().expect("read").is_dir();
            if is_dir && std::fs::read_dir(&path).expect("read").next().is_some() {
                open.push(path);
            } else {
                found.insert(path.display().to_string());
            }
        }
    }
    found
}
