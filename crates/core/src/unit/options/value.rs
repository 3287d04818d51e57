//! The values of `[X-Fleet]` options: how a line is split, and the valid forms of each part.
//!
//! A value is either understood as in fleet 1.0, or it is an error with the correction.

use glob::Pattern;

use crate::machine::MachineId;
use crate::unit::UnitName;

/// The advice for a value that cannot be understood.
pub(super) type Advice = &'static str;

const PAIR: Advice = "write key=value, or quote each of several";

/// Returns the values of a line such as `"a=1 2" "b=3"`. A line without quotes at both ends is one
/// value.
pub(super) fn quoted_values(line: &str) -> Vec<String> {
    if !line.starts_with('"') || !line.ends_with('"') {
        return vec![line.to_owned()];
    }
    let mut quoted = false;
    let mut values = vec![String::new()];
    for c in line.chars() {
        match (c, values.last_mut()) {
            ('"', _) => quoted = !quoted,
            (c, Some(value)) if quoted || !c.is_ascii_whitespace() => value.push(c),
            _ => values.push(String::new()),
        }
    }
    values.retain(|value| !value.is_empty());
    values
}

/// Replaces `%n %N %p %i %%`. An unknown specifier stays, as in fleet 1.0. The `%i` of a template
/// stays too, because it has no value yet.
pub(crate) fn expand(value: &str, name: &UnitName) -> String {
    let mut expanded = String::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        expanded += before;
        let (text, width) = match after.as_bytes().first() {
            Some(b'n') => (name.as_str(), 1),
            Some(b'N') => (name.stem(), 1),
            Some(b'p') => (name.prefix(), 1),
            Some(b'i') if !name.is_template() => (name.instance().unwrap_or_default(), 1),
            Some(b'%') => ("%", 1),
            _ => ("%", 0),
        };
        expanded += text;
        rest = &after[width..];
    }
    expanded + rest
}

/// Refuses values that are wrong for every option: an empty one, and one with a comment after it.
pub(super) fn checked(line: &str) -> Result<(), Advice> {
    let comment = [" #", "\t#", " ;", "\t;"];
    let unquoted = !line.starts_with('"') || !line.ends_with('"');
    if line.is_empty() || line == "\"\"" {
        Err("it has no value; give it one, or remove the line")
    } else if unquoted && comment.iter().any(|mark| line.contains(mark)) {
        Err("a comment needs a line of its own")
    } else {
        Ok(())
    }
}

/// Reads a boolean. It refuses a value that fleet 1.0 did not read as true and that is not plainly
/// false.
pub(super) fn boolean(value: &str) -> Result<bool, Advice> {
    match value.to_ascii_lowercase().as_str() {
        "true" | "yes" | "1" | "on" | "t" => Ok(true),
        "false" | "no" | "0" | "off" | "f" => Ok(false),
        _ => Err("write true or false"),
    }
}

/// Reads a `key=value` that a machine's metadata can have.
pub(super) fn pair(value: &str) -> Result<(&str, &str), Advice> {
    const OPERATORS: Advice =
        "write key=value; operators such as != and >= are not understood, and no = is doubled";
    let Some((key, wanted)) = value.split_once('=') else {
        let operator = value.starts_with('!') || value.contains(['<', '>', '(']);
        return Err(if operator { OPERATORS } else { PAIR });
    };
    if key.ends_with(['!', '<', '>', '~', ':']) || wanted.starts_with(['=', '~']) {
        Err(OPERATORS)
    } else if key.is_empty() || wanted.is_empty() {
        Err("write key=value, neither of them empty")
    } else if wanted.contains('=') || value.contains('"') || value.starts_with('\'') {
        Err(PAIR)
    } else if value.contains(',') {
        Err("write one key=value on each line; metadata has no commas")
    } else if key.trim() != key || value.contains(char::is_control) {
        Err("write key=value without blanks around the =")
    } else {
        Ok((key, wanted))
    }
}

/// Reads a pattern of unit names, as Go's `path.Match` understood it.
pub(super) fn pattern(word: &str, name: &UnitName) -> Result<Pattern, Advice> {
    const NAME: Advice = "write names of units, or patterns such as web*.service";
    let allowed = |c: char| {
        c.is_ascii_alphanumeric()
            || ":_.\\@-*?[]^!".contains(c)
            // A template's %i has no value yet.
            || c == '%' && name.is_template()
    };
    if !word.chars().all(allowed) {
        return Err(NAME);
    }
    Pattern::new(&from_go_pattern(word)).map_err(|_| "its pattern is malformed; escape [ and \\")
}

/// Returns the Go pattern as a pattern of the glob crate. For unit names, which have no `/`, the
/// two differ in three ways. The glob crate has no `\x` for a plain x, negates a class with `!`,
/// and gives `**` a meaning of its own.
fn from_go_pattern(pattern: &str) -> String {
    let mut glob = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(escaped) => glob += &Pattern::escape(&escaped.to_string()),
                // An unclosed class is malformed in Go, and an open class is malformed here too.
                None => glob.push('['),
            },
            '^' if glob.ends_with('[') => glob.push('!'),
            '*' if glob.ends_with('*') => {}
            c => glob.push(c),
        }
    }
    glob
}

/// Refuses a text that cannot be a machine id. Old files name a boot id, which has dashes.
pub(super) fn machine_id(value: &str, name: &UnitName) -> Result<(), Advice> {
    let plain = value.replace('-', "").to_ascii_lowercase();
    if name.is_template() && value.contains('%') || MachineId::parse(&plain).is_ok() {
        Ok(())
    } else {
        Err("write the 32 hexadecimal digits of a machine id")
    }
}

/// Refuses a word that cannot be a unit name.
pub(super) fn unit_name(word: &str, name: &UnitName) -> Result<(), Advice> {
    let named = |word: &str| UnitName::parse(word).is_ok();
    if name.is_template() && word.contains('%') || named(word) || named(&format!("{word}.service"))
    {
        Ok(())
    } else {
        Err("write the name of a unit")
    }
}
