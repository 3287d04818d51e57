//! The rules for texts: widths of comments and table cells, lengths of test names and files, links.

mod links;
mod widths;

use std::fmt::{self, Display};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Folders that are generated, or do not belong to this repository.
const NOT_OURS: &[&str] = &["target", ".git", "corpus", "snapshots"];

/// Path prefixes that break a rule today, each with the rule. Split or shorten instead of adding
/// one.
const EXCEPTIONS: &[(&str, Rule)] = &[];

/// A rule for texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Comment,
    Cell,
    Length,
    Link,
    Name,
}

/// One place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    rule: Rule,
    /// The line, counted from 1.
    line: usize,
    why: String,
}

/// A text, with its path below the root of the repository.
#[derive(Debug)]
pub(crate) struct Text {
    path: String,
    content: String,
}

/// Checks every text of the repository.
///
/// # Errors
/// Lists every place that breaks a rule, one per line, and exceptions that are no longer needed.
pub(crate) fn check(root: &Path) -> Result<()> {
    let mut texts = Vec::new();
    collect(root, root, &mut texts)?;
    let faults = faults(&texts);
    let excepted = |path: &str, rule| {
        let mut exceptions = EXCEPTIONS.iter();
        exceptions.any(|(begin, of)| path.starts_with(begin) && *of == rule)
    };
    let mut lines: Vec<String> = faults
        .iter()
        .filter(|(path, fault)| !excepted(path, fault.rule))
        .map(|(path, fault)| format!("{path}:{fault}"))
        .collect();
    for (path, rule) in EXCEPTIONS {
        let used = |(at, fault): &(&str, Fault)| at.starts_with(path) && fault.rule == *rule;
        if !faults.iter().any(used) {
            lines.push(format!("{path}: remove its exception from {}", file!()));
        }
    }
    ensure!(lines.is_empty(), "{}", lines.join("\n"));
    Ok(())
}

fn faults(texts: &[Text]) -> Vec<(&str, Fault)> {
    let mut all = Vec::new();
    for text in texts {
        let links = links::faults(text, texts);
        let found = widths::faults(text).into_iter().chain(links);
        all.extend(found.map(|fault| (text.path.as_str(), fault)));
    }
    all
}

fn collect(root: &Path, folder: &Path, texts: &mut Vec<Text>) -> Result<()> {
    let entries = fs::read_dir(folder);
    for entry in entries.with_context(|| format!("cannot read {}", folder.display()))? {
        let (entry, name) = entry.map(|entry| (entry.path(), entry.file_name()))?;
        let is_ours = !NOT_OURS.iter().any(|other| name == *other);
        let kind = entry.extension().and_then(|it| it.to_str());
        if entry.is_dir() && !entry.is_symlink() && is_ours {
            collect(root, &entry, texts)?;
        } else if entry.is_file() {
            let is_text = matches!(kind, Some("rs" | "md" | "toml"));
            texts.push(Text {
                path: entry.strip_prefix(root)?.display().to_string(),
                content: is_text
                    .then(|| fs::read_to_string(&entry))
                    .transpose()?
                    .unwrap_or_default(),
            });
        }
    }
    Ok(())
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.why)
    }
}

#[cfg(test)]
fn text(path: &str, content: &str) -> Text {
    Text {
        path: path.to_owned(),
        content: content.to_owned(),
    }
}
