//! The lines of a unit file as systemd joins them, before it interprets them.
//!
//! * A line ends at `\n`, CR or NUL; a run of different ones is one end. The first byte order mark
//!   at the start of a line is dropped.
//! * A line whose first visible character is `#` or `;` is a comment, even within a continuation.
//! * An odd number of backslashes at the end joins the next line. A blank replaces the last
//!   backslash.
//!
//! systemd limits a line to 1 MiB. That is above [`CONTENT_MAX`](crate::record::CONTENT_MAX), so it
//! needs no check.

/// systemd's white space. Form feeds and no-break spaces do not belong to it.
pub(super) const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// Returns the lines of a file, with comments dropped and continuations joined. Each has the number
/// of its first line.
pub(super) fn joined_lines(mut rest: &[u8]) -> Vec<(usize, Vec<u8>)> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    let mut lines = Vec::new();
    let mut continued: Option<(usize, Vec<u8>)> = None;
    let mut mark_seen = false;
    for number in 1.. {
        if rest.is_empty() {
            break;
        }
        let mut line;
        (line, rest) = split_line(rest);
        let visible = |byte: &&u8| !BLANKS.contains(&char::from(**byte));
        if matches!(line.iter().find(visible), Some(b'#' | b';')) {
            continue;
        }
        if !mark_seen && let Some(unmarked) = line.strip_prefix(BYTE_ORDER_MARK) {
            mark_seen = true;
            line = unmarked;
        }
        let (first, mut joined) = continued.take().unwrap_or((number, Vec::new()));
        joined.extend(line);
        let backslashes = joined.iter().rev().take_while(|byte| **byte == b'\\');
        if backslashes.count() % 2 == 1 {
            joined.pop();
            joined.push(b' ');
            continued = Some((first, joined));
        } else {
            lines.push((first, joined));
        }
    }
    lines.extend(continued);
    lines
}

/// Returns the first line without its end, and the rest.
fn split_line(bytes: &[u8]) -> (&[u8], &[u8]) {
    let ends = |byte: &u8| matches!(byte, b'\n' | b'\r' | 0);
    let end = bytes.iter().position(ends).unwrap_or(bytes.len());
    let (line, rest) = bytes.split_at(end);
    // CR LF is one end, and LF LF are two. A NUL does not combine with an end that follows.
    let width = (0..rest.len())
        .take_while(|at| {
            let (before, byte) = (&rest[..*at], rest[*at]);
            ends(&byte) && !before.contains(&byte) && !before.contains(&0)
        })
        .count();
    (line, &rest[width..])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(bytes: &[u8]) -> Vec<(usize, String)> {
        joined_lines(bytes)
            .into_iter()
            .map(|(number, line)| (number, String::from_utf8_lossy(&line).into_owned()))
            .filter(|(_, line)| !line.is_empty())
            .collect()
    }

    fn is(expected: &[(usize, &str)], bytes: &[u8]) {
        let expected: Vec<_> = expected
            .iter()
            .map(|(number, line)| (*number, (*line).to_owned()))
            .collect();
        assert_eq!(joined(bytes), expected);
    }

    #[test]
    fn joined_line_has_the_number_of_its_first() {
        is(&[(2, "a  b"), (5, "c")], b"# x\na \\\n; y\nb\nc");
    }

    #[test]
    fn every_kind_of_line_end_counts_once() {
        is(&[(1, "a"), (3, "b"), (4, "c")], b"a\r\n\r\nb\rc");
        is(&[(1, "a"), (2, "b"), (3, "c")], b"a\n\rb\0c");
        is(&[(1, "a"), (3, "b")], b"a\0\nb");
    }

    #[test]
    fn only_an_odd_number_of_backslashes_joins() {
        is(&[(1, "a\\\\"), (2, "b")], b"a\\\\\nb");
        is(&[(1, "a\\\\ b")], b"a\\\\\\\nb");
        is(&[(1, "a\\ "), (2, "b")], b"a\\ \nb");
        is(&[(1, "a ")], b"a\\");
    }

    #[test]
    fn one_byte_order_mark_is_dropped() {
        is(
            &[(1, "a"), (2, "\u{feff}b")],
            "\u{feff}a\n\u{feff}b".as_bytes(),
        );
    }
}
