#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the manifests are files, and systemd-analyze is a program"
)]

use std::fs;
use std::path::PathBuf;

use super::yaml::Value;
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

/// Returns whether systemd takes the unit, with programs that are here in the place of podman.
fn verify(name: &str, text: &str) -> Option<String> {
    let folder = std::env::temp_dir().join(format!("fleet-daemonset-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join(name);
    let stand_in = text.replace("=/usr/bin/podman ", "=/bin/true ");
    let stand_in = stand_in.replace("=-/usr/bin/podman ", "=-/bin/true ");
    let stand_in = stand_in.replace("=-/usr/bin/systemctl ", "=-/bin/true ");
    fs::write(&path, stand_in).expect("written");
    let output = std::process::Command::new("systemd-analyze")
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .arg(&path)
        .output();
    let said = output.ok().map(|output| {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines = said.lines().filter(|line| line.contains(name));
        let mut lines: Vec<&str> = lines.collect();
        if !output.status.success() {
            lines.push("it failed");
        }
        lines.join("\n")
    });
    fs::remove_dir_all(&folder).expect("removed");
    said
}

#[test]
fn converted_units_pass_systemd_analyze() {
    let mut verified = 0;
    for (file, bytes) in manifests() {
        for (name, content) in convert(&bytes, &file).units {
            let Some(said) = verify(name.as_str(), &content.to_text()) else {
                println!("skipped: there is no systemd-analyze here");
                return;
            };
            assert_eq!(said, "", "{name} of {file}:\n{}", content.to_text());
            verified += 1;
        }
    }
    assert!(verified >= 6, "only {verified} units were converted");
}

/// Calls `check` with the tree without each key in turn, and with the path of the key.
fn without_each(node: &Node, path: &str, check: &mut dyn FnMut(&Node, &str)) {
    match &node.value {
        Value::Map(entries) => {
            for (at, entry) in entries.iter().enumerate() {
                let path = format!("{path}.{}", entry.key);
                let mut rest = entries.clone();
                rest.remove(at);
                check(&changed(node, Value::Map(rest)), &path);
                without_each(&entry.value, &path, &mut |below, path| {
                    let mut rest = entries.clone();
                    rest[at].value = below.clone();
                    check(&changed(node, Value::Map(rest)), path);
                });
            }
        }
        Value::List(items) => {
            for (at, item) in items.iter().enumerate() {
                without_each(item, path, &mut |below, path| {
                    let mut rest = items.clone();
                    rest[at] = below.clone();
                    check(&changed(node, Value::List(rest)), path);
                });
            }
        }
        Value::Null | Value::Scalar { .. } => {}
    }
}

fn changed(node: &Node, value: Value) -> Node {
    let mut node = node.clone();
    node.value = value;
    node
}

/// Keys that may be absent without a difference: selectors are only checked, names of ports are
/// labels for people, and the others have here the value that Kubernetes takes without them.
const WITHOUT_EFFECT: &[&str] = &[
    ".spec.selector",
    ".spec.selector.matchLabels",
    ".spec.selector.matchExpressions",
    ".spec.updateStrategy.type",
    ".spec.minReadySeconds",
    ".spec.template.spec.restartPolicy",
    ".spec.template.spec.terminationGracePeriodSeconds",
    ".spec.template.spec.tolerations.key",
    ".spec.template.spec.tolerations.operator",
    ".spec.template.spec.tolerations.effect",
    ".spec.template.spec.containers.ports.name",
    ".spec.template.spec.containers.ports.protocol",
    ".spec.template.spec.containers.imagePullPolicy",
    ".spec.template.spec.containers.env.valueFrom.fieldRef.apiVersion",
    ".spec.template.spec.securityContext.runAsNonRoot",
    ".spec.template.spec.volumes.emptyDir",
];

#[test]
fn nothing_of_a_manifest_is_dropped_silently() {
    let mut removed = 0;
    let mut dropped = Vec::new();
    for (file, bytes) in manifests() {
        let documents = yaml::documents(&bytes).expect("YAML");
        let said = |documents: &[Node]| {
            let conversion = units(documents, &file);
            let remarks = conversion.remarks.into_iter();
            let remarks: Vec<_> = remarks.map(|it| (it.path, it.text)).collect();
            (conversion.units, remarks)
        };
        let whole = said(&documents);
        let [document] = documents.as_slice() else {
            continue;
        };
        // Where something is refused, there is no unit to differ.
        if whole.0.is_empty() {
            continue;
        }
        without_each(document, "", &mut |rest, path| {
            // A map that is noted or only checked is one field.
            let whole_maps = [
                ".spec.selector.",
                ".metadata.labels.",
                ".metadata.annotations.",
                ".spec.template.metadata.annotations.",
            ];
            let is_known = WITHOUT_EFFECT.contains(&path)
                || whole_maps.iter().any(|map| path.starts_with(map));
            if !is_known {
                removed += 1;
                if said(std::slice::from_ref(rest)) == whole {
                    dropped.push(format!("{file}: {path}"));
                }
            }
        });
    }
    assert_eq!(dropped, Vec::<String>::new());
    assert!(removed > 150, "only {removed} keys were tried");
}

#[test]
fn what_is_no_daemon_set_is_refused_with_its_place() {
    let first = "apiVersion: apps/v1\nkind: DaemonSet\nmetadata: {name: a}\n";
    let pod = "spec: {template: {spec: {containers: [{name: c, image: i:1}]}}}\n";
    let whole = format!("{first}{pod}");
    let refused = [
        "",
        "# nothing\n",
        "just text\n",
        "- a\n- b\n",
        "kind: 3\n",
        "kind: Deployment\n",
        "kind: ConfigMap\n",
        "kind: Secret\n",
        "kind: List\nitems: []\n",
        "kind: DaemonSets\n",
        "kind: Widget\n",
        "kind: Service\n",
        "knd: DaemonSet\n",
        "kind: DaemonSet\n",
        first,
        &format!("{first}spec: {{}}\n"),
        &format!("{first}spec: {{template: {{}}}}\n"),
        &format!("{first}spec: {{template: {{spec: {{}}}}}}\n"),
        &format!("{whole}---\n{whole}"),
        &format!("{whole}---\nkind: Deployment\n"),
        &format!("{whole}---\nkind: [\n"),
        &whole.replace("apps/v1", "apps/v2"),
        &whole.replace("image: i:1", "image: i:1, livenessProbe: {httpGet: \"\"}"),
        &whole.replace("image: i:1", "image: i:1, env: [{name: A, valueFrom: {}}]"),
        &whole.replace(
            "{containers",
            "{volumes: [{name: v, secret: \"\"}], containers",
        ),
        &whole.replace(
            "{containers",
            "{volumes: [{name: v, configMap: {}}], containers",
        ),
        &whole.replace("image: i:1", "image: i:1, command: [a], comand: [b]"),
    ];
    let mut text = String::new();
    for manifest in refused {
        let conversion = convert(manifest.as_bytes(), "a.yaml");
        assert!(conversion.is_refused(), "{manifest}");
        assert!(conversion.units.is_empty(), "{manifest}");
        let remarks = conversion.remarks.iter();
        text += &remarks.map(|it| format!("{it}\n")).collect::<String>();
        text += "\n";
    }
    insta::assert_snapshot!(text);
    assert!(!convert(whole.as_bytes(), "a.yaml").is_refused());
}

#[test]
fn name_of_a_file_stays_in_its_comment() {
    let bytes = fs::read(golden().join("app-a.yaml")).expect("a file");
    let conversion = convert(&bytes, "a\nExecStart=/bin/evil.yaml");
    let text = conversion.units[0].1.to_text().into_owned();
    assert_eq!(text.matches("\nExecStart=").count(), 1, "{text}");
}
