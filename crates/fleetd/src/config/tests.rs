//! The documentation agrees with the table.

use super::options::{OPTIONS, Opt};

const PAGE: &str = include_str!("../../../../docs/reference/configuration.md");
const EXAMPLE: &str = include_str!("../../../../units/fleet.conf.example");

/// Returns the page's lines about an option: its meaning, one sentence a line, its default and its
/// form.
fn entry(option: &Opt) -> Vec<String> {
    if let Some(reason) = option.unused() {
        return vec![format!("* `{}`: {reason}.", option.name)];
    }
    let default = match option.default {
        "" => "none".to_owned(),
        default => format!("`{default}`"),
    };
    let meaning = format!("* `{}`: {}", option.name, option.meaning);
    let mut lines: Vec<_> = meaning
        .replace(". ", ".\n  ")
        .lines()
        .map(str::to_owned)
        .collect();
    lines.push(format!("  Default: {default}."));
    lines.push(format!("  Form: {}.", option.unit));
    lines
}

#[test]
fn the_page_has_an_entry_for_every_option_and_no_other() {
    let expected: Vec<_> = OPTIONS.iter().flat_map(entry).collect();
    let is_entry = |line: &&str| line.starts_with("* `") || line.starts_with("  ");
    let (_, options) = PAGE.split_once("\n## Options\n").expect("its heading");
    let lines: Vec<_> = options.lines().filter(is_entry).collect();
    assert_eq!(lines, expected, "\n{}\n", expected.join("\n"));
}

#[test]
fn example_names_every_effective_option_and_sets_none() {
    let expected: Vec<_> = OPTIONS
        .iter()
        .filter(|option| option.unused().is_none())
        .flat_map(|option| {
            [
                format!("# {} ({})", option.meaning, option.unit),
                format!("#{}={}", option.name, option.default),
                String::new(),
            ]
        })
        .collect();
    let (_, body) = EXAMPLE.split_once("\n\n").expect("an introduction");
    let body: Vec<_> = body.lines().map(str::to_owned).collect();
    assert_eq!(body, expected, "\n{}\n", expected.join("\n"));
}
