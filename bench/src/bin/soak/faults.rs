//! The faults: drawn, inflicted on hosts and etcd members, and repaired.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Chance, Host, Lab};

/// A fault, with the numbers of the hosts or members concerned.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Nothing,
    FleetdKilled(Vec<usize>),
    LeaderKilled,
    FleetdStalled(usize),
    HostsCutOff(Vec<usize>),
    LeaderCutOff,
    HostRebooted(usize),
    HostWithoutPower(usize),
    MemberKilled(usize),
    MemberStalled(usize),
    MemberCutOff(usize),
    EtcdDown,
    BusRestarted(usize),
    SystemdReexecuted(usize),
    FleetdUpgraded(Vec<usize>),
}

/// How a fault is repaired.
enum Cure {
    None,
    Continue { host: usize, pid: u32 },
    Heal(Vec<usize>),
    PowerOn(usize),
    StartMembers(Vec<usize>),
    ResumeMember(usize),
    HealMember(usize),
}

/// A fault that lasts until it is repaired.
pub(crate) struct Struck {
    /// The hosts whose units went down with it, for reasons other than fleet.
    pub(crate) rebooted: BTreeSet<usize>,
    cure: Cure,
}

impl Fault {
    pub(crate) fn draw(chance: &mut Chance, hosts: usize, members: usize) -> Self {
        let host = 1 + chance.below(hosts);
        let member = 1 + chance.below(members);
        match chance.below(20) {
            0 => Self::Nothing,
            1 | 2 => {
                let count = 1 + chance.below(hosts);
                Self::FleetdKilled(chance.some(count, hosts))
            }
            3 | 4 => Self::LeaderKilled,
            5 => Self::FleetdStalled(host),
            6 => {
                let count = 1 + chance.below(3);
                Self::HostsCutOff(chance.some(count, hosts))
            }
            7 => Self::HostsCutOff((1..=hosts).collect()),
            8 | 9 => Self::LeaderCutOff,
            10 => Self::HostRebooted(host),
            11 => Self::HostWithoutPower(host),
            12 => Self::MemberKilled(member),
            13 => Self::MemberStalled(member),
            14 => Self::MemberCutOff(member),
            15 | 16 => Self::EtcdDown,
            17 => Self::BusRestarted(host),
            18 => Self::SystemdReexecuted(host),
            _ => {
                let count = 1 + chance.below(hosts);
                Self::FleetdUpgraded(chance.some(count, hosts))
            }
        }
    }

