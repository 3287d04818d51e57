//! events: the leaders' decisions, with reasons.

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use fleet_core::api::{EventList, EventRow};
use serde::Serialize;

use super::missing::no_such_unit;
use crate::client::Client;
use crate::describe;
use crate::local::typed_name;
use crate::output::{Reader, offer, on_one_line, talk};
use crate::watch;

#[derive(Args)]
#[command(
    after_help = "The newest thousand events are kept. Without a unit, it prints those of all units, and of machines
that went offline or returned.

Examples:
  fleetctl events web.service
  fleetctl events --follow
  fleetctl events --since 1h --output json | jq -r 'select(.kind == \"rolled-back\") | .reason'"
)]
pub(crate) struct Events {
    /// Continue with new events until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Start at this time: '2026-11-22 06:40:00' (UTC), today, yesterday, or an age such as 10min
    #[arg(long, short = 'S', value_name = "TIME", value_parser = moment)]
    since: Option<SystemTime>,
    /// Print a line for people, or a JSON object for programs
    #[arg(
        long,
        short,
        value_name = "STYLE",
        default_value = "short",
        hide_default_value = true
    )]
    output: Style,
    /// Print every machine, with its whole id
    #[arg(long, short = 'l')]
    full: bool,
    /// Only events of this unit
    unit: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Style {
    Short,
    Json,
}

const DAY: u64 = 24 * 60 * 60;

/// Returns the midnight (UTC) that began the day `days_ago` days before that time.
fn midnight(now: SystemTime, days_ago: u64) -> Option<SystemTime> {
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let days = (seconds / DAY).checked_sub(days_ago)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(days * DAY))
}

/// Reads a time, a word such as `yesterday`, or an age.
fn moment(text: &str) -> Result<SystemTime, String> {
    let now = SystemTime::now();
    let day = match text {
        "now" => Some(now),
        "today" => midnight(now, 0),
        "yesterday" => midnight(now, 1),
        _ => None,
    };
    if let Some(day) = day {
        return Ok(day);
    }
    let ago = humantime::parse_duration(text.trim_end_matches("ago").trim_end());
    let absolute = || humantime::parse_rfc3339_weak(text.trim_end_matches("UTC").trim_end());
    match ago {
        Ok(ago) => now.checked_sub(ago),
        Err(_) => absolute().ok(),
    }
    .ok_or_else(|| {
        "must be a time such as '2026-11-22 06:40:00', today, yesterday, or how long ago, such as 10min"
            .to_owned()
    })
}

