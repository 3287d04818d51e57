//! Laws of names. A text may come over the API, from a directory or from the registry. Accepted as
//! a name of a unit or a machine, it is one file in its directory, and one key below its prefix.

use std::path::{Component, Path};

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::unit::{NAME_MAX, UnitName};
use proptest::prelude::*;

/// Texts made of parts of paths that lead elsewhere, and of parts of names.
fn evil() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("..".to_owned()),
        Just("/".to_owned()),
        Just("\0".to_owned()),
        Just("\n".to_owned()),
        Just("%2f".to_owned()),
        Just("%00".to_owned()),
        Just("\u{202e}".to_owned()),
        Just("\u{ff0f}".to_owned()),
        Just("\\x2f".to_owned()),
        Just("@".to_owned()),
        Just(".service".to_owned()),
        Just(".mount".to_owned()),
        Just("a".repeat(100)),
        Just("units/".to_owned()),
        "[a-z0-9:_.\\\\@-]{1,8}",
        any::<String>(),
    ];
    let parts = prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat());
    let ended = parts.clone().prop_map(|text| text + ".service");
    prop_oneof![parts, ended]
}

fn id() -> impl Strategy<Value = String> {
    prop_oneof![evil(), "[ \n]?[0-9a-f]{32}[ \n]?", "[0-9a-fA-F\n]{31,33}"]
}

/// Returns whether a text is one plain file of a directory.
fn is_one_file(text: &str) -> bool {
    let directory = Path::new("/run/fleet/units");
    let path = directory.join(text);
    let parts: Vec<_> = Path::new(text).components().collect();
    path.parent() == Some(directory)
        && matches!(parts[..], [Component::Normal(only)] if only == text)
        && !text.contains(['\0', '/'])
        && !text.contains(char::is_control)
        && text.len() <= 255
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn unit_name_is_one_file_and_one_key(text in evil()) {
        if let Ok(name) = UnitName::parse(&text) {
            prop_assert_eq!(name.as_str(), &text);
            prop_assert!(is_one_file(&text), "{:?}", text);
            for key in [keys::unit(&name), keys::rollout(&name)] {
                prop_assert_eq!(key.matches('/').count(), 1);
            }
            prop_assert_eq!(keys::history(&name, 1).matches('/').count(), 2);
        }
    }

    #[test]
    fn machine_id_is_one_file_and_one_key(text in id()) {
        if let Ok(machine) = MachineId::parse(&text) {
            prop_assert!(is_one_file(machine.as_str()), "{:?}", machine);
            for key in [keys::machine(&machine), keys::report(&machine), keys::metadata(&machine), keys::known(&machine)] {
                prop_assert_eq!(key.matches('/').count(), 1);
            }
        }
    }

    #[test]
    fn key_is_read_as_the_only_name_that_makes_it(
        prefix in prop::sample::select(vec![keys::UNITS, keys::HISTORY, keys::ROLLOUTS, keys::GRANTS, keys::MACHINES, ""]),
        middle in id(),
        end in prop_oneof![evil(), id()],
        slash in any::<bool>(),
    ) {
        let key = if slash { format!("{prefix}{middle}/{end}") } else { format!("{prefix}{end}") };
        if let Some(name) = keys::unit_of(&key) {
            prop_assert_eq!(keys::unit(&name), key.clone());
        }
        if let Some(name) = keys::rollout_of(&key) {
            prop_assert_eq!(keys::rollout(&name), key.clone());
        }
        if let Some((machine, name)) = keys::grant_of(&key) {
            prop_assert_eq!(keys::grant(&machine, &name), key.clone());
        }
        if let Some((name, number)) = keys::past_of(&key) {
            prop_assert!(keys::history(&name, number).starts_with(&keys::history_of(&name)));
        }
        if let Some(machine) = keys::machine_of(keys::MACHINES, &key) {
            prop_assert_eq!(keys::machine(&machine), key);
        }
    }
}

#[test]
fn names_up_to_the_length_of_a_file_name_are_accepted() {
    let of = |length: usize| "x".repeat(length - ".service".len()) + ".service";
    UnitName::parse(&of(NAME_MAX)).expect("the longest");
    let error = UnitName::parse(&of(NAME_MAX + 1)).expect_err("longer");
    assert_eq!(error.to_string(), "unit name is 256 bytes long (max 255)");
}
