//! Variables of a container, and `$(NAME)` in its commands.

use super::fields::{Fate, Field, Fields, Rule};
use super::quote::{Piece, Text};
use super::remark::Remarks;

const NO_FILES: &str = "a unit has no files of its own yet: write the value here, or put a file on the machines \
                        and mount it with a hostPath volume";

const SOURCES: &[Rule] = &[
    ("configMapKeyRef", Fate::Refused, NO_FILES),
    ("secretKeyRef", Fate::Refused, NO_FILES),
    (
        "resourceFieldRef",
        Fate::Refused,
        "the limits are not known inside a container; write the value here",
    ),
    ("fileKeyRef", Fate::Refused, NO_FILES),
];

/// What field references stand for.
pub(super) struct Known<'m> {
    pub(super) namespace: &'m str,
    pub(super) labels: &'m [(String, String)],
}

/// Reads the variables of a container.
pub(super) fn read(
    container: &mut Fields<'_>,
    known: &Known<'_>,
    remarks: &mut Remarks,
) -> Vec<(String, Text)> {
    if let Some(field) = container.take("envFrom")
        && !field.items(remarks).is_empty()
    {
        field.refuse(remarks, NO_FILES);
    }
    let mut env: Vec<(String, Text)> = Vec::new();
    for item in container.list("env", remarks) {
        let Some(mut fields) = item.fields(remarks) else {
            continue;
        };
        let name = fields.take("name");
        let value = match (fields.take("value"), fields.take("valueFrom")) {
            (Some(value), None) => value.text(remarks).map(|text| expand(&text, &env)),
            (None, Some(source)) => from(&source, known, remarks),
            (None, None) => Some(Text::plain("")),
            (Some(_), Some(source)) => {
                source.refuse(remarks, "value and valueFrom exclude each other");
                None
            }
        };
        fields.finish(&[], remarks);
        let Some(name) = name else {
            item.refuse(remarks, "a variable needs a name");
            continue;
        };
        let Some(text) = name.text(remarks) else {
            continue;
        };
        if !is_variable(&text) {
            name.refuse(
                remarks,
                format!("{text:?} cannot be the name of a variable"),
            );
            continue;
        }
        if let Some(value) = value {
            // The last one wins, in its own place.
            env.retain(|(other, _)| *other != text);
            env.push((text, value));
        }
    }
    env
}

fn is_variable(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) && name.chars().all(allowed)
}

fn from(source: &Field<'_>, known: &Known<'_>, remarks: &mut Remarks) -> Option<Text> {
    let mut fields = source.fields(remarks)?;
    let reference = fields.take("fieldRef");
    fields.finish(SOURCES, remarks);
    let Some(reference) = reference else {
        if !remarks.refused() {
            source.refuse(remarks, "a source needs a fieldRef");
        }
        return None;
    };
    let mut fields = reference.fields(remarks)?;
    fields.text("apiVersion", remarks);
    let path = fields.take("fieldPath");
    fields.finish(&[], remarks);
    let Some(path) = path else {
        reference.refuse(remarks, "a reference needs a fieldPath");
        return None;
    };
    let text = path.text(remarks)?;
    let label = text.strip_prefix("metadata.labels['");
    if let Some(key) = label.and_then(|rest| rest.strip_suffix("']")) {
        let found = known.labels.iter().find(|(label, _)| label == key);
        return Some(Text::plain(found.map_or("", |(_, value)| value)));
    }
    match text.as_str() {
        "spec.nodeName" => Some(Text::specifier("%H")),
        "metadata.name" => Some(Text::specifier("%N")),
        "metadata.namespace" => Some(Text::plain(known.namespace)),
        "status.hostIP" | "status.hostIPs" | "status.podIP" | "status.podIPs" => {
            let text = "a unit cannot read the machine's address yet; listen on 0.0.0.0, or write the value here";
            path.refuse(remarks, text);
            None
        }
        "spec.serviceAccountName" | "metadata.uid" => {
            path.refuse(remarks, "this exists in Kubernetes only");
            None
        }
        _ => {
            let text = "only spec.nodeName, metadata.name, metadata.namespace and metadata.labels['KEY'] are known";
            path.refuse(remarks, text);
            None
        }
    }
}

/// Replaces `$(NAME)` by the variable's value, and `$$` by `$`. An unknown name stays as it is.
pub(super) fn expand(text: &str, env: &[(String, Text)]) -> Text {
    let mut expanded = Text(vec![Piece::Plain(String::new())]);
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        expanded.push_plain(before);
        if let Some(after) = after.strip_prefix('$') {
            expanded.push_plain("$");
            rest = after;
            continue;
        }
        let name = after.strip_prefix('(').and_then(|it| it.split_once(')'));
        let known = name.and_then(|(name, after)| {
            let found = env.iter().find(|(other, _)| other == name)?;
            Some((&found.1, after))
        });
        match known {
            Some((value, after)) => {
                expanded.push(value);
                rest = after;
            }
            None => {
                expanded.push_plain("$");
                rest = after;
            }
        }
    }
    expanded.push_plain(rest);
    expanded
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemonset::quote::word;

    #[test]
    fn variables_are_expanded_as_kubernetes_does() {
        let env = [
            ("A".to_owned(), Text::plain("1")),
            ("H".to_owned(), Text::specifier("%H")),
        ];
        for (text, expanded) in [
            ("$(A)$(A)", "11"),
            ("$$(A)", "\"$$(A)\""),
            ("$$$(A)", "\"$$1\""),
            ("$(B) $(A", "\"$$(B) $$(A\""),
            ("$A $", "\"$$A $$\""),
            ("--node=$(H):80", "--node=%H:80"),
            ("", "\"\""),
        ] {
            assert_eq!(word(&expand(text, &env)), expanded, "{text}");
        }
    }
}
