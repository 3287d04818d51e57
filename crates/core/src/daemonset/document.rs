//! The documents of a file: which are DaemonSets, and what becomes of the others.

use super::fields::{Fate, Field, Fields, Rule, nearest};
use super::manifest::{Manifest, Policy};
use super::remark::Remarks;
use super::yaml::{Node, Value};
use super::{placement, pod};

const DAEMON_SET: &str = "DaemonSet";

/// Objects that have no meaning here, and why that is no loss to a unit.
const SKIPPED: &[(&str, &str)] = &[
    ("ServiceAccount", "there are no accounts and no API to call"),
    ("Role", "there is no API to call"),
    ("RoleBinding", "there is no API to call"),
    ("ClusterRole", "there is no API to call"),
    ("ClusterRoleBinding", "there is no API to call"),
    (
        "Namespace",
        "there are no namespaces; all units share one list of names",
    ),
    ("PodSecurityPolicy", "podman follows the unit alone"),
    ("PriorityClass", "nothing evicts units"),
    (
        "Service",
        "there is no DNS and no address of a cluster; reach the machines' own ports",
    ),
    (
        "ServiceMonitor",
        "write the machines into the configuration of Prometheus",
    ),
    (
        "PodMonitor",
        "write the machines into the configuration of Prometheus",
    ),
];

/// Objects that a unit would need, or that are units of another kind.
const REFUSED: &[(&str, &str)] = &[
    (
        "ConfigMap",
        "a unit has no files of its own yet; put the files on the machines and use a hostPath volume",
    ),
    (
        "Secret",
        "a unit has no files of its own yet; put the files on the machines and use a hostPath volume",
    ),
    (
        "List",
        "write each object as a document of its own, with --- between them",
    ),
    (
        "Deployment",
        "fleet runs one copy on every machine that matches; write a DaemonSet",
    ),
    (
        "StatefulSet",
        "fleet runs one copy on every machine that matches; write a DaemonSet",
    ),
    (
        "ReplicaSet",
        "fleet runs one copy on every machine that matches; write a DaemonSet",
    ),
    (
        "Pod",
        "fleet runs one copy on every machine that matches; write a DaemonSet",
    ),
    ("Job", "write a unit with Type=oneshot"),
    ("CronJob", "write a timer unit"),
    (
        "NetworkPolicy",
        "there is no network of pods; filter packets on the machines",
    ),
    ("CSIDriver", "there are no CSI drivers here"),
    (
        "PersistentVolumeClaim",
        "there are no claims here; use a hostPath volume",
    ),
    ("CustomResourceDefinition", "there is no API to extend"),
];

const METADATA: &[Rule] = &[
    (
        "labels",
        Fate::Noted,
        "labels of a DaemonSet are not kept; those of its template become labels of the container",
    ),
    (
        "annotations",
        Fate::Noted,
        "annotations are not kept; nothing here reads them",
    ),
    ("generateName", Fate::Refused, "write a name"),
    (
        "creationTimestamp",
        Fate::Noted,
        "Kubernetes wrote it for itself",
    ),
    ("uid", Fate::Noted, "Kubernetes wrote it for itself"),
    (
        "resourceVersion",
        Fate::Noted,
        "Kubernetes wrote it for itself",
    ),
    ("generation", Fate::Noted, "Kubernetes wrote it for itself"),
    (
        "managedFields",
        Fate::Noted,
        "Kubernetes wrote it for itself",
    ),
    ("selfLink", Fate::Noted, "Kubernetes wrote it for itself"),
    ("ownerReferences", Fate::Noted, "nothing here reads them"),
    ("finalizers", Fate::Noted, "nothing here reads them"),
];

/// Reads a document; `None` if it is no DaemonSet, or is refused.
pub(super) fn read(node: &Node, remarks: &mut Remarks) -> Option<Manifest> {
    let document = Field::document(node);
    let mut fields = document.fields(remarks)?;
    let kind = kind(node, &mut fields, remarks)?;
    if kind != DAEMON_SET {
        judge(&kind, &document, remarks);
        return None;
    }
    let beta = api_version(&document, &mut fields, remarks);
    let (name, namespace) = metadata(&document, &mut fields, remarks);
    let spec = fields.take("spec");
    let rules = [("status", Fate::Noted, "Kubernetes wrote it for itself")];
    fields.finish(&rules, remarks);
    let Some(spec) = spec else {
        document.refuse(remarks, "spec is missing");
        return None;
    };
    let mut spec = spec.fields(remarks)?;
    let selector = spec.take("selector");
    let policy = policy(&mut spec, beta, remarks);
    let Some(template) = spec.take("template") else {
        remarks.refuse(spec.at, &spec.below("template"), "the template is missing");
        spec.finish(SPEC, remarks);
        return None;
    };
    spec.finish(SPEC, remarks);
    let mut template = template.fields(remarks)?;
    let labels = pod::labels(&mut template, remarks);
    let pod_spec = template.take("spec");
    let (at, path) = (template.at, template.below("spec"));
    template.finish(&[], remarks);
    if let Some(selector) = selector {
        select(&selector, &labels, remarks);
    }
    let Some(pod_spec) = pod_spec else {
        remarks.refuse(at, &path, "the spec of the pod is missing");
        return None;
    };
    let mut pod_spec = pod_spec.fields(remarks)?;
    let placement = placement::read(&mut pod_spec, remarks);
    let pod = pod::read(pod_spec, labels, &namespace, remarks);
    Some(Manifest {
        name: name?,
        placement,
        policy,
        pod,
    })
}

