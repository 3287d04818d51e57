//! Describes the state of units on machines in words.

use std::time::{Duration, SystemTime};

use fleet_core::api::{UnitOnMachine, UnitReport, UnitStatus};
use fleet_core::machine::Metadata;

/// The number of characters that listings show of a machine id or a hash.
pub(crate) const ID_SHOWN: usize = 8;
const HASH_SHOWN: usize = 7;

/// The beginning of the last year that RFC 3339 can write. A time of a clock beyond it is shown as
/// 1970.
const YEAR_9999: Duration = Duration::from_secs(253_370_764_800);

/// Returns a machine id as listings show it: `3f3fab35...`.
pub(crate) fn short_id(id: &str) -> String {
    [short(id), "..."].concat()
}

fn short(id: &str) -> &str {
    id.get(..ID_SHOWN).unwrap_or(id)
}

/// Returns a hash as listings show it, or whole.
pub(crate) fn hash(hash: &str, full: bool) -> &str {
    if full { hash } else { short_hash(hash) }
}

/// Returns the short form of a hash.
pub(crate) fn short_hash(hash: &str) -> &str {
    hash.get(..HASH_SHOWN).unwrap_or(hash)
}

/// Returns a machine with its address: `3f3fab35.../10.99.1.3`. Without an address it is the id
/// alone.
pub(crate) fn machine(id: &str, ip: &str, full: bool) -> String {
    // Built without `format!`: listings show one in each row.
    let (shown, dots) = if full { (id, "") } else { (short(id), "...") };
    let slash = if ip.is_empty() { "" } else { "/" };
    [shown, dots, slash, ip].concat()
}

/// The number of machines that are named before the rest is counted.
const NAMED: usize = 3;

