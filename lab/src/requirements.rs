//! What a machine needs to hold a lab, what to do about it, and how a test that cannot run says so.

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

/// What every lab runs.
pub const LAB: &[Program] = &[
    ("systemd-nspawn", "systemd-container"),
    ("mmdebstrap", "mmdebstrap"),
    ("etcd", "etcd-server"),
    ("etcdctl", "etcd-client"),
    ("ip", "iproute2"),
    ("nsenter", "util-linux"),
];

/// What single tests run besides.
pub const TESTS: &[Program] = &[("python3", "python3"), ("faketime", "faketime")];

/// Set to 1 where a skipped test would be a lie, such as in CI: it fails instead.
pub const MUST_RUN: &str = "FLEET_TESTS_MUST_RUN";

/// Names a file that collects a line for each skipped test. The test harness hides what a passing
/// test prints.
pub const SKIPPED: &str = "FLEET_TESTS_SKIPPED";

/// About twenty systemds use up the kernel's usual 128 inotify instances.
const INOTIFY_INSTANCES: u32 = 4096;

/// Whether this machine can hold a lab.
///
/// # Errors
/// The first thing that is missing, and what to do about it.
pub fn requirements() -> Result<()> {
    ensure!(cfg!(target_os = "linux"), "needs Linux");
    ensure!(is_root(), "needs root");
    rootfs::suite()?;
    installed(LAB)?;
    let unified = cgroup::hierarchies()?.remove(0);
    // Tests ask from several threads at once.
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    let probe = unified.join(format!("fleet-probe-{}-{asked}", std::process::id()));
    fs::create_dir_all(&probe)
        .and_then(|()| fs::remove_dir(&probe))
        .with_context(|| format!("needs to make cgroups in {}", unified.display()))
}

/// Whether these programs are there.
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

/// Installs the distribution packages of these programs that are missing, with apt-get. Needs root.
pub fn install_packages(programs: &[Program]) -> Result<()> {
    rootfs::suite()?;
    let missing = missing_packages(programs);
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {} with apt-get", missing.join(" "));
    // Debian starts what it installs, and this machine did not ask for an etcd of its own.
    let guarded = Path::new("/run/systemd/system").exists() && missing.contains(&"etcd-server");
    if guarded {
        run(&["systemctl", "mask", "--runtime", "etcd.service"])?.ok()?;
    }
    // Without lists, or with stale ones, the install fails and says why; a broken third-party list
    // is not our concern.
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

/// Prepares what the kernel limits. The change lasts until the machine reboots, and harms nothing.
pub(crate) fn raise_limits() -> Result<()> {
    let limit = Path::new("/proc/sys/fs/inotify/max_user_instances");
    if fs::read_to_string(limit)?.trim().parse::<u32>()? < INOTIFY_INSTANCES {
        fs::write(limit, INOTIFY_INSTANCES.to_string())?;
    }
    Ok(())
}

/// Whether the calling test shall return at once because of `why`, which is printed and collected.
///
/// # Panics
/// Where tests must run ([`MUST_RUN`]).
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

/// Whether this process is root.
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
