//! Where units run, where they would run, and why.

use super::*;

#[tokio::test]
async fn a_machine_is_cordoned_and_uncordoned_and_keeps_its_metadata() {
    let world = World::new().await;
    let set = [(id('1'), "disk".to_owned(), Some("ssd".to_owned()))];
    world.registry.set_metadata(&set).await.expect("set");
    let path = format!("machines/{}", id('1'));
    for (scheduling, shown) in [("cordoned", json!("cordoned")), ("normal", Value::Null)] {
        let body = json!({"scheduling": scheduling});
        let (status, _) = world.ask(Method::POST, &path, Some(body)).await;
        assert_eq!(status, StatusCode::NO_CONTENT);
        let machine = world.get("machines").await["machines"][0].clone();
        assert_eq!(
            (&machine["scheduling"], &machine["metadata"]["disk"]),
            (&shown, &json!("ssd"))
        );
    }
    // An offline machine is known. A machine that never joined is not.
    let body = || Some(json!({"scheduling": "drained"}));
    let offline = format!("machines/{}", id('3'));
    assert_eq!(
        world.ask(Method::POST, &offline, body()).await.0,
        StatusCode::NO_CONTENT
    );
    let typo = format!("machines/{}2", "1".repeat(31));
    let (status, answer) = world.ask(Method::POST, &typo, body()).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    insta::assert_snapshot!(
        answer["error"]["message"].as_str().unwrap_or(""),
        @"machine 11111111111111111111111111111112 is not known; did you mean 11111111111111111111111111111111?"
    );
    let unlike = format!("machines/{}", "e".repeat(32));
    let (_, answer) = world.ask(Method::POST, &unlike, body()).await;
    insta::assert_snapshot!(
        answer["error"]["message"].as_str().unwrap_or(""),
        @"machine eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee is not known; fleetctl list-machines shows the known ones"
    );
}

#[tokio::test]
async fn drained_machine_gets_no_unit() {
    let world = World::new().await;
    let path = format!("machines/{}", id('1'));
    world
        .ask(Method::POST, &path, Some(json!({"scheduling": "drained"})))
        .await;
    let machine = world.get("status/web.service").await["machines"][0].clone();
    assert_eq!(machine["placed"], json!(false));
    assert_eq!(
        machine["reason"],
        "the machine is drained, and nothing runs there"
    );
}

#[tokio::test]
async fn plan_shows_every_effect_and_changes_nothing() {
    use base64::Engine as _;
    let world = World::new().await;
    let content = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let units = json!({"units": [
        {"name": "web.service", "content": content(&update())},
        {"name": "new.service", "content": content(&format!("{WEB}Conflicts=web*\n"))},
        {"name": "bad.service", "content": content("[Service")},
        {"name": "one.service", "options": [{"section": "Service", "name": "ExecStart", "value": "/a"}]},
    ]});
    let revision = world.get("rollouts").await["registryRevision"].clone();
    let (status, plan) = world.ask(Method::POST, "plan", Some(units)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(world.get("rollouts").await["registryRevision"], revision);
    let lines: String = plan["units"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|unit| {
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let machines = unit["machines"].as_array().expect("a list").iter();
            let machines: String = machines
                .map(|it| format!("  {}: {}\n", text(&it["action"]), text(&it["reason"])))
                .collect();
            let error = text(&unit["error"]);
            format!(
                "{} {} {}\n{machines}",
                text(&unit["name"]),
                text(&unit["action"]),
                error
            )
        })
        .collect();
    insta::assert_snapshot!(lines, @r"
    web.service update -
      restart: [Service] ExecStart= differs
      restart: [Service] ExecStart= differs
      deferred: the machine is offline since 1970-01-01 00:00:00 UTC
    new.service create -
      not-matched: it conflicts with web.service, which was created first
      not-matched: it conflicts with web.service, which was created first
      not-matched: it conflicts with web.service, which was created first
    bad.service - unable to find end of section (line 1)
    one.service - unit one.service is not global, and this version does not schedule such units to a machine: it can be submitted, shown and destroyed; with Global=true in its [X-Fleet] section it runs on every matching machine
    ");
    assert_eq!(plan["units"][0]["batches"]["count"], 2);
}

#[tokio::test]
async fn explanation_covers_every_machine_or_the_named_one() {
    let world = World::new().await;
    world.submit(&update()).await;
    let all = world.get("explain/web.service").await;
    let verdicts: Vec<&str> = all["machines"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|it| it["verdict"].as_str())
        .collect();
    assert_eq!(
        verdicts,
        [
            "web.service runs on 11111111, revision 1",
            "web.service runs on 22222222, revision 1",
            "web.service does not run on 33333333: the machine is offline since 1970-01-01 00:00:00 UTC, \
         and what runs there is not known",
        ]
    );
    let one = world
        .get(&format!("explain/web.service?machineID={}", id('2')))
        .await;
    assert_eq!(one["machines"].as_array().map(Vec::len), Some(1));
    let unknown = format!("explain/web.service?machineID={}", id('9'));
    assert_eq!(
        world.ask(Method::GET, &unknown, None).await.0,
        StatusCode::NOT_FOUND
    );
    let no_unit = world.get("explain/no.service").await;
    assert_eq!(
        no_unit["machines"][0]["predicates"][0]["holds"],
        json!(false)
    );
}
