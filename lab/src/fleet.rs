//! fleet on the hosts of a lab, installed as a package would.

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

/// The root of the source tree.
pub fn repository() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Names a directory with a fleetd and a fleetctl that are up to date, such as one that just built
/// them.
pub const BINARIES: &str = "FLEET_BINARIES";

/// The directory with fleetd and fleetctl, built now if they are not up to date, once a process.
/// In cargo's dev profile for tests and the demo, which build soonest.
/// In release for what is itself built so, such as the figures.
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

/// cargo in the source tree, as a person would call it. Without what the cargo around a test tells
/// that test of its own package: ring's build script takes that for a change, and would be run anew
/// in every test run.
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
    /// With these etcd endpoints; without any, the line is left out.
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

    /// With static metadata, such as `region=us-west,az=1`.
    pub fn metadata(self, pairs: &str) -> Self {
        self.line(&format!("metadata=\"{pairs}\""))
    }

    /// With one more line, such as `agent_ttl=5s`.
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
    /// A configuration that names all etcd members of this lab.
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
    /// Installs fleet as a package would, and starts it. On a host that has it, this is an upgrade
    /// of the files alone: a running fleetd goes on until it is restarted.
    pub fn install_fleet(&self, conf: &FleetConf) -> Result<()> {
        let built = binaries()?;
        for binary in ["fleetd", "fleetctl"] {
            // Renamed into place: a binary that runs cannot be written to.
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
