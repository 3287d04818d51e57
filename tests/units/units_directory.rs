//! Shows that the files in one host's units directory run on every host, complete, until they are
//! certainly removed.

use anyhow::{Context, Result, ensure};
use lab::{Host, Lab};

use crate::support::looking::{
    SOON, gone_everywhere, made_at, main_pids, runs_everywhere, settled, sleeper, told, writes,
};

const DIRECTORY: &str = "/etc/fleet/units";

#[test]
fn files_on_one_host_run_on_every_host() {
    Lab::builder().hosts(3).etcd(1).test_on_all_suites(|lab| {
        lab.install_fleet(|_| lab.fleet_conf())?;
        // Each part adds what it needs and removes it. `keep.service` stays, and is never affected.
        put(lab, "keep.service", &sleeper(1000))?;
        runs_everywhere(lab, "keep.service", 1000)?;
        let keep = main_pids(lab, &["keep.service"])?;
        appears_changes_vanishes(lab).context("a file that appears, changes and vanishes")?;
        changed_while_down(lab).context("files that change while fleetd is down")?;
        moved_into_place(lab).context("a file that is moved into place")?;
        slow_writer(lab).context("a file that is being written")?;
        twenty_at_once(lab).context("twenty files copied at once")?;
        bad_files(lab).context("bad files")?;
        destroyed_by_hand(lab).context("a unit destroyed with fleetctl")?;
        directory_gone(lab).context("a directory that is missing")?;
        directory_emptied(lab).context("a directory that was emptied at once")?;
        marker_lost(lab).context("a directory without its marker")?;
        ensure!(
            keep == main_pids(lab, &["keep.service"])?,
            "keep.service was restarted, though its file never changed"
        );
        Ok(())
    });
}

fn host(lab: &Lab) -> &Host {
    lab.host(1)
}

fn put(lab: &Lab, name: &str, content: &str) -> Result<()> {
    host(lab).write_file(&format!("{DIRECTORY}/{name}"), content)
}

fn sh(lab: &Lab, script: &str) -> Result<String> {
    host(lab).sh(script)?.ok()
}

fn remove(lab: &Lab, name: &str) -> Result<()> {
    sh(lab, &format!("rm {DIRECTORY}/{name}"))?;
    gone_everywhere(lab, name)
}

fn appears_changes_vanishes(lab: &Lab) -> Result<()> {
    put(lab, "a.service", &sleeper(1001))?;
    runs_everywhere(lab, "a.service", 1001)?;
    put(lab, "a.service", &sleeper(1002))?;
    runs_everywhere(lab, "a.service", 1002)?;
    let shown = lab.host(2).fleetctl(&["cat", "a.service"])?.ok()?;
    ensure!(shown == sleeper(1002), "{shown}");
    remove(lab, "a.service")?;
    let listed = lab
        .host(3)
        .fleetctl(&["list-unit-files", "--no-legend", "--fields=unit"])?
        .ok()?;
    ensure!(listed == "keep.service\n", "{listed}");
    Ok(())
}

fn changed_while_down(lab: &Lab) -> Result<()> {
    for (name, number) in [("changes.service", 1020), ("goes.service", 1021)] {
        put(lab, name, &sleeper(number))?;
        runs_everywhere(lab, name, number)?;
    }
    host(lab)
        .exec(&["systemctl", "stop", "fleet.service"])?
        .ok()?;
    put(lab, "changes.service", &sleeper(1022))?;
    put(lab, "comes.service", &sleeper(1023))?;
    sh(
        lab,
        &format!("rm {DIRECTORY}/goes.service; systemctl start fleet.service"),
    )?;
    runs_everywhere(lab, "changes.service", 1022)?;
    runs_everywhere(lab, "comes.service", 1023)?;
    gone_everywhere(lab, "goes.service")?;
    remove(lab, "changes.service")?;
    remove(lab, "comes.service")
}

