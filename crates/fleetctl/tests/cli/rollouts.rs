//! How updates are shown, followed and ordered, with the real API.

use std::io::Read as _;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use fleet_core::rollout::{Ended, Phase};

use crate::cluster::{Cluster, ended};

#[test]
fn global_units_have_the_counts_of_a_daemon_set() {
    let cluster = Cluster::start();
    cluster.rolling();
    let fields =
        "unit,rev,desired,current,ready,up-to-date,available,failed,deferred,metadata,phase,reason";
    let commands = [
        format!("fleetctl list-globals --fields={fields}"),
        "fleetctl list-globals -o name".to_owned(),
        "fleetctl list-globals | head -1".to_owned(),
    ];
    let told = commands.map(|command| cluster.run(&command));
    insta::assert_snapshot!(told.concat());
}

#[test]
fn update_is_shown_with_its_machines_and_exit_code() {
    let cluster = Cluster::start();
    let mut told = cluster.run("fleetctl rollout status web");
    cluster.rolling();
    told += &cluster.run("fleetctl rollout status web");
    cluster.reports(1, 3, false);
    cluster.record(Some((Phase::Paused, "it failed on 3f3fab35")), None);
    told += &cluster.run("fleetctl rollout status web");
    cluster.record(Some((Phase::RollingBack, "it failed on 3f3fab35")), None);
    told += &cluster.run("fleetctl rollout status web");
    cluster.reports(0, 2, true);
    cluster.reports(1, 2, true);
    cluster.record(
        None,
        Some(ended(Ended::RolledBack, "it failed on 3f3fab35")),
    );
    told += &cluster.run("fleetctl rollout status web");
    told += &cluster.run("fleetctl rollout status wep");
    insta::assert_snapshot!(told);
}

#[test]
fn update_is_followed_until_it_is_over() {
    let cluster = Cluster::start();
    cluster.rolling();
    let mut follow = cluster
        .command("exec fleetctl rollout status -w web")
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh runs");
    let late = cluster.run("fleetctl rollout status -w --timeout 300ms web");
    assert!(
        late.contains("e| web.service: not over after 300ms\n[rc=5]"),
        "{late}"
    );
    cluster.record(Some((Phase::RollingBack, "it failed on 3f3fab35")), None);
    cluster.reports(0, 2, true);
    thread::sleep(Duration::from_millis(200));
    assert!(
        follow.try_wait().expect("asked").is_none(),
        "it is not over"
    );
    cluster.record(
        None,
        Some(ended(Ended::RolledBack, "it failed on 3f3fab35")),
    );
    assert_eq!(follow.wait().expect("it ends").code(), Some(7));
    let mut said = String::new();
    let mut stdout = follow.stdout.take().expect("piped");
    stdout.read_to_string(&mut said).expect("text");
    let last = said.lines().last().expect("a line");
    assert_eq!(
        last,
        "web.service: revision 3 was rolled back: it failed on 3f3fab35; \
         revision 2 is stable, available on 3 of 3 machines"
    );
}

#[test]
fn following_ends_when_the_unit_is_destroyed() {
    let cluster = Cluster::start();
    cluster.rolling();
    let mut follow = cluster
        .command("exec fleetctl rollout status -w web")
        .stdout(Stdio::null())
        .spawn()
        .expect("sh runs");
    cluster.run("sleep 0.3; fleetctl destroy web");
    assert_eq!(follow.wait().expect("it ends").code(), Some(4));
}

#[test]
fn timeout_without_watch_is_refused() {
    let limited = Cluster::start().run("fleetctl rollout status --timeout 1s web 2>/dev/null");
    assert!(limited.ends_with("[rc=2]\n"), "{limited}");
}

#[test]
fn terminal_gets_a_progress_bar() {
    let cluster = Cluster::start();
    cluster.rolling();
    let terminal = "script -qec 'fleetctl rollout status -w --timeout 1s web' /dev/null";
    let shown = cluster.run(&format!("TERM=xterm {terminal}"));
    let bar = format!("[{}{}] 1 of 3 machines", "#".repeat(13), "-".repeat(27));
    assert!(shown.contains(&bar), "{shown}");
    assert!(
        shown.contains("\x1b[33mstarting      1\x1b[0m  3f3fab35..."),
        "{shown:?}"
    );
}

