//! The laws of the store, on each store, and tests that only etcd or only a file can pass.

use std::path::PathBuf;

use etcd_client::Client;
use fleetd::store::{Embedded, EtcdConfig, EtcdStore, Store};
use tempfile::TempDir;

mod embedded_file;
mod etcd;
mod etcd_faults;
mod etcd_limits;
mod etcd_login;
mod laws;

use etcd::Etcd;

/// A store, and the process or file behind it.
struct Subject {
    store: Box<dyn Store>,
    etcd: Option<Etcd>,
    _dir: Option<TempDir>,
}

impl Subject {
    async fn in_memory() -> Option<Self> {
        Some(Self {
            store: Box::new(Embedded::in_memory()),
            etcd: None,
            _dir: None,
        })
    }

    async fn on_disk() -> Option<Self> {
        let (dir, path) = registry_file();
        Some(Self {
            store: Box::new(Embedded::open(&path).expect("a new file")),
            etcd: None,
            _dir: Some(dir),
        })
    }

    async fn in_etcd() -> Option<Self> {
        let etcd = Etcd::start().await?;
        Some(Self {
            store: Box::new(etcd_store(&[&etcd])),
            etcd: Some(etcd),
            _dir: None,
        })
    }

    fn store(&self) -> &dyn Store {
        &*self.store
    }

    /// Makes the store forget its history. Returns the earliest revision after which a watch can
    /// still start.
    async fn forget_history(&self) -> u64 {
        let Some(etcd) = &self.etcd else {
            // More commits than its history has.
            for _ in 0..20 {
                let large = laws::put("filler", &"x".repeat(1 << 20));
                laws::write(self.store(), [large]).await;
            }
            return laws::list(self.store(), &[""]).await.revision;
        };
        laws::write(self.store(), [laws::put("filler", "")]).await;
        let revision = laws::write(self.store(), [laws::put("filler", "")]).await;
        let mut client = Client::connect([etcd.endpoint()], None)
            .await
            .expect("it runs");
        client
            .compact(revision as i64, None)
            .await
            .expect("compacted");
        revision
    }
}

fn registry_file() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a place for the file");
    let path = dir.path().join("registry");
    (dir, path)
}

fn etcd_config(members: &[&Etcd]) -> EtcdConfig {
    EtcdConfig {
        endpoints: members
            .iter()
            .map(|etcd| etcd.endpoint().to_owned())
            .collect(),
        ..EtcdConfig::default()
    }
}

fn etcd_store(members: &[&Etcd]) -> EtcdStore {
    EtcdStore::new(etcd_config(members)).expect("valid settings")
}

/// Makes each law a test of each store. The embedded store runs on a clock that jumps ahead when
/// all tasks wait.
macro_rules! laws {
    ($($law:ident)*) => {
        mod in_memory {
            use super::{Subject, laws};
            $(#[tokio::test(start_paused = true)]
            async fn $law() {
                laws::$law(&Subject::in_memory().await.expect("always there")).await;
            })*
        }
        mod on_disk {
            use super::{Subject, laws};
            $(#[tokio::test(start_paused = true)]
            async fn $law() {
                laws::$law(&Subject::on_disk().await.expect("always there")).await;
            })*
        }
        mod in_etcd {
            use super::{Subject, laws};
            $(#[tokio::test]
            async fn $law() {
                if let Some(subject) = Subject::in_etcd().await {
                    laws::$law(&subject).await;
                }
            })*
        }
    };
}

laws! {
    a_list_of_several_prefixes_is_of_one_revision
    an_entry_knows_the_commits_that_made_and_wrote_it
    each_guard_lets_pass_what_it_says_and_nothing_else
    pages_cover_a_prefix_completely_and_in_order
    list_of_megabytes_has_one_revision_while_others_write
    page_of_an_older_revision_is_unchanged_or_compacted
    a_guard_of_a_prefix_sees_what_was_written_below_it_since
    keys_are_listed_without_their_values
    a_refused_commit_changes_nothing
    of_two_commits_with_one_guard_one_lands
    deleting_a_missing_key_changes_nothing
    deleting_a_prefix_removes_every_key_below_it
    a_key_is_not_changed_twice_in_one_commit
    a_watch_replays_what_came_before_it
    a_watch_sees_its_prefixes_and_nothing_else
    a_watch_reports_when_an_entry_was_made
    a_list_and_a_watch_from_it_lose_and_double_nothing
    a_watch_whose_next_was_cancelled_loses_nothing
    a_watch_from_before_the_kept_history_says_compacted
    a_lease_that_ends_takes_its_keys_and_watchers_see_it
    a_renewed_lease_stays
    a_revoked_lease_takes_its_keys_at_once
    nothing_is_put_under_a_lease_that_is_gone
    a_put_without_a_lease_detaches_the_key
    a_large_value_is_kept_and_an_oversized_one_rejected
    more_than_one_client_message_can_be_listed
    a_commit_has_128_operations_at_most
}
