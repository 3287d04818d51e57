//! Which machines a DaemonSet selects: `nodeSelector`, required node affinity, tolerations.

use std::collections::BTreeSet;

use super::fields::{Fate, Field, Fields, Rule};
use super::manifest::Placement;
use super::remark::Remarks;

const AFFINITY: &[Rule] = &[
    (
        "podAffinity",
        Fate::Refused,
        "a unit cannot follow another one by affinity; select machines by their metadata",
    ),
    (
        "podAntiAffinity",
        Fate::Refused,
        "write Conflicts= in the [X-Fleet] section of the converted unit",
    ),
];

const NODE_AFFINITY: &[Rule] = &[(
    "preferredDuringSchedulingIgnoredDuringExecution",
    Fate::Noted,
    "a DaemonSet runs on every node that matches, so a preference changes nothing",
)];

const TERM: &[Rule] = &[(
    "matchFields",
    Fate::Refused,
    "select machines by metadata: `fleetctl metadata MACHINE KEY=VALUE`",
)];

const NO_TAINTS: &str = "machines have no taints here; the unit runs on cordoned machines, too";

/// Reads which machines the pod selects.
pub(super) fn read(pod: &mut Fields<'_>, remarks: &mut Remarks) -> Placement {
    let mut placement = Placement::default();
    if let Some(selector) = pod.take("nodeSelector") {
        for (key, field, value) in selector.pairs(remarks) {
            require(&mut placement, &key, &field, [value].into(), remarks);
        }
    }
    if let Some(mut affinity) = pod.map("affinity", remarks) {
        if let Some(mut node) = affinity.map("nodeAffinity", remarks) {
            required(&mut node, &mut placement, remarks);
            node.finish(NODE_AFFINITY, remarks);
        }
        affinity.finish(AFFINITY, remarks);
    }
    if let Some(tolerations) = pod.take("tolerations") {
        for mut toleration in tolerations
            .items(remarks)
            .iter()
            .filter_map(|it| it.fields(remarks))
            .collect::<Vec<_>>()
        {
            for key in ["key", "operator", "value", "effect"] {
                toleration.text(key, remarks);
            }
            toleration.number("tolerationSeconds", remarks);
            toleration.finish(&[], remarks);
        }
        tolerations.note(remarks, NO_TAINTS);
    }
    placement
}

fn required(node: &mut Fields<'_>, placement: &mut Placement, remarks: &mut Remarks) {
    let Some(required) = node.take("requiredDuringSchedulingIgnoredDuringExecution") else {
        return;
    };
    let Some(mut fields) = required.fields(remarks) else {
        return;
    };
    let terms = fields.take("nodeSelectorTerms");
    fields.finish(&[], remarks);
    let Some(terms) = terms else {
        required.refuse(remarks, "nodeSelectorTerms is missing");
        return;
    };
    let items = terms.items(remarks);
    let [term] = items.as_slice() else {
        terms.refuse(
            remarks,
            "exactly one term can be followed; give the machines of each term a metadata key of their own",
        );
        return;
    };
    let Some(mut term) = term.fields(remarks) else {
        return;
    };
    for expression in term.list("matchExpressions", remarks) {
        let Some(mut fields) = expression.fields(remarks) else {
            continue;
        };
        let key = fields.text("key", remarks);
        let operator = fields.take("operator");
        let values = fields.take("values");
        fields.finish(&[], remarks);
        let (Some(key), Some(operator)) = (key, operator) else {
            expression.refuse(remarks, "an expression needs a key and an operator");
            continue;
        };
        let Some(word) = operator.text(remarks) else {
            continue;
        };
        if word != "In" {
            operator.refuse(
                remarks,
                format!("{word} cannot be followed, only In; give the machines that match metadata of their own"),
            );
            continue;
        }
        let texts = values.as_ref().map(|values| values.texts(remarks));
        let texts: BTreeSet<String> = texts.unwrap_or_default().into_iter().collect();
        if texts.is_empty() {
            expression.refuse(remarks, "In needs values");
            continue;
        }
        require(placement, &key, &values.unwrap_or(operator), texts, remarks);
    }
    term.finish(TERM, remarks);
}

/// Takes a requirement: machines must have one of these values.
fn require(
    placement: &mut Placement,
    key: &str,
    field: &Field<'_>,
    values: BTreeSet<String>,
    remarks: &mut Remarks,
) {
    match key {
        "kubernetes.io/os" | "beta.kubernetes.io/os" if values.contains("linux") => {
            field.note(remarks, "every machine runs Linux");
        }
        "kubernetes.io/os" | "beta.kubernetes.io/os" => {
            field.refuse(remarks, "every machine runs Linux");
        }
        "kubernetes.io/arch" | "beta.kubernetes.io/arch" => {
            let known: Option<BTreeSet<_>> = values.iter().map(|it| architecture(it)).collect();
            match known {
                None => field.refuse(remarks, "this architecture is not known"),
                Some(known) if placement.architectures.is_empty() => {
                    field.note(
                        remarks,
                        "read as ConditionArchitecture=: on other machines systemd skips the unit",
                    );
                    placement.architectures = known;
                }
                Some(known) => {
                    placement.architectures.retain(|it| known.contains(it));
                    if placement.architectures.is_empty() {
                        field.refuse(remarks, "no machine can match this and the other selector");
                    }
                }
            }
        }
        "kubernetes.io/hostname" => field.refuse(
            remarks,
            "machines are selected by metadata: `fleetctl metadata MACHINE KEY=VALUE`, and KEY: VALUE here",
        ),
        key if !is_label(key) || !values.iter().all(|value| is_value(value)) => field.refuse(
            remarks,
            "metadata has keys and values of letters, digits and -_. only; give the machines such a key, and use it here",
        ),
        key => {
            let wanted = placement.metadata.entry(key.to_owned());
            let accepted = wanted.or_insert_with(|| values.clone());
            // Several values for a key are alternatives here, and each must hold there.
            accepted.retain(|value| values.contains(value));
            if accepted.is_empty() {
                field.refuse(remarks, "no machine can match this and the other selector");
            }
        }
    }
}

fn is_label(key: &str) -> bool {
    !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

fn is_value(value: &str) -> bool {
    !value.is_empty()
        && value
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
}

/// The name that systemd has for an architecture.
fn architecture(name: &str) -> Option<&'static str> {
    Some(match name {
        "amd64" => "x86-64",
        "386" => "x86",
        "arm64" => "arm64",
        "arm" => "arm",
        "ppc64le" => "ppc64-le",
        "s390x" => "s390x",
        "riscv64" => "riscv64",
        _ => return None,
    })
}
