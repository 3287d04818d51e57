//! What lies on the disk of a machine: which registry it has acted on, and that no state file is
//! ever half written.
//!
//! A file that is replaced by another is whole for whoever has it open, and after a crash; one that
//! is written in its place is not. So the file that was there at the last look must still hold what
//! it held.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{Read as _, Seek as _};
use std::path::PathBuf;

use fleet_core::unit::UnitName;

use crate::fleet::Machine;

/// The files of one machine.
pub(crate) struct Files {
    desired: PathBuf,
    kept: BTreeMap<PathBuf, Option<(File, Vec<u8>)>>,
}

impl Files {
    pub(crate) fn of(machine: &Machine) -> Self {
        let desired = machine.desired_file();
        let beside = |name| desired.with_file_name(name);
        let files = [
            desired.clone(),
            beside("seen.json"),
            beside("directory.json"),
            machine.marks_file(),
        ];
        Self {
            kept: files.into_iter().map(|path| (path, None)).collect(),
            desired,
        }
    }

    /// Answers the files that were written in their place.
    pub(crate) fn look(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (path, kept) in &mut self.kept {
            if let Some((file, held)) = kept {
                let mut holds = Vec::new();
                let read = file.rewind().and_then(|()| file.read_to_end(&mut holds));
                if read.is_err() || holds != *held {
                    let name = path.file_name().unwrap_or_default().to_string_lossy();
                    wrong.push(format!("{name} was written in its place"));
                }
            }
            *kept = File::open(path).ok().and_then(|mut file| {
                let mut held = Vec::new();
                file.read_to_end(&mut held).ok()?;
                Some((file, held))
            });
        }
        wrong
    }

    /// The store revision that the machine's agent has acted on. One that was not kept knows
    /// nothing.
    pub(crate) fn known(&self) -> Option<u64> {
        self.saved()["seen"]["revision"].as_u64()
    }

    /// What is launched there.
    pub(crate) fn launched(&self) -> BTreeSet<UnitName> {
        let saved = self.saved();
        let desired = saved["desired"].as_object();
        let launched = desired.into_iter().flatten();
        let launched = launched.filter(|(_, it)| it["launch"].as_bool() == Some(true));
        launched
            .filter_map(|(name, _)| UnitName::parse(name).ok())
            .collect()
    }

    fn saved(&self) -> serde_json::Value {
        let bytes = std::fs::read(&self.desired).unwrap_or_default();
        serde_json::from_slice(&bytes).unwrap_or_default()
    }
}
