//! Draws a story from a seed: all of it, before anything is played.

use fleet_core::machine::Scheduling;
use fleet_core::unit::TargetState;

use super::nature::options;
use super::step::{Among, Bad, Hand, Lost, Of, Ordered, Seen, Step, Story, Whose};
use lab::Chance;

/// The units that people submit, and where each belongs.
pub(crate) const UNITS: [(&str, &str); 3] = [
    ("a.service", ""),
    ("b.service", ""),
    ("c.service", "MachineMetadata=gpu=yes\n"),
];

/// The unit whose file lies in the units directory.
pub(crate) const FROM_DIRECTORY: &str = "d.service";

const SKIES: [Seen; 8] = [
    Seen::Away,
    Seen::Silent,
    Seen::Slow,
    Seen::Unanswered,
    Seen::Late,
    Seen::Clear,
    Seen::Clear,
    Seen::Clear,
];

struct Drawing {
    chance: Chance,
    machines: usize,
    version: u32,
    backups: usize,
    steps: Vec<(u64, Step)>,
}

impl Story {
    pub(crate) fn of(seed: u64) -> Self {
        let mut chance = Chance::of(seed ^ 0x517e);
        let machines = 3 + chance.below(3);
        let count = 8 + chance.below(16);
        Self::drawn(seed, machines, count, chance)
    }

    /// The same with hundreds of machines, and less that happens.
    pub(crate) fn large(seed: u64) -> Self {
        let mut chance = Chance::of(seed ^ 0x1a96e);
        let machines = 100 + chance.below(201);
        let count = 5 + chance.below(6);
        Self::drawn(seed, machines, count, chance)
    }

    fn drawn(seed: u64, machines: usize, count: usize, mut chance: Chance) -> Self {
        let leaves = chance.one_in(2);
        let mut drawing = Drawing {
            chance,
            machines,
            version: 0,
            backups: 0,
            steps: Vec::new(),
        };
        for unit in 0..1 + drawing.chance.below(UNITS.len()) {
            let step = drawing.submit(unit);
            drawing.steps.push((if unit == 0 { 5000 } else { 0 }, step));
        }
        let mut wait = 20_000;
        for _ in 0..count {
            drawing.next(wait);
            let most = drawing
                .chance
                .pick(&[1, 7, 40, 300, 2000, 9000, 40_000, 90_000]);
            wait = drawing.chance.below(most) as u64;
        }
        Self {
            fleet: Of {
                seed,
                machines,
                leaves,
            },
            steps: drawing.steps,
        }
    }
}

impl Drawing {
    fn machine(&mut self) -> usize {
        self.chance.below(self.machines)
    }

    fn among(&mut self) -> Among {
        let all = Among::MAX;
        let some = self.chance.below(Among::MAX as usize) as Among;
        let one = 1 << self.chance.below(self.machines.min(32));
        self.chance.pick(&[all, some, one])
    }

    fn unit(&mut self) -> usize {
        self.chance.pick(&[0, 0, 0, 1, 2])
    }

    fn submit(&mut self, unit: usize) -> Step {
        self.version += 1;
        Step::Submit {
            on: self.machine(),
            unit,
            version: self.version,
            options: options(&mut self.chance),
        }
    }

    fn next(&mut self, wait: u64) {
        let step = match self.chance.below(100) {
            0..=31 => self.command(),
            32..=34 => self.file(),
            35..=59 => self.of_the_registry(),
            60..=83 => self.of_a_host(),
            84..=91 => self.another_registry(),
            _ => self.bad(),
        };
        self.steps.push((wait, step));
    }

