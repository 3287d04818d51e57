//! What fleet calls of systemd's D-Bus interface, and what systemd's answers look like.

use std::fmt::Write as _;

use fleet_core::unit::{UnitKind, UnitName};
use zbus::{OwnedObjectPath, proxy};

/// systemd's name at the bus.
pub(super) const SYSTEMD: &str = "org.freedesktop.systemd1";
/// The object of the manager.
pub(super) const MANAGER_PATH: &str = "/org/freedesktop/systemd1";
/// Below this is an object for each unit.
const UNIT_PATH: &str = "/org/freedesktop/systemd1/unit/";

/// Name, description, load state, active state, sub state, followed unit, object, job's number (0:
/// no job), job's kind, job's object.
pub(super) type UnitRow = (
    String,
    String,
    String,
    String,
    String,
    String,
    OwnedObjectPath,
    u32,
    String,
    OwnedObjectPath,
);

/// Kind of change (`symlink`, `unlink`), link, target.
type FileChange = (String, String, String);

/// The manager, without the calls that make jobs: these differ in nothing but the method's name.
#[proxy(
    interface = "org.freedesktop.systemd1.Manager",
    default_service = "org.freedesktop.systemd1",
    default_path = "/org/freedesktop/systemd1"
)]
pub(super) trait Manager {
    fn subscribe(&self) -> zbus::Result<()>;
    fn reload(&self) -> zbus::Result<()>;
    fn list_units_by_names(&self, names: &[&str]) -> zbus::Result<Vec<UnitRow>>;
    fn ref_unit(&self, name: &str) -> zbus::Result<()>;
    fn unref_unit(&self, name: &str) -> zbus::Result<()>;
    fn link_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<Vec<FileChange>>;
    fn enable_unit_files(
        &self,
        files: &[&str],
        runtime: bool,
        force: bool,
    ) -> zbus::Result<(bool, Vec<FileChange>)>;
}

/// Whether systemd can have a unit of this name at all; of a template it has instances. One name it
/// cannot have makes it refuse a whole list.
pub(super) fn can_exist(name: &UnitName) -> bool {
    !name.is_template()
        // Kinds of the original's days that systemd has dropped since.
        && !matches!(name.kind(), UnitKind::Busname | UnitKind::Snapshot)
}

/// The object of a unit: every byte that is no letter or digit (or is a leading digit) becomes
/// `_xx`.
pub(super) fn unit_object(name: &str) -> String {
    let mut path = String::from(UNIT_PATH);
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphabetic() || (at > 0 && byte.is_ascii_digit()) {
            path.push(char::from(byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(path, "_{byte:02x}");
        }
    }
    path
}

/// The unit of an object; none if it is not the object of a unit.
pub(super) fn unit_of_object(path: &str) -> Option<String> {
    let mut bytes = path.strip_prefix(UNIT_PATH)?.bytes();
    let mut name = Vec::new();
    while let Some(byte) = bytes.next() {
        name.push(match byte {
            b'_' => {
                let digits = [bytes.next()?, bytes.next()?];
                u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(name).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn objects_are_named_as_systemd_names_them() {
        assert_eq!(
            unit_object("getty@tty1.service"),
            "/org/freedesktop/systemd1/unit/getty_40tty1_2eservice"
        );
        assert_eq!(
            unit_object("-.mount"),
            "/org/freedesktop/systemd1/unit/_2d_2emount"
        );
        assert_eq!(
            unit_object("1.service"),
            "/org/freedesktop/systemd1/unit/_31_2eservice"
        );
        assert_eq!(unit_of_object("/org/freedesktop/systemd1/job/7"), None);
    }

    #[test]
    fn names_that_systemd_would_refuse_are_not_asked_for() {
        for (name, can) in [
            ("web@1.service", true),
            ("web@.service", false),
            ("old.snapshot", false),
        ] {
            assert_eq!(can_exist(&UnitName::parse(name).expect("valid")), can);
        }
    }

    proptest! {
        #[test]
        fn every_unit_is_found_by_its_object(name in "[a-zA-Z0-9:_.\\\\@-]{1,40}") {
            prop_assert_eq!(unit_of_object(&unit_object(&name)), Some(name));
        }
    }
}
