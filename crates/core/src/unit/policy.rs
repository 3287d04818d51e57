//! How an update of a unit is rolled out: the policy in its `[X-Fleet]` section.

use std::fmt;
use std::time::Duration;

use super::{ServiceType, UnitKind};

/// How an update reaches the machines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateStrategy {
    /// A few machines at a time, within the budget.
    #[default]
    Rolling,
    /// All machines change at once. The update is watched and rolled back like any other.
    All,
    /// The update waits until an operator resumes it, then rolls.
    Manual,
}

impl UpdateStrategy {
    /// Returns the word that files and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::All => "all",
            Self::Manual => "manual",
        }
    }
}

/// The reaction to a failed update.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Every machine returns to the stable revision.
    #[default]
    Rollback,
    /// The update stops where it is, and waits for an operator.
    Pause,
}

impl OnFailure {
    /// Returns the word that files and the API use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rollback => "rollback",
            Self::Pause => "pause",
        }
    }
}

/// The number of machines on which the unit may be unavailable at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxUnavailable {
    /// An absolute number, at least 1.
    Machines(u32),
    /// A percentage, 1 to 100.
    Percent(u32),
}

impl MaxUnavailable {
    /// Returns the budget for that many live machines, rounded down and at least one.
    pub fn of(self, machines: usize) -> usize {
        match self {
            Self::Machines(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => {
                let percent = usize::try_from(percent).unwrap_or(100);
                (machines.saturating_mul(percent) / 100).max(1)
            }
        }
    }
}

impl fmt::Display for MaxUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machines(count) => write!(f, "{count}"),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// The update policy of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The value of `UpdateStrategy=`.
    pub strategy: UpdateStrategy,
    /// The value of `MaxUnavailable=`; see [`Policy::budget`].
    pub max_unavailable: MaxUnavailable,
    /// The value of `MinReadySec=`. `None` if unset; see [`Policy::min_ready`].
    pub min_ready: Option<Duration>,
    /// The value of `ProgressDeadlineSec=`: the longest time that an update may take to make one
    /// more machine available.
    pub progress_deadline: Duration,
    /// The value of `OnFailure=`.
    pub on_failure: OnFailure,
}

/// The time that a service must run if systemd cannot tell its readiness.
///
/// systemd calls `Type=simple` active from its fork on, even if the program fails soon after. A
/// program that cannot reach its database or bind its port exits within a few seconds. Docker Swarm
/// watches for as long.
const UNPROVEN: Duration = Duration::from_secs(5);

impl Default for Policy {
    fn default() -> Self {
        Self {
            strategy: UpdateStrategy::default(),
            max_unavailable: MaxUnavailable::Percent(10),
            min_ready: None,
            // The same as the default of Kubernetes deployments.
            progress_deadline: Duration::from_secs(600),
            on_failure: OnFailure::default(),
        }
    }
}

impl Policy {
    /// Returns the number of those live machines on which the unit may be unavailable at once.
    pub fn budget(&self, machines: usize) -> usize {
        match self.strategy {
            UpdateStrategy::All => machines.max(1),
            UpdateStrategy::Rolling | UpdateStrategy::Manual => self.max_unavailable.of(machines),
        }
    }

    /// Returns how long a unit must be ready before it counts as available. The default is 5 s for
    /// services whose readiness systemd cannot tell, and zero for everything else.
    pub fn min_ready(&self, kind: UnitKind, service: ServiceType) -> Duration {
        self.min_ready.unwrap_or_else(|| {
            if kind == UnitKind::Service && !service.proves_readiness {
                UNPROVEN
            } else {
                Duration::ZERO
            }
        })
    }

