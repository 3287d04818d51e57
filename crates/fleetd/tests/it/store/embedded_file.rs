//! What the embedded store's file keeps, and what the store does if the disk fails.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use fleetd::store::{Embedded, OpenError, Store, StoreError, Write};

use super::laws::{list, put, watch, write};
use super::registry_file;

/// Opens the store and makes a commit, like one run of the daemon.
async fn live(path: &Path, key: &str) -> u64 {
    let store = Embedded::open(path).expect("it opens");
    write(&store, [put(key, "x")]).await
}

#[tokio::test]
async fn an_acknowledged_commit_outlives_a_restart() {
    let (_dir, path) = registry_file();
    let before = {
        let store = Embedded::open(&path).expect("a new file");
        write(&store, [put("units/a", "1"), put("units/b", "\0\u{ff}")]).await;
        write(&store, [put("units/a", "2")]).await;
        list(&store, &[""]).await
    };
    let store = Embedded::open(&path).expect("it was written");
    assert_eq!(list(&store, &[""]).await.entries, before.entries);
}

#[tokio::test]
async fn revisions_go_on_after_a_restart() {
    let (_dir, path) = registry_file();
    let first = live(&path, "a").await;
    let second = live(&path, "b").await;
    assert!(second > first);
    let store = Embedded::open(&path).expect("it was written");
    let Err(error) = watch(&store, &[""], second).await.next().await else {
        panic!("the restart was a change, too");
    };
    assert!(matches!(error, StoreError::Compacted(_)), "{error}");
}

#[tokio::test]
async fn leased_keys_do_not_outlive_a_restart() {
    let (_dir, path) = registry_file();
    {
        let store = Embedded::open(&path).expect("a new file");
        let lease = store
            .create_lease(Duration::from_secs(60))
            .await
            .expect("granted");
        let leased = Write::Put {
            key: "machines/m".into(),
            value: vec![],
            lease: Some(lease),
        };
        write(&store, [leased, put("units/a", "1")]).await;
    }
    let store = Embedded::open(&path).expect("it was written");
    let kept: Vec<_> = list(&store, &[""]).await.entries.into_keys().collect();
    assert_eq!(kept, ["units/a"]);
}

#[tokio::test]
async fn the_file_is_for_its_owner_alone() {
    let (_dir, path) = registry_file();
    live(&path, "a").await;
    let mode = fs::metadata(&path)
        .expect("it was written")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn a_commit_that_cannot_be_written_changes_nothing() {
    let (_dir, path) = registry_file();
    let store = Embedded::open(&path).expect("a new file");
    write(&store, [put("a", "1")]).await;
    let lease = store
        .create_lease(Duration::from_secs(60))
        .await
        .expect("granted");
    let leased = |key: &str| Write::Put {
        key: key.into(),
        value: vec![],
        lease: Some(lease),
    };
    let before = list(&store, &[""]).await;
    // It blocks the new file, as a full disk does.
    let obstacle = path.with_extension("new");
    fs::create_dir(&obstacle).expect("there is room");

    let answer = store.commit(vec![], vec![put("b", "1")]).await;
    let Err(StoreError::Rejected(text)) = answer else {
        panic!("{answer:?}");
    };
    assert!(
        text.starts_with(&format!("registry file {}: ", path.display())),
        "{text}"
    );
    assert_eq!(list(&store, &[""]).await, before);

    write(&store, [leased("machines/m")]).await;
    store
        .revoke(lease)
        .await
        .expect("leases end on a full disk, too");
    assert_eq!(list(&store, &[""]).await.entries, before.entries);

    fs::remove_dir(&obstacle).expect("it was made");
    write(&store, [put("b", "1")]).await;
}

#[tokio::test]
async fn commit_whose_caller_stopped_waiting_is_whole() {
    let (_dir, path) = registry_file();
    let store = Embedded::open(&path).expect("a new file");
    for number in 0..20 {
        let commit = store.commit(vec![], vec![put(&format!("a/{number}"), "x")]);
        drop(tokio::time::timeout(Duration::from_micros(number * 50), commit).await);
    }
    write(&store, [put("last", "x")]).await;
    let in_memory = list(&store, &[""]).await.entries;
    drop(store);
    let on_disk = Embedded::open(&path).expect("it was written");
    assert_eq!(list(&on_disk, &[""]).await.entries, in_memory);
}

#[tokio::test]
async fn two_processes_do_not_share_a_file() {
    let (_dir, path) = registry_file();
    let first = Embedded::open(&path).expect("a new file");
    let Err(error) = Embedded::open(&path) else {
        panic!("opened twice");
    };
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    drop(first);
    Embedded::open(&path).expect("free again");
}

#[tokio::test]
async fn a_damaged_file_is_never_taken_for_an_empty_one() {
    let (_dir, path) = registry_file();
    live(&path, "units/a").await;
    let good = fs::read_to_string(&path).expect("text");
    let damages = [
        String::new(),
        good[..good.len() / 2].to_owned(),
        good.replace("units/a", "units/b"),
        "{}".to_owned(),
    ];
    for damage in damages {
        fs::write(&path, &damage).expect("there is room");
        let Err(error) = Embedded::open(&path) else {
            panic!("opened {damage:?}");
        };
        let text = error.to_string();
        assert!(
            text.starts_with(&format!("registry file {}: damaged: ", path.display())),
            "{text}"
        );
        assert!(
            text.contains("restore it from a backup, or move it away"),
            "{text}"
        );
        assert_eq!(fs::read_to_string(&path).expect("still there"), damage);
    }
}

#[tokio::test]
async fn a_file_of_another_format_is_left_alone() {
    let (_dir, path) = registry_file();
    live(&path, "units/a").await;
    let newer = fs::read_to_string(&path)
        .expect("text")
        .replace("registry 1 ", "registry 2 ");
    fs::write(&path, &newer).expect("there is room");
    let Err(error) = Embedded::open(&path) else {
        panic!("opened");
    };
    assert!(
        error
            .to_string()
            .contains("it has format 2 and this fleetd reads format 1"),
        "{error}"
    );
}
