//! The hosts' root file systems: a minimal Debian or Ubuntu, made once for each release and shared
//! by all hosts of it.
//!
//! Hosts run this machine's own release, or a newer one that a test names: binaries built here run
//! on both.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::exec::run;
use crate::folders;

/// The packages of a plain host, and those that `fleetctl` needs to reach it from another one:
/// sudo, and an SSH server that is off until a test starts it.
const PACKAGES: &str = "systemd,systemd-sysv,dbus,iproute2,libpam-systemd,openssh-server,sudo";

/// Units that would run or write at unexpected moments.
const MASKED: &[&str] = &[
    "apt-daily.timer",
    "apt-daily-upgrade.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "systemd-tmpfiles-clean.timer",
];

/// The journal survives a reboot and loses nothing, because it explains failed tests.
const JOURNALD: &str =
    "[Journal]\nStorage=persistent\nSystemMaxUse=64M\nRateLimitBurst=0\nForwardToConsole=no\n";

/// Returns the release of this machine, which its hosts get too, such as `bookworm`.
pub(crate) fn suite() -> Result<String> {
    let text = fs::read_to_string("/etc/os-release")
        .context("needs Debian or Ubuntu: no /etc/os-release")?;
    let of = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
            .map(|value| value.trim_matches('"'))
    };
    match (of("ID"), of("VERSION_CODENAME")) {
        (Some("debian" | "ubuntu"), Some(suite)) => Ok(suite.to_owned()),
        (id, _) => bail!(
            "needs Debian or Ubuntu, this is {}",
            id.unwrap_or("unknown")
        ),
    }
}

/// Returns the releases on which the most important behaviours are tested: this machine's own, then
/// the Debian after it.
pub(crate) fn suites() -> Result<Vec<String>> {
    let own = suite()?;
    let next = (own == "bookworm").then(|| "trixie".to_owned());
    Ok([own].into_iter().chain(next).collect())
}

/// Returns the finished root file system of a release. If it is missing, it is made in half a
/// minute, with about 250 MB.
pub(crate) fn provide(suite: &str) -> Result<PathBuf> {
    let mut recipe = DefaultHasher::new();
    (suite, PACKAGES, MASKED, JOURNALD).hash(&mut recipe);
    once(recipe.finish(), |root| make(suite, root))
}

/// Returns the directory that holds what `make` makes for this recipe, made now if it is missing.
pub(crate) fn once(recipe: u64, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let name = format!("rootfs-{recipe:016x}");
    let finished = folders::base().join(&name);
    // Only users of this recipe wait for it.
    let _turn = folders::turn(&name)?;
    if !finished.exists() {
        let unfinished = finished.with_extension("unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)?;
        }
        make(&unfinished)?;
        fs::rename(&unfinished, &finished)?;
    }
    Ok(finished)
}

fn make(suite: &str, root: &Path) -> Result<()> {
    let text = root
        .to_str()
        .context("the target directory's path is not UTF-8")?;
    eprintln!("lab: making the root file system of {suite} hosts, once");
    run(&[
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        &format!("--include={PACKAGES}"),
        suite,
        text,
    ])?
    .ok()?;
    for unit in MASKED {
        symlink("/dev/null", root.join("etc/systemd/system").join(unit))?;
    }
    fs::write(root.join("etc/systemd/journald.conf"), JOURNALD)?;
    // A lab has no name server. Queries would only add seconds of silence.
    fs::write(root.join("etc/resolv.conf"), "")?;
    run(&["systemctl", "--root", text, "disable", "ssh.service"])?.ok()?;
    Ok(())
}
