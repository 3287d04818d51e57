//! Things that fleetd cannot open, read or write on this machine. They are in its status line, and
//! among the machine's problems in `fleetctl status`, as long as they last.

use std::collections::BTreeMap;
use std::convert::Infallible;

use tokio::sync::watch;

/// Problems by the thing that they are about.
pub(super) type ByThing = BTreeMap<String, String>;

/// The problems of the daemon itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Problems(watch::Sender<ByThing>);

impl Problems {
    /// Sets the problem with a thing, or clears it with `None`. Logs changes.
    pub(super) fn set(&self, thing: &str, problem: Option<String>) {
        self.0.send_if_modified(|known| match problem {
            Some(text) if known.get(thing) == Some(&text) => false,
            Some(text) => {
                tracing::error!("{thing}: {text}");
                known.insert(thing.to_owned(), text);
                true
            }
            None => {
                let was_wrong = known.remove(thing).is_some();
                if was_wrong {
                    tracing::info!("{thing}: works now");
                }
                was_wrong
            }
        });
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<ByThing> {
        self.0.subscribe()
    }
}

/// Keeps `all` equal to the problems from both sources.
pub(super) async fn join(
    mut one: watch::Receiver<ByThing>,
    mut other: watch::Receiver<ByThing>,
    all: watch::Sender<ByThing>,
) -> Infallible {
    loop {
        let mut together = one.borrow_and_update().clone();
        together.extend(other.borrow_and_update().clone());
        all.send_if_modified(|known| {
            let differs = *known != together;
            *known = together;
            differs
        });
        tokio::select! {
            Ok(()) = one.changed() => {}
            Ok(()) = other.changed() => {}
            else => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_stays_until_it_is_taken_back() {
        let problems = Problems::default();
        let seen = problems.subscribe();
        problems.set("listen", Some("taken".to_owned()));
        problems.set("disk", Some("full".to_owned()));
        problems.set("listen", None);
        let left: Vec<_> = seen.borrow().clone().into_iter().collect();
        assert_eq!(left, [("disk".to_owned(), "full".to_owned())]);
    }

    #[tokio::test]
    async fn both_sources_of_problems_are_shown_together() {
        let (mine, directory) = (Problems::default(), Problems::default());
        let (all, mut seen) = watch::channel(ByThing::new());
        tokio::spawn(join(mine.subscribe(), directory.subscribe(), all));
        mine.set("disk", Some("full".to_owned()));
        directory.set("a.service", Some("empty".to_owned()));
        let both = seen.wait_for(|seen| seen.len() == 2).await;
        assert!(both.expect("joined").contains_key("a.service"));
    }
}
