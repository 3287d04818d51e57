//! The operator's changes so far, and therefore the state that every host must have at quiet.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use lab::{Chance, Host, Lab, trail};

/// The number of hosts on which `web.service` may be unavailable at once.
pub(crate) const BUDGET: usize = 2;

/// The largest number of temporary units.
const MOST: usize = 12;

/// A change by an operator.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    /// An update of web.service that works, or one that crashes and must be rolled back.
    Update {
        works: bool,
    },
    Create,
    Stop(u32),
    Start(u32),
    Destroy(u32),
    /// Sets the metadata on a machine, or removes it.
    Label(usize),
    /// Writes a new version of a file in the first host's units directory, or removes the file.
    Drop {
        remove: bool,
    },
}

impl Act {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Update { works: true } => "update",
            Self::Update { works: false } => "update that crashes",
            Self::Create => "start of a new unit",
            Self::Stop(_) => "stop",
            Self::Start(_) => "start of a stopped unit",
            Self::Destroy(_) => "destroy",
            Self::Label(_) => "metadata set or removed",
            Self::Drop { remove: false } => "file dropped or changed",
            Self::Drop { remove: true } => "file removed",
        }
    }
}

/// The wanted state.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// The last submitted version of web.service that works.
    pub(crate) web: u32,
    /// The newest version of anything.
    newest: u32,
    /// The temporary units, and whether they should run.
    pub(crate) units: BTreeMap<u32, bool>,
    /// The units that were destroyed recently.
    pub(crate) destroyed: BTreeSet<u32>,
    /// The hosts with the metadata.
    pub(crate) labelled: BTreeSet<usize>,
    /// The version of the dropped file.
    pub(crate) dropped: Option<u32>,
}

const GLOBAL: &str = "[X-Fleet]\nGlobal=true\n";

fn web(version: u32, works: bool) -> String {
    let after = if works { "" } else { "sleep 1; exit 3" };
    format!(
        "[Service]\nExecStart={} %n {version} '' '{after}'\n{GLOBAL}MaxUnavailable={BUDGET}\nMinReadySec=2\nProgressDeadlineSec=60\n",
        trail::PATH
    )
}

impl Wanted {
    /// Starts the units that every soak has.
    pub(crate) fn start(lab: &Lab) -> Result<Self> {
        let host = lab.host(1);
        for host in lab.hosts() {
            trail::install(host)?;
        }
        // A unit outside fleet, with a name that fleet is given too.
        let foreign = lab.host(2);
        foreign.write_file(
            "/etc/systemd/system/foreign.service",
            "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n",
        )?;
        foreign
            .sh("systemctl daemon-reload; systemctl enable --quiet --now foreign.service")?
            .ok()?;
        let sleeps = "[Service]\nExecStart=/bin/sleep infinity\n";
        let once = "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo ran >> /srv/once'\n";
        let loops = "[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=1\n[Unit]\nStartLimitIntervalSec=0\n";
        let tagged = format!("{sleeps}{GLOBAL}MachineMetadata=soak=yes\n");
        let files = [
            ("control.service", format!("{sleeps}{GLOBAL}")),
            ("once.service", format!("{once}{GLOBAL}")),
            ("loops.service", format!("{loops}{GLOBAL}")),
            ("foreign.service", format!("{sleeps}{GLOBAL}")),
            ("tagged.service", tagged),
            ("web.service", web(1, true)),
        ];
        for (name, content) in &files {
            submit(host, name, content)?;
        }
        drop_file(host, "stays.service", 1)?;
        Ok(Self {
            web: 1,
            newest: 1,
            units: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            labelled: BTreeSet::new(),
            dropped: None,
        })
    }

