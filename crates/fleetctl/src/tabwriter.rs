//! Lines up the columns of a listing, byte for byte as fleet 1.0 did.
//!
//! That was Go's `text/tabwriter` with tabs of eight and one blank of padding. Scripts cut these listings
//! by tabs, so neither spaces nor wider cells will do.

const TAB: usize = 8;

/// Joins rows of the same number of cells into lines; the last cell of a line is never padded.
pub(crate) fn align(rows: &[Vec<String>]) -> String {
    let columns = rows.first().map_or(0, Vec::len);
    let stops: Vec<usize> = (0..columns)
        .map(|column| {
            let widest = rows.iter().map(|row| width(&row[column])).max();
            (widest.unwrap_or(0) + 1).next_multiple_of(TAB)
        })
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let tabs = (stops[column] - width(cell)).div_ceil(TAB);
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

    /// Takes a recorded listing apart and puts it together again.
    fn again(listing: &str) -> String {
        let rows: Vec<Vec<String>> = listing
            .lines()
            .map(|line| {
                line.split('\t')
                    .filter(|cell| !cell.is_empty())
                    .map(str::to_owned)
                    .collect()
            })
            .collect();
        align(&rows)
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
        assert_eq!(align(&rows[..1]), "1234567\tx\n");
        assert_eq!(align(&rows), "1234567\t\tx\n12345678\ty\n");
    }

    #[test]
    fn nothing_to_list_is_no_output() {
        assert_eq!(align(&[]), "");
    }
}
