//! Lines up the columns of a listing, byte for byte as fleet 1.0 did.
//!
//! That was Go's `text/tabwriter` with tabs of eight and one blank of padding. Scripts cut these listings
//! by tabs, so neither spaces nor wider cells will do.

use std::borrow::Cow;

use anstyle::Style;

use crate::paint::Paint;

const TAB: usize = 8;

/// One cell of a table; most show what a row has as it is.
#[derive(Clone)]
pub(crate) struct Cell<'a> {
    pub(crate) text: Cow<'a, str>,
    pub(crate) style: Style,
}

impl Cell<'_> {
    pub(crate) fn plain(text: String) -> Self {
        let (text, style) = (text.into(), Style::new());
        Self { text, style }
    }
}

/// Joins rows of the same number of cells into lines; the last cell of a line is never padded. Goes through the rows
/// twice, so that of a long listing not every cell is in memory.
pub(crate) fn align<'a>(rows: impl Iterator<Item = Vec<Cell<'a>>> + Clone, paint: Paint) -> String {
    let mut stops: Vec<usize> = Vec::new();
    for row in rows.clone() {
        stops.resize(row.len(), 0);
        for (stop, cell) in stops.iter_mut().zip(&row) {
            *stop = (*stop).max((width(&cell.text) + 1).next_multiple_of(TAB));
        }
    }
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(&paint.text(cell.style, &cell.text));
            if column + 1 < row.len() {
                let tabs = (stops[column] - width(&cell.text)).div_ceil(TAB);
                text.extend(std::iter::repeat_n('\t', tabs));
            }
        }
        text.push('\n');
    }
    text
}

/// Go counts characters, not the cells of a terminal.
fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::paint::{self, When};

    fn plain(rows: Vec<Vec<String>>) -> String {
        let cells = |row: Vec<String>| row.into_iter().map(Cell::plain).collect();
        let rows: Vec<Vec<Cell>> = rows.into_iter().map(cells).collect();
        align(rows.into_iter(), Paint::stdout(When::Never))
    }

    /// Takes a recorded listing apart and puts it together again.
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
    fn recorded_listings_come_out_byte_for_byte() {
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
    fn a_cell_of_seven_ends_at_the_next_tab_and_one_of_eight_needs_two() {
        let rows = [["1234567", "x"], ["12345678", "y"]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(plain(rows[..1].to_vec()), "1234567\tx\n");
        assert_eq!(plain(rows.to_vec()), "1234567\t\tx\n12345678\ty\n");
    }

    #[test]
    fn colours_take_no_room() {
        let style = paint::active("active");
        let text = "active".into();
        let row = vec![Cell { text, style }, Cell::plain("x".to_owned())];
        assert_eq!(
            align([row].into_iter(), Paint::stdout(When::Always)),
            "\x1b[32mactive\x1b[0m\tx\n"
        );
    }

    #[test]
    fn nothing_to_list_is_no_output() {
        assert_eq!(plain(Vec::new()), "");
    }
}
