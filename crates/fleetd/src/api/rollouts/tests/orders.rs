//! Updates, orders and grants as the endpoints show them.

use super::*;

#[tokio::test]
async fn update_shows_as_a_rollout_with_all_revisions() {
    let world = World::new().await;
    let row = &world.get("rollouts").await["rollouts"][0];
    assert_eq!(
        (&row["phase"], &row["candidate"]),
        (&json!("stable"), &Value::Null)
    );
    assert_eq!(
        (&row["desired"], &row["available"], &row["deferred"]),
        (&json!(2), &json!(2), &json!(1))
    );
    world.submit(&update()).await;
    let status = world.get("rollouts/web.service").await;
    assert_eq!(
        (&status["phase"], &status["candidate"]),
        (&json!("rolling"), &json!(2))
    );
    assert_eq!(
        (&status["upToDate"], &status["desired"]),
        (&json!(0), &json!(2))
    );
    let third = &status["machines"][2];
    assert_eq!(
        (&third["live"], &third["offlineSince"], &third["wanted"]),
        (&json!(false), &json!(7), &json!(2))
    );
    let history = world.get("rollouts/web.service/history").await;
    let states: Vec<&Value> = history["revisions"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|revision| &revision["state"])
        .collect();
    assert_eq!(states, [&json!("stable"), &json!("candidate")]);
    // A unit is read with its newest content, a numbered revision with its own.
    let newest = world.get("units/web.service?content=true").await["content"].clone();
    assert_eq!(
        newest,
        world.get("rollouts/web.service/history/2").await["content"]
    );
    assert_ne!(
        newest,
        world.get("rollouts/web.service/history/1").await["content"]
    );
    let (status, body) = world
        .ask(Method::GET, "rollouts/web.service/history/9", None)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        body["error"]["message"],
        "unit web.service has no revision 9; there are 1, 2"
    );
}

#[tokio::test]
async fn the_status_of_a_unit_names_the_candidate() {
    let world = World::new().await;
    let before = world.get("status/web.service").await;
    assert_eq!(before["candidate"], Value::Null);
    world.submit(&update()).await;
    let status = world.get("status/web.service").await;
    assert_eq!(
        (&status["revision"], &status["candidate"]["revision"]),
        (&json!(1), &json!(2))
    );
    assert_eq!(status["hash"], before["hash"]);
    assert_ne!(status["candidate"]["hash"], before["hash"]);
}

#[tokio::test]
async fn order_is_followed_or_refused_with_the_reason() {
    let world = World::new().await;
    insta::assert_snapshot!(
        world.refusal(json!({"action": "undo"})).await,
        @"409: unit web.service has no revision before 1 to go back to; its history is empty"
    );
    world.submit(&update()).await;
    let (status, paused) = world.order(json!({"action": "pause"})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        (&paused["phase"], &paused["reason"]),
        (&json!("paused"), &json!("paused by the API"))
    );
    let (_, rolling) = world.order(json!({"action": "resume"})).await;
    assert_eq!(rolling["phase"], "rolling");
    let (_, restarted) = world.order(json!({"action": "restart"})).await;
    assert_eq!(restarted["candidate"], 3);
    let (_, back) = world.order(json!({"action": "undo"})).await;
    assert_eq!(back["phase"], "rolling-back");
    let (_, other) = world.order(json!({"action": "undo", "to": 2})).await;
    assert_eq!(
        (&other["candidate"], &other["phase"]),
        (&json!(4), &json!("rolling"))
    );
    insta::assert_snapshot!(
        world.refusal(json!({"action": "undo", "to": 9})).await,
        @"409: unit web.service has no revision 9 to go back to; its history has 2, 3 (rolled back)"
    );
    insta::assert_snapshot!(
        world.refusal(json!({"action": "pause", "to": 9})).await,
        @r#"400: "to" is valid only with the action undo"#
    );
    assert!(
        world
            .refusal(json!({"action": "stop"}))
            .await
            .starts_with("400: unable to decode body")
    );
    let nothing = world.ask(
        Method::POST,
        "rollouts/no.service",
        Some(json!({"action": "pause"})),
    );
    assert_eq!(nothing.await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_grant_shows_only_while_it_holds() {
    let world = World::new().await;
    world.submit(&update()).await;
    let created = world
        .registry
        .unit(&web())
        .await
        .expect("read")
        .expect("there")
        .created;
    for (digit, session) in [('1', 11), ('2', 99)] {
        let grant = Grant {
            unit: created,
            revision: 2,
            session,
            was_available: true,
            proved: false,
            leaves: false,
        };
        world.write(keys::grant(&id(digit), &web()), &grant).await;
    }
    let machines = world.get("rollouts/web.service").await["machines"].clone();
    assert_eq!(
        (&machines[0]["granted"], &machines[1]["granted"]),
        (&json!(2), &Value::Null)
    );
}

#[tokio::test]
async fn update_of_an_old_revision_is_refused_with_412() {
    let world = World::new().await;
    let put = async |path: &str, tag: Option<&str>, content: String| {
        use base64::Engine as _;
        let content = base64::engine::general_purpose::STANDARD.encode(content);
        let body = json!({"content": content, "desiredState": "launched"});
        let mut request = Request::builder()
            .method(Method::PUT)
            .uri(format!("/fleet/v1/units/{path}"))
            .header("Content-Type", "application/json");
        if let Some(tag) = tag {
            request = request.header("If-Match", tag);
        }
        let request = request.body(Body::from(body.to_string()));
        let router = router(world.registry.clone(), 100);
        let answer = router.oneshot(request.expect("a request")).await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        let body = to_bytes(answer.into_body(), 1 << 20).await.expect("a body");
        let body: Value = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let message = body["error"]["message"].as_str().unwrap_or_default();
        (status, message.to_owned())
    };
    let unit = "web.service";
    assert_eq!(
        world.get("units/web.service?content=true").await["revision"],
        json!(1)
    );
    assert_eq!(put(unit, Some("\"1\""), update()).await.0, 204);
    let (status, message) = put(unit, Some("\"1\""), WEB.replace("/a", "/c")).await;
    assert_eq!(status, 412);
    assert!(
        message.contains("replaces revision 1, but revision 2 is the newest"),
        "{message}"
    );
    assert_eq!(
        world.get("units/web.service?content=true").await["revision"],
        json!(2)
    );
    for tag in [Some("2"), Some("*"), None] {
        let content = WEB.replace("/a", &format!("/{}", tag.unwrap_or("none")));
        assert_eq!(put(unit, tag, content).await.0, 204, "{tag:?}");
    }
    assert_eq!(put(unit, Some("x"), update()).await.0, 400);
    let (status, message) = put("new.service", Some("\"1\""), update()).await;
    assert_eq!(status, 412);
    assert!(message.contains("the unit was destroyed"), "{message}");
}
