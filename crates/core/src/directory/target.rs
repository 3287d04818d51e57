//! The target state of a unit that a directory publishes for the first time, and the order in which
//! units are published.
//!
//! A service beside its timer is started by the timer. Launched, it would run once at the drop and
//! after each reboot.

use std::collections::{BTreeMap, BTreeSet};

use super::{Action, File, Named, named};
use crate::trigger::triggered;
use crate::unit::{Content, FleetOptions, TargetState, UnitFile, UnitKind, UnitName};

/// Units that other units of the directory start: a timer's, a socket's, a path's, an automount's.
pub(super) fn started(files: &BTreeMap<String, File>) -> BTreeSet<UnitName> {
    let units = files.iter().filter_map(|(entry, file)| match named(entry) {
        // A template starts nothing.
        Named::Unit(name) if !name.is_template() => Some((name, file)),
        _ => None,
    });
    units
        .filter_map(|(name, file)| {
            let content = match file {
                File::Content(content) => Some(content),
                // It may name another unit. Until it can be read, that of its own name is taken for
                // it.
                File::Skipped(_) | File::Unreadable(_) | File::Untrusted(_) => None,
                File::Directory => return None,
            };
            triggered(&name, content)
        })
        .collect()
}

/// Returns the target state of a new unit: from its file, else from the units beside it.
pub(super) fn wanted(
    name: &UnitName,
    content: &Content,
    triggered: &BTreeSet<UnitName>,
) -> TargetState {
    if name.is_template() {
        // What its file says of a target state is for its instances.
        return TargetState::Loaded;
    }
    let options = FleetOptions::read(name, &UnitFile::parse(content.as_bytes()));
    options.target.unwrap_or(match triggered.contains(name) {
        true => TargetState::Loaded,
        false => TargetState::Launched,
    })
}

/// Returns the turn of an action. systemd refuses to start a timer whose service it does not know,
/// so units that others start come first.
pub(super) fn turn(action: &Action) -> u8 {
    match action {
        Action::Disown(_) => 0,
        Action::Adopt(..) | Action::PassOver(..) => 1,
        Action::Publish { name, target, .. } => match (target, name.kind()) {
            (TargetState::Inactive, _) => 2,
            (TargetState::Loaded, _) => 3,
            (
                TargetState::Launched,
                UnitKind::Timer | UnitKind::Path | UnitKind::Socket | UnitKind::Automount,
            ) => 5,
            (TargetState::Launched, _) => 4,
        },
    }
}
