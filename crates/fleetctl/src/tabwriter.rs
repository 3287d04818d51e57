//! Aligns the columns of a listing, byte for byte as in fleet 1.0.
//!
//! That was Go's `text/tabwriter` with tabs of eight and one blank of padding. Scripts cut these
//! listings at tabs, so neither spaces nor wider cells will do.

use std::borrow::Cow;

use anstyle::Style;

use crate::paint::Paint;

const TAB: usize = 8;

/// One cell of a table. Most borrow a row's text unchanged.
#[derive(Clone)]
pub(crate) struct Cell<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) style: Style,
}

impl<'a> Cell<'a> {
    pub(crate) fn plain(text: impl Into<Cow<'a, str>>) -> Self {
        let (text, style) = (text.into(), Style::new());
        Self { text, style }
    }
}

/// Returns the cells as lines; the last cell of a line is never padded. It requests each cell
/// twice, by row and column, so a long listing is never in memory as a whole.
pub(crate) fn align<'a>(
    rows: usize,
    columns: usize,
    cell: impl Fn(usize, usize) -> Cell<'a>,
    paint: Paint,
) -> String {
    let padded = columns.saturating_sub(1);
    let widest = |column| (0..rows).map(|row| width(&cell(row, column).text)).max();
    let stop = |column| (widest(column).unwrap_or(0) + 1).next_multiple_of(TAB);
    let stops: Vec<usize> = (0..padded).map(stop).collect();
    let mut text = String::new();
    for row in 0..rows {
        for column in 0..columns {
            let cell = cell(row, column);
            text.push_str(&paint.text(cell.style, &cell.text));
            if let Some(stop) = stops.get(column) {
                let tabs = (stop - width(&cell.text)).div_ceil(TAB);
                text.extend(std::iter::repeat_n('\t', tabs));
            }
        }
        text.push('\n');
    }
    text
}

/// Returns the width in characters, as Go counts it, not in cells of a terminal.
fn width(cell: &str) -> usize {
    match cell.is_ascii() {
        true => cell.len(),
        false => cell.chars().count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paint::{self, When};

    fn plain(rows: Vec<Vec<String>>) -> String {
        let columns = rows.first().map_or(0, Vec::len);
        let cell = |row: usize, column: usize| Cell::plain(&rows[row][column]);
        align(rows.len(), columns, cell, Paint::stdout(When::Never))
    }

    /// Splits a recorded listing into cells and aligns them again.
    fn again(listing: &str) -> String {
        let rows = listing
            .lines()
            .map(|line| {
                line.split('\t')
                    .filter(|cell| !cell.is_empty())
                    .map(str::to_owned)
                    .collect()
            })
            .collect();
        plain(rows)
    }

    #[test]
    fn recorded_listings_are_aligned_byte_for_byte() {
        for listing in [
            "UNIT\tMACHINE\tACTIVE\tSUB\n",
            "MACHINE\t\tIP\t\tMETADATA\n3f3fab35...\t10.99.1.3\thost=n3\n",
            "UNIT\t\tHASH\tDSTATE\t\tSTATE\tTARGET\nhello.service\te83c16e\tinactive\t-\tglobal\n",
            "UNIT\t\tMACHINE\t\t\tACTIVE\tSUB\nhello.service\t3f3fab35.../10.99.1.3\tactive\trunning\n",
            "UNIT\t\t\tHASH\tDSTATE\t\tSTATE\tTARGET\nconflicting.service\t95548e3\tlaunched\t-\tglobal\nhello.service\t\te83c16e\tlaunched\t-\tglobal\n",
            "MACHINE\t\t\t\t\tIP\t\tMETADATA\n3f3fab35461707ed4699d4df0c87385e\t10.99.1.3\thost=n3\n",
        ] {
            assert_eq!(again(listing), listing);
        }
    }

    #[test]
    fn cell_of_seven_takes_one_tab_and_one_of_eight_takes_two() {
        let rows = [["1234567", "x"], ["12345678", "y"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(plain(rows[..1].to_vec()), "1234567\tx\n");
        assert_eq!(plain(rows.to_vec()), "1234567\t\tx\n12345678\ty\n");
    }

    #[test]
    fn colours_take_no_room() {
        let style = paint::active("active");
        let text = "active".into();
        let row = [Cell { text, style }, Cell::plain("x")];
        let cell = |_, column: usize| row[column].clone();
        assert_eq!(
            align(1, 2, cell, Paint::stdout(When::Always)),
            "\x1b[32mactive\x1b[0m\tx\n"
        );
    }

    #[test]
    fn empty_listing_prints_nothing() {
        assert_eq!(plain(Vec::new()), "");
    }
}
