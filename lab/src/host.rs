//! One host: systemd as PID 1 on an overlay of its own, and the operations on it for tests.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::mount::{MountFlags, mount};
use rustix::process::{Pid, Signal, kill_process};

use crate::cgroup::Cgroup;
use crate::exec::{self, Output};
use crate::folders::Folder;
use crate::network::{self, Link};
use crate::wait::wait_until;

/// The time limit of one command inside a host. The slowest, a fleetctl that waits for units, takes
/// a few seconds.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);
/// The time limit of a question that is asked again and again.
const LOOK_LIMIT: Duration = Duration::from_secs(5);
/// How much later a command is ended from outside, if that cannot be done inside the host.
const MARGIN: Duration = Duration::from_secs(5);
/// The time limit of a boot. A second is usual. Thirty hosts at once on two cores have taken ten.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// The time limit of an orderly shutdown. systemd itself would wait 90 s for a unit that ignores
/// SIGTERM.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30);

/// The ids of the first hosts. They are fixed, so that listings can be compared, and sorted like
/// the hosts.
const MACHINE_IDS: [&str; 3] = [
    "190c6f8fbbd25efb88aad49e6c499b79",
    "c46a8acecb14499365bce5a3533bd6c5",
    "d77c07da461707ed4699d4df0c87385e",
];

/// What a host boots.
#[derive(Debug)]
pub(crate) struct System {
    pub(crate) suite: String,
    pub(crate) rootfs: PathBuf,
    /// Containers inside the host need more rights than systemd does.
    pub(crate) runs_containers: bool,
}

/// A real systemd host. All methods take `&self`, so that a test may hold several hosts.
#[derive(Debug)]
pub struct Host {
    number: usize,
    name: String,
    suite: String,
    runs_containers: bool,
    /// A name that is unique on this machine, unlike `name`.
    container: String,
    link: Link,
    cgroup: Cgroup,
    root: PathBuf,
    console: PathBuf,
    powered: Mutex<Option<Powered>>,
}

#[derive(Debug)]
struct Powered {
    nspawn: Child,
    pid1: Pid,
}

