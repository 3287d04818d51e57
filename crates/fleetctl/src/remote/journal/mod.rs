//! The journals of several machines as one. Each machine's own journalctl reads its journal; the
//! entries are merged here by time.

mod entry;
mod follow;
mod hold_back;
mod stream;

use fleet_core::api::Machine;
use futures_util::StreamExt as _;

pub(crate) use entry::{Entry, Style};
pub(crate) use follow::{Event, follow};
pub(crate) use hold_back::HoldBack;

use super::{Prompts, Ssh, is_here};
use stream::EntryStream;

/// The number of machines that are read at once. It hides their distance without burdening this
/// machine.
const AT_ONCE: usize = 16;

/// The entries wanted from each journal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query {
    pub(crate) units: Vec<String>,
    /// The number of last entries. `None` means all.
    pub(crate) lines: Option<usize>,
    /// The start, as journalctl understands it.
    pub(crate) since: Option<String>,
    pub(crate) until: Option<String>,
    /// Whether to read with sudo.
    pub(crate) sudo: bool,
    /// Whether to read all fields of each entry, which is several times as long.
    pub(crate) whole: bool,
}

impl Query {
    /// Returns the command that prints the existing entries.
    fn print(&self) -> Vec<String> {
        let mut words = self.words();
        if let Some(lines) = self.lines {
            // At least one: following continues after the last.
            words.push(format!("--lines={}", lines.max(1)));
        }
        let bound = |flag, time: &Option<String>| Some(format!("--{flag}={}", time.as_ref()?));
        words.extend(bound("since", &self.since));
        words.extend(bound("until", &self.until));
        words
    }

    /// Returns the command that prints the entries after `cursor`, the last existing one, and
    /// continues.
    fn follow(&self, cursor: Option<&str>) -> Vec<String> {
        let mut words = self.words();
        words.extend(["--follow", "--no-tail"].map(str::to_owned));
        words.extend(match (cursor, &self.since) {
            (Some(cursor), _) => Some(format!("--after-cursor={cursor}")),
            (None, Some(since)) => Some(format!("--since={since}")),
            (None, None) => None,
        });
        words
    }

    /// Returns the command that checks whether the user may read the journal. journalctl with JSON
    /// output shows nothing, without a message, to a user who may only read their own journal.
    /// Every user who has logged in has one.
    fn may_read(&self) -> Vec<String> {
        let words = ["journalctl", "--no-pager", "--lines=0"].map(str::to_owned);
        words.into_iter().chain(self.unit_words()).collect()
    }

    fn words(&self) -> Vec<String> {
        // --all: by default journalctl leaves out fields that are long or not text.
        let mut words = vec!["journalctl", "--no-pager", "--output=json", "--all"];
        if self.sudo {
            words.splice(0..0, ["sudo", "--non-interactive"]);
        }
        let mut words: Vec<String> = words.into_iter().map(str::to_owned).collect();
        if !self.whole {
            words.push(format!("--output-fields={}", entry::FIELDS.join(",")));
        }
        words.extend(self.unit_words());
        words
    }

    fn unit_words(&self) -> impl Iterator<Item = String> {
        self.units.iter().map(|unit| format!("--unit={unit}"))
    }
}

/// The entries of one machine's journal.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// The entries in the journal's order.
    pub(crate) entries: Vec<Entry>,
    /// The remarks of journalctl, for example that the user may not see everything.
    pub(crate) remarks: String,
}

/// Reads each machine's journal. An error is a sentence that says why a machine has no entries.
pub(crate) async fn fetch(
    ssh: &Ssh,
    machines: &[Machine],
    query: &Query,
) -> Vec<Result<Fetched, String>> {
    let prompts = prompts(machines);
    let one = |machine| async move {
        let mut stream = EntryStream::open(ssh, machine, &query.print(), prompts)?;
        let mut entries = Vec::new();
        while let Some(entry) = stream.next().await {
            entries.push(entry);
        }
        let remarks = stream.end().await?;
        if entries.is_empty() && !query.sudo {
            let mut asked = EntryStream::open(ssh, machine, &query.may_read(), prompts)?;
            while asked.next().await.is_some() {}
            asked.end().await?;
        }
        Ok(Fetched { entries, remarks })
    };
    futures_util::stream::iter(machines)
        .map(one)
        .buffered(AT_ONCE)
        .collect()
        .await
}

