//! Whole sessions at the command line, each command compared byte for byte: stdout, stderr, exit
//! code.
//!
//! The transcripts are those of fleetctl's own tests, which say `# ours: WHY` before what differs
//! on purpose, and `on_hosts.txt`, which needs hosts.

use anyhow::{Context as _, Result, ensure};
use lab::{Host, Lab, repository};

use super::{SOON, on_recorded_hosts};

/// Where the unit files are, on the host.
const FOLDER: &str = "/root/units";

/// Commands that only show what no transcript can hold, and what that is.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("fleetctl status", "the cluster's random id, its revision"),
    ("fleetctl status meta", "since when the unit runs"),
];

/// What is asked again until it is so: people, too, look again a moment later.
const LOOKS: &[&str] = &[
    "fleetctl list-units",
    "fleetctl list-machines",
    "systemctl ",
    "ls ",
];

fn replay(transcript: &str) {
    on_recorded_hosts(|lab| {
        let one = lab.host(1);
        for folder in ["crates/fleetctl/tests/units", "tests/access/recorded/units"] {
            for unit in std::fs::read_dir(repository().join(folder))? {
                let unit = unit?;
                let name = unit.file_name();
                let path = format!("{FOLDER}/{}", name.to_string_lossy());
                one.write_file(&path, std::fs::read(unit.path())?)?;
            }
        }
        for (command, recorded) in commands(transcript) {
            compare(lab, one, command, recorded).context(format!("$ {command}"))?;
        }
        Ok(())
    });
}

/// The commands of a transcript, each with what it printed and its exit code.
fn commands(transcript: &str) -> Vec<(&str, String)> {
    let mut commands: Vec<(&str, String)> = Vec::new();
    for line in transcript.lines().filter(|line| !line.starts_with('#')) {
        match (line.strip_prefix("$ "), commands.last_mut()) {
            (Some(command), _) => commands.push((command, String::new())),
            (None, Some((_, output))) => *output += &format!("{line}\n"),
            (None, None) => {}
        }
    }
    commands
}

fn compare(lab: &Lab, host: &Host, command: &str, recorded: String) -> Result<()> {
    if NOT_COMPARED.iter().any(|(other, _)| *other == command) {
        return Ok(());
    }
    if !LOOKS.iter().any(|look| command.starts_with(look)) {
        return same(&printed(host, command)?, &recorded);
    }
    lab.wait_until(SOON, "it is as it was recorded", || {
        same(&printed(host, command)?, &recorded).map(|()| true)
    })
}

fn same(printed: &str, recorded: &str) -> Result<()> {
    ensure!(printed == recorded, "recorded:\n{recorded}now:\n{printed}");
    Ok(())
}

/// Runs a command, and writes what it printed as the transcripts do.
fn printed(host: &Host, command: &str) -> Result<String> {
    let output = host.sh(&format!("cd {FOLDER}; {command}"))?;
    let mut text = String::new();
    for (mark, printed) in [('o', &output.stdout), ('e', &output.stderr)] {
        for line in printed.lines() {
            text += &format!("{mark}| {line}\n");
        }
    }
    Ok(text + &format!("[rc={}]\n", output.code))
}

#[test]
fn a_global_unit_lives_as_it_did() {
    replay(include_str!(
        "../../../crates/fleetctl/tests/transcripts/global.txt"
    ));
}

#[test]
fn units_are_replaced_compared_and_refused_as_they_were() {
    replay(include_str!(
        "../../../crates/fleetctl/tests/transcripts/replace.txt"
    ));
}

#[test]
fn metadata_and_templates_place_units_as_they_did() {
    replay(include_str!(
        "../../../crates/fleetctl/tests/transcripts/metadata.txt"
    ));
}

#[test]
fn errors_say_what_they_said() {
    replay(include_str!(
        "../../../crates/fleetctl/tests/transcripts/errors.txt"
    ));
}

#[test]
fn conflicts_install_sections_and_odd_files_are_as_in_v1() {
    replay(include_str!("on_hosts.txt"));
}
