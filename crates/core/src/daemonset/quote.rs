//! Words as systemd reads them in `Exec*=` lines.
//!
//! systemd splits a line into words and undoes quotes and escapes. Then it replaces specifiers
//! (`%n`), and when it starts the process, variables (`$NAME`). A word goes through all three.

use std::fmt::Write as _;

/// A text in which some parts are known on the machine only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// These characters.
    Plain(String),
    /// A specifier of systemd's, such as `%H`.
    Specifier(&'static str),
}

impl Text {
    pub(super) fn plain(text: impl Into<String>) -> Self {
        Self(vec![Piece::Plain(text.into())])
    }

    pub(super) fn specifier(specifier: &'static str) -> Self {
        Self(vec![Piece::Specifier(specifier)])
    }

    /// Returns the text behind a prefix.
    pub(super) fn after(&self, prefix: &str) -> Self {
        let mut pieces = vec![Piece::Plain(prefix.to_owned())];
        pieces.extend(self.0.iter().cloned());
        Self(pieces)
    }

    pub(super) fn push(&mut self, text: &Self) {
        self.0.extend(text.0.iter().cloned());
    }

    pub(super) fn push_plain(&mut self, text: &str) {
        match self.0.last_mut() {
            Some(Piece::Plain(last)) => last.push_str(text),
            _ => self.0.push(Piece::Plain(text.to_owned())),
        }
    }

    /// Returns the text if all of it is known.
    pub(super) fn known(&self) -> Option<String> {
        let known = |piece: &Piece| match piece {
            Piece::Plain(text) => Some(text.clone()),
            Piece::Specifier(_) => None,
        };
        self.0.iter().map(known).collect()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::plain(text)
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self::plain(text)
    }
}

/// Returns a word of an `Exec*=` line that systemd turns into this text.
pub(super) fn word(text: &Text) -> String {
    let mut word = String::new();
    let mut quoted = true;
    for piece in &text.0 {
        match piece {
            Piece::Specifier(specifier) => {
                quoted = false;
                word.push_str(specifier);
            }
            Piece::Plain(text) => {
                quoted &= text.is_empty();
                for c in text.chars() {
                    escape(c, &mut word);
                }
            }
        }
    }
    let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=,@%+".contains(c);
    match quoted || !word.chars().all(safe) {
        true => format!("\"{word}\""),
        false => word,
    }
}

fn escape(c: char, word: &mut String) {
    match c {
        '%' => word.push_str("%%"),
        '$' => word.push_str("$$"),
        '"' => word.push_str("\\\""),
        '\\' => word.push_str("\\\\"),
        '\n' => word.push_str("\\n"),
        '\t' => word.push_str("\\t"),
        '\r' => word.push_str("\\r"),
        // A string takes whatever is written to it.
        c if c.is_ascii_control() => {
            let _ = write!(word, "\\x{:02x}", u32::from(c));
        }
        c => word.push(c),
    }
}

/// Returns the words as the value of an `Exec*=` option.
pub(super) fn line<'t>(words: impl IntoIterator<Item = &'t Text>) -> String {
    let words: Vec<String> = words.into_iter().map(word).collect();
    words.join(" ")
}

/// Returns a text for an option that expands specifiers and knows no quotes, such as
/// `Description=`.
pub(super) fn value(text: &str) -> String {
    let line = text.replace(char::is_control, " ").replace('%', "%%");
    // A backslash at the end would continue the line.
    line.trim().trim_end_matches('\\').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The arguments that systemd makes of a line: `extract_first_word` with quotes and C escapes,
    /// `specifier_printf`, and `replace_env_argv`.
    fn as_systemd(line: &str) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut chars = line.chars().peekable();
        while let Some(first) = chars.next() {
            if first == ' ' {
                continue;
            }
            let mut word = String::new();
            let mut quote = None;
            let mut next = Some(first);
            while let Some(c) = next {
                match (c, quote) {
                    ('"' | '\'', None) => quote = Some(c),
                    (c, Some(open)) if c == open => quote = None,
                    (' ', None) => break,
                    ('\\', _) => match chars.next().expect("a whole escape") {
                        'n' => word.push('\n'),
                        't' => word.push('\t'),
                        'r' => word.push('\r'),
                        'x' => {
                            let digits: String = chars.by_ref().take(2).collect();
                            let code = u8::from_str_radix(&digits, 16).expect("hexadecimal");
                            word.push(char::from(code));
                        }
                        plain @ ('"' | '\'' | '\\') => word.push(plain),
                        other => panic!("unknown escape \\{other}"),
                    },
                    (c, _) => word.push(c),
                }
                next = chars.next();
            }
            assert_eq!(quote, None, "an open quote in {line}");
            words.push(word);
        }
        words
            .iter()
            .map(|word| variables(&specifiers(word)))
            .collect()
    }

    fn specifiers(word: &str) -> String {
        let mut text = String::new();
        let mut chars = word.chars();
        while let Some(c) = chars.next() {
            match (c, c == '%') {
                (_, true) => match chars.next() {
                    Some('%') => text.push('%'),
                    Some('H') => text.push_str("host"),
                    other => panic!("a specifier {other:?} in {word}"),
                },
                (c, false) => text.push(c),
            }
        }
        text
    }

    fn variables(word: &str) -> String {
        let mut text = String::new();
        let mut chars = word.chars();
        while let Some(c) = chars.next() {
            if c == '$' {
                assert_eq!(chars.next(), Some('$'), "a variable in {word}");
            }
            text.push(c);
        }
        text
    }

    #[test]
    fn a_word_is_quoted_only_where_it_must_be() {
        for (text, quoted) in [
            ("--name=a-b.c", "--name=a-b.c"),
            ("", "\"\""),
            ("a b", "\"a b\""),
            (";", "\";\""),
            ("^/(sys|proc)($|/)", "\"^/(sys|proc)($$|/)\""),
            ("100%", "100%%"),
            ("say \"hi\"\n\\o/", "\"say \\\"hi\\\"\\n\\\\o/\""),
            ("it's", "\"it's\""),
            ("ä", "\"ä\""),
        ] {
            assert_eq!(word(&text.into()), quoted);
        }
        let host = Text::specifier("%H").after("--env=N=");
        assert_eq!(word(&host), "--env=N=%H");
    }

    #[test]
    fn a_value_stays_on_its_line() {
        assert_eq!(value("a\nExecStart=/x 5%\\"), "a ExecStart=/x 5%%");
    }

    proptest! {
        #[test]
        fn systemd_sees_the_words_that_were_quoted(
            words in prop::collection::vec("[ -~\\n\\t\\r\\x01\\x7fäß→]{0,12}|[$%\\\\\"' ;]{0,6}", 1..6),
        ) {
            let texts: Vec<Text> = words.iter().map(|word| word.as_str().into()).collect();
            let line = line(&texts);
            prop_assert!(!line.contains('\n'));
            prop_assert!(!line.ends_with('\\'));
            prop_assert_eq!(as_systemd(&line), words);
        }

        #[test]
        fn specifiers_are_the_only_parts_that_systemd_replaces(before in "[ -~]{0,8}", after in "[ -~]{0,8}") {
            let text = Text(vec![
                Piece::Plain(before.clone()),
                Piece::Specifier("%H"),
                Piece::Plain(after.clone()),
            ]);
            prop_assert_eq!(as_systemd(&word(&text)), [format!("{before}host{after}")]);
        }
    }
}
