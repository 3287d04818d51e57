//! Listings: rows of one kind, as a table, as names, or as a document for programs.
//!
//! A new listing needs a row type, made once from fleetd's response. Its fields are the keys of
//! `--output json`, and its [`Row`] implementation defines the columns. Its command is a
//! [`Listing`] of such rows and a function that reads them; `commands/list.rs` has three.

use std::borrow::Cow;
use std::marker::PhantomData;

use anstyle::Style;
use anyhow::{anyhow, bail};
use clap::error::ErrorKind;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, ValueEnum};
use serde::Serialize;

use crate::client::Client;
use crate::completers::list_of;
use crate::document::{self, Syntax};
use crate::output::on_one_line;
use crate::paint::Paint;
use crate::tabwriter::{Cell, align};
use crate::watch::{self, Look};

/// One line of a listing.
pub(crate) trait Row: Serialize + Sized + Clone + Send + Sync + 'static {
    /// The `kind` of a document with such rows.
    const KIND: &'static str;
    /// All columns.
    const COLUMNS: &'static [Column<Self>];
    /// The columns of a table, and of a wide one, unless `--fields` chooses others.
    const TABLE: &'static str;
    const WIDE: &'static str;

    /// Returns the columns of a table of these rows.
    fn table(_rows: &[Self]) -> &'static str {
        Self::TABLE
    }

    /// Returns the output of `--output name`. Consecutive rows with the same name print it once.
    fn name(&self) -> &str;
}

/// The text of a row's cell.
type Text<R> = fn(&R, bool) -> Cow<'_, str>;

/// A column: its name for `--fields`, its cells, and their style.
pub(crate) struct Column<R: 'static> {
    field: &'static str,
    /// The cell's text. The flag selects full ids and hashes.
    text: Text<R>,
    style: fn(&R) -> Style,
}

impl<R> Column<R> {
    /// Returns a column in the terminal's own colour.
    pub(crate) const fn new(field: &'static str, text: Text<R>) -> Self {
        Self::painted(field, text, |_| Style::new())
    }

    /// Returns a column whose colour shows the state.
    pub(crate) const fn painted(
        field: &'static str,
        text: Text<R>,
        style: fn(&R) -> Style,
    ) -> Self {
        Self { field, text, style }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Wide,
    Json,
    Yaml,
    Name,
}

/// The flags of every listing.
#[derive(Args, Clone, Debug)]
struct Flags {
    /// Columns to print
    #[arg(long, value_name = "FIELD,...")]
    fields: Option<String>,
    /// Print whole machine ids and hashes
    #[arg(long, short = 'l', alias = "l")]
    full: bool,
    /// Print no column headers
    #[arg(long)]
    no_legend: bool,
    /// A table, a wider table, a document for programs, or bare names
    #[arg(
        long,
        short,
        value_name = "FORMAT",
        default_value = "table",
        hide_default_value = true
    )]
    output: Format,
    /// Print it again whenever it changes, until Ctrl-C
    #[arg(long, short)]
    watch: bool,
}

/// A listing with the options of the command line.
#[derive(Clone, Debug)]
pub(crate) struct Listing<R> {
    flags: Flags,
    rows: PhantomData<R>,
}

impl<R: Row> Listing<R> {
    /// Returns whether a chosen column needs details, which fleetd sends only on request
    /// (`details=true`).
    pub(crate) fn detailed(&self) -> bool {
        self.flags.fields.is_some() || !matches!(self.flags.output, Format::Table | Format::Name)
    }

    /// Returns whether `--fields` names this column.
    pub(crate) fn asks_for(&self, field: &str) -> bool {
        let fields = self.flags.fields.iter();
        fields
            .flat_map(|fields| fields.split(','))
            .any(|named| named == field)
    }

    /// Reads the rows and prints them, with `--watch` repeatedly.
    pub(crate) async fn print(
        self,
        client: &mut Client,
        paint: Paint,
        mut read: impl AsyncFnMut(&mut Client) -> anyhow::Result<Vec<R>>,
    ) -> anyhow::Result<()> {
        // Wrong columns are reported before any request is made.
        self.columns(&[])?;
        watch::show(self.flags.watch, async |look| {
            if look == Look::Again {
                tokio::time::sleep(watch::PAUSE).await;
            }
            self.render(&read(client).await?, paint)
        })
        .await
    }

    /// Returns the columns to show. The texts are fleet 1.0's.
    fn columns(&self, rows: &[R]) -> anyhow::Result<Vec<&'static Column<R>>> {
        let fields = match (&self.flags.fields, self.flags.output) {
            (None, Format::Wide) => R::WIDE,
            (None, _) => R::table(rows),
            (Some(fields), Format::Table | Format::Wide) => fields,
            (Some(_), _) => {
                let text = "--fields chooses the columns of a table: leave it out here\n";
                return Err(clap::Error::raw(ErrorKind::ArgumentConflict, text).into());
            }
        };
        if fields.is_empty() {
            bail!("Must define output format");
        }
        fields
            .split(',')
            .map(|field| {
                let mut columns = R::COLUMNS.iter();
                columns.find(|column| column.field == field).ok_or_else(|| {
                    let fields = fields_of::<R>().join(",");
                    anyhow!("Invalid key in output format: \"{field}\"; the fields are {fields}")
                })
            })
            .collect()
    }

    fn render(&self, rows: &[R], paint: Paint) -> anyhow::Result<String> {
        match self.flags.output {
            Format::Table | Format::Wide => {
                let columns = self.columns(rows)?;
                Ok(self.table(&columns, rows, paint))
            }
            Format::Json => document::list(R::KIND, rows, Syntax::Json),
            Format::Yaml => document::list(R::KIND, rows, Syntax::Yaml),
            Format::Name => {
                let mut names: Vec<&str> = rows.iter().map(Row::name).collect();
                names.dedup();
                Ok(names
                    .into_iter()
                    .flat_map(|name| [on_one_line(name), "\n".into()])
                    .collect())
            }
        }
    }

    fn table(&self, columns: &[&'static Column<R>], rows: &[R], paint: Paint) -> String {
        let legend = usize::from(!self.flags.no_legend);
        let cell = |row: usize, column: usize| {
            let column = columns[column];
            let Some(row) = row.checked_sub(legend) else {
                return Cell::plain(column.field.to_uppercase());
            };
            let row = &rows[row];
            Cell {
                text: dash(on_one_line((column.text)(row, self.flags.full))),
                style: (column.style)(row),
            }
        };
        align(legend + rows.len(), columns.len(), cell, paint)
    }
}

/// Returns `-` for an empty cell, which would move the following cells to the wrong column for a
/// script.
fn dash(cell: Cow<'_, str>) -> Cow<'_, str> {
    if cell.is_empty() { "-".into() } else { cell }
}

/// Returns the names that `--fields` accepts, sorted.
fn fields_of<R: Row>() -> Vec<&'static str> {
    let mut fields: Vec<&str> = R::COLUMNS.iter().map(|column| column.field).collect();
    fields.sort_unstable();
    fields
}

/// The flags are the same for every kind of row, but the help names its columns.
impl<R: Row> Args for Listing<R> {
    fn augment_args(command: Command) -> Command {
        let fields = fields_of::<R>();
        let help = format!(
            "Columns to print, of {} [default: {}]",
            fields.join(","),
            R::TABLE
        );
        Flags::augment_args(command)
            .mut_arg("fields", |arg: Arg| arg.help(help).add(list_of(fields)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<R> FromArgMatches for Listing<R> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            flags: Flags::from_arg_matches(matches)?,
            rows: PhantomData,
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.flags.update_from_arg_matches(matches)
    }
}
