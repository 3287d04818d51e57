//! import: converts DaemonSet manifests to units.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use clap::{Args, ValueHint};

use crate::manifest::{Converted, converted, port_clashes};
use crate::output::{say, talk, write};

#[derive(Args)]
#[command(
    after_help = "Each container of a DaemonSet becomes a service that runs podman. Remarks are printed on
standard error, one for each field that has no effect here or that is refused. Nothing is
written if anything is refused. `fleetctl start FILE.yaml` converts and starts in one step.

Examples:
  fleetctl import app-a.yaml              print the units
  fleetctl import -o units/ app-a.yaml    write units/app-a.service"
)]
pub(crate) struct Import {
    /// Manifests
    #[arg(value_name = "FILE.yaml", required = true, value_hint = ValueHint::FilePath)]
    files: Vec<String>,
    /// Write each unit to a file in this directory
    #[arg(short = 'o', value_name = "DIR", value_hint = ValueHint::DirPath)]
    directory: Option<PathBuf>,
}

impl Import {
    /// Converts the manifests, and prints or writes the units.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let units = converted(&self.files)?;
        let all: Vec<&Converted> = units.iter().collect();
        for warning in port_clashes(&all, &[]) {
            talk(warning);
        }
        match &self.directory {
            Some(directory) => save(directory, &units),
            None => print(&units),
        }
    }
}

fn print(units: &[Converted]) -> anyhow::Result<()> {
    for (index, unit) in units.iter().enumerate() {
        // A single unit is printed unchanged, so that it can be redirected to its file.
        if units.len() > 1 {
            let blank = if index > 0 { "\n" } else { "" };
            write(format!("{blank}# {}\n", unit.name).as_bytes())?;
        }
        write(unit.content.as_bytes())?;
    }
    Ok(())
}

/// Writes the files. If one exists with other content, it stays and none is written.
fn save(directory: &Path, units: &[Converted]) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let mut missing = Vec::new();
    for unit in units {
        let path = directory.join(unit.name.as_str());
        match fs::read(&path) {
            Ok(bytes) if bytes == unit.content.as_bytes() => {}
            Ok(_) => bail!(
                "{} exists with other content; remove it, or name another directory",
                path.display()
            ),
            Err(error) if error.kind() == ErrorKind::NotFound => missing.push((path, unit)),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        }
    }
    for (path, unit) in missing {
        fs::write(&path, unit.content.as_bytes())
            .with_context(|| format!("cannot write {}", path.display()))?;
        say(format_args!("{}", path.display()))?;
    }
    Ok(())
}
