//! Requests that wait for a change.

use super::*;

#[tokio::test(start_paused = true)]
async fn follower_of_events_gets_all_of_its_unit_and_no_others() {
    let world = World::new().await;
    let event = |count, name: &str| {
        let event = Event {
            at: 1,
            kind: EventKind::Granted,
            unit: UnitName::parse(name).ok(),
            revision: 2,
            machines: vec![id('1')],
            reason: "it is its turn".to_owned(),
        };
        (keys::event(1, count), event)
    };
    let (key, first) = event(1, "web.service");
    world.write(key, &first).await;
    let all = world.get("events?unit=web.service").await;
    assert_eq!(all["events"][0]["kind"], "granted");
    let after = all["nextAfter"].as_u64().expect("a number");
    let path = format!("events?unit=web.service&after={after}");
    let asked = world.get(&path);
    let happens = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        for (key, event) in [event(2, "other.service"), event(3, "web.service")] {
            world.write(key, &event).await;
        }
    };
    let (answer, ()) = tokio::join!(asked, happens);
    assert_eq!(answer["events"].as_array().map(Vec::len), Some(1));
    let after = answer["nextAfter"].as_u64().expect("a number");
    let began = tokio::time::Instant::now();
    let none = world.get(&format!("events?after={after}")).await;
    assert_eq!(none["events"], json!([]));
    assert!(began.elapsed() >= Duration::from_secs(29));
    // A restored registry has not reached that revision, so the answer names the present one.
    let restored = world.get("events?after=100000").await;
    assert_eq!(restored["nextAfter"], none["nextAfter"]);
}

#[tokio::test(start_paused = true)]
async fn waiting_request_for_a_rollout_returns_its_change() {
    let world = World::new().await;
    let revision = world.get("rollouts/web.service").await["registryRevision"].clone();
    let path = format!("rollouts/web.service?after={revision}");
    let happens = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.submit(&update()).await;
    };
    let (answer, ()) = tokio::join!(world.get(&path), happens);
    assert_eq!(answer["phase"], Phase::Rolling.as_str());
}
