//! The README's steps for installing and upgrading, done as written.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab, binaries, repository};

use crate::support::workload::{SOON, active, fleetd, fleetd_again, launch};

/// The directory where fleet was built or unpacked.
const TREE: &str = "/root/fleet";

#[test]
fn an_upgrade_as_the_readme_has_it_keeps_the_configuration() {
    Lab::builder().etcd(1).test(|lab| {
        let host = lab.host(1);
        unpack(host)?;
        let readme = fs::read_to_string(repository().join("README.md"))?;
        let (install, upgrade) = commands(&readme)?;
        run(host, &install)?;
        let conf = host.read_file("/etc/fleet/fleet.conf")?;
        let conf = format!(
            "{conf}\netcd_servers={}\nmetadata=role=web\n",
            lab.member(1).endpoint()
        );
        host.write_file("/etc/fleet/fleet.conf", &conf)?;
        host.sh("systemctl restart fleet.service")?.ok()?;
        lab.wait_until(SOON, "fleet answers", || {
            Ok(host.fleetctl(&["list-units"])?.code == 0)
        })?;
        launch(host, "x.service")?;
        active(lab, "x.service", [host])?;
        let (unit, daemon) = (host.main_pid("x.service")?, fleetd(host)?);
        run(host, &upgrade)?;
        fleetd_again(lab, host, daemon)?;
        ensure!(
            host.read_file("/etc/fleet/fleet.conf")? == conf,
            "the upgrade replaced fleet.conf"
        );
        ensure!(host.main_pid("x.service")? == unit, "x.service was touched");
        lab.wait_until(SOON, "fleet answers", || {
            Ok(host
                .fleetctl(&["list-machines"])?
                .stdout
                .contains("role=web"))
        })
    });
}

/// Returns the commands that install fleet, and those of the first step, which an upgrade repeats
/// before the restart.
fn commands(readme: &str) -> Result<(String, String)> {
    let (_, section) = readme
        .split_once("## Install it")
        .context("nothing on installing")?;
    let (section, upgrade) = section
        .split_once("To upgrade a host")
        .context("nothing on upgrades")?;
    ensure!(
        upgrade.starts_with(", repeat step 1 and run `systemctl restart fleet.service`."),
        "this test does something else than the README says"
    );
    let blocks = section.split("```").skip(1).step_by(2);
    let steps: Vec<&str> = blocks
        .filter(|block| !block.contains("cargo build"))
        .collect();
    let first = steps.first().context("no step")?;
    Ok((
        steps.concat(),
        format!("{first}systemctl restart fleet.service"),
    ))
}

/// Copies the built files to the place where the commands expect them.
fn unpack(host: &Host) -> Result<()> {
    let built = binaries()?;
    for binary in ["fleetd", "fleetctl"] {
        let path = format!("{TREE}/target/release/{binary}");
        host.write_file(&path, fs::read(built.join(binary))?)?;
        fs::set_permissions(host.path(&path), fs::Permissions::from_mode(0o755))?;
    }
    for unit in fs::read_dir(repository().join("units"))? {
        let unit = unit?;
        let name = unit.file_name();
        host.write_file(
            &format!("{TREE}/units/{}", name.display()),
            fs::read(unit.path())?,
        )?;
    }
    Ok(())
}

fn run(host: &Host, commands: &str) -> Result<()> {
    host.sh(&format!("set -e; cd {TREE}; {commands}"))?
        .ok()
        .map(drop)
        .with_context(|| commands.to_owned())
}
