//! Unit files as the library of fleet 1.0 read and wrote them, for its HASH and its API.
//!
//! This reading deliberately differs from [`UnitFile`](super::UnitFile)'s. It keeps the backslash
//! and newline of a continuation inside the value, and treats a comment there as part of the value.
//! A comment that ends in `\` swallows the next line, and a line that ends in `\` and CR is not
//! continued. Hashes stay comparable only if all of that stays. No decision depends on it.
//!
//! Lines that fleet 1.0 rejected are skipped: [`UnitFile`](super::UnitFile) has a note for each.
//! fleet 1.0's limit of 2048 bytes a line is gone, because systemd reads lines of up to 1 MiB.

use std::collections::BTreeMap;

use crate::unit::UnitOption;

use super::Content;

/// Reads the options of a unit file. It never fails.
pub(super) fn options(bytes: &[u8]) -> Vec<UnitOption> {
    let text = as_go_text(bytes);
    let mut options = Vec::new();
    let mut section = None;
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match (first, section) {
            ('[', _) => {
                let Some((name, tail)) = after.split_once(']') else {
                    break;
                };
                section = Some(name);
                split_line(tail).1
            }
            ('#' | ';', _) => after_comment(after),
            (c, Some(section)) if !c.is_whitespace() => {
                let end = rest.find(['=', '\n', '\r']).unwrap_or(rest.len());
                let tail = rest.get(end + 1..).unwrap_or_default();
                if !rest[end..].starts_with('=') {
                    rest = tail;
                    continue;
                }
                let (value, tail) = value(tail);
                options.push(UnitOption {
                    name: rest[..end].trim().to_owned(),
                    section: section.to_owned(),
                    value,
                });
                tail
            }
            _ => after,
        };
    }
    options
}

/// Returns options as a unit file, byte for byte as fleet 1.0 wrote it. Each section appears once,
/// in order of first appearance, with a blank line between sections.
///
/// It is for API clients that send options only. [`UnitFile::parse`](super::UnitFile::parse)
/// returns the same options, grouped by section, if each was a line of a unit file. A value that
/// ends in `\` swallows the next line, and a newline starts a new option. Compare the two before
/// trusting a stranger's options.
pub fn serialize(options: &[UnitOption]) -> Content {
    let mut places = BTreeMap::new();
    let mut written: Vec<String> = Vec::new();
    for option in options {
        let place = *places.entry(&option.section).or_insert_with(|| {
            written.push(format!("[{}]\n", option.section));
            written.len() - 1
        });
        written[place] += &format!("{}={}\n", option.name, option.value);
    }
    Content::from(written.join("\n").into_bytes())
}

/// Returns the bytes as Go's JSON encoder wrote them: one U+FFFD for every byte that is not UTF-8.
/// fleet 1.0 hashed that text. `from_utf8_lossy` would write one for several bytes.
fn as_go_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| '\u{fffd}'));
    }
    text
}

/// Returns the first line without its newline, and the rest.
fn split_line(text: &str) -> (&str, &str) {
    text.split_once('\n').unwrap_or((text, ""))
}

fn after_comment(mut text: &str) -> &str {
    loop {
        let (line, tail) = split_line(text);
        text = tail;
        if !line.strip_suffix(' ').unwrap_or(line).ends_with('\\') {
            return text;
        }
    }
}

/// Returns the value, given the text after its `=`, and the rest.
fn value(mut text: &str) -> (String, &str) {
    let mut value = String::new();
    loop {
        let ends_the_file = !text.contains('\n');
        let (line, tail) = split_line(text);
        text = tail;
        if line.trim().is_empty() {
            break;
        }
        value.push_str(line);
        if !line.ends_with('\\') {
            break;
        }
        if !ends_the_file {
            value.push('\n');
        }
    }
    // A blank line ended the continuation: fleet 1.0 kept the newline it had inserted.
    let newline = if value.ends_with('\n') { "\n" } else { "" };
    (format!("{}{newline}", value.trim()), text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Vec<String> {
        options(text.as_bytes())
            .into_iter()
            .map(|option| format!("{}.{}={}", option.section, option.name, option.value))
            .collect()
    }

    #[test]
    fn continuation_keeps_its_backslash_and_newline() {
        assert_eq!(
            read("[A]\nk=one \\\n  # two\nl=3"),
            ["A.k=one \\\n  # two", "A.l=3"]
        );
        assert_eq!(read("[A]\nk=one \\\n  \nl=3\n"), ["A.k=one \\\n", "A.l=3"]);
        assert_eq!(read("[A]\nk=one \\"), ["A.k=one \\"]);
    }

    #[test]
    fn comment_ending_in_a_backslash_swallows_the_next_line() {
        for comment in ["# c \\", "; c \\", " #\\ "] {
            assert_eq!(read(&format!("[A]\n{comment}\nk=1\nl=2")), ["A.l=2"]);
        }
    }

    #[test]
    fn line_refused_by_fleet_1_0_is_skipped() {
        assert_eq!(
            read("junk\n[A] x\nno equals\nk=1\n=2\n[B"),
            ["A.k=1", "A.=2"]
        );
    }

    #[test]
    fn every_invalid_byte_becomes_one_replacement_character() {
        assert_eq!(options(b"[A]\nk=\xe2\x82\n")[0].value, "\u{fffd}\u{fffd}");
    }

    #[test]
    fn sections_are_merged_in_order_of_appearance() {
        let content = serialize(&options(b"[B]\nk=1\n[A]\nl=2\n[B]\nm=3\n"));
        assert_eq!(content.to_text(), "[B]\nk=1\nm=3\n\n[A]\nl=2\n");
    }

    /// Returns a file of lines that people write, in random order.
    fn file() -> impl Strategy<Value = String> {
        let line = prop_oneof![
            "\\[[A-C]\\]",
            "[a-c]{1,2} ?= ?[a-z \"]{0,8}",
            "[a-c]=[a-z]{0,3} \\\\\n  [a-z]{1,8}",
            "[#;][a-z ]{0,8}",
            Just(String::new()),
        ];
        proptest::collection::vec(line, 0..20).prop_map(|lines| lines.join("\n") + "\n")
    }

    proptest! {
        #[test]
        fn options_are_equal_after_writing_and_reading(text in file()) {
            let mut sent = options(text.as_bytes());
            let written = serialize(&sent);
            let mut read = options(written.as_bytes());
            prop_assert_eq!(serialize(&read), written);
            // The order within a section is kept; only the order between sections is lost.
            sent.sort_by(|a, b| a.section.cmp(&b.section));
            read.sort_by(|a, b| a.section.cmp(&b.section));
            prop_assert_eq!(read, sent);
        }

        #[test]
        fn reading_any_bytes_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            options(&bytes);
        }
    }
}