    /// Returns the kind of fault, without the hosts concerned.
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::FleetdKilled(_) => "fleetd killed (SIGKILL)",
            Self::LeaderKilled => "the leader's fleetd killed (SIGKILL)",
            Self::FleetdStalled(_) => "fleetd stopped (SIGSTOP) and continued",
            Self::HostsCutOff(_) => "hosts cut off and returned",
            Self::LeaderCutOff => "the leader cut off and returned",
            Self::HostRebooted(_) => "host rebooted",
            Self::HostWithoutPower(_) => "host lost its power and got it back",
            Self::MemberKilled(_) => "one etcd member of three killed",
            Self::MemberStalled(_) => "one etcd member stopped (SIGSTOP)",
            Self::MemberCutOff(_) => "one etcd member cut off",
            Self::EtcdDown => "all etcd members killed",
            Self::BusRestarted(_) => "system bus restarted",
            Self::SystemdReexecuted(_) => "PID 1 reexecuted",
            Self::FleetdUpgraded(_) => "fleetd upgraded",
        }
    }

    /// Inflicts the fault.
    pub(crate) fn strike(&self, lab: &Lab) -> Result<Struck> {
        let mut rebooted = BTreeSet::new();
        let cure = match self {
            Self::Nothing => Cure::None,
            Self::FleetdKilled(hosts) => {
                for number in hosts {
                    kill(lab.host(*number))?;
                }
                Cure::None
            }
            Self::LeaderKilled => {
                kill(lab.host(leader(lab)?))?;
                Cure::None
            }
            Self::FleetdStalled(number) => {
                let host = lab.host(*number);
                let pid = host.main_pid("fleet.service")?;
                signal(host, "STOP", pid)?;
                Cure::Continue { host: *number, pid }
            }
            Self::HostsCutOff(hosts) => {
                for number in hosts {
                    lab.host(*number).partition()?;
                }
                Cure::Heal(hosts.clone())
            }
            Self::LeaderCutOff => {
                let number = leader(lab)?;
                lab.host(number).partition()?;
                Cure::Heal(vec![number])
            }
            Self::HostRebooted(number) => {
                rebooted.insert(*number);
                lab.host(*number).reboot()?;
                Cure::None
            }
            Self::HostWithoutPower(number) => {
                rebooted.insert(*number);
                lab.host(*number).power_off()?;
                Cure::PowerOn(*number)
            }
            Self::MemberKilled(number) => {
                lab.member(*number).kill()?;
                Cure::StartMembers(vec![*number])
            }
            Self::MemberStalled(number) => {
                lab.member(*number).pause()?;
                Cure::ResumeMember(*number)
            }
            Self::MemberCutOff(number) => {
                lab.member(*number).partition()?;
                Cure::HealMember(*number)
            }
            Self::EtcdDown => {
                lab.members().iter().try_for_each(lab::Member::kill)?;
                Cure::StartMembers((1..=lab.members().len()).collect())
            }
            Self::BusRestarted(number) => {
                let host = lab.host(*number);
                host.exec(&["systemctl", "restart", "dbus.service"])?.ok()?;
                Cure::None
            }
            Self::SystemdReexecuted(number) => {
                let host = lab.host(*number);
                host.exec(&["systemctl", "daemon-reexec"])?.ok()?;
                Cure::None
            }
            Self::FleetdUpgraded(hosts) => {
                for number in hosts {
                    let host = lab.host(*number);
                    host.install_fleet(&crate::conf(lab))?;
                    host.exec(&["systemctl", "restart", "fleet.service"])?
                        .ok()?;
                }
                Cure::None
            }
        };
        Ok(Struck { rebooted, cure })
    }
}

impl Struck {
    /// Repairs the fault.
    pub(crate) fn repair(&self, lab: &Lab) -> Result<()> {
        match &self.cure {
            Cure::None => {}
            // systemd may have ended the process meanwhile, because its watchdog got no response.
            Cure::Continue { host, pid } => drop(signal(lab.host(*host), "CONT", *pid)),
            Cure::Heal(hosts) => {
                for number in hosts {
                    lab.host(*number).heal()?;
                }
            }
            Cure::PowerOn(number) => lab.host(*number).power_on()?,
            Cure::StartMembers(members) => {
                for number in members {
                    lab.member(*number).start()?;
                }
                for number in members {
                    lab.member(*number).await_healthy()?;
                }
            }
            Cure::ResumeMember(number) => lab.member(*number).resume()?,
            Cure::HealMember(number) => lab.member(*number).heal()?,
        }
        Ok(())
    }
}

/// Waits while a fault lasts, before the operator's change in the middle of it. The time is shorter
/// or longer than a lease.
pub(crate) fn while_it_lasts(chance: &mut Chance) {
    thread::sleep(Duration::from_millis(
        chance.pick(&[100, 500, 2_000, 6_000]),
    ));
}

fn signal(host: &Host, signal: &str, pid: u32) -> Result<()> {
    host.exec(&["kill", &format!("-{signal}"), &pid.to_string()])?
        .ok()
        .map(drop)
}

fn kill(host: &Host) -> Result<()> {
    signal(host, "KILL", host.main_pid("fleet.service")?)
}

/// Returns the number of the leading host. One leads before every fault.
fn leader(lab: &Lab) -> Result<usize> {
    let mut leads = None;
    lab.wait_until(Duration::from_secs(30), "an engine leads", || {
        let status = lab.host(1).fleetctl(&["status"])?.stdout;
        leads = lab
            .hosts()
            .iter()
            .find(|host| status.contains(&format!("Leader: {}", host.machine_id())))
            .map(Host::number);
        Ok(leads.is_some())
    })?;
    leads.context("no engine leads")
}
