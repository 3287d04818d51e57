//! A folder with unit files, a fake fleetd, and a shell in which `fleetctl` talks to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::fake_fleetd::FakeFleetd;

pub(crate) struct Session {
    dir: tempfile::TempDir,
    pub(crate) fleetd: FakeFleetd,
}

impl Session {
    /// Starts a session in a fresh folder with the files of `tests/units/`.
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let units = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/units");
        for unit in fs::read_dir(units).expect("unit files") {
            let unit = unit.expect("a unit file");
            fs::copy(unit.path(), dir.path().join(unit.file_name())).expect("copied");
        }
        let fleetd = FakeFleetd::start(dir.path());
        Self { dir, fleetd }
    }

    /// Returns the path of a file in the session's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns a command for the shell, not started yet.
    pub(crate) fn command(&self, command: &str) -> Command {
        let fleetctl = Path::new(env!("CARGO_BIN_EXE_fleetctl"));
        let bin = fleetctl.parent().expect("a folder").display();
        let mut shell = Command::new("sh");
        shell
            .args(["-c", command])
            .current_dir(self.dir.path())
            .env_clear()
            .env("PATH", format!("{bin}:/usr/bin:/bin"))
            .env("FLEETCTL_ENDPOINT", self.fleetd.endpoint())
            .stdin(Stdio::null());
        shell
    }

    /// Runs a command and returns it as a transcript: `$` the command, `o|` stdout, `e|` stderr,
    /// the exit code.
    pub(crate) fn run(&self, command: &str) -> String {
        transcript(command, &self.command(command).output().expect("sh runs"))
    }
}

/// Returns a finished command as a transcript.
pub(crate) fn transcript(command: &str, output: &Output) -> String {
    let mut text = format!("$ {command}\n");
    for (mark, bytes) in [('o', &output.stdout), ('e', &output.stderr)] {
        for line in String::from_utf8_lossy(bytes).lines() {
            text.push_str(&format!("{mark}| {line}\n"));
        }
    }
    let code = output.status.code().expect("it was not killed");
    text + &format!("[rc={code}]\n")
}
