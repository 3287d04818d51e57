//! The requirements of a lab: checks, the next step if one is missing, and skipped tests.

use std::env;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result, ensure};

use crate::exec::run;
use crate::{cgroup, rootfs};

/// A program, and the distribution package that has it.
pub type Program = (&'static str, &'static str);

/// The programs of every lab.
pub const LAB: &[Program] = &[
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
];

/// The additional programs of single tests.
pub const TESTS: &[Program] = &[("python3", "python3"), ("faketime", "faketime")];

/// Set to 1 where no test may be skipped, such as in CI. The test then fails instead.
pub const MUST_RUN: &str = "FLEET_TESTS_MUST_RUN";

/// A variable with a file that gets a line for each skipped test. The test harness hides the output
/// of passing tests.
pub const SKIPPED: &str = "FLEET_TESTS_SKIPPED";

/// The wanted limit of inotify instances. About twenty systemds use up the kernel's usual 128.
const INOTIFY_INSTANCES: u32 = 4096;

/// Checks that this machine can run a lab.
///
/// # Errors
/// The first missing requirement, and how to meet it.
pub fn requirements() -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "needs Linux");
    ensure!(is_root(), "needs root");
    rootfs::suite()?;
    installed(LAB)?;
    let unified = cgroup::hierarchies()?.remove(0);
    // Several threads of a test process call this at once.
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    let probe = unified.join(format!("fleet-probe-{}-{asked}", std::process::id()));
    fs::create_dir_all(&probe)
        .and_then(|()| fs::remove_dir(&probe))
        .with_context(|| format!("needs to make cgroups in {}", unified.display()))
}

/// Checks that these programs are installed.
///
/// # Errors
/// The packages that are missing.
pub fn installed(programs: &[Program]) -> Result<()> {
    let missing = missing_packages(programs);
    ensure!(
        missing.is_empty(),
        "needs the packages {0}: apt-get install {0}",
        missing.join(" ")
    );
    Ok(())
}

/// Installs the missing distribution packages of these programs with apt-get. Needs root.
pub fn install_packages(programs: &[Program]) -> Result<()> {
    rootfs::suite()?;
    let missing = missing_packages(programs);
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {} with apt-get", missing.join(" "));
    // Debian starts what it installs, and this machine needs no etcd of its own.
    let guarded = Path::new("/run/systemd/system").exists() && missing.contains(&"etcd-server");
    if guarded {
        run(&["systemctl", "mask", "--runtime", "etcd.service"])?.ok()?;
    }
    // If the lists are missing or stale, the installation fails and says why. A broken third-party
    // list is ignored.
    let _ = run(&["apt-get", "update", "--quiet"])?;
    let install = [
        "env",
        "DEBIAN_FRONTEND=noninteractive",
        "apt-get",
        "install",
        "--yes",
        "--quiet",
    ];
    let installed = run(&[&install, missing.as_slice()].concat());
    if guarded {
        run(&["systemctl", "unmask", "--runtime", "etcd.service"])?.ok()?;
    }
    installed?.ok().map(drop)
}

/// Raises the kernel's limits. The change lasts until the machine reboots, and is harmless.
pub(crate) fn raise_limits() -> Result<()> {
    let limit = Path::new("/proc/sys/fs/inotify/max_user_instances");
    if fs::read_to_string(limit)?.trim().parse::<u32>()? < INOTIFY_INSTANCES {
        fs::write(limit, INOTIFY_INSTANCES.to_string())?;
    }
    Ok(())
}

/// Prints and records that the calling test is skipped because of `why`.
///
/// # Panics
/// If tests must run ([`MUST_RUN`]).
pub fn skip(why: &str) {
    assert!(
        env::var_os(MUST_RUN).is_none_or(|value| value != "1"),
        "{MUST_RUN}=1, but this test {why}"
    );
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}", thread.name().unwrap_or("a test"));
    println!("{line}");
    if let Some(path) = env::var_os(SKIPPED)
        && let Ok(mut file) = File::options().create(true).append(true).open(path)
    {
        let _ = writeln!(file, "{line}");
    }
}

/// Returns whether this process runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn missing_packages(programs: &[Program]) -> Vec<&'static str> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        |program: &str| env::split_paths(&path).any(|directory| directory.join(program).is_file());
    programs
        .iter()
        .filter(|(program, _)| !found(program))
        .map(|(_, package)| *package)
        .collect()
}
