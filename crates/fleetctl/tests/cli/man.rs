//! The man page, as the programs that set it find it.

use crate::session::Session;

#[test]
fn the_man_page_is_without_fault_to_groff() {
    let session = Session::start();
    if !session.run("command -v groff").contains("o|") {
        println!("skipped: groff is not installed (apt-get install groff-base)");
        return;
    }
    let command = "fleetctl __man | groff -man -Tutf8 -rLL=100n -ww -z";
    assert_eq!(session.run(command), format!("$ {command}\n[rc=0]\n"));
}
