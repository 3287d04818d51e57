//! Turns the pages of docs/ into parts of man pages.
//!
//! Each row of a table becomes an entry. Its first cell is the subject and its second cell the
//! description. Each further cell follows under the name of its column. Links become their text: a
//! terminal cannot follow them.

use clap_mangen::roff::{Inline, Roff, bold, italic, line_break, roman};
use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// Returns the document as roff. Its title becomes a section, and so do the headings below it.
pub(crate) fn to_roff(document: &str) -> String {
    let mut page = Page::default();
    for event in Parser::new_ext(document, Options::ENABLE_TABLES) {
        page.take(event);
    }
    page.roff.to_roff()
}

#[derive(Default)]
struct Page {
    roff: Roff,
    /// The line being collected.
    line: Vec<Inline>,
    style: Style,
    preformatted: bool,
    /// The number of the next item, for each open list.
    lists: Vec<Option<u64>>,
    /// Whether an item has begun and its mark was set. Its first paragraph is beside the mark.
    beside_mark: bool,
    columns: Vec<String>,
    cells: Vec<Vec<Inline>>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Style {
    #[default]
    Roman,
    Bold,
    Italic,
}

impl Page {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.open(&tag),
            Event::End(tag) => self.close(tag),
            Event::Text(text) if self.preformatted => {
                for line in text.lines() {
                    self.roff.text([roman(line)]);
                }
            }
            Event::Text(text) => self.line.push(match self.style {
                Style::Roman => roman(text.as_ref()),
                Style::Bold => bold(text.as_ref()),
                Style::Italic => italic(text.as_ref()),
            }),
            Event::Code(code) => self.line.push(bold(code.as_ref())),
            Event::SoftBreak => self.line.push(roman(" ")),
            Event::HardBreak => self.line.push(line_break()),
            _ => {}
        }
    }

    fn open(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Paragraph if std::mem::take(&mut self.beside_mark) => {}
            Tag::Paragraph if self.lists.is_empty() => self.control("PP"),
            Tag::CodeBlock(_) => {
                self.control("PP");
                self.roff.control("RS", ["4"]).control("nf", []);
                self.preformatted = true;
            }
            Tag::List(first) => self.lists.push(*first),
            Tag::Item => self.mark(),
            Tag::Strong => self.style = Style::Bold,
            Tag::Emphasis => self.style = Style::Italic,
            Tag::TableHead => self.columns.clear(),
            _ => {}
        }
    }

    fn close(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(level) => {
                let title = plain(&std::mem::take(&mut self.line));
                if level == HeadingLevel::H1 {
                    self.roff.control("SH", [&*title.to_uppercase()]);
                } else {
                    self.roff.control("SS", [&*title]);
                }
            }
            TagEnd::Paragraph => self.end_line(),
            TagEnd::CodeBlock => {
                self.roff.control("fi", []).control("RE", []);
                self.preformatted = false;
            }
            TagEnd::Item => {
                self.end_line();
                self.beside_mark = false;
            }
            TagEnd::List(_) => drop(self.lists.pop()),
            TagEnd::Strong | TagEnd::Emphasis => self.style = Style::Roman,
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.line)),
            TagEnd::TableHead => {
                self.columns = std::mem::take(&mut self.cells)
                    .iter()
                    .map(|cell| plain(cell))
                    .collect();
            }
            TagEnd::TableRow => self.entry(),
            _ => {}
        }
    }

    fn mark(&mut self) {
        // A list within an item ends the item's line.
        self.end_line();
        let mark = match self.lists.last_mut() {
            Some(Some(number)) => {
                *number += 1;
                format!("{}.", *number - 1)
            }
            _ => "\\(bu".to_owned(),
        };
        self.roff.control("IP", [&*mark, "3"]);
        self.beside_mark = true;
    }

    /// Writes a row of a table.
    fn entry(&mut self) {
        let mut cells = std::mem::take(&mut self.cells).into_iter();
        self.roff.control("TP", ["7"]);
        self.roff.text(cells.next().unwrap_or_default());
        self.roff.text(cells.next().unwrap_or_default());
        for (column, cell) in self.columns.iter().skip(2).zip(cells) {
            if !cell.is_empty() {
                self.roff.control("br", []);
                let label = roman(format!("{column}: "));
                self.roff.text([vec![label], cell].concat());
            }
        }
    }

    fn end_line(&mut self) {
        if !self.line.is_empty() {
            self.roff.text(std::mem::take(&mut self.line));
        }
    }

    fn control(&mut self, name: &str) {
        self.roff.control(name, []);
    }
}

/// Returns the text of a line, without its styles.
fn plain(line: &[Inline]) -> String {
    let text = |inline: &Inline| match inline {
        Inline::Roman(text) | Inline::Bold(text) | Inline::Italic(text) => text.clone(),
        Inline::LineBreak => " ".to_owned(),
    };
    line.iter().map(text).collect()
}
