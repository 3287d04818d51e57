//! Options and sections that may be misspellings of fleet's own.

use super::{SECTION, X_FLEET};

/// Options that only fleet understands. In a section of systemd's, systemd ignores them.
const ONLY_OURS: [&str; 14] = [
    "Global",
    "MachineMetadata",
    "Tolerates",
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

/// Options about updates, about how a directory starts the unit, or about more machines to run on.
/// All others restrict where it runs.
const UNRESTRICTING: [&str; 7] = [
    "UpdateStrategy",
    "MaxUnavailable",
    "MinReadySec",
    "ProgressDeadlineSec",
    "OnFailure",
    "Target",
    "Tolerates",
];

/// Returns whether an option can keep a unit off machines.
pub(super) fn restricts(key: &str) -> bool {
    !UNRESTRICTING.contains(&key)
}

/// Returns whether an option is in a section where neither systemd nor fleet reads it.
pub(super) fn is_misplaced(section: &str, key: &str) -> bool {
    !section.starts_with("X-") && is_only_ours(key)
}

/// Returns whether only fleet understands an option.
pub(crate) fn is_only_ours(key: &str) -> bool {
    ONLY_OURS.contains(&key)
}

/// Returns whether a section of that name was meant to be `[X-Fleet]`.
pub(super) fn is_nearly_ours(section: &str) -> bool {
    section != SECTION && distance(section, SECTION) <= 1
        || section.trim().eq_ignore_ascii_case("fleet")
}

/// Returns the known option that an unknown one may mean.
pub(crate) fn nearest(key: &str) -> Option<&'static str> {
    // `MachineMetadata role=web` has a blank in place of its `=`.
    let word = key.split_ascii_whitespace().next().unwrap_or(key);
    let near = X_FLEET
        .into_iter()
        .map(|known| (distance(word, known), known));
    let (distance, known) = near.min()?;
    (distance <= 1 + known.len() / 5).then_some(known)
}

/// Returns the number of letters to insert, remove, replace or swap, ignoring case.
fn distance(one: &str, other: &str) -> usize {
    // A longer text is no misspelling, and comparing it would take long.
    if one.len() > 64 {
        return usize::MAX;
    }
    strsim::osa_distance(&one.to_ascii_lowercase(), &other.to_ascii_lowercase())
}
