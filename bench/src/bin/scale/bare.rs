//! The floor: bare clients of etcd, one for each machine. Each receives a put and puts something
//! back.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use etcd_client::{
    Client, ConnectOptions, DeleteOptions, PutOptions, Txn, TxnOp, WatchOptions, WatchStream,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::awaited::Roll;
use crate::workers::Workers;

/// A key below fleet's keys, so that no agent receives it.
const ALL: &str = "bare/all";
const ONE: &str = "bare/one/";
const BACK: &str = "bare/back/";

/// The bytes that each client puts back, as in the floor's first measurement.
const REPORT: usize = 200;

/// The operations of one transaction for the grants of a batch. etcd accepts 128.
const BATCH: usize = 100;

/// The number of attempts for a put that etcd is too busy to accept, and the pause before each
/// further attempt.
pub(crate) const TRIES: usize = 100;
pub(crate) const AGAIN: Duration = Duration::from_millis(20);

/// The result of one round of the floor.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Floor {
    /// The time from before the put until the last client has received it.
    pub(crate) seen: Duration,
    /// The time until the last client's own put is in etcd.
    pub(crate) told: Duration,
}

type Rolls = Arc<Mutex<Arc<[Roll; 2]>>>;

/// The bare clients.
pub(crate) struct Bare {
    client: Client,
    count: usize,
    rolls: Rolls,
    /// The reason why a client can no longer respond.
    cut: watch::Sender<Option<String>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Bare {
    pub(crate) async fn connect(endpoint: &str, count: usize, workers: &Workers) -> Result<Self> {
        let rolls: Rolls = Arc::new(Mutex::new(Arc::new([
            Roll::of_all(count),
            Roll::of_all(count),
        ])));
        let cut = watch::Sender::default();
        let mut tasks = Vec::new();
        let (tell, mut told) = tokio::sync::mpsc::channel(count.max(1));
        for number in 0..count {
            let (endpoint, rolls, tell) = (endpoint.to_owned(), rolls.clone(), tell.clone());
            let cut = cut.clone();
            tasks.push(workers.of(number).spawn(async move {
                let opened = open(&endpoint, number).await;
                let (opened, result) = match opened {
                    Ok(opened) => (Some(opened), Ok(())),
                    Err(error) => (None, Err(error)),
                };
                let _ = tell.send(result).await;
                if let Some((client, stream)) = opened
                    && let Err(error) = answer(client, stream, number, &rolls).await
                {
                    cut.send_replace(Some(format!("{error:#}")));
                }
            }));
            // A storm of connections is measured elsewhere.
            if number % 100 == 99 {
                for _ in 0..100 {
                    told.recv().await.context("a client that ended")??;
                }
            }
        }
        for _ in 0..count % 100 {
            told.recv().await.context("a client that ended")??;
        }
        let client = Client::connect([endpoint], Some(options())).await?;
        Ok(Self {
            client,
            count,
            rolls,
            cut,
            tasks,
        })
    }

    /// Makes one put that all clients receive. Each waits for `delay`, which stands for systemd's
    /// time, before it puts its own.
    pub(crate) async fn all(&mut self, delay: Duration) -> Result<Floor> {
        let rolls = self.lay_out(0..self.count);
        let begin = Instant::now();
        self.client.put(ALL, padded(delay, 1024), None).await?;
        self.finish(&rolls, begin).await
    }

    /// Makes one put that a single client receives.
    pub(crate) async fn one(&mut self, number: usize, delay: Duration) -> Result<Floor> {
        let rolls = self.lay_out(number..number + 1);
        let begin = Instant::now();
        let key = format!("{ONE}{number}");
        self.client.put(key, padded(delay, REPORT), None).await?;
        self.finish(&rolls, begin).await
    }

    /// Makes puts for batches of that size, each after the batch before has responded.
    pub(crate) async fn in_turn(&mut self, size: usize, delay: Duration) -> Result<Duration> {
        let begin = Instant::now();
        let mut first = 0;
        while first < self.count {
            let batch = first..(first + size).min(self.count);
            let rolls = self.lay_out(batch.clone());
            for chunk in batch.clone().collect::<Vec<_>>().chunks(BATCH) {
                let put = |number: &usize| {
                    TxnOp::put(format!("{ONE}{number}"), padded(delay, REPORT), None)
                };
                let txn = Txn::new().and_then(chunk.iter().map(put).collect::<Vec<_>>());
                self.client.txn(txn).await?;
            }
            self.finish(&rolls, begin).await?;
            first = batch.end;
        }
        Ok(begin.elapsed())
    }

    fn lay_out(&self, some: std::ops::Range<usize>) -> Arc<[Roll; 2]> {
        let roll = || Roll::of_some(self.count, some.clone());
        let rolls = Arc::new([roll(), roll()]);
        *self.rolls.lock().unwrap_or_else(PoisonError::into_inner) = rolls.clone();
        rolls
    }

    async fn finish(&self, rolls: &[Roll; 2], begin: Instant) -> Result<Floor> {
        let all = async {
            Ok(Floor {
                seen: rolls[0].all("a put that bare clients see").await? - begin,
                told: rolls[1].all("what bare clients put back").await? - begin,
            })
        };
        let mut cut = self.cut.subscribe();
        tokio::select! {
            floor = all => floor,
            Ok(why) = cut.wait_for(Option::is_some) => {
                let why = why.as_deref().unwrap_or_default();
                bail!("a bare client was cut off ({why}): so many are too much for this machine, give fewer --machines");
            }
        }
    }

    /// Closes every connection and removes what was written.
    pub(crate) async fn close(mut self) -> Result<()> {
        for task in self.tasks.drain(..) {
            task.abort();
            let _ = task.await;
        }
        let below = DeleteOptions::new().with_prefix();
        self.client.delete("bare/", Some(below)).await?;
        Ok(())
    }
}

/// Returns options without the pings of fleetd's connections: idle clients must cost nothing in the
/// measurements beside them.
fn options() -> ConnectOptions {
    ConnectOptions::new().with_connect_timeout(Duration::from_secs(10))
}

async fn open(endpoint: &str, number: usize) -> Result<(Client, WatchStream)> {
    let mut client = Client::connect([endpoint], Some(options())).await?;
    let mut stream = client.watch(ALL, None).await?;
    let own = format!("{ONE}{number}");
    stream.watch(own, Some(WatchOptions::new())).await?;
    let mut created = 0;
    while created < 2 {
        let message = stream.message().await?.context("the watch was ended")?;
        created += usize::from(message.created());
    }
    Ok((client, stream))
}

/// Responds until its line is cut.
async fn answer(
    mut client: Client,
    mut stream: WatchStream,
    number: usize,
    rolls: &Rolls,
) -> Result<()> {
    loop {
        let message = stream.message().await?.context("the watch was ended")?;
        let put = message.events().iter().find_map(|event| event.kv());
        let Some(delay) = put.and_then(|put| {
            let text = put.value_str().ok()?;
            text.split(' ').next()?.parse().ok()
        }) else {
            continue;
        };
        let rolls = rolls.lock().unwrap_or_else(PoisonError::into_inner).clone();
        rolls[0].tick(number);
        sleep(Duration::from_millis(delay)).await;
        put_back(&mut client, number).await?;
        rolls[1].tick(number);
    }
}

async fn put_back(client: &mut Client, number: usize) -> Result<()> {
    let mut tries = 0;
    loop {
        let options: Option<PutOptions> = None;
        let value = vec![b'x'; REPORT];
        let done = client.put(format!("{BACK}{number}"), value, options).await;
        tries += 1;
        match done {
            Ok(_) => return Ok(()),
            // etcd refuses requests while it has 5,000 others before them ("too many requests").
            Err(_) if tries < TRIES => sleep(AGAIN).await,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Returns the delay in milliseconds, padded with blanks to that size.
fn padded(delay: Duration, size: usize) -> String {
    format!("{:<size$}", delay.as_millis().to_string() + " ")
}
