//! Whole sessions at the command line, replayed and compared line by line.
//!
//! Each file in `tests/transcripts/` is the output of fleet 1.0 on three hosts, without the times.
//! A line `# ours: WHY` precedes output of fleetctl that differs on purpose.

use crate::session::Session;

fn replay(recorded: &str) {
    let session = Session::start();
    let commands = recorded.lines().filter_map(|line| line.strip_prefix("$ "));
    let replayed: String = commands.map(|command| session.run(command)).collect();
    let recorded: String = recorded
        .split_inclusive('\n')
        .filter(|line| !line.starts_with('#'))
        .collect();
    let same = replayed
        .lines()
        .zip(recorded.lines())
        .take_while(|(replayed, recorded)| replayed == recorded)
        .count();
    assert!(
        replayed == recorded,
        "line {} differs (comments not counted): recorded {:?}; replayed:\n{replayed}",
        same + 1,
        recorded.lines().nth(same)
    );
}

#[test]
fn global_unit_behaves_as_in_fleet_1_0() {
    replay(include_str!("../transcripts/global.txt"));
}

#[test]
fn units_are_replaced_compared_and_refused_as_in_fleet_1_0() {
    replay(include_str!("../transcripts/replace.txt"));
}

#[test]
fn metadata_and_templates_place_units_as_in_fleet_1_0() {
    replay(include_str!("../transcripts/metadata.txt"));
}

#[test]
fn errors_have_the_texts_of_fleet_1_0() {
    replay(include_str!("../transcripts/errors.txt"));
}