#[test]
fn update_is_paused_resumed_undone_and_restarted() {
    let cluster = Cluster::start();
    cluster.rolling();
    let told = [
        "fleetctl rollout pause web",
        "fleetctl rollout pause web",
        "fleetctl rollout resume web",
        "fleetctl rollout undo web",
        "fleetctl rollout pause nosuch",
        "fleetctl rollout",
    ]
    .map(|command| cluster.run(&format!("{command} 2>&1 | head -2")));
    insta::assert_snapshot!(told.concat());
    assert!(
        cluster
            .run("fleetctl rollout pause nosuch")
            .ends_with("[rc=4]\n")
    );
    assert!(
        cluster
            .run("fleetctl rollout undo --to 9 web")
            .ends_with("[rc=1]\n")
    );
}

#[test]
fn earlier_revision_is_rolled_out_again() {
    let cluster = Cluster::start();
    insta::assert_snapshot!(cluster.run("fleetctl rollout undo --to 1 web"), @r"
    $ fleetctl rollout undo --to 1 web
    o| web.service undone: revision 3 is being rolled out
    [rc=0]
    ");
}

#[test]
fn restart_is_rolled_out() {
    let cluster = Cluster::start();
    let told = [
        "fleetctl restart",
        "fleetctl restart --no-block 'we*'",
        "fleetctl restart web --wait=300ms",
        "fleetctl restart web wep",
        "fleetctl stop web; fleetctl restart web",
        "fleetctl rollout restart web",
    ]
    .map(|command| cluster.run(command));
    insta::assert_snapshot!(told.concat());
}

#[test]
fn terminal_is_shown_how_to_follow_an_update() {
    let cluster = Cluster::start();
    cluster.file(
        "web.service",
        "[Service]\nExecStart=/bin/newer\n\n[X-Fleet]\nGlobal=true\n",
    );
    let terminal = "script -qec 'fleetctl start --replace web' /dev/null";
    let shown = cluster.run(terminal);
    assert!(
        shown.contains("revision 3 is being rolled out; to follow it: fleetctl rollout status --watch web.service"),
        "{shown}"
    );
    cluster.file(
        "web.service",
        "[Service]\nExecStart=/bin/newest\n\n[X-Fleet]\nGlobal=true\n",
    );
    insta::assert_snapshot!(cluster.run("fleetctl start --replace web"), @r"
    $ fleetctl start --replace web
    o| Unit web.service 
    o| Triggered global unit web.service start
    [rc=0]
    ");
}

#[test]
fn revisions_are_listed_and_printed() {
    let cluster = Cluster::start();
    cluster.rolling();
    let told = [
        "fleetctl rollout history web",
        "fleetctl rollout history web -o json",
        "fleetctl rollout history --revision 1 web",
        "fleetctl rollout history --revision 9 web",
        "fleetctl rollout history wbe",
    ]
    .map(|command| cluster.run(command));
    insta::assert_snapshot!(told.concat());
}

#[test]
fn status_of_a_unit_shows_its_rollout() {
    let cluster = Cluster::start();
    cluster.rolling();
    let rollout = "fleetctl status web -n 0 | grep Rollout";
    let mut told = cluster.run(rollout);
    cluster.record(
        None,
        Some(ended(Ended::RolledBack, "it failed on 3f3fab35")),
    );
    told += &cluster.run(rollout);
    insta::assert_snapshot!(told, @r"
    $ fleetctl status web -n 0 | grep Rollout
    o|  Rollout: revision 3 rolling, available on 1 of 3 machines
    [rc=0]
    $ fleetctl status web -n 0 | grep Rollout
    o|  Rollout: revision 3 rolled back 2026-11-22 06:45:41 UTC: it failed on 3f3fab35
    [rc=0]
    ");
}

#[test]
fn rollout_status_is_a_document() {
    let cluster = Cluster::start();
    cluster.record(
        None,
        Some(ended(Ended::RolledBack, "it failed on 3f3fab35")),
    );
    insta::assert_snapshot!(
        cluster.run("fleetctl rollout status web -o json | grep -v registryRevision")
    );
    insta::assert_snapshot!(cluster.run("fleetctl list-globals -o yaml"));
}
