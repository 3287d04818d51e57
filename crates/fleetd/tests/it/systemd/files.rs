//! Files, names and links: what systemd makes of them, and whose they are.

use super::*;

pub(super) async fn a_changed_file_counts_after_a_reload_and_not_before(host: &Host) {
    host.run("a.service", SLEEPS).await;
    host.link("a.service", FAILS).await;
    host.restart("a.service").await;
    sleep(Duration::from_millis(300)).await;
    host.becomes("a.service", "active").await;
    host.reload().await;
    assert_eq!(host.state("a.service").await.active, "active");
    host.restart("a.service").await;
    host.becomes("a.service", "failed").await;
    host.remove(&["a.service"]).await;
}

pub(super) async fn removal_leaves_nothing(host: &Host) {
    host.run("a.service", SLEEPS).await;
    host.remove(&["a.service"]).await;
    assert_eq!(host.systemd().files().await.expect("read"), BTreeMap::new());
    assert_eq!(host.state("a.service").await, State::not_found());
    let again = host.systemd().start(&unit("a.service")).await;
    assert!(matches!(again, Err(SystemdError::Refused(_))), "{again:?}");
    host.systemd()
        .remove(&unit("a.service"))
        .await
        .expect("nothing to do");
}

pub(super) async fn names_that_systemd_does_not_know_are_not_found_and_harm_no_others(host: &Host) {
    host.run("a.service", SLEEPS).await;
    let strange = [
        "none.service",
        "none@.service",
        "old.snapshot",
        "none.mount",
    ];
    let long = format!("{}.service", "x".repeat(247));
    let names = [&strange[..], &[&*long, "a.service"]].concat();
    let states = host.states(&names).await;
    assert_eq!(states.len(), names.len());
    for name in strange {
        assert_eq!(states[&unit(name)], State::not_found(), "{name}");
    }
    assert_eq!(states[&unit("a.service")].active, "active");
    host.remove(&["a.service"]).await;
}

pub(super) async fn of_links_that_are_asked_for_at_once_one_that_cannot_be_made_is_in_nobodys_way(
    host: &Host,
) {
    let links = Links {
        install: false,
        anew: true,
    };
    let link = async |name: &str| host.systemd().link(&unit(name), links).await;
    for without in [false, true] {
        let names: Vec<String> = (0..20).map(|n| format!("linked-{n}.service")).collect();
        for name in &names {
            host.write(name, SLEEPS).await;
        }
        let (good, all) = join(
            join_all(names.iter().map(|name| link(name))),
            join_all(without.then(|| link("nowhere.service"))),
        )
        .await;
        assert!(good.iter().all(Result::is_ok), "{good:?}");
        let refused = |answer: &Result<_, _>| matches!(answer, Err(SystemdError::Refused(_)));
        assert!(all.iter().all(refused), "{all:?}");
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let states = host.states(&names).await;
        assert!(states.values().all(|state| state.load == "loaded"));
        host.remove(&names).await;
    }
}

pub(super) async fn install_sections_are_linked_and_unlinked(host: &Host) {
    let wanted = |target: &str| format!("{SLEEPS}[Install]\nWantedBy={target}\n");
    host.link("a@1.service", &wanted("multi-user.target")).await;
    host.link(
        "b.service",
        &format!("{}Alias=b-alias.service\n", wanted("timers.target")),
    )
    .await;
    let links = |names: &[&str]| {
        let names: BTreeSet<_> = names.iter().map(|name| format!("{RUN}/{name}")).collect();
        match host {
            Host::Fake(_) => {}
            Host::Real(_) => assert_eq!(below(RUN), names),
        }
    };
    links(&[
        "a@1.service",
        "b.service",
        "b-alias.service",
        "multi-user.target.wants/a@1.service",
        "timers.target.wants/b.service",
    ]);
    // What the file no longer asks for goes.
    host.link("b.service", &wanted("sockets.target")).await;
    host.link("a@1.service", SLEEPS).await;
    links(&["a@1.service", "b.service", "sockets.target.wants/b.service"]);
    host.remove(&["a@1.service"]).await;
    // Another unit that is installed with it stays when it goes.
    host.link("c.service", &format!("{SLEEPS}[Install]\nAlso=b.service\n"))
        .await;
    host.remove(&["c.service"]).await;
    links(&["b.service", "sockets.target.wants/b.service"]);
    // systemd disables nothing that is masked.
    if let Host::Real(_) = host {
        shell("systemctl mask --quiet b.service");
    }
    host.remove(&["b.service"]).await;
    links(&[]);
    if let Host::Real(_) = host {
        shell("systemctl unmask --quiet b.service");
    }
}

