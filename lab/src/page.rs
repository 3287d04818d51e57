//! Pages of docs/ that end in the output of a command.

use std::fs;

use anyhow::{Context, Result};

use crate::repository;

/// Replaces everything after the line `<!-- written by COMMAND --write -->` of a page.
///
/// # Errors
/// If the page cannot be read or written, or has no such line.
pub fn write_page(page: &str, command: &str, text: &str) -> Result<()> {
    let path = repository().join(page);
    let old = fs::read_to_string(&path).with_context(|| format!("cannot read {page}"))?;
    let new = replaced(&old, command, text).with_context(|| page.to_owned())?;
    fs::write(&path, new).with_context(|| format!("cannot write {page}"))
}

fn replaced(old: &str, command: &str, text: &str) -> Result<String> {
    let mark = format!("<!-- written by {command} --write -->\n");
    let (kept, _) = old
        .split_once(&mark)
        .with_context(|| format!("it has no line {}", mark.trim_end()))?;
    Ok(format!("{kept}{mark}\n{}\n", text.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::replaced;

    #[test]
    fn what_follows_the_mark_is_replaced() {
        let old = "# Soak\n<!-- written by cargo soak --write -->\n\nold\n";
        assert_eq!(
            replaced(old, "cargo soak", "new").expect("a mark"),
            "# Soak\n<!-- written by cargo soak --write -->\n\nnew\n"
        );
    }

    #[test]
    fn a_page_without_the_mark_is_left_alone() {
        let error = replaced("# Soak\n", "cargo soak", "new").expect_err("no mark");
        assert!(error.to_string().contains("written by cargo soak"));
    }
}
