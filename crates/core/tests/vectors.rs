//! Unit files mean what they meant in fleet 1.0: their hash, `[X-Fleet]`, and the results of
//! validation.

#![allow(
    clippy::disallowed_methods,
    reason = "the vectors are files; the core itself reads none"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use fleet_core::unit::{Content, Parsed, UnitName};

#[test]
fn every_vector_means_the_same_as_in_fleet_1_0() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let table = fs::read_to_string(folder.join("expected.tsv")).expect("the table is there");
    let mut rows = 0;
    for row in table.lines().skip(1) {
        let [name, hash, global, conflicts, metadata, validation] =
            <[&str; 6]>::try_from(row.split('\t').collect::<Vec<_>>()).expect("six columns");
        let content = Content::from(fs::read(folder.join(name)).expect(name));
        let unit = Parsed::parse(UnitName::parse(name).expect(name), &content);

        assert_eq!(unit.hash.to_string(), hash, "{name}");
        assert_eq!(unit.options.global.to_string(), global, "{name}");
        let expected: Vec<String> = serde_json::from_str(conflicts).expect("a list");
        let found: Vec<_> = unit.options.conflicts.iter().map(|c| c.as_str()).collect();
        assert_eq!(found, expected, "{name}");
        let expected: BTreeMap<String, BTreeSet<String>> =
            serde_json::from_str(metadata).expect("an object");
        assert_eq!(unit.options.machine_metadata, expected, "{name}");
        // fleet 1.0 accepted a unit with an unknown option, or with a requirement that it could not
        // read.
        let refused = unit.validate().map_err(|error| error.to_string());
        match name {
            "a5.timer" => {
                let text = refused.expect_err("unknown");
                assert!(text.ends_with(validation), "{text}");
            }
            "a3@blue.service" => {
                let text = refused.expect_err("misread");
                assert!(
                    text.starts_with("line 7: MachineMetadata \"noequals\":"),
                    "{text}"
                );
            }
            _ => assert_eq!(refused, Ok(()), "{name}"),
        }
        rows += 1;
    }
    assert_eq!(rows, 8);
}