pub(super) async fn units_of_others_are_told(host: &Host) {
    let etc = format!("{ETC}/etc.service");
    let masked = format!("{ETC}/masked.service");
    let template = format!("{ETC}/inst@.service");
    let transient = "/run/systemd/transient/transient.service".to_owned();
    let kernel = "systemd has it without a unit file".to_owned();
    match host {
        Host::Fake(fake) => {
            fake.set_foreign(&unit("etc.service"), Some(&etc));
            fake.set_foreign(&unit("masked.service"), Some(&format!("{masked} (masked)")));
            fake.set_foreign(&unit("inst@.service"), Some(&template));
            fake.set_foreign(&unit("transient.service"), Some(&transient));
            fake.set_foreign(&unit("-.mount"), Some(&kernel));
        }
        Host::Real(_) => {
            std::fs::write(&etc, SLEEPS).expect("written");
            std::fs::write(&template, SLEEPS).expect("written");
            shell("systemctl mask --quiet masked.service");
            shell("systemd-run --quiet --unit=transient.service sleep 1000");
            std::fs::create_dir(format!("{ETC}/own.service.d")).expect("created");
        }
    }
    assert_eq!(host.foreign("etc.service").await, Some(etc.clone()));
    assert_eq!(
        host.foreign("masked.service").await,
        Some(format!("{masked} (masked)"))
    );
    assert_eq!(host.foreign("inst@1.service").await, Some(template.clone()));
    assert_eq!(host.foreign("transient.service").await, Some(transient));
    assert_eq!(host.foreign("-.mount").await, Some(kernel));
    assert_eq!(host.foreign("nobody.service").await, None);
    host.run("own.service", SLEEPS).await;
    assert_eq!(host.foreign("own.service").await, None);

    // An administrator's file of the same name that comes later.
    let shadow = format!("{ETC}/own.service");
    match host {
        Host::Fake(fake) => fake.set_foreign(&unit("own.service"), Some(&shadow)),
        Host::Real(_) => std::fs::write(&shadow, SLEEPS).expect("written"),
    }
    assert_eq!(host.foreign("own.service").await, Some(shadow.clone()));
    if let Host::Real(_) = host {
        for file in [&etc, &masked, &template, &shadow] {
            std::fs::remove_file(file).expect("removed");
        }
        std::fs::remove_dir(format!("{ETC}/own.service.d")).expect("removed");
        shell("systemctl stop transient.service");
    }
    host.remove(&["own.service"]).await;
}

pub(super) async fn a_link_never_replaces_anothers(host: &Host) {
    let Host::Real(real) = host else { return };
    let theirs = format!("{RUN}/a.service");
    std::os::unix::fs::symlink("/opt/theirs/a.service", &theirs).expect("linked");
    host.write("a.service", SLEEPS).await;
    for install in [false, true] {
        let links = Links {
            install,
            anew: !install,
        };
        let linked = real.link(&unit("a.service"), links).await;
        assert!(
            matches!(linked, Err(SystemdError::Refused(_))),
            "{linked:?}"
        );
        let target = std::fs::read_link(&theirs).expect("still there");
        assert_eq!(target, Path::new("/opt/theirs/a.service"));
    }
    std::fs::remove_file(&theirs).expect("removed");
    host.remove(&["a.service"]).await;
}

pub(super) async fn a_template_is_loaded_while_it_is_linked(host: &Host) {
    host.systemd()
        .write(&unit("inst@.service"), &Content::from(SLEEPS))
        .await
        .expect("written");
    let load = async || host.state("inst@.service").await.load;
    assert_eq!(load().await, "not-found");
    let links = Links {
        install: false,
        anew: true,
    };
    let linked = host.systemd().link(&unit("inst@.service"), links).await;
    linked.expect("linked");
    assert_eq!(load().await, "loaded");
    let started = host.systemd().start(&unit("inst@.service")).await;
    assert!(
        matches!(started, Err(SystemdError::Refused(_))),
        "{started:?}"
    );
    host.remove(&["inst@.service"]).await;
    assert_eq!(load().await, "not-found");
}