    pub(crate) fn draw(&self, chance: &mut Chance, hosts: usize) -> Act {
        let units: Vec<u32> = self.units.keys().copied().collect();
        let some = (!units.is_empty()).then(|| chance.pick(&units));
        match (chance.below(10), some) {
            (0..=2, _) => Act::Update { works: true },
            (3, _) => Act::Update { works: false },
            (4, _) => Act::Label(1 + chance.below(hosts)),
            (5, _) => Act::Drop {
                remove: self.dropped.is_some() && chance.below(3) == 0,
            },
            (6, Some(unit)) if self.units[&unit] => Act::Stop(unit),
            (6, Some(unit)) => Act::Start(unit),
            (7, Some(unit)) => Act::Destroy(unit),
            (_, Some(unit)) if units.len() >= MOST => Act::Destroy(unit),
            _ => Act::Create,
        }
    }

    /// Adds a change to the wanted state. Each version is new.
    pub(crate) fn ask(&mut self, act: &Act) {
        match act {
            Act::Update { works } => {
                self.newest += 1;
                if *works {
                    self.web = self.newest;
                }
            }
            Act::Create => {
                self.newest += 1;
                self.units.insert(self.newest, true);
            }
            Act::Stop(unit) => drop(self.units.insert(*unit, false)),
            Act::Start(unit) => drop(self.units.insert(*unit, true)),
            Act::Destroy(unit) => {
                self.units.remove(unit);
                self.destroyed.insert(*unit);
            }
            Act::Label(host) => {
                if !self.labelled.remove(host) {
                    self.labelled.insert(*host);
                }
            }
            Act::Drop { remove: true } => self.dropped = None,
            Act::Drop { remove: false } => {
                self.newest += 1;
                self.dropped = Some(self.newest);
            }
        }
    }

    /// Makes the last change, on this host. After an error, the change was not acknowledged, and
    /// may have been made or not.
    pub(crate) fn carry_out(&self, act: &Act, lab: &Lab, speaker: &Host) -> Result<()> {
        match act {
            Act::Update { works } => {
                submit(speaker, "web.service", &web(self.newest, *works))?;
            }
            Act::Create => {
                let content = format!("[Service]\nExecStart=/bin/sleep infinity\n{GLOBAL}");
                submit(speaker, &unit(self.newest), &content)?;
            }
            Act::Stop(number) => {
                let name = unit(*number);
                speaker.fleetctl(&["stop", "--no-block", &name])?.ok()?;
            }
            Act::Start(number) => {
                let name = unit(*number);
                speaker.fleetctl(&["start", "--no-block", &name])?.ok()?;
            }
            Act::Destroy(number) => {
                speaker.fleetctl(&["destroy", &unit(*number)])?.ok()?;
            }
            Act::Label(number) => {
                let change = if self.labelled.contains(number) {
                    "soak=yes"
                } else {
                    "soak-"
                };
                let id = lab.host(*number).machine_id();
                speaker.fleetctl(&["metadata", &id, change])?.ok()?;
            }
            Act::Drop { remove: true } => {
                lab.host(1)
                    .sh("rm -f /etc/fleet/units/dropped.service")?
                    .ok()?;
            }
            Act::Drop { remove: false } => drop_file(lab.host(1), "dropped.service", self.newest)?,
        }
        Ok(())
    }
}

/// Returns the name of a temporary unit.
pub(crate) fn unit(number: u32) -> String {
    format!("soak-{number}.service")
}

/// Writes the file beside its place and renames it, as an editor or a package does.
fn drop_file(host: &Host, name: &str, version: u32) -> Result<()> {
    let content = format!(
        "[Unit]\nDescription=version {version}\n[Service]\nExecStart=/bin/sleep {}\n{GLOBAL}",
        1_000_000 + version
    );
    host.write_file(&format!("/root/{name}"), content)?;
    host.sh(&format!(
        "mkdir -p /etc/fleet/units; cp /root/{name} /etc/fleet/units/.{name}.new; mv /etc/fleet/units/.{name}.new /etc/fleet/units/{name}"
    ))?
    .ok()
    .map(drop)
}

fn submit(host: &Host, name: &str, content: &str) -> Result<()> {
    let file = format!("/root/{name}");
    host.write_file(&file, content)?;
    let output = host.fleetctl(&["start", "--replace", "--no-block", &file])?;
    if output.code != 0 {
        bail!("{}", output.ok().expect_err("failed"));
    }
    Ok(())
}