    fn command(&mut self) -> Step {
        let (on, of, unit) = (self.machine(), self.machine(), self.unit());
        match self.chance.below(32) {
            0..=13 => self.submit(unit),
            14..=19 => {
                let any = 1 + self.chance.below(self.version.max(1) as usize) as u64;
                let order = self.chance.pick(&[
                    Ordered::Pause,
                    Ordered::Resume,
                    Ordered::Undo,
                    Ordered::UndoTo(any),
                    Ordered::Restart,
                ]);
                Step::Order { on, unit, order }
            }
            20..=23 => {
                let target = self.chance.pick(&[
                    TargetState::Inactive,
                    TargetState::Loaded,
                    TargetState::Launched,
                    TargetState::Launched,
                ]);
                Step::Target { on, unit, target }
            }
            24 | 25 => Step::Destroy { on, unit },
            26 | 27 => {
                let gpu = self.chance.below(3) > 0;
                Step::Label { on, of, gpu }
            }
            _ => {
                let how = self.chance.pick(&[
                    Scheduling::Normal,
                    Scheduling::Normal,
                    Scheduling::Cordoned,
                    Scheduling::Drained,
                ]);
                Step::Schedule { on, of, how }
            }
        }
    }

    fn file(&mut self) -> Step {
        if self.chance.one_in(4) {
            return Step::FileGoes;
        }
        self.version += 1;
        let (version, options) = (self.version, options(&mut self.chance));
        Step::File { version, options }
    }

    fn of_the_registry(&mut self) -> Step {
        let of = self.among();
        match self.chance.below(25) {
            0..=13 => Step::Weather {
                of,
                whose: self
                    .chance
                    .pick(&[Whose::Agents, Whose::Engines, Whose::Both]),
                sky: self.chance.pick(&SKIES),
            },
            14 | 15 => Step::Weather {
                of: Among::MAX,
                whose: Whose::Both,
                sky: self.chance.pick(&[Seen::Away, Seen::Clear]),
            },
            16..=18 => Step::Watches {
                of,
                compacted: self.chance.one_in(2),
            },
            19 | 20 => Step::EtcdRestarts,
            _ => Step::Freeze {
                on: self.machine(),
                whole: self.chance.one_in(2),
                millis: self.chance.pick(&[900, 4000, 15_000, 50_000]),
            },
        }
    }

    fn of_a_host(&mut self) -> Step {
        let (on, unit) = (self.machine(), self.unit());
        match self.chance.below(26) {
            0 | 1 => Step::Kill { on },
            2..=6 => Step::Upgrade { on },
            7 | 8 => Step::Stick {
                on,
                calls: self.chance.below(40) as u32,
            },
            9..=11 => Step::Reboot {
                on,
                without: self.chance.one_in(2),
            },
            12..=14 => Step::Clock {
                of: self.among(),
                seconds: self.chance.pick(&[3600, -3600, 40, -40]),
            },
            15 | 16 => Step::Crash { on, unit },
            17 => Step::Bus {
                on,
                there: self.chance.one_in(2),
            },
            18..=20 => Step::Foreign {
                on,
                unit,
                there: self.chance.below(3) > 0,
            },
            21..=23 => Step::ByHand {
                on,
                unit,
                what: self
                    .chance
                    .pick(&[Hand::Change, Hand::Remove, Hand::Unlink]),
            },
            _ => Step::Lose {
                on,
                file: self
                    .chance
                    .pick(&[Lost::Marks, Lost::Desired, Lost::All, Lost::Published]),
                damaged: self.chance.one_in(2),
            },
        }
    }

    fn another_registry(&mut self) -> Step {
        let (of, on) = (self.among(), self.machine());
        match self.chance.below(9) {
            0 | 1 => {
                self.backups += 1;
                Step::Backup
            }
            2 | 3 if self.backups > 0 => Step::Restore {
                of: self.chance.pick(&[of, Among::MAX]),
                copy: self.chance.below(self.backups),
            },
            4 => Step::Wipe {
                by_key: self.chance.one_in(2),
                refill: self.chance.one_in(3),
            },
            5 | 6 => Step::Other {
                of,
                empty: self.chance.one_in(2),
            },
            7 => Step::Accept { on },
            _ => Step::PutBack { of },
        }
    }

    fn bad(&mut self) -> Step {
        let what = self.chance.pick(&[
            Bad::NewUnit,
            Bad::Unit,
            Bad::Report,
            Bad::ReportBase,
            Bad::Grant,
            Bad::Rollout,
            Bad::Metadata,
            Bad::Machine,
            Bad::Cluster,
            Bad::Acceptance,
            Bad::File,
        ]);
        let (on, unit) = (self.machine(), self.unit());
        Step::Bad { what, on, unit }
    }
}
