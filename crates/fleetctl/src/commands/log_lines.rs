//! The last log lines, which status prints below each machine.

use std::collections::BTreeMap;

use fleet_core::api::UnitStatus;

use crate::describe;
use crate::machine::placed;
use crate::output::talk;
use crate::remote::journal::{Query, Style, fetch};
use crate::remote::{Ssh, is_here};

/// The number of log lines of this machine shown by default: enough to see why a unit fails.
const UNASKED: usize = 5;

/// The unit's log lines, by machine id.
pub(super) type LogLines = BTreeMap<String, Vec<String>>;

/// Reads the last lines of each machine where the unit belongs. Without `asked` it reads only this
/// machine's, which needs no ssh and may fail without harm.
pub(super) async fn log_lines(ssh: &Ssh, status: &UnitStatus, asked: Option<usize>) -> LogLines {
    let lines = asked.unwrap_or(UNASKED);
    let mut machines = placed(status);
    machines.retain(|machine| lines > 0 && (asked.is_some() || is_here(&machine.id)));
    let query = Query {
        units: vec![status.name.clone()],
        lines: Some(lines),
        ..Query::default()
    };
    let fetched = fetch(ssh, &machines, &query).await;
    let mut shown = LogLines::new();
    for (machine, fetched) in machines.iter().zip(fetched) {
        match fetched {
            Ok(fetched) => {
                let text = fetched
                    .entries
                    .iter()
                    .map(|entry| entry.lines("", Style::Short));
                let text: String = text.collect();
                shown.insert(
                    machine.id.clone(),
                    text.lines().map(str::to_owned).collect(),
                );
            }
            Err(why) if asked.is_some() => {
                let machine = describe::machine(&machine.id, &machine.primary_ip, false);
                talk(format_args!("{machine}: cannot read the journal: {why}"));
            }
            Err(_) => {}
        }
    }
    shown
}
