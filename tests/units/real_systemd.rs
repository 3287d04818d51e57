//! Shows on a host what the unit tests of the crates assume about systemd: how it reads unit files,
//! and how it behaves.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use lab::{Lab, cargo, repository};

use crate::support::looking::{SOON, listed, settled, sleeper};

/// The command in the corpus's README.
const SHOWN: &str =
    "LoadState Description Documentation After Requires Environment SyslogIdentifier";

#[test]
fn unit_files_are_read_as_the_corpus_records() {
    Lab::builder().test(|lab| {
        let host = lab.host(1);
        let corpus = repository().join("crates/core/tests/systemd");
        let mut cases = Vec::new();
        for entry in fs::read_dir(&corpus)? {
            let path = entry?.path();
            if path.extension().is_some_and(|suffix| suffix == "service") {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .context("a name")?
                    .to_owned();
                host.write_file(&format!("/run/systemd/system/{name}"), fs::read(&path)?)?;
                cases.push((name, fs::read_to_string(path.with_extension("expected"))?));
            }
        }
        ensure!(cases.len() > 40, "{} cases", cases.len());
        host.exec(&["systemctl", "daemon-reload"])?.ok()?;
        let properties = format!("--property={}", SHOWN.replace(' ', ","));
        for (name, recorded) in cases {
            let read = host
                .exec(&["systemctl", "show", &properties, "--", &name])?
                .ok()?;
            assert_eq!(sorted(&read), sorted(&recorded), "{name}");
        }
        Ok(())
    });
}

/// Returns the lines in order. Words in lists of units are sorted, because their order means
/// nothing.
fn sorted(shown: &str) -> Vec<String> {
    let line = |line: &str| match line.split_once('=') {
        Some((key @ ("After" | "Requires"), list)) => {
            let mut words: Vec<_> = list.split_whitespace().collect();
            words.sort_unstable();
            format!("{key}={}", words.join(" "))
        }
        _ => line.to_owned(),
    };
    let mut lines: Vec<_> = shown.lines().map(line).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn systemd_behaves_as_the_conformance_suite_states() {
    Lab::builder().test(|lab| {
        let host = lab.host(1);
        host.write_file("/root/suite", suite()?)?;
        let ran = host.sh(
            "chmod 755 /root/suite && FLEET_TEST_SYSTEM_BUS=1 /root/suite --test-threads=1 systemd::real::",
        )?;
        ensure!(ran.code == 0, "{}{}", ran.stdout, ran.stderr);
        // A suite that skipped everything would have passed too.
        ensure!(
            !ran.stdout.contains("skipped") && ran.stdout.contains(" ok\n"),
            "{}",
            ran.stdout
        );
        Ok(())
    });
}

/// Returns the test binary of the interface between fleetd and systemd.
fn suite() -> Result<Vec<u8>> {
    let built = cargo()
        .args([
            "test",
            "--quiet",
            "--package=fleetd",
            "--test=it",
            "--no-run",
            "--message-format=json",
        ])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(built.status.success(), "cargo cannot build the suite");
    let messages = String::from_utf8(built.stdout)?;
    let executable = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == "it")
        .find_map(|message| Some(message["executable"].as_str()?.to_owned()))
        .context("cargo names no executable")?;
    fs::read(&executable).with_context(|| executable)
}

/// For each query about a unit that is not loaded, systemd reads its file and drops it again. The
/// more units run, the longer that takes.
#[test]
fn systemd_reads_a_unit_as_rarely_as_it_can() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        listed(lab)?;
        let one = lab.host(1);
        let unit = "rare.service";
        one.sh(
            "busctl monitor --json=short --match=\"type='signal',member='UnitNew'\" > /run/loads 2>&1 & sleep 1",
        )?
        .ok()?;
        let reads = || -> Result<usize> {
            let count = format!("grep -c '\"{unit}\"' /run/loads || true");
            Ok(one.sh(&count)?.ok()?.trim().parse()?)
        };
        one.write_file(&format!("/root/{unit}"), sleeper(1000))?;
        one.fleetctl(&["load", &format!("/root/{unit}")])?.ok()?;
        lab.wait_until(SOON, "it is loaded", || {
            Ok(one.fleetctl(&["list-units"])?.stdout.contains(unit))
        })?;
        settled(lab)?;
        // One read is to see that the name is free, the other is systemd's reading of the file.
        let loaded = reads()?;
        ensure!(loaded <= 3, "{loaded} reads to load it");
        one.fleetctl(&["start", unit])?.ok()?;
        // This uses fleet's state, because systemctl would make systemd read a unit that does not
        // run yet.
        lab.wait_until(SOON, "it runs", || {
            Ok(one.fleetctl(&["list-units"])?.stdout.contains("running"))
        })?;
        settled(lab)?;
        let started = reads()? - loaded;
        ensure!(started == 1, "{started} reads to start it");
        one.fleetctl(&["stop", unit])?.ok()?;
        lab.wait_until(SOON, "it is stopped", || {
            Ok(one.fleetctl(&["list-units"])?.stdout.contains("inactive"))
        })?;
        settled(lab)?;
        let stopped = reads()? - started - loaded;
        ensure!(stopped <= 3, "{stopped} reads to stop it");
        Ok(())
    });
}

/// systemd sends a signal on the bus for each request to link files.
#[test]
fn files_that_arrive_together_are_linked_together() {
    Lab::builder().hosts(1).etcd(1).test(|lab| {
        listed(lab)?;
        let one = lab.host(1);
        one.sh(
            "busctl monitor --json=short --match=\"type='signal',member='UnitFilesChanged'\" > /run/links 2>&1 & sleep 1",
        )?
        .ok()?;
        let paths: Vec<String> = (0..40).map(|n| format!("/root/at-once-{n}.service")).collect();
        for path in &paths {
            one.write_file(path, sleeper(1000))?;
        }
        let mut command = vec!["load"];
        command.extend(paths.iter().map(String::as_str));
        one.fleetctl(&command)?.ok()?;
        lab.wait_until(SOON, "they are loaded", || {
            let listed = one.fleetctl(&["list-units"])?.stdout;
            Ok(listed.matches("at-once-").count() == paths.len())
        })?;
        settled(lab)?;
        let count = one.sh("grep -c UnitFilesChanged /run/links || true")?.ok()?;
        let calls: usize = count.trim().parse()?;
        ensure!((1..=10).contains(&calls), "{calls} calls to link {} files", paths.len());
        Ok(())
    });
}
