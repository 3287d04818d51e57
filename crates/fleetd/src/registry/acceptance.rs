//! An operator accepts a registry that machines hold.

use fleet_core::keys;
use fleet_core::record::{self, AcceptanceRecord, ClusterRecord};
use fleet_core::trust::{self, Identity};

use super::{Fence, Registry, Result, Wanted, identity_of};
use crate::store::{Guard, Write};

impl Registry {
    /// Accepts the registry as it is, for the machines of this machine's cluster; see
    /// [`trust::accept`].
    pub async fn accept(&self, shown: &str, by: &str, new_id: &str) -> Result<AcceptanceRecord> {
        self.retry(&Identity::KEYS, Fence::None, |snapshot| {
            let identity = identity_of(snapshot);
            let now = (self.clock)();
            let record = trust::accept(&self.trust(), &identity, shown, by, now, new_id)?;
            let guards = Identity::KEYS
                .iter()
                .map(|key| match snapshot.entries.get(*key) {
                    Some(entry) => Guard::Unmodified((*key).to_owned(), entry.modified),
                    None => Guard::Absent((*key).to_owned()),
                });
            let put = |key: &str, value| Write::Put {
                key: key.to_owned(),
                value,
                lease: None,
            };
            let mut writes = vec![put(keys::ACCEPTANCE, record::encode(&record))];
            if !snapshot.entries.contains_key(keys::CLUSTER) {
                let id = record.cluster.clone();
                writes.push(put(keys::CLUSTER, record::encode(&ClusterRecord { id })));
            }
            let guards = guards.collect();
            Ok((record, Wanted { guards, writes }))
        })
        .await
    }
}
