//! fleet on the hosts of a lab, installed like a package.

use std::env;
use std::fmt::{self, Display};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, ensure};

use crate::cluster::Lab;
use crate::exec::Output;
use crate::{Host, folders};

/// Returns the root of the source tree.
pub fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// A variable with the directory of an up-to-date fleetd and fleetctl, such as one that was just
/// built.
pub const BINARIES: &str = "FLEET_BINARIES";

/// Returns the directory with fleetd and fleetctl. They are built if they are not up to date, once
/// in a process. Tests and the demo use cargo's dev profile, which builds fastest. Programs built
/// in release, such as the figures, use release.
pub fn binaries() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.clone().map_err(|error| anyhow!(error))
}

fn build() -> Result<PathBuf> {
    if let Some(directory) = env::var_os(BINARIES) {
        return Ok(directory.into());
    }
    let (profile, directory) = if cfg!(debug_assertions) {
        ("dev", "debug")
    } else {
        ("release", "release")
    };
    let status = cargo()
        .args(["build", "--quiet", "--profile", profile])
        .args(["--package=fleetd", "--package=fleetctl"])
        .status()
        .context("cannot start cargo")?;
    ensure!(
        status.success(),
        "cargo build of fleetd and fleetctl failed"
    );
    Ok(folders::target().join(directory))
}

/// Returns cargo in the source tree, as a person would run it. Variables that an outer cargo set
/// for a test are removed: ring's build script takes them for a change, and would run again in
/// every test run.
pub fn cargo() -> Command {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(&name);
        }
    }
    cargo.current_dir(repository());
    cargo
}

/// The content of /etc/fleet/fleet.conf.
#[derive(Debug, Clone)]
pub struct FleetConf {
    lines: Vec<String>,
}

impl FleetConf {
    /// Returns a configuration with these etcd endpoints. Without endpoints, the line is left out.
    pub fn new(endpoints: &[String]) -> Self {
        let servers: Vec<String> = endpoints
            .iter()
            .map(|endpoint| format!("\"{endpoint}\""))
            .collect();
        let lines = if servers.is_empty() {
            vec![]
        } else {
            vec![format!("etcd_servers=[{}]", servers.join(","))]
        };
        Self { lines }
    }

    /// Adds static metadata, such as `region=us-west,az=1`.
    pub fn metadata(self, pairs: &str) -> Self {
        self.line(&format!("metadata=\"{pairs}\""))
    }

    /// Adds one more line, such as `agent_ttl=5s`.
    pub fn line(mut self, line: &str) -> Self {
        self.lines.push(line.to_owned());
        self
    }
}

impl Display for FleetConf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Lab {
    /// Returns a configuration that names all etcd members of this lab.
    pub fn fleet_conf(&self) -> FleetConf {
        FleetConf::new(
            &self
                .members()
                .iter()
                .map(|member| member.endpoint())
                .collect::<Vec<_>>(),
        )
    }

    /// Installs and starts fleet on every host, each with its own configuration.
    pub fn install_fleet(&self, conf: impl Fn(&Host) -> FleetConf) -> Result<()> {
        self.hosts()
            .iter()
            .try_for_each(|host| host.install_fleet(&conf(host)))
    }
}

impl Host {
    /// Installs fleet like a package, and starts it. On a host that has fleet, this upgrades only
    /// the files: a running fleetd continues until it is restarted.
    pub fn install_fleet(&self, conf: &FleetConf) -> Result<()> {
        let built = binaries()?;
        for binary in ["fleetd", "fleetctl"] {
            // Renamed into place, because a running binary cannot be written.
            let (new, place) = (
                self.path(&format!("/usr/bin/.{binary}.new")),
                self.path(&format!("/usr/bin/{binary}")),
            );
            fs::copy(built.join(binary), &new)
                .with_context(|| format!("cannot install {binary} on {}", self.name()))?;
            fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
            fs::rename(&new, &place)?;
        }
        for unit in ["fleet.service", "fleet.socket"] {
            let content = fs::read(repository().join("units").join(unit))?;
            self.write_file(&format!("/usr/lib/systemd/system/{unit}"), content)?;
        }
        self.write_file("/etc/fleet/fleet.conf", conf.to_string())?;
        self.exec(&["systemctl", "daemon-reload"])?.ok()?;
        let units = ["fleet.socket", "fleet.service"];
        self.exec(&[&["systemctl", "enable", "--quiet", "--now"], &units[..]].concat())?
            .ok()
            .map(drop)
            .map_err(|error| self.explained(&error))
    }

    /// Runs fleetctl inside the host.
    pub fn fleetctl(&self, arguments: &[&str]) -> Result<Output> {
        self.exec(&[&["fleetctl"], arguments].concat())
    }
}
