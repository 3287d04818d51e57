//! What happens to files and links.

use super::*;

#[test]
fn running_unit_without_file_gets_it_back_without_restart() {
    let mut lost = seen(1, "x", Some("x"), "active");
    lost.state.load = "not-found".to_owned();
    let desired = [("a.service", want(1, "x", true))];
    // The file may be there again already: systemd looks for it in a reload only.
    insta::assert_snapshot!(show(&desired, &[("a.service", lost)]), @r"
    link a.service: systemd must know its file
    reload: systemd has read older files of a.service
    ");
}

#[test]
fn a_file_is_left_alone_while_a_restart_stops_its_unit() {
    let mut unit = seen(1, "x", Some("x"), "deactivating");
    unit.state.job = Some("restart".to_owned());
    let desired = [("a.service", want(2, "y", true))];
    insta::assert_snapshot!(show(&desired, &[("a.service", unit)]), @"wait a.service: its restart is under way: its file changes after that");
}

#[test]
fn file_changed_by_hand_is_restored_without_restart() {
    let desired = [("a.service", want(1, "x", true))];
    insta::assert_snapshot!(show(&desired, &[("a.service", seen(1, "hand", Some("x"), "active"))]), @r"
    write a.service: somebody changed its file of revision 1
    link a.service: systemd must know its file
    reload: systemd has read older files of a.service
    ");
}

#[test]
fn change_of_a_file_or_link_is_named_and_undone() {
    let desired = [("a.service", want(1, "x", true))];
    let mut seen = seen(1, "y", Some("x"), "active");
    insta::assert_snapshot!(show(&desired, &[("a.service", seen.clone())]), @r"
    write a.service: somebody changed its file of revision 1
    link a.service: systemd must know its file
    reload: systemd has read older files of a.service
    ");
    seen.file = None;
    insta::assert_snapshot!(show(&desired, &[("a.service", seen.clone())]), @r"
    write a.service: somebody removed its file of revision 1
    link a.service: systemd must know its file
    reload: systemd has read older files of a.service
    ");
    seen.file = Some(file("x"));
    seen.linked = false;
    insta::assert_snapshot!(show(&desired, &[("a.service", seen)]), @r"
    link a.service: somebody removed systemd's link to its file
    reload: systemd has read older files of a.service
    ");
}

#[test]
fn a_masked_unit_is_held_as_it_is() {
    let mut masked = seen(1, "x", Some("x"), "active");
    masked.foreign = Some("/etc/systemd/system/a.service (masked)".to_owned());
    insta::assert_snapshot!(show(&[("a.service", want(2, "y", true))], &[("a.service", masked)]), @r"
    refuse a.service: somebody masked it (/etc/systemd/system/a.service): it is left as it is until `systemctl unmask a.service` on this machine
    ");
}

#[test]
fn a_foreign_unit_is_refused_and_others_go_on() {
    let mut foreign = unseen();
    foreign.state = state("active", None);
    foreign.foreign = Some("/etc/systemd/system/a.service".to_owned());
    let desired = [
        ("a.service", want(1, "x", true)),
        ("b.service", want(1, "x", false)),
    ];
    insta::assert_snapshot!(show(&desired, &[("a.service", foreign.clone())]), @r"
    write b.service: revision 1 belongs on this machine
    link b.service: systemd must know its file
    refuse a.service: a unit of this name that is not fleet's exists (/etc/systemd/system/a.service)
    ");
    assert_eq!(
        show(&[], &[("a.service", foreign)]),
        "",
        "never stopped, never removed"
    );
}

#[test]
fn template_is_read_again_whenever_its_file_changes() {
    let of_template = |content| Observed {
        state: state("inactive", None),
        ..seen(1, content, None, "inactive")
    };
    let wanted = |revision, content| [("a@.service", want(revision, content, false))];
    insta::assert_snapshot!(show(&wanted(1, "x"), &[]), @r"
    write a@.service: revision 1 belongs on this machine
    link a@.service: systemd must know its file
    reload: systemd has read older files of a@.service
    ");
    assert_eq!(
        show(&wanted(1, "x"), &[("a@.service", of_template("x"))]),
        ""
    );
    insta::assert_snapshot!(show(&wanted(2, "y"), &[("a@.service", of_template("x"))]), @r"
    write a@.service: its file is not that of revision 2
    link a@.service: systemd must know its file
    reload: systemd has read older files of a@.service
    ");
    let mut removed = of_template("x");
    insta::assert_snapshot!(
        show(&[], &[("a@.service", removed.clone())]),
        @"remove a@.service: it does not belong on this machine"
    );
    (removed.file, removed.linked) = (None, false);
    removed.state = State::not_found();
    let set_unread = |seen: &mut Observed, unread| {
        let mark = seen.mark.as_mut().expect("a mark");
        mark.unread = unread;
    };
    set_unread(&mut removed, true);
    insta::assert_snapshot!(
        show(&[], &[("a@.service", removed.clone())]),
        @"reload: systemd has read older files of a@.service"
    );
    set_unread(&mut removed, false);
    insta::assert_snapshot!(
        show(&[], &[("a@.service", removed)]),
        @"forget a@.service: it does not belong on this machine"
    );
}