/// Returns several machines as `3f3fab35..., 631e82f9..., 6650bd8a... and 9 more`, or all of them.
pub(crate) fn machines<'a>(ids: impl IntoIterator<Item = &'a str>, full: bool) -> String {
    let mut ids = ids.into_iter();
    let named = ids.by_ref().take(if full { usize::MAX } else { NAMED });
    let named: Vec<String> = named.map(|id| machine(id, "", full)).collect();
    match ids.count() {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

/// Returns the count as `1 machine` or `3 machines`.
pub(crate) fn count(machines: usize) -> String {
    match machines {
        1 => "1 machine".to_owned(),
        n => format!("{n} machines"),
    }
}

/// Returns a state in one line: `active (running), 2 restarts, result exit-code`. Usual values are
/// left out.
pub(crate) fn state(report: &UnitReport) -> String {
    let mut text = format!("{} ({})", report.active, report.sub);
    if report.load != "loaded" {
        text.push_str(&format!(", {}", report.load));
    }
    if report.skipped {
        text.push_str(", a condition in its file is not met");
    }
    match report.restarts {
        0 => {}
        1 => text.push_str(", 1 restart"),
        n => text.push_str(&format!(", {n} restarts")),
    }
    if !["", "success"].contains(&report.result.as_str()) {
        text.push_str(&format!(", result {}", report.result));
    }
    text
}

/// Returns why a unit is not ready on a machine where it belongs. `revision` is the one that should
/// run.
pub(crate) fn shortfall(unit: &UnitOnMachine, revision: u64) -> String {
    match (&unit.problem, &unit.report) {
        (Some(problem), _) => problem.clone(),
        (None, None) => "that machine has not reported the unit yet".to_owned(),
        (None, Some(report)) if report.revision != revision => format!(
            "{}, still revision {} and not {revision}",
            state(report),
            report.revision
        ),
        (None, Some(report)) if report.ready && !report.available => {
            format!("{}, but not for as long as it should be", state(report))
        }
        (None, Some(report)) => match report
            .failed
            .as_ref()
            .filter(|_| report.active == "inactive")
        {
            Some(why) => format!("{}: {why}", state(report)),
            None => state(report),
        },
    }
}

/// Returns the progress of the rollout, or the outcome of the last one. `None` before the first.
pub(crate) fn rollout(status: &UnitStatus) -> Option<String> {
    let Some(candidate) = &status.candidate else {
        let last = status.last.as_ref()?;
        let ended = last.ended.replace('-', " ");
        let (number, date) = (last.revision, date(last.at));
        return Some(format!("revision {number} {ended} {date}: {}", last.reason));
    };
    let (heading, of) = match candidate.phase.as_str() {
        "rolling-back" => (status.revision, format!("revision {} ", status.revision)),
        _ => (candidate.revision, String::new()),
    };
    let awaited = status.machines.iter();
    let awaited: Vec<_> = awaited.filter(|it| it.placed && !it.deferred).collect();
    let there = awaited.iter().filter(|unit| {
        let report = unit.report.as_ref();
        report.is_some_and(|report| report.revision == heading && report.available)
    });
    let mut text = format!(
        "revision {} {}, {of}available on {} of {}",
        candidate.revision,
        candidate.phase.replace('-', " "),
        there.count(),
        count(awaited.len())
    );
    if !candidate.reason.is_empty() {
        text.push_str(&format!(": {}", candidate.reason));
    }
    Some(text)
}

fn instant(since: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH
        .checked_add(Duration::from_millis(since))
        .filter(|then| *then < SystemTime::UNIX_EPOCH + YEAR_9999)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Returns a time in RFC 3339, for programs: `2026-11-22T06:40:41Z`. `since` is in milliseconds
/// since 1970, as in reports.
pub(crate) fn timestamp(since: u64) -> String {
    humantime::format_rfc3339_seconds(instant(since)).to_string()
}

/// Returns a time for people: `2026-11-22 06:40:41 UTC`.
pub(crate) fn date(since: u64) -> String {
    timestamp(since).replace('T', " ").replace('Z', " UTC")
}

/// Returns a time with its age: `2026-11-22 06:40:41 UTC; 6s ago`.
pub(crate) fn moment(since: u64, now: SystemTime) -> String {
    let (date, then) = (date(since), instant(since));
    // That machine's clock may run ahead of this one.
    let age = now.duration_since(then).unwrap_or_default().as_secs();
    format!("{date}; {} ago", rough(age))
}

/// Returns an age that changes at most once a minute, so that a watched listing stays unchanged:
/// `<1min`, `5min`, `3h`, `12d`.
pub(crate) fn age(since: u64, now: SystemTime) -> String {
    let minutes = now
        .duration_since(instant(since))
        .unwrap_or_default()
        .as_secs()
        / 60;
    match (minutes / 60 / 24, minutes / 60) {
        (0, 0) if minutes == 0 => "<1min".to_owned(),
        (0, 0) => format!("{minutes}min"),
        (0, hours) => format!("{hours}h"),
        (days, _) => format!("{days}d"),
    }
}

/// Returns an age in its two largest units: `1d 4h`, `3min 2s`, `6s`.
fn rough(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}min {}s", seconds % 60),
        (0, _, _) => format!("{hours}h {}min", minutes % 60),
        _ => format!("{days}d {}h", hours % 24),
    }
}

/// Returns metadata as listings show it: `az=1,host=n1`, or `-` if there is none.
pub(crate) fn metadata(metadata: &Metadata) -> String {
    let pairs: Vec<String> = metadata
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    if pairs.is_empty() {
        "-".to_owned()
    } else {
        pairs.join(",")
    }
}

#[cfg(test)]
mod tests {
    use fleet_core::api::{LastRollout, UnitCandidate};

    use super::*;

    fn report() -> UnitReport {
        UnitReport {
            load: "loaded".into(),
            active: "active".into(),
            sub: "running".into(),
            revision: 3,
            hash: String::new(),
            since: 0,
            restarts: 0,
            result: "success".into(),
            launched: true,
            ready: true,
            ..UnitReport::default()
        }
    }

    #[test]
    fn usual_values_are_left_out() {
        assert_eq!(state(&report()), "active (running)");
        let failed = UnitReport {
            active: "failed".into(),
            sub: "failed".into(),
            restarts: 5,
            result: "exit-code".into(),
            ..report()
        };
        assert_eq!(
            state(&failed),
            "failed (failed), 5 restarts, result exit-code"
        );
        let bad = UnitReport {
            load: "bad-setting".into(),
            result: String::new(),
            active: "inactive".into(),
            sub: "dead".into(),
            ..report()
        };
        assert_eq!(state(&bad), "inactive (dead), bad-setting");
    }

    #[test]
    fn a_shortfall_names_the_problem_before_the_state() {
        let mut unit = UnitOnMachine::default();
        assert_eq!(
            shortfall(&unit, 3),
            "that machine has not reported the unit yet"
        );
        unit.report = Some(report());
        assert_eq!(
            shortfall(&unit, 4),
            "active (running), still revision 3 and not 4"
        );
        unit.problem = Some("a unit of that name is there already".into());
        assert_eq!(shortfall(&unit, 4), "a unit of that name is there already");
    }

    #[test]
    fn rollout_shows_its_progress_and_later_its_end() {
        let on_machine = |revision| UnitOnMachine {
            placed: true,
            report: Some(UnitReport {
                revision,
                available: true,
                ..report()
            }),
            ..UnitOnMachine::default()
        };
        let mut status = UnitStatus {
            revision: 2,
            machines: vec![on_machine(3), on_machine(2)],
            ..UnitStatus::default()
        };
        assert_eq!(rollout(&status), None);
        let mut told = |phase: &str| {
            status.candidate = Some(UnitCandidate {
                revision: 3,
                phase: phase.into(),
                reason: "why".into(),
                ..UnitCandidate::default()
            });
            rollout(&status).expect("one goes on")
        };
        assert_eq!(
            told("rolling"),
            "revision 3 rolling, available on 1 of 2 machines: why"
        );
        assert_eq!(
            told("rolling-back"),
            "revision 3 rolling back, revision 2 available on 1 of 2 machines: why"
        );
        status.candidate = None;
        status.last = Some(LastRollout {
            revision: 3,
            ended: "rolled-back".into(),
            reason: "it failed".into(),
            at: 1_795_329_641_000,
        });
        assert_eq!(
            rollout(&status).expect("one went"),
            "revision 3 rolled back 2026-11-22 06:40:41 UTC: it failed"
        );
    }

    #[test]
    fn a_moment_has_a_date_and_an_age() {
        let at = |ago: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_329_641 + ago);
        let text = |ago| moment(1_795_329_641_000, at(ago));
        assert_eq!(text(6), "2026-11-22 06:40:41 UTC; 6s ago");
        assert!(text(61).ends_with("; 1min 1s ago"));
        assert!(text(3_600).ends_with("; 1h 0min ago"));
        assert!(text(100_000).ends_with("; 1d 3h ago"));
        let before = SystemTime::UNIX_EPOCH;
        assert!(moment(1_795_329_641_000, before).ends_with("; 0s ago"));
    }

    #[test]
    fn an_age_in_a_listing_is_one_number() {
        let at = |seconds: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let ages = [59, 60, 3_599, 3_600, 86_400].map(|seconds| age(0, at(seconds)));
        assert_eq!(ages, ["<1min", "1min", "59min", "1h", "1d"]);
    }

    #[test]
    fn many_machines_are_named_in_part_and_counted() {
        let ids = ["a", "b", "c", "d", "e"];
        assert_eq!(machines(ids, false), "a..., b..., c... and 2 more");
        assert_eq!(machines(ids, true), "a, b, c, d, e");
        assert_eq!(machines(["a"], false), "a...");
    }

    #[test]
    fn a_machine_is_shown_short_or_whole() {
        let id = "3f3fab35461707ed4699d4df0c87385e";
        assert_eq!(machine(id, "10.99.1.3", false), "3f3fab35.../10.99.1.3");
        assert_eq!(machine(id, "", true), id);
    }
}
