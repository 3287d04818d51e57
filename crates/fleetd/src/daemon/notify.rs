//! What fleetd tells its service manager: that it is up, how it stands, and that it is alive.

use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::{Instant, interval_at};

use crate::agent::AgentStatus;
use crate::engine::Claim;
use crate::health::Heart;

/// fleetd is up when it answers: a registry that is away must not fail the boot.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// fleetd is on its way out.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping]);
}

/// Keeps the status line true, and the watchdog quiet as long as every heart beats.
pub(super) async fn keep_telling(
    mut standing: watch::Receiver<AgentStatus>,
    mut claims: watch::Receiver<Option<Claim>>,
    hearts: Vec<Heart>,
) {
    let watchdog = sd_notify::watchdog_enabled();
    let period = watchdog.map_or(Duration::from_secs(3600), |limit| limit / 2);
    let mut tick = interval_at(Instant::now() + period, period);
    loop {
        let line = status(
            &standing.borrow_and_update(),
            claims.borrow_and_update().is_some(),
        );
        tell(&[NotifyState::Status(&line)]);
        tokio::select! {
            Ok(()) = standing.changed() => {}
            Ok(()) = claims.changed() => {}
            _ = tick.tick() => {
                if watchdog.is_some() && hearts.iter().all(Heart::beats) {
                    tell(&[NotifyState::Watchdog]);
                }
            }
        }
    }
}

fn status(standing: &AgentStatus, leads: bool) -> String {
    let mut line = format!("{} of {} units ready", standing.ready, standing.wanted);
    if leads {
        line.push_str("; leading");
    }
    if let Some(held) = &standing.held {
        line.push_str("; ");
        line.push_str(held);
    }
    if let Some((subject, text)) = standing.problems.iter().next() {
        let count = match standing.problems.len() {
            1 => "1 problem".to_owned(),
            many => format!("{many} problems, the first"),
        };
        // One line, whatever somebody else's error text holds.
        line.push_str(&format!("; {count}: {subject}: {text}").replace('\n', " "));
    }
    line
}

fn tell(states: &[NotifyState<'_>]) {
    // Without a service manager there is nobody to tell.
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!("the service manager does not listen: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_line_says_what_is_wrong() {
        let mut standing = AgentStatus {
            wanted: 3,
            ready: 2,
            ..AgentStatus::default()
        };
        assert_eq!(status(&standing, true), "2 of 3 units ready; leading");
        standing.held = Some("registry unavailable: no route".to_owned());
        assert_eq!(
            status(&standing, false),
            "2 of 3 units ready; registry unavailable: no route"
        );
        standing.held = None;
        let full = ("state directory".to_owned(), "no space left".to_owned());
        standing.problems.extend([full]);
        assert_eq!(
            status(&standing, true),
            "2 of 3 units ready; leading; 1 problem: state directory: no space left"
        );
        let masked = ("a.service".to_owned(), "somebody\nmasked it".to_owned());
        standing.problems.extend([masked]);
        assert_eq!(
            status(&standing, false),
            "2 of 3 units ready; 2 problems, the first: a.service: somebody masked it"
        );
    }
}
