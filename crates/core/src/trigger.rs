//! Which unit another unit starts: a socket its service, a timer or a path its unit.

use crate::unit::{Content, UnitFile, UnitKind, UnitName, truth};

/// Returns the unit that this one starts. `None` if it starts none, one for each connection, or one
/// whose name only systemd can determine.
pub fn triggered(name: &UnitName, content: &Content) -> Option<UnitName> {
    let (section, key) = match name.kind() {
        UnitKind::Socket => ("Socket", "Service"),
        UnitKind::Timer => ("Timer", "Unit"),
        UnitKind::Path => ("Path", "Unit"),
        _ => return None,
    };
    let file = UnitFile::parse(content.as_bytes());
    let accepts = file.last("Socket", "Accept").and_then(truth) == Some(true);
    if name.kind() == UnitKind::Socket && accepts {
        return None;
    }
    match file.last(section, key).filter(|unit| !unit.is_empty()) {
        Some(unit) if unit.contains('%') => None,
        Some(unit) => UnitName::parse(unit).ok(),
        None => UnitName::parse(&format!("{}.service", name.stem())).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unit_triggers_the_named_unit_or_the_service_of_its_name() {
        for (name, content, expected) in [
            ("a.socket", "[Socket]\nListenStream=1\n", Some("a.service")),
            (
                "a.socket",
                "[Socket]\nService=b.service\n",
                Some("b.service"),
            ),
            ("a.socket", "[Socket]\nAccept=yes\n", None),
            ("a@1.socket", "[Socket]\nAccept=no\n", Some("a@1.service")),
            ("a.timer", "[Timer]\nUnit=b.target\n", Some("b.target")),
            ("a.timer", "[Timer]\nUnit=b@%n.service\n", None),
            ("a.path", "[Path]\nPathExists=/x\n", Some("a.service")),
            ("a.service", "[Service]\nExecStart=/x\n", None),
        ] {
            let name = UnitName::parse(name).expect("valid");
            let found = triggered(&name, &Content::from(content));
            assert_eq!(found.as_ref().map(UnitName::as_str), expected, "{name}");
        }
    }
}
