//! Every recorded request gets fleet 1.0's answer, except for the differences that `recorded.txt`
//! names.

use axum::body::Body;
use axum::http::Request;
use fleet_core::unit::{Hash, UnitFile};

use super::transcript::{self, Exchange};
use super::world::World;

async fn replayed(world: &World, exchange: &Exchange) -> String {
    let mut request = Request::builder()
        .method(exchange.method.as_str())
        .uri(&exchange.path);
    for (name, value) in &exchange.headers {
        request = request.header(name, value);
    }
    let request = request.body(Body::from(exchange.body.clone()));
    let answer = world.ask(request.expect("a request")).await;
    transcript::shown(
        &answer.status.to_string(),
        answer.content_type(),
        &answer.body,
    )
}

#[tokio::test]
async fn client_of_fleet_1_0_gets_the_recorded_answers() {
    let world = World::start().await;
    let mut differences = String::new();
    for exchange in transcript::recorded() {
        let replayed = replayed(&world, &exchange).await;
        if !exchange.is_answered_by(&replayed) {
            let Exchange {
                method,
                path,
                body,
                answer,
                ..
            } = &exchange;
            differences +=
                &format!("{method} {path} {body}\n--- recorded\n{answer}\n--- now\n{replayed}\n\n");
        }
        if exchange.creates() {
            let file = UnitFile::parse(
                b"[Service]\nExecStart=/bin/sleep 1000\n\n[X-Fleet]\nGlobal=true\n",
            );
            world
                .report_running("x.service", &Hash::of(file.options()).to_string())
                .await;
        }
    }
    assert!(differences.is_empty(), "{differences}");
}

#[tokio::test]
async fn the_old_prefix_is_the_same_api() {
    let (new, old) = (World::start().await, World::start().await);
    for mut exchange in transcript::recorded() {
        let expected = replayed(&new, &exchange).await;
        exchange.path = exchange.path.replace("/fleet/v1", "/v1-alpha");
        assert_eq!(replayed(&old, &exchange).await, expected, "{exchange:?}");
    }
}
