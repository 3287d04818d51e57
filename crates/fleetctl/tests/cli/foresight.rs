//! plan, diff, explain, events, cordon: predictions, reasons and decisions.

use std::io::{BufRead as _, BufReader};
use std::process::Stdio;

use fleet_core::machine::Scheduling;
use fleet_core::record::EventKind;

use crate::cluster::{Cluster, MACHINES, WEB};

const ZONE_ONE: &str =
    "[Service]\nExecStart=/bin/new\n\n[X-Fleet]\nGlobal=true\nMachineMetadata=az=1\n";

#[test]
fn plan_shows_the_effect_on_every_machine() {
    let cluster = Cluster::start();
    cluster.file("web.service", ZONE_ONE);
    cluster.run(&format!("fleetctl cordon {}", &MACHINES[2].0[..4]));
    let told = [
        "fleetctl plan web",
        "fleetctl plan --full web",
        "fleetctl plan -o yaml web",
    ]
    .map(|command| cluster.run(&format!("{command} | grep -v registryRevision")));
    insta::assert_snapshot!(told.concat());
}

#[test]
fn plan_exit_code_shows_whether_anything_would_change() {
    let cluster = Cluster::start();
    cluster.file("web.service", &format!("# the same process\n{WEB}"));
    cluster.file("bad.service", "[X-Fleet]\nGlobal=true\nMachineID=1\n");
    cluster.file("new.service", WEB);
    let told = [
        "fleetctl plan web.service",
        "rm web.service; fleetctl plan web.service",
        "fleetctl plan new.service",
        "fleetctl plan bad.service",
        "fleetctl plan nosuch",
        "fleetctl --endpoint unix:///nosuch plan web 2>&1 | head -0; fleetctl --endpoint unix:///nosuch plan web 2>/dev/null",
        "fleetctl plan 2>/dev/null",
    ]
    .map(|command| cluster.run(command));
    insta::assert_snapshot!(told.concat());
}

#[test]
fn diff_shows_the_difference_below_its_effect() {
    let cluster = Cluster::start();
    cluster.file("web.service", &WEB.replace("/bin/web", "/bin/new"));
    cluster.file("new.service", WEB);
    let told = [
        "fleetctl diff web.service",
        "fleetctl diff ./new",
        "fleetctl cat web > web.service; fleetctl diff web",
        "rm web.service; fleetctl diff web",
    ]
    .map(|command| cluster.run(command));
    insta::assert_snapshot!(told.concat());
}

#[test]
fn diff_can_be_applied_with_patch() {
    let cluster = Cluster::start();
    cluster.file("web.service", &WEB.replace("/bin/web", "/bin/new"));
    cluster.run("fleetctl cat web > old; fleetctl diff web.service | patch old");
    let same = cluster.run("cmp old web.service");
    assert!(same.ends_with("[rc=0]\n"), "{same}");
}

#[test]
fn explain_shows_similar_machines_once() {
    let cluster = Cluster::start();
    let mut told = cluster.run("fleetctl explain web");
    cluster.run(&format!("fleetctl drain {}", MACHINES[1].0));
    told += &cluster.run("fleetctl explain web --machine 3f3f");
    told += &cluster.run("fleetctl explain web --machine 3f3f -o json | grep -v registryRevision");
    told += &cluster.run("fleetctl explain web --machine ffff");
    told += &cluster.run("fleetctl explain wbe");
    insta::assert_snapshot!(told);
}

#[test]
fn explain_takes_several_units_and_patterns() {
    let cluster = Cluster::start();
    let list = cluster.run("fleetctl explain 'w*' -o json");
    assert!(list.contains("\"kind\": \"ExplanationList\""), "{list}");
    let told = cluster.run("fleetctl explain web nosuch");
    assert!(told.contains("o| web.service on "), "{told}");
    let ends = "e| Unit nosuch.service does not exist.\n[rc=4]\n";
    assert!(told.ends_with(ends), "{told}");
}

#[test]
fn machines_are_cordoned_drained_and_uncordoned() {
    let cluster = Cluster::start();
    let offline = MACHINES[3].0;
    let told = [
        "fleetctl list-machines",
        "fleetctl cordon 190c 3f3f",
        "fleetctl drain 3f3f",
        "fleetctl cordon 190c",
        "fleetctl list-machines",
        "fleetctl list-machines -o wide",
        "fleetctl drain --wait=300ms 3f3f",
        "fleetctl uncordon 190c 3f3f",
        "fleetctl uncordon 190c",
        "fleetctl cordon 190c ffff",
        &format!("fleetctl cordon {offline}"),
        "fleetctl list-machines",
    ]
    .map(|command| cluster.run(command));
    insta::assert_snapshot!(told.concat());
}

#[test]
fn drain_waits_until_no_unit_is_left() {
    let cluster = Cluster::start();
    let mut drain = cluster
        .command("exec fleetctl drain --wait=20s 3f3f")
        .spawn()
        .expect("sh runs");
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(
        drain.try_wait().expect("asked").is_none(),
        "the unit is still there"
    );
    cluster.reports_nothing(1);
    assert!(drain.wait().expect("it ends").success());
    let listed = cluster.run("fleetctl list-machines --no-legend --fields=status");
    assert!(listed.contains(Scheduling::Drained.as_str()), "{listed}");
}

#[test]
fn events_are_printed_oldest_first_and_followed() {
    let cluster = Cluster::start();
    cluster.event(0, EventKind::Leading, &[0], "nobody led");
    cluster.event(1, EventKind::RolloutStarted, &[], "submitted over the API");
    cluster.event(2, EventKind::Granted, &[0, 1, 2, 3], "MaxUnavailable=4");
    let told = [
        "fleetctl events",
        "fleetctl events web --since 2026-11-22T06:40:43Z",
        "fleetctl events other",
        "fleetctl events -o json web | tail -1",
        "fleetctl events --since sometime 2>/dev/null",
    ]
    .map(|command| cluster.run(command));
    insta::assert_snapshot!(told.concat());

    let mut follow = cluster
        .command("exec fleetctl events -f web")
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let stdout = BufReader::new(follow.stdout.take().expect("piped"));
    let mut lines = stdout.lines().map(|line| line.expect("text"));
    let mut next = || lines.next().expect("a line");
    assert!(next().contains("rollout-started"));
    assert!(next().contains("granted"));
    for (second, kind) in (3..).zip([
        EventKind::Paused,
        EventKind::RollingBack,
        EventKind::RolledBack,
    ]) {
        cluster.event(second, kind, &[], "it failed");
        let line = next();
        assert!(line.contains(&format!(" {} ", kind.as_str())), "{line}");
    }
    follow.kill().expect("it runs");
    follow.wait().expect("it ended");
}