/// Returns the kind of a document.
fn kind(node: &Node, fields: &mut Fields<'_>, remarks: &mut Remarks) -> Option<String> {
    if let Some(kind) = fields.take("kind") {
        return kind.text(remarks);
    }
    // A misspelt key is clear if its value is a kind.
    let is_kind = |text: &str| {
        let others = SKIPPED.iter().chain(REFUSED).map(|(kind, _)| *kind);
        others.chain([DAEMON_SET]).any(|kind| kind == text)
    };
    let meant = fields
        .left()
        .iter()
        .find_map(|entry| match &entry.value.value {
            Value::Scalar { text, .. } if entry.key != "apiVersion" && is_kind(text) => {
                Some((entry.key.clone(), entry.at, text.clone()))
            }
            _ => None,
        });
    match meant {
        Some((key, at, kind)) => {
            remarks.note(at, "", format!("{key:?} is read as \"kind\""));
            fields.drop(&key);
            Some(kind)
        }
        None => {
            remarks.refuse(node.at, "", "kind is missing; write kind: DaemonSet");
            None
        }
    }
}

fn judge(kind: &str, document: &Field<'_>, remarks: &mut Remarks) {
    let shown: String = kind.chars().take(60).collect();
    if let Some((_, why)) = SKIPPED.iter().find(|(known, _)| *known == kind) {
        document.note(remarks, format!("{shown} is left out: {why}"));
    } else if let Some((_, why)) = REFUSED.iter().find(|(known, _)| *known == kind) {
        document.refuse(remarks, format!("{shown} cannot be converted: {why}"));
    } else {
        let known = SKIPPED.iter().chain(REFUSED).map(|(kind, _)| *kind);
        let meant = nearest(kind, known.chain([DAEMON_SET]));
        let hint = meant.map(|meant| format!("; did you mean {meant}?"));
        let text = format!(
            "kind {shown:?} cannot be converted, only DaemonSet{}",
            hint.unwrap_or_default()
        );
        document.refuse(remarks, text);
    }
}

/// Checks the version. Returns whether it is one whose DaemonSets Kubernetes updates by hand.
fn api_version(document: &Field<'_>, fields: &mut Fields<'_>, remarks: &mut Remarks) -> bool {
    let Some(field) = fields.take("apiVersion") else {
        document.refuse(remarks, "apiVersion is missing; write apiVersion: apps/v1");
        return false;
    };
    // The first manifest of many has a blank at the end of its line, which YAML drops.
    match field.text(remarks).as_deref() {
        Some("apps/v1") | None => false,
        Some(old @ ("apps/v1beta2" | "extensions/v1beta1")) => {
            field.note(
                remarks,
                format!("{old} is read as apps/v1; Kubernetes 1.16 removed it"),
            );
            old == "extensions/v1beta1"
        }
        Some(_) => {
            field.refuse(remarks, "write apps/v1");
            false
        }
    }
}

/// Returns the name and the namespace.
fn metadata(
    document: &Field<'_>,
    fields: &mut Fields<'_>,
    remarks: &mut Remarks,
) -> (Option<String>, String) {
    let mut name = None;
    let mut namespace = "default".to_owned();
    let Some(mut metadata) = fields.map("metadata", remarks) else {
        document.refuse(remarks, "metadata with a name is missing");
        return (None, namespace);
    };
    match metadata.take("name") {
        None => remarks.refuse(metadata.at, &metadata.below("name"), "the name is missing"),
        Some(field) => {
            name = field.text(remarks).filter(|text| {
                let fits = is_subdomain(text);
                if !fits {
                    field.refuse(remarks, "write small letters, digits, - and ., at most 180");
                }
                fits
            });
        }
    }
    if let Some(field) = metadata.take("namespace")
        && let Some(text) = field.text(remarks)
        && text != "default"
    {
        field.note(
            remarks,
            "there are no namespaces; all units share one list of names",
        );
        namespace = text;
    }
    metadata.finish(METADATA, remarks);
    (name, namespace)
}

