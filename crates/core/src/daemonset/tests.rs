use std::fs;
use std::path::PathBuf;

use super::*;

fn golden() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/daemonset/golden")
}

/// Every manifest of the directory, by name.
fn manifests() -> Vec<(String, Vec<u8>)> {
    let mut manifests = Vec::new();
    for entry in fs::read_dir(golden()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.extension().is_some_and(|it| it == "yaml") {
            let name = path.file_name().expect("a name");
            let name = name.to_str().expect("text").to_owned();
            manifests.push((name, fs::read(&path).expect("a file")));
        }
    }
    manifests.sort();
    manifests
}

/// What `fleetctl import` prints: remarks, then units.
fn shown(file: &str, bytes: &[u8]) -> String {
    let conversion = convert(bytes, file);
    let mut text = String::new();
    for remark in &conversion.remarks {
        text += &format!("{file}:{remark}\n");
    }
    for (name, content) in &conversion.units {
        text += &format!("\n# {name}\n{}", content.to_text());
    }
    text
}

#[test]
fn manifests_become_the_units_of_the_golden_files() {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(golden());
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| {
        for (file, bytes) in manifests() {
            insta::assert_snapshot!(file.replace(".yaml", ""), shown(&file, &bytes));
        }
    });
}
