//! Links between pages: the linked file and heading must exist.

use std::collections::BTreeMap;

use super::{Fault, Rule, Text};

/// Returns the broken links of a page. Links to other hosts are not followed.
pub(super) fn faults(page: &Text, texts: &[Text]) -> Vec<Fault> {
    if !page.path.ends_with(".md") {
        return vec![];
    }
    let mut faults = Vec::new();
    for (line, number) in prose(&page.content) {
        for target in targets(&line) {
            if let Some(why) = broken(page, target, texts) {
                faults.push(Fault {
                    rule: Rule::Link,
                    line: number,
                    why,
                });
            }
        }
    }
    faults
}

fn broken(page: &Text, target: &str, texts: &[Text]) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() {
        page.path.clone()
    } else {
        beside(&page.path, file)
    };
    let folder = format!("{}/", path.trim_end_matches('/'));
    let found = texts.iter().find(|text| text.path == path);
    match found {
        None if texts.iter().any(|text| text.path.starts_with(&folder)) => None,
        None => Some(format!("the link {target} leads to no file")),
        Some(_) if anchor.is_empty() => None,
        Some(text) if anchors(&text.content).any(|it| it == anchor) => None,
        Some(text) => Some(format!("{} has no heading #{anchor}", text.path)),
    }
}

/// Returns the path of a file that is named relative to another.
fn beside(page: &str, file: &str) -> String {
    let mut folders: Vec<&str> = page.split('/').collect();
    folders.pop();
    for name in file.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(folders.pop()),
            name => folders.push(name),
        }
    }
    folders.join("/")
}

/// Returns the lines outside code blocks, without inline code, each with its number.
fn prose(content: &str) -> impl Iterator<Item = (String, usize)> {
    let mut is_code = false;
    content.lines().zip(1..).filter_map(move |(line, number)| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        let text = line.split('`').step_by(2).collect::<Vec<_>>().join("`");
        (!is_code && !is_fence).then_some((text, number))
    })
}

/// Returns the targets of the links in a line.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| {
        let (target, _) = rest.split_once(')')?;
        target.split_whitespace().next()
    })
}

/// Returns the anchors of a page, made from its headings as GitHub and mdBook make them.
fn anchors(content: &str) -> impl Iterator<Item = String> {
    let mut seen = BTreeMap::new();
    let mut is_code = false;
    content.lines().filter_map(move |line| {
        is_code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if is_code || heading == line || !heading.starts_with(' ') {
            return None;
        }
        let anchor = slug(heading);
        let count = seen.entry(anchor.clone()).or_insert(0);
        *count += 1;
        Some(match *count {
            1 => anchor,
            many => format!("{anchor}-{}", many - 1),
        })
    })
}

fn slug(heading: &str) -> String {
    // Only the text of a link counts.
    let mut text = heading.trim().to_owned();
    while let Some((before, (_, after))) = text
        .split_once("](")
        .and_then(|(before, rest)| Some((before, rest.split_once(')')?)))
    {
        text = format!("{before}{after}");
    }
    let kept = text.to_lowercase().replace(' ', "-");
    let is_kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, '-' | '_');
    kept.chars().filter(is_kept).collect()
}

#[cfg(test)]
mod tests {
    use super::super::text;
    use super::{anchors, faults};

    fn whys(content: &str) -> Vec<String> {
        let texts = [
            text("docs/howto/a.md", content),
            text(
                "docs/b.md",
                "# Back up, and restore\n## `fleetctl plan`\n## Twice\n## Twice\n",
            ),
            text("lab/src/lib.rs", ""),
        ];
        let faults = faults(&texts[0], &texts);
        faults.into_iter().map(|fault| fault.why).collect()
    }

    #[test]
    fn link_to_a_file_folder_or_heading_that_exists_is_fine() {
        let fine = "[b](../b.md#back-up-and-restore) [c](../b.md#fleetctl-plan) [lab](../../lab)\n\
            [d](../b.md#twice-1 \"title\") [e](https://example.org/x.md) [own](#own)\n# Own\n";
        assert_eq!(whys(fine), Vec::<String>::new());
    }

    #[test]
    fn link_to_a_missing_file_or_heading_is_a_fault() {
        assert_eq!(
            whys("[b](b.md)\n[c](../b.md#thrice)\n"),
            [
                "the link b.md leads to no file",
                "docs/b.md has no heading #thrice"
            ]
        );
    }

    #[test]
    fn link_in_code_is_not_followed() {
        assert!(whys("`[b](b.md)` and\n```\n[b](b.md)\n```\n").is_empty());
    }

    #[test]
    fn heading_with_a_link_has_the_anchor_of_its_text() {
        let found: Vec<String> = anchors("## See [the lab](lab.md) too\n").collect();
        assert_eq!(found, ["see-the-lab-too"]);
    }
}