fn is_subdomain(name: &str) -> bool {
    let part = |part: &str| {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        !part.is_empty()
            && part.chars().all(allowed)
            && !part.starts_with('-')
            && !part.ends_with('-')
    };
    // A unit's name has room for the container's and for .service.
    name.len() <= 180 && name.split('.').all(part)
}

const SPEC: &[Rule] = &[
    (
        "revisionHistoryLimit",
        Fate::Noted,
        "the registry keeps the last 10 revisions of a unit",
    ),
    (
        "templateGeneration",
        Fate::Noted,
        "Kubernetes wrote it for itself",
    ),
];

const ROLLING: &[Rule] = &[(
    "maxSurge",
    Fate::Refused,
    "a machine runs one copy of a unit; a socket unit keeps connections over a restart",
)];

/// Reads how updates are rolled out.
fn policy(spec: &mut Fields<'_>, beta: bool, remarks: &mut Remarks) -> Policy {
    let mut policy = Policy {
        manual: false,
        // The default of Kubernetes; that of a unit is a tenth of the machines.
        max_unavailable: "1".to_owned(),
        min_ready: spec.number("minReadySeconds", remarks),
    };
    let Some(strategy) = spec.take("updateStrategy") else {
        if beta {
            let text = "extensions/v1beta1 updates a pod when it is deleted; the unit updates one machine at a time";
            remarks.note(spec.at, &spec.below("updateStrategy"), text);
        }
        return policy;
    };
    let Some(mut fields) = strategy.fields(remarks) else {
        return policy;
    };
    if let Some(kind) = fields.take("type") {
        match kind.text(remarks).as_deref() {
            Some("RollingUpdate") | None => {}
            Some("OnDelete") => {
                kind.note(
                    remarks,
                    "an update waits for `fleetctl rollout resume`, and then rolls; deleting pods does not exist here",
                );
                policy.manual = true;
            }
            Some(_) => kind.refuse(remarks, "write RollingUpdate or OnDelete"),
        }
    }
    if let Some(mut rolling) = fields.map("rollingUpdate", remarks) {
        if let Some(field) = rolling.take("maxUnavailable")
            && let Some(text) = field.amount(remarks)
        {
            match budget(&text) {
                Some(true) => {
                    field.note(
                        remarks,
                        "a share is rounded down here, to at least one machine; Kubernetes rounds up",
                    );
                    policy.max_unavailable = text;
                }
                Some(false) => policy.max_unavailable = text,
                None => field.refuse(remarks, "write a number of machines above 0, or 1% to 100%"),
            }
        }
        if let Some(surge) = rolling.take("maxSurge")
            && surge
                .amount(remarks)
                .is_some_and(|text| text != "0" && text != "0%")
        {
            surge.refuse(remarks, ROLLING[0].2);
        }
        rolling.finish(ROLLING, remarks);
    }
    fields.finish(&[], remarks);
    policy
}

/// Returns whether a budget is a share; `None` if it is no budget.
fn budget(text: &str) -> Option<bool> {
    let (digits, share) = match text.strip_suffix('%') {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    let number: u32 = digits
        .bytes()
        .all(|c| c.is_ascii_digit())
        .then(|| digits.parse().ok())??;
    (number > 0 && (!share || number <= 100)).then_some(share)
}

/// Checks that a selector selects the template, as the API of Kubernetes does.
fn select(selector: &Field<'_>, labels: &[(String, String)], remarks: &mut Remarks) {
    let Some(mut fields) = selector.fields(remarks) else {
        return;
    };
    let value = |key: &str| labels.iter().find(|(label, _)| label == key);
    let mismatch = "the selector does not select the template's labels";
    if let Some(field) = fields.take("matchLabels") {
        for (key, field, wanted) in field.pairs(remarks) {
            if value(&key).is_none_or(|(_, found)| *found != wanted) {
                field.refuse(remarks, mismatch);
            }
        }
    }
    for expression in fields.list("matchExpressions", remarks) {
        let Some(mut fields) = expression.fields(remarks) else {
            continue;
        };
        let key = fields.text("key", remarks);
        let operator = fields.text("operator", remarks);
        let values = fields.take("values").map(|it| it.texts(remarks));
        fields.finish(&[], remarks);
        let found = key.as_deref().and_then(value).map(|(_, value)| value);
        let among = |values: &[String]| found.is_some_and(|found| values.contains(found));
        let values = values.unwrap_or_default();
        let holds = match operator.as_deref() {
            Some("In") => among(&values),
            Some("NotIn") => !among(&values),
            Some("Exists") => found.is_some(),
            Some("DoesNotExist") => found.is_none(),
            _ => {
                expression.refuse(remarks, "write In, NotIn, Exists or DoesNotExist");
                continue;
            }
        };
        if !holds {
            expression.refuse(remarks, mismatch);
        }
    }
    fields.finish(&[], remarks);
}
