//! Rollouts of whole fleets, simulated: the real agents, engines, units directory and registry code on fake systemds and
//! the embedded store. See docs/development/simulation.md.
//!
//! `FLEET_SEED=7` replays one history; `FLEET_SEEDS=10000` plays more of them.

mod history;
mod ledger;
mod nature;
mod referee;
mod scale;
mod world;

use history::{History, Size};

/// How many histories are played by default.
const SEEDS: u64 = 100;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| {
        let value = std::env::var(name).ok()?;
        Some(value.parse::<u64>().expect("a number"))
    };
    match number("FLEET_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FLEET_SEEDS").unwrap_or(SEEDS),
    }
}

/// Plays a history; answers how it was broken, and how many changes were judged.
fn play(seed: u64, size: &Size) -> Result<usize, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let mut history = History::of(seed, size).await;
        let played = history.play(size).await;
        let (judged, most) = history.world.referee.seen();
        if std::env::var("FLEET_SEED").is_ok() {
            println!(
                "{}\n{judged} changes judged, {most} down at most",
                history.steps.join("\n")
            );
        }
        played.map(|()| judged).map_err(|broken| {
            format!(
                "FLEET_SEED={seed}, {size:?}:\n{}\n{broken}",
                history.steps.join("\n")
            )
        })
    })
}

/// Plays them all, and tells of the first that are broken.
fn play_all(seeds: impl Iterator<Item = u64>, size: impl Fn(u64) -> Size) {
    let broken = seeds.filter_map(|seed| play(seed, &size(seed)).err());
    let stories: Vec<String> = broken.take(3).collect();
    assert!(stories.is_empty(), "{}", stories.join("\n\n"));
}

#[test]
fn whatever_happens_no_update_takes_more_down_than_its_budget_and_every_one_ends() {
    play_all(seeds(), Size::of);
}

#[test]
fn hundreds_of_machines_keep_to_the_budget_too() {
    play_all(seeds().step_by(50), Size::large);
}
