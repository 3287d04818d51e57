//! What each version of a unit is like, drawn once, and the files that say so.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fleet_core::unit::Content;
use fleetd::systemd::fake::{Behaviour, Outcome};

use super::ledger::version;
use lab::Chance;

/// The nature of all versions. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Nature {
    seed: u64,
    machines: usize,
    mended: Arc<AtomicBool>,
}

impl Nature {
    pub(crate) fn of(seed: u64, machines: usize) -> Self {
        Self {
            seed,
            machines,
            mended: Arc::default(),
        }
    }

    /// From now on everything works at once.
    pub(crate) fn mend(&self) {
        self.mended.store(true, Ordering::Relaxed);
    }

    /// How a file's unit behaves on that machine.
    pub(crate) fn on(&self, machine: usize, content: &Content) -> Behaviour {
        let works = Behaviour::of(content);
        match version(content).filter(|_| !self.mended.load(Ordering::Relaxed)) {
            Some(version) => self.behaviour(machine, version, works),
            None => works,
        }
    }

    fn behaviour(&self, machine: usize, version: u32, works: Behaviour) -> Behaviour {
        let mut chance = Chance::of(self.seed ^ (u64::from(version) << 32));
        chance.below(2);
        let kind = chance.below(20);
        let some = chance.below(self.machines.max(2));
        let restart_after = chance.one_in(2).then(|| Duration::from_millis(300));
        let fails = Behaviour {
            result: Outcome::Fail,
            restart_after,
            ..works
        };
        let crashes = Behaviour {
            crash_after: Some(Duration::from_millis(200 + chance.below(9000) as u64)),
            restart_after,
            ..works
        };
        let hangs = Behaviour {
            start: Duration::from_secs(100_000_000),
            ..works
        };
        let slow = Behaviour {
            start: Duration::from_millis(chance.pick(&[100, 700, 3000, 12_000])),
            ..works
        };
        match kind {
            0..=7 => slow,
            8..=10 => works,
            11 | 12 => fails,
            13 | 14 => crashes,
            15 => hangs,
            16 if machine % 3 == some % 3 => hangs,
            17 if machine == some => crashes,
            18 | 19 if machine == some => fails,
            _ => slow,
        }
    }
}

/// A unit file of that version. `placed`: where it belongs.
pub(crate) fn file(version: u32, placed: &str, options: &str) -> Content {
    let (service, fleet) = options.split_once('|').unwrap_or(("", options));
    let text = format!(
        "[Service]\nExecStart=/bin/web {version}\n{service}[X-Fleet]\nGlobal=true\n{placed}{fleet}"
    );
    Content::from(text.as_str())
}

/// What else stands in a unit file: options of the service, a bar, options of fleet.
pub(crate) fn options(chance: &mut Chance) -> String {
    let kind = chance.pick(&["Type=notify\n", "Type=notify\n", ""]);
    let budget = chance.pick(&[
        "",
        "MaxUnavailable=1\n",
        "MaxUnavailable=2\n",
        "MaxUnavailable=3\n",
        "MaxUnavailable=30%\n",
        "MaxUnavailable=50%\n",
        "MaxUnavailable=100%\n",
    ]);
    let steady = chance.pick(&[
        "",
        "",
        "MinReadySec=0\n",
        "MinReadySec=2\n",
        "MinReadySec=10\n",
    ]);
    let deadline = chance.pick(&["", "ProgressDeadlineSec=30\n", "ProgressDeadlineSec=90\n"]);
    let strategy = chance.pick(&[
        "",
        "",
        "",
        "",
        "",
        "UpdateStrategy=all\n",
        "UpdateStrategy=manual\n",
    ]);
    let failure = chance.pick(&["", "", "", "OnFailure=pause\n"]);
    format!("{kind}|{budget}{steady}{deadline}{strategy}{failure}")
}
