//! Options and sections that may be misspellings of fleet's own.

use super::{SECTION, X_FLEET};

/// Options that mean something to fleet alone: in a section of systemd's, systemd would ignore them.
const ONLY_OURS: [&str; 13] = [
    "Global",
    "MachineMetadata",
    "UpdateStrategy",
    "MaxUnavailable",
    "MinReadySec",
    "ProgressDeadlineSec",
    "MachineID",
    "MachineOf",
    "X-ConditionMachineID",
    "X-ConditionMachineOf",
    "X-ConditionMachineMetadata",
    "X-ConditionMachineBootID",
    "X-Conflicts",
];

/// Options that only say how updates go, or how a directory starts the unit; all others say where it runs.
const POLICY: [&str; 6] = [
    "UpdateStrategy",
    "MaxUnavailable",
    "MinReadySec",
    "ProgressDeadlineSec",
    "OnFailure",
    "Target",
];

/// Whether an option can keep a unit off machines.
pub(super) fn restricts(key: &str) -> bool {
    !POLICY.contains(&key)
}

/// Returns whether an option is in a section where neither systemd nor fleet reads it.
pub(super) fn is_misplaced(section: &str, key: &str) -> bool {
    !section.starts_with("X-") && is_only_ours(key)
}

/// Whether an option means something to fleet alone.
pub(crate) fn is_only_ours(key: &str) -> bool {
    ONLY_OURS.contains(&key)
}

/// Whether `[X-Fleet]` was meant by a section of that name.
pub(super) fn is_nearly_ours(section: &str) -> bool {
    section != SECTION && distance(section, SECTION) <= 1
        || section.trim().eq_ignore_ascii_case("fleet")
}

/// The option that may be meant by an unknown one.
pub(crate) fn nearest(key: &str) -> Option<&'static str> {
    // `MachineMetadata role=web` has a blank where its = belongs.
    let word = key.split_ascii_whitespace().next().unwrap_or(key);
    let near = X_FLEET
        .into_iter()
        .map(|known| (distance(word, known), known));
    let (distance, known) = near.min()?;
    (distance <= 1 + known.len() / 5).then_some(known)
}

/// The number of letters to insert, remove, replace or swap, whatever their case.
fn distance(one: &str, other: &str) -> usize {
    // A longer text is no misspelling, and would take long to compare.
    if one.len() > 64 {
        return usize::MAX;
    }
    strsim::osa_distance(&one.to_ascii_lowercase(), &other.to_ascii_lowercase())
}