impl Host {
    /// Prepares host `number` (from 1) with a release of Debian or Ubuntu, switched off.
    pub(crate) fn create(folder: &Folder, system: &System, number: usize) -> Result<Self> {
        let name = format!("n{number}");
        let layers = folder.ram().join(&name);
        let [upper, work, root] = ["upper", "work", "root"].map(|layer| layers.join(layer));
        for layer in [&upper, &work, &root] {
            fs::create_dir_all(layer)?;
        }
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            system.rootfs.display(),
            upper.display(),
            work.display()
        );
        mount(
            "overlay",
            &root,
            "overlay",
            MountFlags::empty(),
            CString::new(options)?.as_c_str(),
        )
        .with_context(|| format!("cannot mount the overlay of {name}"))?;
        let host = Self {
            number,
            container: network::prefix(&folder.id) + &name,
            link: Link::create(&folder.id, &name, &address(number))?,
            cgroup: Cgroup::new(&folder.id, &name)?,
            console: layers.join("console.log"),
            root,
            name,
            suite: system.suite.clone(),
            runs_containers: system.runs_containers,
            powered: Mutex::default(),
        };
        host.write_file("/etc/hostname", format!("{}\n", host.name))?;
        host.write_file("/etc/machine-id", format!("{}\n", host.machine_id()))?;
        Ok(host)
    }

    /// Returns the host's number, counted from 1.
    pub fn number(&self) -> usize {
        self.number
    }

    /// Returns the host name: `n1`, `n2`, ...
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the release of Debian or Ubuntu, such as `bookworm`.
    pub fn suite(&self) -> &str {
        &self.suite
    }

    /// Returns the address on the lab's network: `10.99.1.<number>`.
    pub fn address(&self) -> String {
        address(self.number)
    }

    /// Returns the content of /etc/machine-id. It is the same for the same number in every lab.
    pub fn machine_id(&self) -> String {
        MACHINE_IDS.get(self.number - 1).map_or_else(
            // The ids also differ in the part that fleetctl shows.
            || format!("e{:07x}{:024x}", self.number, 0),
            |id| (*id).to_owned(),
        )
    }

    /// Returns this host's cable.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Cuts the network: nothing arrives and nothing leaves.
    pub fn partition(&self) -> Result<()> {
        self.link.cut()
    }

    /// Restores the network.
    pub fn heal(&self) -> Result<()> {
        self.link.restore()
    }

    /// Returns the pid of the host's PID 1 on this machine. It is an error while the host is off.
    pub fn pid1(&self) -> Result<i32> {
        let powered = self.powered();
        let powered = powered
            .as_ref()
            .with_context(|| format!("host {} is off", self.name))?;
        Ok(powered.pid1.as_raw_nonzero().get())
    }

    /// Returns this machine's path of a file on the host. It leads to sockets of the host, and to
    /// files in its /run.
    ///
    /// An absolute symbolic link in it (/var/run is one) leads out of the host, so name the real
    /// place.
    pub fn path(&self, path: &str) -> PathBuf {
        let root = self.pid1().map_or_else(
            |_| self.root.clone(),
            |pid| format!("/proc/{pid}/root").into(),
        );
        root.join(path.trim_start_matches('/'))
    }

    /// Runs a command inside the host, as root, for at most a minute.
    ///
    /// # Errors
    /// If the host is off or the time is up. A failure of the command itself is in the [`Output`].
    pub fn exec(&self, command: &[&str]) -> Result<Output> {
        self.exec_within(COMMAND_LIMIT, command)
    }

    fn exec_within(&self, limit: Duration, command: &[&str]) -> Result<Output> {
        let pid = self.pid1()?.to_string();
        let seconds = limit.as_secs().to_string();
        let outer = (limit + MARGIN).as_secs().to_string();
        let started = Instant::now();
        // The inner `timeout` runs inside the host, so that it ends the command itself. The outer
        // one ends an nsenter that is stopped: a soft reboot stops all processes of the host before
        // it kills them, and nsenter stops with its child.
        let output = exec::finish(
            Command::new("timeout")
                .args(["--kill-after=2", &outer])
                .args(["nsenter", "-t", &pid, "-a", "--"])
                .args(["timeout", "--kill-after=2", &seconds])
                .args(command)
                .env_clear()
                .env(
                    "PATH",
                    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                )
                .env("HOME", "/root"),
            format!("{}# {}", self.name, command.join(" ")),
        )?;
        if started.elapsed() >= limit {
            bail!("`{}` did not end within {limit:?}", output.command);
        }
        Ok(output)
    }

    /// Runs a shell script inside the host. Redirect the output of processes that keep running.
    pub fn sh(&self, script: &str) -> Result<Output> {
        self.exec(&["sh", "-c", script])
    }

    /// Writes a file, and the directories above it. The host may be off.
    pub fn write_file(&self, path: &str, content: impl AsRef<[u8]>) -> Result<()> {
        let file = self.path(path);
        file.parent().map(fs::create_dir_all).transpose()?;
        fs::write(&file, content).with_context(|| format!("cannot write {path} on {}", self.name))
    }

    /// Reads a file. The host may be off.
    pub fn read_file(&self, path: &str) -> Result<String> {
        fs::read_to_string(self.path(path))
            .with_context(|| format!("cannot read {path} on {}", self.name))
    }

    /// Returns one property of a unit, as `systemctl show` prints it.
    pub fn systemctl_show(&self, unit: &str, property: &str) -> Result<String> {
        let shown = self
            .exec(&[
                "systemctl",
                "show",
                "--value",
                "--property",
                property,
                "--",
                unit,
            ])?
            .ok()?;
        Ok(shown.trim_end().to_owned())
    }

    /// Returns whether a unit's ActiveState is `active`. Returns `false` also if the host cannot
    /// report it.
    pub fn is_active(&self, unit: &str) -> bool {
        self.systemctl_show(unit, "ActiveState")
            .is_ok_and(|state| state == "active")
    }

    /// Returns the pid of a service's main process on the host. 0 if it has none.
    pub fn main_pid(&self, unit: &str) -> Result<u32> {
        let pid = self.systemctl_show(unit, "MainPID")?;
        pid.parse()
            .with_context(|| format!("{unit} has the main pid `{pid}`"))
    }

    /// Ends a service's main process with SIGKILL, like a crash.
    pub fn kill_main(&self, unit: &str) -> Result<()> {
        self.exec(&[
            "systemctl",
            "kill",
            "--signal=KILL",
            "--kill-who=main",
            unit,
        ])?
        .ok()
        .map(drop)
    }

    /// Shuts down in order, then boots, with the same files and a fresh /run.
    pub fn reboot(&self) -> Result<()> {
        self.shut_down()?;
        self.power_on()
    }

    /// Shuts down in order, and stays off.
    pub fn shut_down(&self) -> Result<()> {
        self.exec(&["systemctl", "poweroff", "--no-block"])?.ok()?;
        wait_until(
            SHUTDOWN_LIMIT,
            &format!("host {} is off", self.name),
            || match self.powered().as_mut() {
                Some(powered) => Ok(powered.nspawn.try_wait()?.is_some()),
                None => Ok(true),
            },
        )?;
        *self.powered() = None;
        Ok(())
    }

    /// Restarts userspace, and waits until systemd has done so. The kernel, its boot id, and /run
    /// stay. systemd supports it since version 254.
    pub fn soft_reboot(&self) -> Result<()> {
        let before = self.soft_reboots()?;
        self.exec(&["systemctl", "soft-reboot", "--no-block"])?
            .ok()?;
        wait_until(
            BOOT_LIMIT,
            &format!("host {} begins again", self.name),
            // Nothing answers in between.
            || Ok(self.soft_reboots().is_ok_and(|now| now > before)),
        )?;
        self.await_end_of_boot().map(drop)
    }

    fn soft_reboots(&self) -> Result<u32> {
        let show = [
            "systemctl",
            "show",
            "--value",
            "--property=SoftRebootsCount",
        ];
        let count = self.exec_within(LOOK_LIMIT, &show)?;
        let count = count.ok()?;
        let count = count.trim_end().parse();
        count.with_context(|| format!("systemd of {} knows no soft reboot", self.name))
    }

    /// Cuts the power: nothing is stopped in order, and nothing more is written.
    pub fn power_off(&self) -> Result<()> {
        if let Some(mut powered) = self.powered().take() {
            // Ending PID 1 of a pid namespace ends all of it. systemd-nspawn then ends by itself.
            kill_process(powered.pid1, Signal::KILL)?;
            powered.nspawn.wait()?;
        }
        Ok(())
    }

    /// Boots, and waits until systemd has finished; units of a test may fail. A host that is on
    /// loses its power first.
    pub fn power_on(&self) -> Result<()> {
        self.power_off()?;
        self.switch_on()?;
        self.await_end_of_boot().map(drop)
    }

    /// Starts PID 1 and returns at once, so that several hosts boot together.
    pub(crate) fn switch_on(&self) -> Result<()> {
        let root = self.root.display().to_string();
        let (containers, routes): (&[&str], _) = if self.runs_containers {
            (
                &[
                    "--capability=all",
                    // These two would reach past the host, to the kernel and its clock.
                    "--drop-capability=CAP_SYS_MODULE,CAP_SYS_TIME",
                    "--system-call-filter=add_key keyctl request_key bpf",
                ],
                Some(("SYSTEMD_NSPAWN_API_VFS_WRITABLE", "network")),
            )
        } else {
            (&[], None)
        };
        let mut nspawn = self
            .cgroup
            .launch(&[
                "systemd-nspawn",
                "--quiet",
                "--boot",
                "--register=no",
                "--keep-unit",
                "--console=pipe",
                "--link-journal=no",
                "--resolv-conf=off",
                "--timezone=off",
                &format!("--directory={root}"),
                &format!("--machine={}", self.container),
                &format!("--hostname={}", self.name),
                &format!("--network-namespace-path={}", self.link.path()),
            ])?
            .args(containers)
            .env("SYSTEMD_NSPAWN_UNIFIED_HIERARCHY", "1")
            .envs(routes)
            .stdin(Stdio::null())
            .stdout(
                File::options()
                    .create(true)
                    .append(true)
                    .open(&self.console)?,
            )
            .stderr(
                File::options()
                    .create(true)
                    .append(true)
                    .open(&self.console)?,
            )
            .spawn()
            .context("cannot start `sh`")?;
        let mut found = None;
        let booting = wait_until(
            BOOT_LIMIT,
            &format!("host {} has a PID 1", self.name),
            || {
                found = first_process(nspawn.id());
                Ok(found.is_some() || nspawn.try_wait()?.is_some())
            },
        );
        let Some(pid1) = found else {
            let console = fs::read_to_string(&self.console).unwrap_or_default();
            bail!(
                "host {} did not boot ({booting:?}); its console says:\n{console}",
                self.name
            );
        };
        *self.powered() = Some(Powered { nspawn, pid1 });
        Ok(())
    }

    /// Waits for the end of the first boot, before a test can have changed anything.
    pub(crate) fn await_boot(&self) -> Result<()> {
        if self.await_end_of_boot()? == "degraded" {
            bail!(
                "host {} booted with failed units:\n{}",
                self.name,
                self.sh("systemctl --failed --no-legend")?.stdout
            );
        }
        Ok(())
    }

    /// Waits for the end of a boot, and returns the state that systemd reports.
    fn await_end_of_boot(&self) -> Result<String> {
        let mut state = String::new();
        wait_until(
            BOOT_LIMIT,
            &format!("host {} has booted", self.name),
            || {
                state = self.exec(&["systemctl", "is-system-running"])?.stdout;
                Ok(matches!(state.trim_end(), "running" | "degraded"))
            },
        )?;
        Ok(state.trim_end().to_owned())
    }

    /// Returns the last `lines` of the journal, over all boots, oldest first. The host may be off.
    pub fn journal(&self, lines: usize) -> Result<String> {
        let directory = self.root.join("var/log/journal").display().to_string();
        let lines = format!("--lines={lines}");
        exec::run(&[
            "journalctl",
            "--directory",
            &directory,
            "--output=short-precise",
            "--no-pager",
            &lines,
        ])?
        .ok()
    }

    /// Returns an error, followed by the end of this host's journal.
    pub(crate) fn explained(&self, error: &anyhow::Error) -> anyhow::Error {
        let journal = self.journal(30).unwrap_or_default();
        anyhow!("{error:#}\n--- journal of {} ---\n{journal}", self.name)
    }

    /// Returns the path of the host's console output, from its boot to its shutdown.
    pub(crate) fn console(&self) -> &Path {
        &self.console
    }

    /// Waits for the process of a host that was ended from outside.
    pub(crate) fn reap(&self) {
        if let Some(mut powered) = self.powered().take() {
            let _ = powered.nspawn.wait();
        }
    }

    fn powered(&self) -> MutexGuard<'_, Option<Powered>> {
        // A panic while it was locked leaves nothing half done.
        self.powered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(number: usize) -> String {
    format!("10.99.1.{number}")
}

/// Returns the child of a systemd-nspawn that is the first process of a pid namespace. The child
/// before it only sets up the mounts.
fn first_process(nspawn: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{nspawn}/task/{nspawn}/children")).ok()?;
    children.split_whitespace().find_map(|pid| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let namespaces = status
            .lines()
            .find_map(|line| line.strip_prefix("NSpid:"))?;
        let is_first = namespaces.split_whitespace().count() > 1 && namespaces.ends_with("\t1");
        is_first.then(|| Pid::from_raw(pid.parse().ok()?)).flatten()
    })
}
