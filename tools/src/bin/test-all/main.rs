//! `cargo test-all`: everything that CI checks, cheapest first, up to the first failure.
//!
//! As root it installs the distribution packages that are missing, and every test must run. Otherwise the tests that
//! need real hosts are skipped, and listed at the end. `FLEET_TESTS_MUST_RUN=1` or `=0` decides it whoever runs.

use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::Instant;
use std::{env, fs};

use anyhow::{Context, Result, bail};
use lab::{repository, requirements, target};

fn main() -> ExitCode {
    match all() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ntest-all: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn all() -> Result<()> {
    let started = Instant::now();
    let skipped = target().join("skipped-tests");
    let _ = fs::remove_file(&skipped);
    let is_root = requirements::is_root();
    let must_run = env::var_os(requirements::MUST_RUN).map_or(is_root, |value| value == "1");

    step("format", || cargo(&["fmt", "--all", "--check"]))?;
    if is_root && must_run {
        let programs = [requirements::LAB, requirements::TESTS].concat();
        step("distribution packages", || {
            requirements::install_packages(&programs)
        })?;
    }
    step("lints", || {
        cargo(&[
            "clippy",
            "--workspace",
            "--all-targets",
            "--quiet",
            "--",
            "--deny=warnings",
        ])
    })?;
    step("documentation", || {
        run(program("cargo")
            .args(["doc", "--workspace", "--no-deps", "--quiet"])
            .env("RUSTDOCFLAGS", "--deny=warnings"))
    })?;
    step("licences, sources and duplicates of dependencies", || {
        check_dependencies(&skipped, must_run)
    })?;
    // Before the tests, so that the time they take is theirs.
    step("binaries for the hosts", || lab::binaries().map(drop))?;
    step("tests", || {
        let mut tests = program("cargo");
        tests
            .args(["test", "--workspace", "--quiet", "--no-fail-fast"])
            .env(requirements::SKIPPED, &skipped);
        if must_run {
            tests.env(requirements::MUST_RUN, "1");
        }
        run(&mut tests)
    })?;

    println!(
        "\n=== all passed in {:.0} s",
        started.elapsed().as_secs_f64()
    );
    if let Ok(lines) = fs::read_to_string(&skipped) {
        print!("{lines}");
    }
    Ok(())
}

/// Runs one step between a line that names it and a line with the time it took.
fn step(name: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    println!("\n=== {name}");
    let started = Instant::now();
    act().with_context(|| name.to_owned())?;
    println!("--- {name}: {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// Runs cargo-deny, installed below `target/tools` unless the machine has it.
fn check_dependencies(skipped: &Path, must_run: bool) -> Result<()> {
    let tools = target().join("tools");
    let own = tools.join("bin/cargo-deny");
    let arguments = [
        "deny",
        "check",
        "--hide-inclusion-graph",
        "licenses",
        "bans",
        "sources",
    ];
    if !own.exists() && !succeeds(program("cargo-deny").arg("--version")) {
        let install = ["install", "--quiet", "--locked", "--root"];
        if let Err(error) = run(program("cargo").args(install).arg(&tools).arg("cargo-deny")) {
            if must_run {
                bail!("cargo-deny cannot be installed: {error:#}");
            }
            let line =
                format!("skipped: dependencies: cargo-deny cannot be installed: {error:#}\n");
            print!("{line}");
            return Ok(fs::write(skipped, line)?);
        }
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let path = env::join_paths(
        [tools.join("bin")]
            .into_iter()
            .chain(env::split_paths(&path)),
    )?;
    run(program("cargo").args(arguments).env("PATH", path))
}

fn cargo(arguments: &[&str]) -> Result<()> {
    run(program("cargo").args(arguments))
}

fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.current_dir(repository());
    command
}

fn run(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("cannot start {command:?}"))?;
    if !status.success() {
        bail!("{command:?} failed");
    }
    Ok(())
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|output| output.status.success())
}
