//! The hash that listings show for a unit file, equal to the hash in fleet 1.0.

use std::fmt;

use sha1::{Digest, Sha1};

use crate::unit::UnitOption;

use super::serialize;

/// The SHA-1 of a unit file as [`serialize`] writes it. It compares files in listings; no security
/// depends on it. Files that differ only in comments have the same hash.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Hash([u8; 20]);

impl Hash {
    /// Returns the hash of a file with these options.
    pub fn of(options: &[UnitOption]) -> Self {
        Self(Sha1::digest(serialize(options).as_bytes()).into())
    }

    /// Returns the first seven of its 40 digits, which listings show without `--full`.
    pub fn short(&self) -> String {
        let mut digits = self.to_string();
        digits.truncate(7);
        digits
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::unit::UnitFile;

    #[test]
    fn hash_equals_the_one_listed_by_fleet_1_0() {
        // Recorded from `list-unit-files` and `list-unit-files --full` of fleet 1.0.
        let file = UnitFile::parse(
            b"# any comment\n[Unit]\nDescription=Hello global\n[Service]\n\
            ExecStart=/bin/bash -c \"while true; do echo Hello, Global World; sleep 1; done\"\n\
            [X-Fleet]\nGlobal=true\n",
        );
        let hash = Hash::of(file.options());
        assert_eq!(hash.to_string(), "e83c16edc9c35e3b86d078e1c4c8841f42bf397b");
        assert_eq!(hash.short(), "e83c16e");
    }
}
