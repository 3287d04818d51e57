//! Whole sessions at the command line, each command compared byte for byte: stdout, stderr, exit
//! code.
//!
//! The transcripts are those of fleetctl's own tests, which have `# ours: WHY` before intended
//! differences, and `on_hosts.txt`, which needs hosts.

use anyhow::{Context as _, Result, ensure};
use lab::{Host, Lab, repository};

use super::{SOON, on_recorded_hosts};

/// The folder of the unit files on the host.
const FOLDER: &str = "/root/units";

/// Commands whose output no transcript can contain, each with the reason.
const NOT_COMPARED: &[(&str, &str)] = &[
    ("fleetctl status", "the cluster's random id, its revision"),
    ("fleetctl status meta", "since when the unit runs"),
];

/// Commands that are repeated until they print the recorded output. People, too, look again a
/// moment later.
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

/// Returns the commands of a transcript, each with its output and exit code.
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

/// Runs a command, and returns its output in the form of the transcripts.
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
fn a_global_unit_lives_as_recorded() {
    replay(include_str!(
        "../../../crates/fleetctl/tests/transcripts/global.txt"
    ));
}

#[test]
fn units_are_replaced_compared_and_refused_as_recorded() {
    replay(include_str!(
        "../../../crates/fleetctl/tests/transcripts/replace.txt"
    ));
}

#[test]
fn metadata_and_templates_place_units_as_recorded() {
    replay(include_str!(
        "../../../crates/fleetctl/tests/transcripts/metadata.txt"
    ));
}

#[test]
fn errors_have_the_recorded_texts() {
    replay(include_str!(
        "../../../crates/fleetctl/tests/transcripts/errors.txt"
    ));
}

#[test]
fn conflicts_install_sections_and_odd_files_are_as_in_v1() {
    replay(include_str!("on_hosts.txt"));
}
