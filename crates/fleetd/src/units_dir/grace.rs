//! Since when published files are gone: a short gap is not a disappearance.

use std::collections::BTreeMap;
use std::time::Duration;

use fleet_core::directory::{File, Published};
use fleet_core::unit::UnitName;
use tokio::time::Instant;

/// How long a file must be gone before its unit is given up. Editors and tools that replace a file
/// by moving the old one away first leave a gap, in which a unit must not be destroyed on every
/// machine.
pub(super) const GONE: Duration = Duration::from_millis(200);

/// The clocks, one for each published unit whose file is gone.
#[derive(Default)]
pub(super) struct Grace(BTreeMap<UnitName, Instant>);

impl Grace {
    /// Starts all clocks again. For a directory that is held: when it no longer is, its files come
    /// back one by one.
    pub(super) fn reset(&mut self) {
        self.0.clear();
    }

    /// Lists files that went less than [`GONE`] ago as if they were there, so that nothing follows
    /// from it yet. Answers whether there are any.
    pub(super) fn spare(
        &mut self,
        published: &Published,
        files: &mut BTreeMap<String, File>,
        now: Instant,
    ) -> bool {
        let before = std::mem::take(&mut self.0);
        let mut any = false;
        for name in published.units.keys() {
            if files.contains_key(name.as_str()) {
                continue;
            }
            let since = before.get(name).copied().unwrap_or(now);
            self.0.insert(name.clone(), since);
            if now - since < GONE {
                files.insert(name.to_string(), File::Skipped("gone for a moment only"));
                any = true;
            }
        }
        any
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleet_core::directory::{Action, Fingerprint};
    use fleet_core::unit::Content;

    #[test]
    fn a_file_is_spared_for_a_moment_and_anew_after_it_came_back() {
        let name = UnitName::parse("a.service").expect("valid");
        let content = Content::from("x");
        let mut published = Published::default();
        published.apply(&Action::Adopt(name, Fingerprint::of(&content)));
        let there = BTreeMap::from([("a.service".to_owned(), File::Content(content))]);
        let mut gone = Grace::default();
        let start = Instant::now();
        let mut spared = |files: &BTreeMap<_, _>, after| {
            gone.spare(&published, &mut files.clone(), start + after)
        };
        let nothing = BTreeMap::new();
        assert!(spared(&nothing, Duration::ZERO));
        assert!(!spared(&nothing, GONE));
        assert!(!spared(&there, GONE));
        assert!(spared(&nothing, GONE * 2));
    }
}
