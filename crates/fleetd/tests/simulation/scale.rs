//! How long a rollout to a thousand machines takes, and what it costs the registry.

use std::time::Duration;

use fleet_core::keys;
use fleet_core::machine::MachineId;
use fleet_core::unit::{Content, TargetState};
use fleetd::engine::Engine;
use fleetd::health::Heart;
use fleetd::store::{Change, Embedded, Store as _};
use fleetd::systemd::fake::Behaviour;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::fleet::Fleet;

const MACHINES: usize = 1000;
const WEB: &str = "web.service";

/// How long the service takes to start; to stop it, nothing to speak of.
const START: Duration = Duration::from_secs(5);

/// Counts what is written below each prefix until the rollout is over; answers when that was.
async fn counted(store: Embedded, after: u64) -> (Vec<(String, usize)>, usize, Instant) {
    let mut watch = store.watch(&[""], after).await.expect("watches");
    let mut written = std::collections::BTreeMap::<String, usize>::new();
    for commits in 1.. {
        let batch = watch.next().await.expect("a commit");
        let mut over = false;
        for change in batch.changes {
            let (Change::Put(key, _) | Change::Delete(key)) = &change;
            let prefix = key.split_inclusive('/').next().unwrap_or(key);
            *written.entry(prefix.to_owned()).or_default() += 1;
            over |= matches!(&change, Change::Delete(key) if key.starts_with(keys::ROLLOUTS));
        }
        if over {
            return (written.into_iter().collect(), commits, Instant::now());
        }
    }
    unreachable!("a rollout ends")
}

#[tokio::test(start_paused = true)]
async fn rollout_takes_little_longer_than_its_batches() {
    let fleet = Fleet::of(MACHINES).await;
    for machine in &fleet.machines {
        machine.systemd.behave_as(|content| Behaviour {
            start: START,
            ..Behaviour::of(content)
        });
    }
    let me = MachineId::parse(&"e".repeat(32)).expect("an id");
    let store = Arc::new(fleet.store.clone());
    let engine = Engine::new(store, me, Heart::default(), || "0".repeat(32));
    let (_stop, stopping) = watch::channel(false);
    let leading = tokio::spawn(engine.run(stopping));
    let file = |version| {
        let text = format!(
            "[Service]\nType=notify\nExecStart=/bin/web {version}\n[X-Fleet]\nGlobal=true\nMaxUnavailable=10%\n"
        );
        Content::from(text.as_str())
    };
    fleet.launch(WEB, file(1)).await;
    sleep(Duration::from_secs(60)).await;
    let before = fleet
        .store
        .list(&[keys::LEADER])
        .await
        .expect("lists")
        .revision;
    let began = Instant::now();
    fleet
        .submit(WEB, file(2), Some(TargetState::Launched))
        .await;
    let (written, commits, over) = counted(fleet.store.clone(), before).await;
    leading.abort();
    let took = over - began;
    let ideal = START * 10;
    let ratio = took.as_secs_f64() / ideal.as_secs_f64();
    let per_machine: Vec<String> = written
        .iter()
        .map(|(prefix, count)| format!("{prefix} {:.2}", *count as f64 / MACHINES as f64))
        .collect();
    println!(
        "{MACHINES} machines, MaxUnavailable=10%, a start takes {START:?}: {took:?}, {ratio:.3} of ten starts; keys written per machine: {}; {commits} commits",
        per_machine.join(", ")
    );
    assert!(ratio <= 1.3, "{ratio}");
    let all: usize = written.iter().map(|(_, count)| count).sum();
    assert!(all <= 6 * MACHINES, "{written:?}");
}
