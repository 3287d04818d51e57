//! Untrusted bytes: every file of the kept corpora, and randomly changed bytes, through the code
//! that reads them.

#[path = "../../../../../fuzz/src/entries.rs"]
// Public for the fuzz targets.
#[allow(unreachable_pub, reason = "shared with a crate that exports them")]
mod entries;

use std::path::{Path, PathBuf};

use entries::{ENTRIES, Entry};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let files = std::fs::read_dir(folder.join(name)).expect("a corpus");
    let mut files: Vec<PathBuf> = files.map(|file| file.expect("a file").path()).collect();
    files.sort();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("reads");
        (path, bytes)
    };
    files.into_iter().map(read).collect()
}

#[test]
fn every_file_of_the_corpora_is_read_without_a_panic() {
    for (name, entry) in ENTRIES {
        let files = corpus(name);
        assert!(files.len() > 1, "the corpus of {name} is empty");
        for (path, bytes) in files {
            println!("{}", path.display());
            entry(&bytes);
        }
    }
}

/// Builds of the fuzzer are manual, so this test checks what it calls.
#[test]
fn every_kind_of_input_has_a_fuzz_target() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).expect("a manifest");
    for (name, _) in ENTRIES {
        let target = folder.join(format!("fuzz_targets/{name}.rs"));
        let text = std::fs::read_to_string(target).expect(name);
        let call = format!("fuzz_target!(|bytes: &[u8]| entries::{name}(bytes));");
        assert!(text.contains(&call), "{text}");
        let binary = format!("name = \"{name}\"\npath = \"fuzz_targets/{name}.rs\"\n");
        assert!(manifest.contains(&binary), "{name}");
    }
    let targets = std::fs::read_dir(folder.join("fuzz_targets")).expect("targets");
    assert_eq!(targets.count(), ENTRIES.len());
    // Every crate that the entries use is one of its dependencies.
    let (_, dependencies) = manifest.split_once("[dependencies]").expect("a table");
    for line in include_str!("../../../../../fuzz/src/entries.rs").lines() {
        let used = line
            .strip_prefix("use ")
            .and_then(|path| path.split("::").next());
        let Some(used) = used.filter(|used| *used != "std") else {
            continue;
        };
        let named = format!("\n{} = ", used.replace('_', "-"));
        assert!(dependencies.contains(&named), "{used} in {dependencies}");
    }
}

/// Returns files of the corpus with some bytes replaced and the end cut off.
fn damaged(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    let seed = prop::sample::select(seeds);
    (seed, changes, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut bytes, changes, end, cut)| {
            for (at, byte) in changes {
                if !bytes.is_empty() {
                    let at = at.index(bytes.len());
                    bytes[at] = byte;
                }
            }
            if cut {
                bytes.truncate(end.index(bytes.len() + 1));
            }
            bytes
        },
    )
}

fn holds(name: &str, entry: Entry, cases: u32) {
    let seeds = corpus(name).into_iter().map(|(_, bytes)| bytes).collect();
    let any_bytes = prop_oneof![3 => damaged(seeds), 1 => vec(any::<u8>(), 0..200)];
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&any_bytes, |bytes| {
        entry(&bytes);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
}

#[test]
fn damaged_bytes_are_read_without_a_panic() {
    for (name, entry) in ENTRIES {
        holds(name, entry, 200);
    }
}