/// Returns whether ssh may ask for a passphrase: with one machine it may, with several it may not.
fn prompts(machines: &[Machine]) -> Prompts {
    let distant = machines.iter().filter(|machine| !is_here(&machine.id));
    match distant.count() {
        0 | 1 => Prompts::Allowed,
        _ => Prompts::Never,
    }
}

/// Returns the entries of several machines ordered by time, cut to the last `lines`.
///
/// Times are each machine's own, so differing clocks are visible.
pub(crate) fn merge(entries: Vec<Vec<Entry>>, lines: Option<usize>) -> Vec<(usize, Entry)> {
    let machines = entries.into_iter().enumerate();
    let mut all: Vec<(usize, Entry)> = machines
        .flat_map(|(machine, entries)| entries.into_iter().map(move |entry| (machine, entry)))
        .collect();
    // A stable sort keeps the order of a machine's entries within one microsecond.
    all.sort_by_key(|(_, entry)| entry.time);
    let surplus = lines.map_or(0, |lines| all.len().saturating_sub(lines));
    all.drain(..surplus);
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remote::shell_words;

    fn entry(time: u64, message: &str) -> Entry {
        Entry {
            time,
            message: message.into(),
            ..Entry::default()
        }
    }

    #[test]
    fn journals_are_merged_by_time_and_cut_to_the_last_lines() {
        let journals = || {
            vec![
                vec![entry(1, "a1"), entry(4, "a4"), entry(4, "a4 again")],
                vec![],
                vec![entry(2, "c2"), entry(4, "c4"), entry(5, "c5")],
            ]
        };
        let merged = |lines| -> Vec<String> {
            let merged = merge(journals(), lines).into_iter();
            merged.map(|(_, entry)| entry.message).collect()
        };
        assert_eq!(merged(None), ["a1", "c2", "a4", "a4 again", "c4", "c5"]);
        assert_eq!(merged(Some(2)), ["c4", "c5"]);
        assert_eq!(merged(Some(0)), [""; 0]);
        assert_eq!(merge(journals(), Some(1))[0].0, 2);
    }

    #[test]
    fn journalctl_is_asked_for_what_is_shown() {
        let query = Query {
            units: vec!["hello.service".into()],
            lines: Some(10),
            ..Query::default()
        };
        insta::assert_snapshot!(shell_words(&query.print()), @"journalctl --no-pager --output=json --all --output-fields=MESSAGE,SYSLOG_IDENTIFIER,_COMM,_PID,SYSLOG_PID --unit=hello.service --lines=10");
        let whole = Query {
            lines: None,
            since: Some("1 hour ago".into()),
            until: Some("now".into()),
            sudo: true,
            whole: true,
            ..query
        };
        insta::assert_snapshot!(shell_words(&whole.print()), @"sudo --non-interactive journalctl --no-pager --output=json --all --unit=hello.service '--since=1 hour ago' --until=now");
    }

    #[test]
    fn following_continues_after_the_last_entry_or_from_a_time() {
        let query = Query {
            units: vec!["hello.service".into()],
            since: Some("today".into()),
            whole: true,
            ..Query::default()
        };
        insta::assert_snapshot!(shell_words(&query.follow(Some("s=1;i=2"))), @"journalctl --no-pager --output=json --all --unit=hello.service --follow --no-tail '--after-cursor=s=1;i=2'");
        insta::assert_snapshot!(shell_words(&query.follow(None)), @"journalctl --no-pager --output=json --all --unit=hello.service --follow --no-tail --since=today");
    }
}