    /// Sets one option. Fails with what is wrong with its value.
    pub(super) fn set(&mut self, key: &str, value: &str) -> Result<(), &'static str> {
        match key {
            "UpdateStrategy" => {
                self.strategy = match value {
                    "rolling" => UpdateStrategy::Rolling,
                    "all" => UpdateStrategy::All,
                    "manual" => UpdateStrategy::Manual,
                    _ => return Err("use rolling, all or manual"),
                }
            }
            "OnFailure" => {
                self.on_failure = match value {
                    "rollback" => OnFailure::Rollback,
                    "pause" => OnFailure::Pause,
                    _ => return Err("use rollback or pause"),
                }
            }
            "MaxUnavailable" => self.max_unavailable = max_unavailable(value)?,
            "MinReadySec" => self.min_ready = Some(time_span(value)?),
            "ProgressDeadlineSec" => {
                self.progress_deadline = match value {
                    "infinity" => Duration::MAX,
                    _ => time_span(value)?,
                };
                if self.progress_deadline.is_zero() {
                    return Err("use a time above 0, or infinity");
                }
            }
            _ => {}
        }
        Ok(())
    }
}

fn max_unavailable(value: &str) -> Result<MaxUnavailable, &'static str> {
    let (digits, percent) = match value.strip_suffix('%') {
        Some(digits) => (digits, true),
        None => (value, false),
    };
    // `parse` would accept a sign.
    let number = if digits.bytes().all(|c| c.is_ascii_digit()) {
        digits.parse::<u32>().ok()
    } else {
        None
    };
    match number {
        Some(percent @ 1..=100) if value.ends_with('%') => Ok(MaxUnavailable::Percent(percent)),
        Some(count @ 1..) if !percent => Ok(MaxUnavailable::Machines(count)),
        _ => Err("use a number of machines, such as 2, or 1% to 100%"),
    }
}

/// Reads a time as systemd writes it: seconds, or numbers with units such as `1min 30s`.
fn time_span(value: &str) -> Result<Duration, &'static str> {
    let seconds = |text: &str| Duration::try_from_secs_f64(text.parse().ok()?).ok();
    let plain = value.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    if plain {
        seconds(value)
    } else {
        humantime::parse_duration(value).ok()
    }
    .ok_or("use seconds, or a time such as 1min 30s")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(key: &str, value: &str) -> Result<Policy, &'static str> {
        let mut policy = Policy::default();
        policy.set(key, value).map(|()| policy)
    }

    #[test]
    fn budget_is_at_least_one_machine_and_never_above_the_limit() {
        for (value, machines, budget) in [
            ("3", 12, 3),
            ("25%", 12, 3),
            ("25%", 15, 3),
            ("10%", 3, 1),
            ("10%", 0, 1),
            ("100%", 7, 7),
        ] {
            let policy = set("MaxUnavailable", value).expect(value);
            assert_eq!(policy.budget(machines), budget, "{value} of {machines}");
        }
        let all = set("UpdateStrategy", "all").expect("a strategy");
        assert_eq!(all.budget(500), 500);
        assert_eq!(Policy::default().budget(500), 50);
    }

    #[test]
    fn times_are_read_as_systemd_writes_them() {
        for (value, seconds) in [
            ("10", 10.0),
            ("0", 0.0),
            ("1.5", 1.5),
            ("500ms", 0.5),
            ("1min 30s", 90.0),
            ("2h", 7200.0),
        ] {
            let policy = set("MinReadySec", value).expect(value);
            assert_eq!(policy.min_ready, Some(Duration::from_secs_f64(seconds)));
        }
        let never = set("ProgressDeadlineSec", "infinity").expect("a time");
        assert_eq!(never.progress_deadline, Duration::MAX);
    }

    #[test]
    fn invalid_policy_values_are_refused() {
        for (key, values) in [
            (
                "MaxUnavailable",
                &["0", "-3", "+3", "120%", "0%", "ten", "", "%", "3.5", "3 %"][..],
            ),
            ("MinReadySec", &["-1", "soon", "", ".", "infinity"]),
            ("ProgressDeadlineSec", &["0", "-1", "never"]),
            ("UpdateStrategy", &["Rolling", "", "canary"]),
            ("OnFailure", &["retry", ""]),
        ] {
            for value in values {
                assert!(set(key, value).is_err(), "{key}={value}");
            }
        }
    }
}
