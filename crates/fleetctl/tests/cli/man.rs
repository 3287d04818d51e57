//! The man page, checked by the programs that format it.

use crate::session::Session;

#[test]
fn man_page_has_no_faults_in_groff() {
    let session = Session::start();
    if !session.run("command -v groff").contains("o|") {
        println!("skipped: groff is not installed (apt-get install groff-base)");
        return;
    }
    let command = "fleetctl __man | groff -man -Tutf8 -rLL=100n -ww -z";
    assert_eq!(session.run(command), format!("$ {command}\n[rc=0]\n"));
}
