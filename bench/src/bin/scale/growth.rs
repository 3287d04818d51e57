//! Measures the growth of the registry and the leader from data that is never deleted.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fleet_core::record::Owner;
use fleet_core::unit::{Content, TargetState, UnitName};
use fleetd::registry::{AsOwner, Registry};
use fleetd::store::EtcdStore;
use fleetd::units_dir::Publisher as _;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::etcd::{self, Etcd};
use crate::figures::Samples;
use crate::fleet::{file, id};
use crate::hub::{self, Hub};
use crate::workers::Workers;

/// The files in the units directory of every machine.
const FILES: usize = 50;

/// The number of machines that publish at the same time.
const AT_ONCE: usize = 50;

/// The number of units that the leader keeps.
const UNITS: usize = 1000;

/// The number of revisions of each unit: as many as its history keeps.
const REVISIONS: u32 = 10;

/// The size of each revision, in bytes.
const CONTENT: usize = 100_000;

/// The time for which a leader settles before its memory is read.
const SETTLE: Duration = Duration::from_secs(5);

/// Measures etcd after all machines adopted the same files, and the memory of a leader with a large
/// history.
pub(crate) async fn measure(machines: usize, samples: &mut Samples) -> Result<()> {
    adopted(machines, samples).await?;
    large_history(samples).await
}

/// Puts the same files in every machine's units directory. The first machine publishes them, and
/// the others adopt them.
async fn adopted(machines: usize, samples: &mut Samples) -> Result<()> {
    let etcd = Etcd::start()?.context("etcd is not installed (apt-get install etcd-server)")?;
    let registry = registry(&etcd)?;
    let files = (0..FILES).map(|number| {
        let name = UnitName::parse(&format!("base-{number:02}.service"))?;
        Ok((name, Content::from(file(1, "").as_str())))
    });
    let files: Arc<BTreeMap<UnitName, Content>> = Arc::new(files.collect::<Result<_>>()?);
    directory(&registry, 0, &files).await?;
    let numbers: Vec<usize> = (1..machines).collect();
    for some in numbers.chunks(AT_ONCE) {
        let mut tasks = JoinSet::new();
        for number in some.iter().copied() {
            let (registry, files) = (registry.clone(), files.clone());
            tasks.spawn(async move { directory(&registry, number, &files).await });
        }
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
    }
    samples.add("growth", "adopted", etcd.counters()?.size);
    Ok(())
}

/// Publishes or adopts all files, as one machine's units directory does.
async fn directory(
    registry: &Registry,
    number: usize,
    files: &BTreeMap<UnitName, Content>,
) -> Result<()> {
    let owner = AsOwner {
        registry: registry.clone(),
        machine: id(number)?,
    };
    let names: Vec<UnitName> = files.keys().cloned().collect();
    let known = owner.known(&names).await?;
    for (name, content) in files {
        match known.get(name) {
            Some(known) => {
                let adopted = owner.adopt(name, known.newest.as_ref()).await?;
                ensure!(adopted, "{name} was changed meanwhile");
            }
            None => {
                let launched = TargetState::Launched;
                owner.publish(name, content, launched).await?;
            }
        }
    }
    Ok(())
}

/// Starts a leader beside many units with a full history of large files.
async fn large_history(samples: &mut Samples) -> Result<()> {
    let etcd = Etcd::start()?.context("etcd is not installed (apt-get install etcd-server)")?;
    let registry = registry(&etcd)?;
    let filler = "# a line of a comment that makes the file large\n";
    let filler = filler.repeat(CONTENT / filler.len());
    for version in 1..=REVISIONS {
        let content = file(version, &filler);
        for number in 0..UNITS {
            let name = UnitName::parse(&format!("large-{number:04}.service"))?;
            let content = Content::from(content.as_str());
            let target = (version == 1).then_some(TargetState::Launched);
            let submitted = registry.submit(&name, content, Owner::Api, target);
            submitted.await?;
        }
        // Revisions overwrite each other, and their former values are not needed here.
        etcd.compact().await?;
    }
    samples.add("growth", "history", etcd.counters()?.size);
    let folder = etcd::in_memory()?;
    let workers = Workers::start(1)?;
    let hub = Hub::start(
        true,
        etcd.endpoint(),
        &folder.path().join("fleet.sock"),
        &workers,
    )?;
    sleep(SETTLE).await;
    let usage = hub.usage()?.context("the hub is a process")?;
    samples.add("growth", "leader", usage.rss as f64);
    samples.add("growth", "leader's peak", usage.peak as f64);
    Ok(())
}

fn registry(etcd: &Etcd) -> Result<Registry> {
    let store = EtcdStore::new(hub::config(etcd.endpoint()))?.for_agent();
    Ok(Registry::new(Arc::new(store)))
}
