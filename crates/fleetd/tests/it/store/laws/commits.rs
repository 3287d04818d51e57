//! Lists and commits: one revision, all or nothing, within the limits.

use fleetd::store::{Change, Entry, Guard, StoreError, Write};

use super::{batch, delete, get, keys, list, next, put, seen, watch, write};
use crate::store::Subject;

pub(crate) async fn a_list_of_several_prefixes_is_of_one_revision(subject: &Subject) {
    let store = subject.store();
    write(store, [put("cluster", "x"), put("units/a", "1")]).await;
    let last = write(store, [put("machines/m", "1"), put("reports/m", "1")]).await;
    let snapshot = list(store, &["units/", "machines/", "cluster", "nothing/"]).await;
    assert_eq!(snapshot.revision, last);
    let listed: Vec<_> = snapshot.entries.into_keys().collect();
    assert_eq!(listed, ["cluster", "machines/m", "units/a"]);
    assert_eq!(keys(store, &["units/", "", "units/a"]).await.len(), 4);
    assert_eq!(list(store, &[]).await.revision, last);
}

pub(crate) async fn an_entry_knows_the_commits_that_made_and_wrote_it(subject: &Subject) {
    let store = subject.store();
    let made = write(store, [put("a", "1")]).await;
    let written = write(store, [put("a", "2")]).await;
    assert!(made < written);
    let expected = Entry {
        value: (*b"2").into(),
        created: made,
        modified: written,
        lease: None,
    };
    assert_eq!(get(store, "a").await, Some(expected));
    write(store, [delete("a")]).await;
    let again = write(store, [put("a", "3")]).await;
    assert_eq!(
        get(store, "a").await.map(|entry| entry.created),
        Some(again)
    );
}

pub(crate) async fn each_guard_lets_pass_what_it_says_and_nothing_else(subject: &Subject) {
    let store = subject.store();
    let made = write(store, [put("a", "1")]).await;
    let written = write(store, [put("a", "2")]).await;
    let cases = [
        (Guard::Absent("b".into()), true),
        (Guard::Absent("a".into()), false),
        (Guard::Unmodified("a".into(), written), true),
        (Guard::Unmodified("a".into(), made), false),
        (Guard::Unmodified("b".into(), written), false),
        (Guard::CreatedAt("a".into(), made), true),
        (Guard::CreatedAt("a".into(), written), false),
        (Guard::CreatedAt("b".into(), made), false),
        (Guard::NoneSince("a".into(), written), true),
        (Guard::NoneSince("a".into(), made), false),
        (Guard::NoneSince("owners/".into(), made), true),
    ];
    for (guard, passes) in cases {
        let answer = store
            .commit(vec![guard.clone()], vec![put("seen", "1")])
            .await;
        match answer {
            Ok(_) => assert!(passes, "{guard:?} passed"),
            Err(StoreError::Refused) => assert!(!passes, "{guard:?} refused"),
            Err(error) => panic!("{guard:?}: {error}"),
        }
    }
}

pub(crate) async fn a_refused_commit_changes_nothing(subject: &Subject) {
    let store = subject.store();
    write(store, [put("a", "1")]).await;
    let before = list(store, &[""]).await;
    let guards = vec![Guard::Absent("b".into()), Guard::Absent("a".into())];
    let writes = vec![put("b", "1"), delete("a")];
    let answer = store.commit(guards, writes).await;
    assert!(matches!(answer, Err(StoreError::Refused)), "{answer:?}");
    assert_eq!(list(store, &[""]).await, before);
}

pub(crate) async fn of_two_commits_with_one_guard_one_lands(subject: &Subject) {
    let store = subject.store();
    let claim = |value| {
        store.commit(
            vec![Guard::Absent("leader".into())],
            vec![put("leader", value)],
        )
    };
    let (one, other) = tokio::join!(claim("one"), claim("other"));
    assert!(one.is_ok() != other.is_ok(), "{one:?}, {other:?}");
}

pub(crate) async fn deleting_a_missing_key_changes_nothing(subject: &Subject) {
    let store = subject.store();
    let before = write(store, [put("a", "1")]).await;
    let gone = Write::DeletePrefix("nothing/".into());
    assert_eq!(write(store, [delete("b"), gone]).await, before);
    assert_eq!(list(store, &[""]).await.revision, before);
}

