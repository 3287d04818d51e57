//! Measures the fleet's cost while nothing changes, and its recovery from storms.

use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::time::{Instant, sleep, timeout};

use crate::awaited::{Change, Reported};
use crate::etcd::Etcd;
use crate::figures::Samples;
use crate::fleet::{Fleet, file};
use crate::hub::Hub;
use crate::process::Usage;

use fleet_core::unit::TargetState;

/// How much longer than a lease a cut lasts, so that every session ends.
const LONGER: Duration = Duration::from_secs(4);

/// The limit for a storm.
const LIMIT: Duration = Duration::from_secs(120);

/// Waits that long, or until every lease was renewed, and records what changed.
pub(crate) async fn idle(
    fleet: &Fleet,
    etcd: &Etcd,
    hub: &Hub,
    time: Duration,
    samples: &mut Samples,
) -> Result<()> {
    fleet.quiet().await;
    calm(fleet, etcd).await?;
    let time = time.max(fleet.ttl / 3);
    let (own, server) = (Usage::own()?, etcd.usage()?);
    let engine = hub.usage()?;
    let before = etcd.counters()?;
    let begin = Instant::now();
    sleep(time).await;
    let seconds = begin.elapsed().as_secs_f64();
    let counted = etcd.counters()?.since(before);
    let each = fleet.count as f64 * seconds;
    let share = |before: Usage, after: Usage| (after.cpu - before.cpu).as_secs_f64() / seconds;
    let mut add = |what, value| samples.add("idle", what, value);
    add("keep-alives", counted.keep_alives / each);
    add(
        "other requests",
        (counted.messages - counted.keep_alives) / each,
    );
    add("bytes", (counted.received + counted.sent) / each);
    add("writes", counted.proposals / each);
    let now = Usage::own()?;
    add("agents' CPU", 100.0 * share(own, now) / fleet.count as f64);
    add("an agent's memory", now.rss as f64 / fleet.count as f64);
    let now = etcd.usage()?;
    add("etcd's CPU", 100.0 * share(server, now));
    add("etcd's memory", now.rss as f64);
    add("registry", etcd.counters()?.size);
    if let Some((before, now)) = engine.zip(hub.usage()?) {
        add("engine's CPU", 100.0 * share(before, now));
        add("engine's memory", now.rss as f64);
        add("engine's peak", now.peak as f64);
    }
    Ok(())
}

/// Kills etcd and starts it again, with all machines connected.
pub(crate) async fn restart(fleet: &Fleet, etcd: &mut Etcd, samples: &mut Samples) -> Result<()> {
    let errors = fleet.errors();
    etcd.kill();
    // Long enough for every machine to notice, and to wait as long as it ever does.
    sleep(Duration::from_secs(5)).await;
    let rolls = fleet.tally.lay_out(fleet.count);
    etcd.restart()?;
    let begin = Instant::now();
    let ended = rolls[0].all("machines that follow again").await?;
    let calm = calm(fleet, etcd).await?;
    let mut add = |what, value| samples.add("etcd restarted", what, value);
    add("all follow", (ended - begin).as_secs_f64());
    add("calm", (calm - begin).as_secs_f64());
    add("errors", (fleet.errors() - errors) as f64);
    add("etcd's peak", etcd.usage()?.peak as f64);
    works(fleet, "after-restart.service").await
}

/// Cuts every line until every lease has ended, then restores all at once.
pub(crate) async fn partition(fleet: &Fleet, etcd: &Etcd, samples: &mut Samples) -> Result<()> {
    fleet.cut.send_replace(true);
    sleep(fleet.ttl + LONGER).await;
    let rolls = fleet.tally.lay_out(fleet.count);
    let errors = fleet.errors();
    fleet.cut.send_replace(false);
    let begin = Instant::now();
    let followed = rolls[0].all("machines that follow again").await?;
    let present = rolls[1].all("machines that are back").await?;
    let calm = calm(fleet, etcd).await?;
    let mut add = |what, value| samples.add("back after a cut", what, value);
    add("all follow", (followed - begin).as_secs_f64());
    add("all present", (present - begin).as_secs_f64());
    add("calm", (calm - begin).as_secs_f64());
    add("errors", (fleet.errors() - errors) as f64);
    add("etcd's peak", etcd.usage()?.peak as f64);
    works(fleet, "after-cut.service").await
}

/// Waits until the requests to etcd fall to those of idle machines. Returns since when.
async fn calm(fleet: &Fleet, etcd: &Etcd) -> Result<Instant> {
    const LOOK: Duration = Duration::from_millis(500);
    let calm = async {
        let mut since = Instant::now();
        let mut before = etcd.counters()?;
        let mut looks = 0;
        loop {
            sleep(LOOK).await;
            let now = etcd.counters()?;
            let counted = now.since(before);
            before = now;
            let other = counted.messages - counted.keep_alives;
            // The leader's own few requests do not count.
            if counted.proposals + other > 0.001 * fleet.count as f64 + 10.0 {
                since = Instant::now();
                looks = 0;
            } else if looks == 3 {
                return anyhow::Ok(since);
            } else {
                looks += 1;
            }
        }
    };
    timeout(LIMIT, calm)
        .await
        .context("etcd does not calm down")?
}

/// Checks that a unit reaches every machine.
async fn works(fleet: &Fleet, name: &str) -> Result<()> {
    let change = Change::new(name, "start", Reported::Available(1), fleet.count, None);
    fleet.stage.set(Some(change.clone()));
    let target = Some(TargetState::Launched);
    fleet.submit(name, &file(1, ""), target).await?;
    change.told.all(&format!("reports of {name}")).await?;
    fleet.destroy(name).await?;
    fleet.quiet().await;
    Ok(())
}
