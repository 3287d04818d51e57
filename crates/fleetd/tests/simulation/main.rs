//! Whole fleets, simulated: the real agents, engines, units directory and registry code on fake
//! systemds and embedded stores. See docs/development/simulation.md.
//!
//! `FLEET_SEED=7` replays one history, `FLEET_HISTORY=file` one that was written down.
//! `FLEET_SEEDS=10000` plays as many drawn at random.

mod calm;
mod commits;
mod draw;
mod files;
mod judge;
mod ledger;
mod nature;
mod play;
mod referee;
mod scale;
mod shrink;
mod step;
mod world;

#[path = "../it/loops/fleet.rs"]
#[allow(dead_code, reason = "the loops use more of it")]
mod fleet;
#[path = "../it/loops/hands.rs"]
#[allow(dead_code, reason = "the loops use more of it")]
mod hands;
#[path = "../it/loops/weather.rs"]
#[allow(dead_code, reason = "the loops use more of it")]
mod weather;

use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;

use play::Play;
use step::Story;

/// How many histories every run plays, with the seeds from 0.
const FIXED: u64 = 100;

/// How many are played at once.
const THREADS: usize = 2;

/// How many of those that are broken are shortened and told.
const TOLD: usize = 3;

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().expect("a number"))
}

/// Returns the seeds to play: what the environment says, or the fixed ones.
fn seeds() -> Vec<u64> {
    let count = number("FLEET_SEEDS");
    match (number("FLEET_SEED"), number("FLEET_FIRST"), count) {
        (Some(seed), ..) => vec![seed],
        (None, Some(first), _) => (first..first + count.unwrap_or(FIXED)).collect(),
        (None, None, Some(count)) => drawn(count),
        (None, None, None) => (0..FIXED).collect(),
    }
}

/// Draws seeds at random and prints them: `FLEET_SEED` plays one again.
fn drawn(count: u64) -> Vec<u64> {
    let entropy = RandomState::new().build_hasher().finish();
    let mut chance = lab::Chance::of(entropy);
    let seeds: Vec<u64> = (0..count).map(|_| chance.bits() >> 32).collect();
    for line in seeds.chunks(10) {
        println!("drawn: {line:?}");
    }
    seeds
}

/// What became of a history.
struct Played {
    broken: Option<String>,
    told: Vec<String>,
    log: Vec<String>,
    judged: usize,
}

fn play(story: &Story, log: bool) -> Played {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let played = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let mut play = Play::of(story, log).await;
            let broken = play.play().await.err();
            Played {
                broken,
                judged: play.world.referee.seen().0,
                log: play.world.referee.log(),
                told: play.told,
            }
        })
    }));
    played.unwrap_or_else(|_| Played {
        broken: Some("something panics".to_owned()),
        told: Vec::new(),
        log: Vec::new(),
        judged: 0,
    })
}

/// Plays a history; answers what to tell if it is broken.
fn judge(story: &Story) -> Result<usize, String> {
    let played = play(story, false);
    if number("FLEET_SEED").is_some() {
        println!("{}", played.told.join("\n"));
    }
    let Some(broken) = played.broken else {
        return Ok(played.judged);
    };
    let (short, broken) = shrink::shrink(story, broken);
    let Played { told, log, .. } = play(&short, true);
    let told = told.join("\n");
    if std::env::var_os("FLEET_LOG").is_some() {
        println!("{}", log.join("\n"));
    }
    Err(format!(
        "FLEET_SEED={}, or as a file for FLEET_HISTORY:\n{}\n{told}\n{broken}",
        story.fleet.seed,
        short.to_text()
    ))
}

/// Plays them all, several at once, and tells of the first that are broken.
fn judge_all(stories: impl Iterator<Item = Story> + Send) {
    let stories = Mutex::new(stories);
    let next = || stories.lock().ok()?.next();
    // Of each history whether it was played to its end, or what it broke.
    let results = Mutex::new(Vec::new());
    let broken =
        |results: &[Result<usize, String>]| results.iter().filter(|it| it.is_err()).count();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(story) = next() {
                    let result = judge(&story);
                    let mut results = results.lock().expect("nothing panics while it holds this");
                    results.push(result);
                    if broken(&results) >= TOLD {
                        break;
                    }
                }
            });
        }
    });
    let results = results.into_inner().expect("all are done");
    let changes: usize = results.iter().flatten().sum();
    println!("{} histories, {changes} changes of units", results.len());
    let stories: Vec<String> = results.into_iter().filter_map(Result::err).collect();
    assert!(stories.is_empty(), "{}", stories.join("\n\n"));
}

#[test]
fn whatever_happens_nothing_happens_that_must_never() {
    match std::env::var("FLEET_HISTORY") {
        Ok(path) => {
            let text = std::fs::read_to_string(&path).expect("the history");
            judge_all(std::iter::once(Story::parse(&text).expect("a history")));
        }
        Err(_) => judge_all(seeds().into_iter().map(Story::of)),
    }
}

/// Histories that broke a rule, shortened: each is in the list of "Each was seen to fail".
const BROKEN_ONCE: [&str; 2] = [
    include_str!("histories/accepted_without_desired.jsonl"),
    include_str!("histories/killed_during_a_start.jsonl"),
];

#[test]
fn history_that_broke_a_rule_once_breaks_none() {
    judge_all(
        BROKEN_ONCE
            .iter()
            .map(|text| Story::parse(text).expect("a history")),
    );
}

/// Among random seeds a rare history is not met again soon.
#[test]
fn seed_that_broke_a_rule_once_breaks_none() {
    judge_all([7_001_603, 1_010_773_223].into_iter().map(Story::of));
}

#[test]
fn hundreds_of_machines_keep_to_the_budget_too() {
    judge_all(seeds().into_iter().step_by(100).map(Story::large));
}

#[test]
fn a_history_that_was_written_down_replays_exactly() {
    for seed in 0..6 {
        let story = Story::of(seed);
        let read = Story::parse(&story.to_text()).expect("as it was written");
        assert_eq!(read, story);
        let (first, second) = (play(&story, true).log, play(&read, true).log);
        assert!(first.len() > 100, "{first:?}");
        let differ = first.iter().zip(&second).find(|(a, b)| a != b);
        assert_eq!(differ, None, "seed {seed}");
        assert_eq!(first.len(), second.len());
    }
}
