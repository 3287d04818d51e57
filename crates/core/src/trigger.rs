//! Which unit another one starts: a socket its service, a timer or a path its unit, an automount
//! its mount.

use crate::unit::{Content, UnitFile, UnitKind, UnitName, expand, truth};

/// Returns the unit that this one starts. `None` if it starts none, one for each connection, or one
/// whose name only systemd can work out. A file that cannot be read (`None`) names no other unit.
pub fn triggered(name: &UnitName, content: Option<&Content>) -> Option<UnitName> {
    let (section, key, suffix) = match name.kind() {
        UnitKind::Socket => ("Socket", "Service", "service"),
        UnitKind::Timer => ("Timer", "Unit", "service"),
        UnitKind::Path => ("Path", "Unit", "service"),
        UnitKind::Automount => ("Automount", "", "mount"),
        _ => return None,
    };
    let file = content.map(|content| UnitFile::parse(content.as_bytes()));
    let last = |key| file.as_ref().and_then(|file| file.last(section, key));
    if name.kind() == UnitKind::Socket && last("Accept").and_then(truth) == Some(true) {
        return None;
    }
    let unit = match last(key).filter(|unit| !unit.is_empty()) {
        Some(unit) => expand(unit, name),
        None => format!("{}.{suffix}", name.stem()),
    };
    // What is left of a specifier is systemd's.
    UnitName::parse(&unit).ok().filter(|_| !unit.contains('%'))
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
            ("a.timer", "[Timer]\nUnit=\n", Some("a.service")),
            (
                "a@1.timer",
                "[Timer]\nUnit=b@%i.service\n",
                Some("b@1.service"),
            ),
            ("a.timer", "[Timer]\nUnit=b@%H.service\n", None),
            ("a.path", "[Path]\nPathExists=/x\n", Some("a.service")),
            (
                "a-b.automount",
                "[Automount]\nWhere=/a/b\n",
                Some("a-b.mount"),
            ),
            ("a.service", "[Service]\nExecStart=/x\n", None),
        ] {
            let name = UnitName::parse(name).expect("valid");
            let found = triggered(&name, Some(&Content::from(content)));
            assert_eq!(found.as_ref().map(UnitName::as_str), expected, "{name}");
        }
        let unread = UnitName::parse("a.timer").expect("valid");
        let found = triggered(&unread, None).map(|unit| unit.to_string());
        assert_eq!(found.as_deref(), Some("a.service"));
    }
}