impl Events {
    pub(super) async fn run(self, client: &mut Client) -> anyhow::Result<ExitCode> {
        let unit = self.unit.as_deref().map(typed_name).transpose()?;
        let mut complained = String::new();
        let list = client
            .events(unit.as_ref().map(|it| it.as_str()), None)
            .await;
        let list = list.context("Error retrieving events")?;
        // A destroyed unit still has events.
        if let Some(name) = unit.as_ref().filter(|_| list.events.is_empty()) {
            let known = client.unit_status(name.as_str(), None).await;
            if known.context("Error retrieving events")?.is_none() {
                return no_such_unit(client, name).await;
            }
        }
        let unit = unit.as_ref().map(|unit| unit.as_str());
        let mut after = list.next_after;
        let mut reader = self.print(list)?;
        while self.follow && reader == Reader::There {
            match client.events(unit, Some(after)).await {
                Ok(list) => {
                    complained.clear();
                    after = list.next_after;
                    reader = self.print(list)?;
                }
                // The next request has the same revision, so nothing is missed.
                Err(error) => {
                    let complaint = error.to_string();
                    if complaint != complained {
                        talk(format_args!("{complaint}; trying again"));
                        complained = complaint;
                    }
                    tokio::time::sleep(watch::PAUSE).await;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, list: EventList) -> anyhow::Result<Reader> {
        if list.unreadable > 0 {
            talk(format_args!(
                "{} more cannot be read: they are damaged, or of a newer fleetd",
                list.unreadable
            ));
        }
        let since = self
            .since
            .and_then(|since| since.duration_since(SystemTime::UNIX_EPOCH).ok());
        let since = since.unwrap_or(Duration::ZERO);
        let events = list.events.into_iter();
        let lines = events
            .filter(|row| Duration::from_millis(row.event.at) >= since)
            .map(|row| match self.output {
                Style::Short => Ok(format!("{}\n", on_one_line(line(&row, self.full)))),
                Style::Json => serde_json::to_string(&EventDocument::from(row))
                    .map(|line| line + "\n")
                    .context("cannot write JSON"),
            });
        let text: String = lines.collect::<anyhow::Result<_>>()?;
        offer(text.as_bytes())
    }
}

/// Returns an event as a line: time, unit, decision, machines, reason. For example `2026-11-22
/// 06:40:41 UTC  web.service  granted revision 2 on 3f3fab35...: MaxUnavailable=10% of 3`.
fn line(row: &EventRow, full: bool) -> String {
    let event = &row.event;
    let mut line = describe::date(event.at);
    let unit = event.unit.as_ref().map(|unit| unit.as_str());
    line.push_str(&format!(
        "  {:<16}  {:<15}",
        unit.unwrap_or("-"),
        event.kind.as_str()
    ));
    let ids = event.machines.iter().map(|id| id.as_str());
    let machines = describe::machines(ids, full);
    match (event.revision, machines.as_str()) {
        (0, "") => {}
        (0, machines) => line.push_str(&format!("  {machines}")),
        (revision, "") => line.push_str(&format!("  revision {revision}")),
        (revision, machines) => line.push_str(&format!("  revision {revision} on {machines}")),
    }
    match event.reason.as_str() {
        "" => line.trim_end().to_owned(),
        reason => format!("{}: {reason}", line.trim_end()),
    }
}

/// An event as a line of JSON.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct EventDocument {
    registry_revision: u64,
    /// The time in RFC 3339.
    at: String,
    kind: &'static str,
    unit: Option<String>,
    /// The revision concerned. `None` if the event concerns none.
    revision: Option<u64>,
    machines: Vec<String>,
    reason: String,
}

impl From<EventRow> for EventDocument {
    fn from(row: EventRow) -> Self {
        let event = row.event;
        Self {
            registry_revision: row.registry_revision,
            at: describe::timestamp(event.at),
            kind: event.kind.as_str(),
            unit: event.unit.map(|unit| unit.to_string()),
            revision: Some(event.revision).filter(|revision| *revision > 0),
            machines: event.machines.iter().map(ToString::to_string).collect(),
            reason: event.reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::machine::MachineId;
    use fleet_core::record::{Event, EventKind};
    use fleet_core::unit::UnitName;

    use super::*;

    #[test]
    fn an_event_is_a_line() {
        let id = |digit: char| MachineId::parse(&digit.to_string().repeat(32)).expect("an id");
        let mut row = EventRow {
            registry_revision: 7,
            event: Event {
                at: 1_795_329_641_000,
                kind: EventKind::Granted,
                unit: Some(UnitName::parse("web.service").expect("a name")),
                revision: 2,
                machines: vec![id('1'), id('2')],
                reason: "MaxUnavailable=2".into(),
            },
        };
        assert_eq!(
            line(&row, false),
            "2026-11-22 06:40:41 UTC  web.service       granted          revision 2 on 11111111..., 22222222...: MaxUnavailable=2"
        );
        row.event.unit = None;
        row.event.kind = EventKind::Leading;
        (row.event.revision, row.event.machines) = (0, vec![id('1')]);
        assert_eq!(
            line(&row, false),
            "2026-11-22 06:40:41 UTC  -                 leading          11111111...: MaxUnavailable=2"
        );
    }

    #[test]
    fn a_moment_is_a_time_or_an_age() {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_329_641);
        for text in [
            "2026-11-22 06:40:41",
            "2026-11-22 06:40:41 UTC",
            "2026-11-22T06:40:41Z",
        ] {
            assert_eq!(moment(text), Ok(at));
        }
        let hour = moment("1h").expect("an hour ago");
        assert!(hour < SystemTime::now() - Duration::from_secs(3_590));
        assert!(moment("a while ago").is_err());
    }

    #[test]
    fn today_and_yesterday_begin_at_midnight() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(20_000 * DAY + DAY / 2);
        let day = |days| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(days * DAY));
        assert_eq!(midnight(noon, 0), day(20_000));
        assert_eq!(midnight(noon, 1), day(19_999));
        assert!(moment("yesterday") < moment("today"));
        assert!(moment("today") <= moment("now"));
    }
}
