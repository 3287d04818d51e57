//! `cargo test-all`: all checks of CI, cheapest first, up to the first failure.
//!
//! `--fast` checks only the format, the texts and the core: seconds, once it is built.
//!
//! As root it installs missing distribution packages, and every test must run. Otherwise it skips
//! tests that need real hosts, and lists them at the end. `FLEET_TESTS_MUST_RUN=1` or `=0` decides
//! for any user.

mod texts;
mod tool;

use std::env;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use lab::{repository, requirements, target};

use crate::tool::{CARGO_DENY, MDBOOK, Tool};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let is_fast = match arguments.as_slice() {
        [] => false,
        [only] if only == "--fast" => true,
        _ => {
            eprintln!("usage: cargo test-all [--fast]");
            return ExitCode::from(2);
        }
    };
    let mut checks = Checks::new();
    let checked = if is_fast { checks.fast() } else { checks.all() };
    checks.print_times();
    match checked {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\ntest-all: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One run of the checks.
struct Checks {
    started: Instant,
    /// The steps that were run, each with its seconds.
    times: Vec<(&'static str, f64)>,
    /// The file that collects a line for each skipped test or check.
    skipped: PathBuf,
    must_run: bool,
}

impl Checks {
    fn new() -> Self {
        let is_root = requirements::is_root();
        Self {
            started: Instant::now(),
            times: vec![],
            skipped: target().join("skipped-tests"),
            must_run: env::var_os(requirements::MUST_RUN).map_or(is_root, |value| value == "1"),
        }
    }

    /// Runs the checks that take seconds, for use after each saved file.
    fn fast(&mut self) -> Result<()> {
        self.texts()?;
        self.step("lints of the core", |_| {
            let core = ["clippy", "--package=fleet-core", "--all-targets", "--quiet"];
            run(cargo(&core).args(["--", "--deny=warnings"]))
        })?;
        self.step("tests of the core", |_| {
            run(&mut cargo(&["test", "--package=fleet-core", "--quiet"]))
        })
    }

    /// Runs all checks of CI.
    fn all(&mut self) -> Result<()> {
        let _ = fs::remove_file(&self.skipped);
        self.texts()?;
        if requirements::is_root() && self.must_run {
            self.step("distribution packages", |_| {
                let programs = [requirements::LAB, requirements::TESTS].concat();
                requirements::install_packages(&programs)
            })?;
        }
        self.step("lints", |_| {
            let all = ["clippy", "--workspace", "--all-targets", "--quiet"];
            run(cargo(&all).args(["--", "--deny=warnings"]))
        })?;
        self.step("documentation of the code", |_| {
            // With the features that tests need, which `--examples` enables: it reuses what the
            // lints compiled.
            let doc = [
                "doc",
                "--workspace",
                "--no-deps",
                "--lib",
                "--bins",
                "--examples",
            ];
            run(cargo(&doc)
                .arg("--quiet")
                .env("RUSTDOCFLAGS", "--deny=warnings"))
        })?;
        self.step("book", |checks| {
            checks.with(&MDBOOK, "book", |mut mdbook| {
                run(mdbook.args(["build", "docs"]))
            })
        })?;
        self.step(
            "licences, sources and duplicates of dependencies",
            |checks| {
                checks.with(&CARGO_DENY, "dependencies", |mut deny| {
                    let check = ["check", "--hide-inclusion-graph"];
                    run(deny.args(check).args(["licenses", "bans", "sources"]))
                })
            },
        )?;
        self.step("advisories on dependencies", Self::advisories)?;
        // Before the tests, so that their time does not include building.
        self.step("build of tests and binaries", |_| {
            run(&mut cargo(&["test", "--workspace", "--quiet", "--no-run"]))
        })?;
        self.step("tests", |checks| {
            let mut tests = cargo(&["test", "--workspace", "--quiet", "--no-fail-fast"]);
            tests
                .env(requirements::SKIPPED, &checks.skipped)
                // Built by the step before, as part of their crates' tests.
                .env(lab::BINARIES, target().join("debug"));
            if checks.must_run {
                tests.env(requirements::MUST_RUN, "1");
            }
            run(&mut tests)
        })
    }

    fn texts(&mut self) -> Result<()> {
        self.step("format", |_| run(&mut cargo(&["fmt", "--all", "--check"])))?;
        self.step("texts", |_| texts::check(repository()))
    }

    /// Checks advisories if their database is reachable. Without internet it is not.
    fn advisories(&self) -> Result<()> {
        self.with(&CARGO_DENY, "advisories", |mut deny| {
            let fetched = deny.args(["fetch", "db"]).output()?;
            if !fetched.status.success() {
                let told = String::from_utf8_lossy(&fetched.stderr).into_owned();
                let why = told.lines().last().unwrap_or("no reason is printed");
                return self.skip(
                    "advisories",
                    &format!("their database cannot be fetched: {why}"),
                );
            }
            let check = [
                "check",
                "--disable-fetch",
                "--hide-inclusion-graph",
                "advisories",
            ];
            run(CARGO_DENY.command()?.args(check))
        })
    }

    /// Runs a check with a tool, or skips it if the tool cannot be installed.
    fn with(
        &self,
        tool: &Tool,
        what: &str,
        check: impl FnOnce(Command) -> Result<()>,
    ) -> Result<()> {
        match tool.command() {
            Ok(command) => check(command),
            Err(error) => self.skip(what, &format!("{error:#}")),
        }
    }

    fn skip(&self, what: &str, why: &str) -> Result<()> {
        let line = format!("skipped: {what}: {why}");
        println!("{line}");
        let mut file = File::options()
            .create(true)
            .append(true)
            .open(&self.skipped)?;
        Ok(writeln!(file, "{line}")?)
    }

    /// Runs one step between a line with its name and a line with its time.
    fn step(&mut self, name: &'static str, act: impl FnOnce(&Self) -> Result<()>) -> Result<()> {
        println!("\n=== {name}");
        let started = Instant::now();
        let acted = act(self);
        let seconds = started.elapsed().as_secs_f64();
        println!("--- {name}: {seconds:.1} s");
        self.times.push((name, seconds));
        acted.with_context(|| name.to_owned())
    }

    fn print_times(&self) {
        println!();
        for (name, seconds) in &self.times {
            println!("{seconds:7.1} s  {name}");
        }
        println!("{:7.1} s  in all", self.started.elapsed().as_secs_f64());
        if let Ok(lines) = fs::read_to_string(&self.skipped) {
            print!("{lines}");
        }
    }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(repository()).args(arguments);
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