fn moved_into_place(lab: &Lab) -> Result<()> {
    let mut made = Vec::new();
    for number in [1003, 1004] {
        host(lab).write_file("/etc/fleet/new", sleeper(number))?;
        sh(lab, &format!("mv /etc/fleet/new {DIRECTORY}/a.service"))?;
        runs_everywhere(lab, "a.service", number)?;
        made.push(made_at(lab, "a.service")?);
    }
    // The moment without the file destroyed nothing.
    ensure!(made[0].is_some() && made[0] == made[1], "{made:?}");
    remove(lab, "a.service")
}

fn slow_writer(lab: &Lab) -> Result<()> {
    // After the first write, the file is a valid unit, but not the intended one.
    let script = format!(
        "exec 3> {DIRECTORY}/slow.service; printf '{half}' >&3; read go < /run/go; printf '{rest}' >&3",
        half = sleeper(1).replace('\n', "\\n"),
        rest = "[Service]\\nExecStart=\\nExecStart=/bin/sleep 1005\\n",
    );
    sh(lab, "mkfifo /run/go")?;
    host(lab)
        .exec(&[
            "systemd-run",
            "--quiet",
            "--unit=writer",
            "sh",
            "-c",
            &script,
        ])?
        .ok()?;
    lab.wait_until(SOON, "half of the file is written", || {
        Ok(host(lab).read_file(&format!("{DIRECTORY}/slow.service"))? == sleeper(1))
    })?;
    // Later files are published while it is open, so it was seen and skipped.
    put(lab, "later.service", &sleeper(1006))?;
    runs_everywhere(lab, "later.service", 1006)?;
    settled(lab)?;
    ensure!(
        writes(lab, "slow.service")?.is_none(),
        "half of a file was read"
    );
    sh(lab, "echo go > /run/go")?;
    runs_everywhere(lab, "slow.service", 1005)?;
    ensure!(writes(lab, "slow.service")? == Some(1));
    remove(lab, "later.service")?;
    remove(lab, "slow.service")
}

fn twenty_at_once(lab: &Lab) -> Result<()> {
    let counted = |script: &str, count: &str| {
        lab.wait_until(
            SOON,
            &format!("`{script}` shows {count} everywhere"),
            || {
                lab.hosts().iter().try_fold(true, |all, host| {
                    Ok(all && host.sh(script)?.stdout.trim() == count)
                })
            },
        )
    };
    for number in 0..20 {
        host(lab).write_file(
            &format!("/root/many/many{number}.service"),
            sleeper(2000 + number),
        )?;
    }
    sh(lab, &format!("cp /root/many/* {DIRECTORY}/"))?;
    counted(
        "systemctl list-units --no-legend --state=running 'many*' | wc -l",
        "20",
    )?;
    counted(
        "cat /run/fleet/units/many*.service | grep --only-matching 'sleep 20[01][0-9]$' | sort --unique | wc -l",
        "20",
    )?;
    sh(lab, &format!("rm {DIRECTORY}/many*"))?;
    counted(
        "systemctl list-units --all --no-legend 'many*' | wc -l; ls /run/fleet/units",
        "0\nkeep.service",
    )
}

fn bad_files(lab: &Lab) -> Result<()> {
    put(lab, "bad.service", &sleeper(1007))?;
    runs_everywhere(lab, "bad.service", 1007)?;
    let (pids, good) = (
        main_pids(lab, &["bad.service"])?,
        writes(lab, "bad.service")?,
    );
    for (content, problem) in [
        ("[Service\nExecStart=/bin/sleep 1\n", "bad.service: "),
        (
            "[Service]\nExecStart=/bin/sleep 1\n[X-Fleet]\nGlobal=true\nMachineID=abc\n",
            "MachineID cannot be used with Global",
        ),
        (
            "[Service]\nExecStart=/bin/sleep 1\n",
            "bad.service: not global: only units with Global=true",
        ),
        ("", "bad.service: unit file is empty"),
        (
            "[Service]\nExecStart=/bin/sleep 1\n[X-Fleet]\nGlobal=true\nMachineMetadata=role:web\n",
            "bad.service: line 5: MachineMetadata \"role:web\": write key=value",
        ),
        (
            "[Service]\nExecStart=/bin/sleep 1\n[X-Fleet]\nGlobal=true\nMachineMetadta=role=web\n",
            "line 5: unrecognized requirement in [X-Fleet] section: \"MachineMetadta\"",
        ),
    ] {
        put(lab, "bad.service", content)?;
        told(lab, problem, true)?;
        told(lab, &format!("{DIRECTORY}/bad.service: "), true)?;
        let journal = sh(lab, "journalctl -u fleet.service --no-pager")?;
        ensure!(
            journal.contains(problem),
            "the journal does not tell of `{problem}`"
        );
    }
    put(lab, "bad name.service", &sleeper(1))?;
    told(
        lab,
        "/bad name.service: not a unit file: invalid character ' ' in unit name",
        true,
    )?;
    ensure!(
        pids == main_pids(lab, &["bad.service"])?,
        "the last good revision was touched"
    );
    ensure!(
        good == writes(lab, "bad.service")?,
        "a bad file was written to the registry"
    );

    sh(lab, &format!("rm '{DIRECTORY}/bad name.service'"))?;
    put(lab, "bad.service", &sleeper(1008))?;
    runs_everywhere(lab, "bad.service", 1008)?;
    told(lab, DIRECTORY, false)?;
    remove(lab, "bad.service")
}

