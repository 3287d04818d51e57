//! Makes changes to one unit in turn, each beside the floor at the same moment.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use fleet_core::unit::TargetState;
use tokio::time::Instant;

use crate::awaited::{Change, Reported};
use crate::bare::{Bare, Floor};
use crate::etcd::{Counters, Etcd};
use crate::figures::{AMONG, Samples};
use crate::fleet::{Fleet, START, STOP, file};
use crate::others::Others;
use crate::workers::Workers;

/// A unit that belongs on machines with the metadata.
const LABELLED: &str = "labelled.service";

/// The duration and the cost of a change.
struct Took {
    seen: Duration,
    told: Duration,
    cost: Counters,
}

/// Everything that the changes need.
pub(crate) struct Changes<'a> {
    fleet: &'a Fleet,
    bare: Bare,
    etcd: &'a Etcd,
    samples: &'a mut Samples,
}

impl<'a> Changes<'a> {
    /// Returns the changes of that fleet, beside that many bare clients.
    pub(crate) async fn beside(
        fleet: &'a Fleet,
        etcd: &'a Etcd,
        clients: usize,
        workers: &Workers,
        samples: &'a mut Samples,
    ) -> Result<Self> {
        Ok(Self {
            fleet,
            bare: Bare::connect(etcd.endpoint(), clients, workers).await?,
            etcd,
            samples,
        })
    }

    /// Ends the bare clients.
    pub(crate) async fn close(self) -> Result<()> {
        self.bare.close().await
    }

    /// Creates what the first round needs.
    pub(crate) async fn prepare(&self) -> Result<()> {
        let labelled = file(1, "MachineMetadata=probe=yes\n");
        let target = Some(TargetState::Launched);
        self.fleet.submit(LABELLED, &labelled, target).await?;
        self.fleet.quiet().await;
        Ok(())
    }

    /// Makes one of each change, with a rolling update if `rolls`.
    pub(crate) async fn round(&mut self, round: usize, rolls: bool) -> Result<()> {
        let fleet = self.fleet;
        let name = &*format!("probe-{round}.service");
        let launched = Some(TargetState::Launched);
        let available = Reported::Available;

        let floor = self.bare.all(START).await?;
        let took = self.change(name, "start", available(1), None, async {
            fleet.submit(name, &file(1, ""), launched).await
        });
        let took = took.await?;
        self.note("start", floor, &took);

        let floor = self.bare.all(STOP).await?;
        let took = self.change(name, "stop", Reported::Inactive, None, async {
            fleet.set_target(name, TargetState::Loaded).await
        });
        let took = took.await?;
        self.note("stop", floor, &took);
        fleet.set_target(name, TargetState::Launched).await?;
        fleet.quiet().await;

        let floor = self.bare.all(START + STOP).await?;
        let took = self.change(name, "restart", available(2), None, async {
            let all = file(2, "UpdateStrategy=all\n");
            fleet.submit(name, &all, None).await
        });
        let took = took.await?;
        self.note("update, all at once", floor, &took);

        if rolls {
            let size = (fleet.count / 10).max(1);
            let floor = self.bare.in_turn(size, START + STOP).await?;
            let took = self.change(name, "restart", available(3), None, async {
                let rolling = file(3, "UpdateStrategy=rolling\nMaxUnavailable=10%\n");
                fleet.submit(name, &rolling, None).await
            });
            let took = took.await?;
            let floor = Floor {
                seen: floor,
                told: floor,
            };
            self.note("update, 10 % at a time", floor, &took);
        }

        let floor = self.bare.all(STOP).await?;
        let took = self.change(name, "stop", Reported::Gone, None, async {
            fleet.destroy(name).await
        });
        let took = took.await?;
        self.note("destroy", floor, &took);

        let one = round * 7 % fleet.count;
        let floor = self.bare.one(one, START).await?;
        let took = self.change(LABELLED, "start", available(1), Some(one), async {
            fleet.label(one, Some("yes")).await
        });
        let took = took.await?;
        self.note("metadata of one machine", floor, &took);
        fleet.label(one, None).await?;
        fleet.quiet().await;
        Ok(())
    }

    /// Starts a unit on all agents, and on the other machines.
    pub(crate) async fn start_among(&mut self, others: &Others, round: usize) -> Result<()> {
        let fleet = self.fleet;
        let name = &*format!("probe-{round}.service");
        let floor = self.bare.all(START).await?;
        let rolls = others.lay_out();
        let begin = Instant::now();
        let took = self.change(name, "start", Reported::Available(1), None, async {
            let launched = Some(TargetState::Launched);
            fleet.submit(name, &file(1, ""), launched).await
        });
        let mut took = took.await?;
        let seen = others.all(&rolls[0], "a start on the others").await?;
        let told = others.all(&rolls[1], "reports of the others").await?;
        took.seen = took.seen.max(seen - begin);
        took.told = took.told.max(told - begin);
        self.note(AMONG, floor, &took);
        let gone = others.lay_out();
        fleet.destroy(name).await?;
        others
            .all(&gone[1], "that the others tell of the end")
            .await?;
        fleet.quiet().await;
        Ok(())
    }

    async fn change(
        &self,
        unit: &str,
        asked: &'static str,
        reported: Reported,
        only: Option<usize>,
        act: impl Future<Output = Result<()>>,
    ) -> Result<Took> {
        let change: Arc<Change> = Change::new(unit, asked, reported, self.fleet.count, only);
        let before = self.etcd.counters()?;
        self.fleet.stage.set(Some(change.clone()));
        let begin = Instant::now();
        act.await?;
        let seen = change.seen.all(&format!("{asked} of {unit}")).await?;
        let told = change.told.all(&format!("reports of {unit}")).await?;
        self.fleet.stage.set(None);
        self.fleet.quiet().await;
        Ok(Took {
            seen: seen - begin,
            told: told - begin,
            cost: self.etcd.counters()?.since(before),
        })
    }

    fn note(&mut self, what: &'static str, floor: Floor, took: &Took) {
        eprintln!(
            "        {what}: seen after {:.1?} (floor {:.1?}), reported after {:.1?} (floor {:.1?}), {} writes",
            took.seen, floor.seen, took.told, floor.told, took.cost.proposals
        );
        let samples = &mut *self.samples;
        let millis = |time: Duration| time.as_secs_f64() * 1000.0;
        samples.add(what, "floor seen", millis(floor.seen));
        samples.add(what, "seen", millis(took.seen));
        samples.add(
            what,
            "seen ratio",
            took.seen.as_secs_f64() / floor.seen.as_secs_f64(),
        );
        samples.add(what, "floor told", millis(floor.told));
        samples.add(what, "told", millis(took.told));
        samples.add(
            what,
            "told ratio",
            took.told.as_secs_f64() / floor.told.as_secs_f64(),
        );
        samples.add(what, "writes", took.cost.proposals);
        samples.add(what, "received", took.cost.received);
        samples.add(what, "sent", took.cost.sent);
    }
}
