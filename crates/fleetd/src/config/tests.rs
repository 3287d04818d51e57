//! The documentation says what the table says.

use super::options::{OPTIONS, Opt};

const PAGE: &str = include_str!("../../../../docs/reference/configuration.md");
const EXAMPLE: &str = include_str!("../../../../units/fleet.conf.example");

fn row(option: &Opt) -> String {
    let default = match option.default {
        "" => String::new(),
        default => format!("`{default}`"),
    };
    match option.unused() {
        Some(reason) => format!("| `{}` | {reason} |", option.name),
        None => format!(
            "| `{}` | {} | {default} | {} |",
            option.name, option.meaning, option.unit
        ),
    }
}

#[test]
fn the_page_has_a_row_for_every_option_and_no_other() {
    let expected: Vec<_> = OPTIONS.iter().map(row).collect();
    let rows: Vec<_> = PAGE.lines().filter(|l| l.starts_with("| `")).collect();
    assert_eq!(rows, expected, "\n{}\n", expected.join("\n"));
}

#[test]
fn the_example_has_every_option_that_has_an_effect_and_sets_none() {
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