fn destroyed_by_hand(lab: &Lab) -> Result<()> {
    put(lab, "a.service", &sleeper(1009))?;
    runs_everywhere(lab, "a.service", 1009)?;
    lab.host(2).fleetctl(&["destroy", "a.service"])?.ok()?;
    gone_everywhere(lab, "a.service")?;
    // The same bytes again, or another fleetd, are no reason to bring it back.
    put(lab, "a.service", &sleeper(1009))?;
    host(lab)
        .exec(&["systemctl", "restart", "fleet.service"])?
        .ok()?;
    ensure!(
        writes(lab, "a.service")?.is_none(),
        "a destroyed unit came back by itself"
    );
    put(lab, "a.service", &sleeper(1010))?;
    runs_everywhere(lab, "a.service", 1010)?;
    remove(lab, "a.service")
}

/// Changes the directory so that it is held. Checks that the text is reported, and nothing stops or
/// changes. Then restores the directory, and checks that it is followed again.
fn held(lab: &Lab, take: &str, told_text: &str, bring_back: &str) -> Result<()> {
    put(lab, "held.service", &sleeper(1011))?;
    runs_everywhere(lab, "held.service", 1011)?;
    let units = ["keep.service", "held.service"];
    let pids = main_pids(lab, &units)?;
    sh(lab, take)?;
    told(lab, told_text, true)?;
    settled(lab)?;
    for _ in 0..2 {
        ensure!(
            pids == main_pids(lab, &units)?,
            "a unit of a held directory was touched"
        );
        ensure!(writes(lab, "held.service")?.is_some());
        // A new fleetd knows no more than the old one. Its service creates a missing directory,
        // which then has no marker.
        host(lab)
            .exec(&["systemctl", "restart", "fleet.service"])?
            .ok()?;
        told(lab, &format!("{DIRECTORY}: "), true)?;
    }
    sh(lab, bring_back)?;
    told(lab, DIRECTORY, false)?;
    ensure!(
        pids == main_pids(lab, &units)?,
        "a unit was touched when the directory came back"
    );
    put(lab, "held.service", &sleeper(1012))?;
    runs_everywhere(lab, "held.service", 1012)?;
    remove(lab, "held.service")
}

fn directory_gone(lab: &Lab) -> Result<()> {
    held(
        lab,
        &format!("mv {DIRECTORY} /etc/fleet/away"),
        "is missing; put it back",
        &format!("rmdir {DIRECTORY}; mv -T /etc/fleet/away {DIRECTORY}"),
    )
}

fn directory_emptied(lab: &Lab) -> Result<()> {
    held(
        lab,
        &format!("mkdir /root/away; mv {DIRECTORY}/*.service /root/away/"),
        "had 2 unit files and has none now",
        &format!("mv /root/away/* {DIRECTORY}/"),
    )
}

fn marker_lost(lab: &Lab) -> Result<()> {
    held(
        lab,
        &format!("rm {DIRECTORY}/.fleet"),
        "has lost its marker",
        &format!("touch {DIRECTORY}/.fleet"),
    )
}