pub(crate) async fn deleting_a_prefix_removes_every_key_below_it(subject: &Subject) {
    let store = subject.store();
    let all = ["history/a/1", "history/a/2", "history/ab/1", "history/b/1"];
    let before = write(store, all.map(|key| put(key, "x"))).await;
    let after = write(
        store,
        [
            Write::DeletePrefix("history/a/".into()),
            put("units/a", "2"),
        ],
    )
    .await;
    assert_eq!(
        keys(store, &[""]).await,
        ["history/ab/1", "history/b/1", "units/a"]
    );
    let mut watch = watch(store, &[""], before).await;
    let changes = ["-history/a/1", "-history/a/2", "units/a=2"];
    assert_eq!(seen(&mut watch).await, batch(after, &changes));
}

pub(crate) async fn a_key_is_not_changed_twice_in_one_commit(subject: &Subject) {
    let store = subject.store();
    let twice = [
        vec![put("a", "1"), put("a", "2")],
        vec![put("a/b", "1"), Write::DeletePrefix("a/".into())],
    ];
    for writes in twice {
        let answer = store.commit(vec![], writes).await;
        assert!(matches!(answer, Err(StoreError::Rejected(_))), "{answer:?}");
    }
    write(
        store,
        [delete("a"), delete("a"), Write::DeletePrefix("a".into())],
    )
    .await;
}

pub(crate) async fn a_large_value_is_kept_and_an_oversized_one_rejected(subject: &Subject) {
    let store = subject.store();
    let large = "x".repeat(512 * 1024);
    let begin = write(store, [put("a", "")]).await;
    let mut watch = watch(store, &["a"], begin).await;
    write(store, [put("a", &large)]).await;
    let kept = get(store, "a").await.expect("it is there");
    assert_eq!(kept.value.len(), large.len());
    let batch = next(&mut watch).await.expect("the watch goes on");
    assert_eq!(batch.changes, [Change::Put("a".into(), kept)]);
    let answer = store.commit(vec![], vec![put("b", &large.repeat(4))]).await;
    let Err(StoreError::Rejected(text)) = answer else {
        panic!("{answer:?}");
    };
    assert!(text.contains("over the limit of 1572864"), "{text}");
}

pub(crate) async fn more_than_one_client_message_can_be_listed(subject: &Subject) {
    let store = subject.store();
    let large = "x".repeat(1024 * 1024);
    for number in 0..6 {
        write(store, [put(&format!("units/{number}"), &large)]).await;
    }
    assert_eq!(keys(store, &["units/"]).await.len(), 6);
}

pub(crate) async fn a_commit_has_128_operations_at_most(subject: &Subject) {
    let store = subject.store();
    let puts = |count: usize| {
        (0..count)
            .map(|number| put(&format!("a/{number}"), "x"))
            .collect()
    };
    store
        .commit(vec![], puts(128))
        .await
        .expect("as many as allowed");
    let answer = store.commit(vec![], puts(129)).await;
    let Err(StoreError::Rejected(text)) = answer else {
        panic!("{answer:?}");
    };
    assert!(
        text.contains("129 operations is over the limit of 128"),
        "{text}"
    );
}

pub(crate) async fn a_guard_of_a_prefix_sees_what_was_written_below_it_since(subject: &Subject) {
    let store = subject.store();
    let before = write(store, [put("owners/a/1", ""), put("owners/b/1", "")]).await;
    let guarded = async |prefix: &str| {
        let guards = vec![Guard::NoneSince(prefix.to_owned(), before)];
        store.commit(guards, vec![put("seen", "1")]).await
    };
    guarded("owners/a/")
        .await
        .expect("nothing was written there");
    write(store, [put("owners/a/2", "")]).await;
    let refused = guarded("owners/a/").await;
    assert!(matches!(refused, Err(StoreError::Refused)), "{refused:?}");
    guarded("owners/b/").await.expect("only beside it");
    write(store, [delete("owners/a/2")]).await;
    guarded("owners/a/").await.expect("it is gone again");
}

pub(crate) async fn keys_are_listed_without_their_values(subject: &Subject) {
    let store = subject.store();
    let first = write(store, [put("history/a/1", "x"), put("history0", "x")]).await;
    let second = write(store, [put("history/b/1", "y")]).await;
    let told = store.keys("history/").await.expect("it is there");
    let expected = [("history/a/1", first), ("history/b/1", second)];
    let expected: Vec<_> = expected.map(|(key, at)| (key.to_owned(), at)).into();
    assert_eq!(told.into_iter().collect::<Vec<_>>(), expected);
    assert!(store.keys("nothing/").await.expect("none").is_empty());
}
