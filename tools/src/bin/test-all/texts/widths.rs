//! Rules for widths and lengths.

use super::{Fault, Rule, Text};

/// The largest number of columns of a comment line.
const COMMENT: usize = 100;

/// The largest number of characters in a table cell of a page.
const CELL: usize = 60;

/// The largest number of lines in a source file.
const LENGTH: usize = 500;

/// The largest number of characters in a test's name.
const NAME: usize = 60;

/// Returns the places where a text is too wide or too long.
pub(super) fn faults(text: &Text) -> Vec<Fault> {
    let lines = text.content.lines().zip(1..);
    match text.path.rsplit_once('.').map(|(_, kind)| kind) {
        Some("md") => cells(text),
        Some("rs") => {
            let wide = lines.filter_map(|(line, number)| comment(line, "//", number));
            wide.chain(length(text)).chain(names(text)).collect()
        }
        Some("toml") => lines
            .filter_map(|(line, number)| comment(line, "#", number))
            .collect(),
        _ => vec![],
    }
}

fn comment(line: &str, mark: &str, number: usize) -> Option<Fault> {
    let columns = line.chars().count();
    // A link cannot be split.
    let is_comment = line.trim_start().starts_with(mark) && !line.contains("://");
    (is_comment && columns > COMMENT).then(|| Fault {
        rule: Rule::Comment,
        line: number,
        why: format!("a comment of {columns} columns, at most {COMMENT}"),
    })
}

fn length(text: &Text) -> Option<Fault> {
    let lines = text.content.lines().count();
    let is_source = text.path.split('/').any(|folder| folder == "src");
    (is_source && lines > LENGTH).then(|| Fault {
        rule: Rule::Length,
        line: lines,
        why: format!("a file of {lines} lines, at most {LENGTH}: look for its second idea"),
    })
}

/// Returns the tests whose names are too long to read as a statement.
fn names(text: &Text) -> Vec<Fault> {
    let mut is_test = false;
    let mut faults = Vec::new();
    for (line, number) in text.content.lines().zip(1..) {
        let line = line.trim_start();
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let Some((_, rest)) = line.split_once("fn ").filter(|_| is_test) else {
            continue;
        };
        is_test = false;
        let width = rest.split('(').next().unwrap_or_default().chars().count();
        if width > NAME {
            faults.push(Fault {
                rule: Rule::Name,
                line: number,
                why: format!("a test's name of {width} characters, at most {NAME}"),
            });
        }
    }
    faults
}

fn cells(text: &Text) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut is_code = false;
    for (line, number) in text.content.lines().zip(1..) {
        is_code ^= line.trim_start().starts_with("```");
        if is_code || !line.starts_with('|') {
            continue;
        }
        // An escaped bar is part of its cell.
        for cell in line.replace("\\|", "/").split('|') {
            let width = cell.trim().chars().count();
            if width > CELL {
                faults.push(Fault {
                    rule: Rule::Cell,
                    line: number,
                    why: format!("a table cell of {width} characters, at most {CELL}"),
                });
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::{CELL, COMMENT, LENGTH, NAME, faults};

    fn lines_at_fault(path: &str, content: &str) -> Vec<usize> {
        let faults = faults(&text(path, content));
        faults.into_iter().map(|fault| fault.line).collect()
    }

    #[test]
    fn comment_over_100_columns_is_a_fault() {
        let wide = format!("    // {}", "x".repeat(COMMENT - 6));
        let content = format!("{}\n{wide}\nlet a = {};", &wide[1..], "1".repeat(200));
        assert_eq!(lines_at_fault("lab/src/a.rs", &content), [2]);
        let toml = format!("# {}", "x".repeat(COMMENT));
        assert_eq!(lines_at_fault("Cargo.toml", &toml), [1]);
    }

    #[test]
    fn comment_with_a_link_may_be_wide() {
        let content = format!("// https://example.org/{}", "x".repeat(COMMENT));
        assert!(lines_at_fault("lab/src/a.rs", &content).is_empty());
    }

    #[test]
    fn cell_over_60_characters_is_a_fault() {
        let (fits, wide) = ("x".repeat(CELL), "x".repeat(CELL + 1));
        let content = format!("| {fits} | b |\n| a | {wide} |\n```\n| {wide} |\n```\n{wide}\n");
        assert_eq!(lines_at_fault("docs/a.md", &content), [2]);
    }

    #[test]
    fn source_file_over_500_lines_is_a_fault() {
        let long = "\n".repeat(LENGTH + 1);
        assert_eq!(lines_at_fault("lab/src/a.rs", &long), [LENGTH + 1]);
        assert!(lines_at_fault("lab/src/a.rs", &long[1..]).is_empty());
        assert!(lines_at_fault("lab/tests/a.rs", &long).is_empty());
    }

    #[test]
    fn test_name_over_60_characters_is_a_fault() {
        let (fits, wide) = ("x".repeat(NAME), "x".repeat(NAME + 1));
        let content =
            format!("#[test]\nfn {fits}() {{}}\n#[test]\nfn {wide}() {{}}\nfn {wide}() {{}}\n");
        assert_eq!(lines_at_fault("tests/a.rs", &content), [4]);
    }
}
