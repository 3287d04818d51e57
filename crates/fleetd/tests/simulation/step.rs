//! What may happen to a fleet: people's commands and faults, as values. A history is a list of
//! them, drawn before anything is played, so that it can be written down, shortened, and played
//! again.

use fleet_core::machine::Scheduling;
use fleet_core::rollout::Order;
use fleet_core::unit::TargetState;
use serde::{Deserialize, Serialize};

use crate::weather::Sky;

/// Machines by their bits: the first is 1, the second 2, the third 4.
pub(crate) type Among = u32;

/// One thing that happens. `on`: the machine through whose API it is ordered, or to which it
/// happens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Step {
    /// Somebody submits a version of a unit with these options, and launches it.
    Submit {
        on: usize,
        unit: usize,
        version: u32,
        options: String,
    },
    Target {
        on: usize,
        unit: usize,
        target: TargetState,
    },
    Order {
        on: usize,
        unit: usize,
        order: Ordered,
    },
    Destroy {
        on: usize,
        unit: usize,
    },
    /// Sets or removes `gpu=yes` for a machine.
    Label {
        on: usize,
        of: usize,
        gpu: bool,
    },
    Schedule {
        on: usize,
        of: usize,
        how: Scheduling,
    },
    /// A file lies in the units directory of the first machine, or goes from it.
    File {
        version: u32,
        options: String,
    },
    FileGoes,
    /// These machines have the registry so: agents, engines, or both.
    Weather {
        of: Among,
        whose: Whose,
        sky: Seen,
    },
    /// Watches of these break, or are compacted.
    Watches {
        of: Among,
        compacted: bool,
    },
    /// Every watch breaks, and leases have their full time again.
    EtcdRestarts,
    /// Somebody keeps a copy of the registry.
    Backup,
    /// These machines have that copy as their registry from now on.
    Restore {
        of: Among,
        copy: usize,
    },
    /// The registry's keys are deleted: at once, or one by one, and (perhaps) written again.
    Wipe {
        by_key: bool,
        refill: bool,
    },
    /// These see a registry that is empty, or another cluster's.
    Other {
        of: Among,
        empty: bool,
    },
    /// These see the fleet's own registry again.
    PutBack {
        of: Among,
    },
    /// Somebody accepts the registry that this machine holds.
    Accept {
        on: usize,
    },
    /// The engine stands still for so long, or all of fleetd does.
    Freeze {
        on: usize,
        whole: bool,
        millis: u64,
    },
    Kill {
        on: usize,
    },
    /// fleetd is killed where it is running, and started.
    Upgrade {
        on: usize,
    },
    /// Its agent's systemd does not answer any more after so many calls.
    Stick {
        on: usize,
        calls: u32,
    },
    /// Without a registry it has none when it is up again.
    Reboot {
        on: usize,
        without: bool,
    },
    /// The wall clock of one machine, or of all, jumps by so many seconds.
    Clock {
        of: Among,
        seconds: i64,
    },
    Crash {
        on: usize,
        unit: usize,
    },
    /// systemd is on the bus or not.
    Bus {
        on: usize,
        there: bool,
    },
    /// Somebody else's unit of that name turns up, or goes.
    Foreign {
        on: usize,
        unit: usize,
        there: bool,
    },
    /// Somebody changes what fleet put on a host.
    ByHand {
        on: usize,
        unit: usize,
        what: Hand,
    },
    /// A state file is lost (or damaged) while fleetd is down; then it is started.
    Lose {
        on: usize,
        file: Lost,
        damaged: bool,
    },
    /// Something that nobody can read is written to the registry, or lies in the units directory.
    Bad {
        what: Bad,
        on: usize,
        unit: usize,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Ordered {
    Pause,
    Resume,
    Undo,
    UndoTo(u64),
    Restart,
}

impl From<Ordered> for Order {
    fn from(ordered: Ordered) -> Self {
        match ordered {
            Ordered::Pause => Self::Pause,
            Ordered::Resume => Self::Resume,
            Ordered::Undo => Self::Undo(None),
            Ordered::UndoTo(number) => Self::Undo(Some(number)),
            Ordered::Restart => Self::Restart,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Whose {
    Agents,
    Engines,
    Both,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Seen {
    Clear,
    Away,
    Silent,
    Slow,
    Unanswered,
    Late,
}

impl From<Seen> for Sky {
    fn from(seen: Seen) -> Self {
        match seen {
            Seen::Clear => Self::Clear,
            Seen::Away => Self::Away,
            Seen::Silent => Self::Silent,
            Seen::Slow => Self::Slow,
            Seen::Unanswered => Self::Unanswered,
            Seen::Late => Self::Late,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Hand {
    Change,
    Remove,
    Unlink,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Lost {
    Marks,
    Desired,
    /// `desired.json` and `seen.json`.
    All,
    /// What the units directory published.
    Published,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) enum Bad {
    NewUnit,
    Unit,
    Report,
    ReportBase,
    Grant,
    Rollout,
    Metadata,
    Machine,
    Cluster,
    Acceptance,
    File,
}

/// A fleet, and all that happens to it: after each of these milliseconds that step.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Story {
    pub(crate) fleet: Of,
    pub(crate) steps: Vec<(u64, Step)>,
}

/// What a story begins with.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Of {
    pub(crate) seed: u64,
    pub(crate) machines: usize,
    /// Whether what nobody has to mend is left as it is in the end.
    pub(crate) leaves: bool,
}

impl Story {
    /// One line for the fleet and one for each step, to be read by [`Story::parse`].
    pub(crate) fn to_text(&self) -> String {
        let mut text = line(&self.fleet);
        self.steps.iter().for_each(|step| text += &line(step));
        text
    }

    pub(crate) fn parse(text: &str) -> Result<Self, serde_json::Error> {
        let mut lines = text.lines().filter(|line| !line.trim().is_empty());
        let fleet = serde_json::from_str(lines.next().unwrap_or_default())?;
        let steps = lines.map(serde_json::from_str);
        let steps = steps.collect::<Result<_, _>>()?;
        Ok(Self { fleet, steps })
    }
}

/// A line of a story.
fn line<T: Serialize>(of: &T) -> String {
    serde_json::to_string(of).expect("values with text keys") + "\n"
}
