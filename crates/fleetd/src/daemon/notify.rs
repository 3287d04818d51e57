//! Notifies the service manager: fleetd is ready, its status line, and its watchdog.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};

use super::problems::ByThing;
use crate::agent::AgentStatus;
use crate::engine::Claim;
use crate::health::Heart;

/// Reports that fleetd is up. An unavailable registry must not fail the boot.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Reports that fleetd reads its configuration again, until [`ready`].
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// Reports that fleetd is stopping.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Keeps the status line current, and feeds the watchdog as long as every heart beats.
pub(super) async fn keep_telling(
    mut standing: watch::Receiver<AgentStatus>,
    mut claims: watch::Receiver<Option<Claim>>,
    mut problems: watch::Receiver<ByThing>,
    hearts: Vec<Heart>,
) {
    let watchdog = sd_notify::watchdog_enabled();
    let period = watchdog.map_or(Duration::from_secs(3600), |limit| limit / 2);
    let mut tick = interval_at(Instant::now() + period, period);
    loop {
        let line = status(
            &standing.borrow_and_update(),
            claims.borrow_and_update().is_some(),
            &problems.borrow_and_update(),
        );
        tell(&[NotifyState::Status(&line)]);
        tokio::select! {
            Ok(()) = standing.changed() => {}
            Ok(()) = claims.changed() => {}
            Ok(()) = problems.changed() => {}
            _ = tick.tick() => {
                if watchdog.is_some() && hearts.iter().all(Heart::beats) {
                    tell(&[NotifyState::Watchdog]);
                }
            }
        }
    }
}

fn status(standing: &AgentStatus, leads: bool, own: &ByThing) -> String {
    let mut line = format!("{} of {} units ready", standing.ready, standing.wanted);
    if leads {
        line.push_str("; leading");
    }
    if let Some(held) = &standing.held {
        line.push_str("; ");
        line.push_str(held);
    }
    // A problem of fleetd itself is more urgent than one of a unit.
    let rest = (standing.problems.iter()).filter(|(thing, _)| !own.contains_key(*thing));
    let mut all = own.iter().chain(rest);
    if let Some((thing, text)) = all.next() {
        let count = match all.count() {
            0 => "1 problem".to_owned(),
            more => format!("{} problems, the first", more + 1),
        };
        line.push_str(&format!("; {count}: {thing}: {text}"));
    }
    // systemd reads each line as an assignment. Texts from the registry and other sources must not
    // add one.
    line.replace(char::is_control, " ")
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager, nothing receives this.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager does not listen: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(thing: &str, text: &str) -> ByThing {
        ByThing::from([(thing.to_owned(), text.to_owned())])
    }

    #[test]
    fn the_status_line_says_what_is_wrong() {
        let fine = ByThing::new();
        let mut standing = AgentStatus {
            wanted: 3,
            ready: 2,
            ..AgentStatus::default()
        };
        assert_eq!(
            status(&standing, true, &fine),
            "2 of 3 units ready; leading"
        );
        standing.held = Some("registry unavailable: no route".to_owned());
        assert_eq!(
            status(&standing, false, &fine),
            "2 of 3 units ready; registry unavailable: no route"
        );
        standing.held = None;
        let full = named("state directory", "no space left");
        standing.problems.extend(full);
        assert_eq!(
            status(&standing, true, &fine),
            "2 of 3 units ready; leading; 1 problem: state directory: no space left"
        );
        let masked = named("a.service", "it\nis masked");
        standing.problems.extend(masked);
        assert_eq!(
            status(&standing, false, &fine),
            "2 of 3 units ready; 2 problems, the first: a.service: it is masked"
        );
        assert_eq!(
            status(&standing, false, &named("10.0.0.1:80", "taken")),
            "2 of 3 units ready; 3 problems, the first: 10.0.0.1:80: taken"
        );
    }

    #[test]
    fn text_from_the_registry_adds_no_assignment() {
        let standing = AgentStatus {
            held: Some("of cluster zz\nMAINPID=1\r\n\u{85}STATUS=fine\u{7f}".to_owned()),
            ..AgentStatus::default()
        };
        let line = status(&standing, false, &ByThing::new());
        assert_eq!(
            line,
            "0 of 0 units ready; of cluster zz MAINPID=1   STATUS=fine "
        );
    }
}
