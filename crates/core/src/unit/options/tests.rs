use super::*;

fn read(name: &str, section: &str) -> FleetOptions {
    let file = UnitFile::parse(format!("[X-Fleet]\n{section}").as_bytes());
    FleetOptions::read(&UnitName::parse(name).expect("valid"), &file)
}

fn notes(options: &FleetOptions) -> Vec<String> {
    options.notes.iter().map(Note::to_string).collect()
}

#[test]
fn last_global_wins_in_upper_and_lower_case() {
    for (section, global) in [
        ("Global=TRUE", true),
        ("Global=T", true),
        ("Global=\"no\" \"on\"", true),
        ("Global=no\nGlobal=1", true),
        ("Global=1\nGlobal=off", false),
        ("", false),
    ] {
        assert_eq!(read("a.service", section).global, global, "{section}");
    }
}

fn refusal(section: &str) -> String {
    let options = read("web.service", section);
    let error = options.validate().expect_err(section);
    crate::unit::InvalidUnit::from(error).for_unit(&UnitName::parse("web.service").expect("valid"))
}

#[test]
fn metadata_without_a_pair_is_refused_with_its_line() {
    for (value, text) in [
        ("role:web", "write key=value, or quote each of several"),
        ("role", "write key=value, or quote each of several"),
        (
            "role=web env=prod",
            "write key=value, or quote each of several",
        ),
        ("\"role=web", "write key=value, or quote each of several"),
        ("'role=web'", "write key=value, or quote each of several"),
        ("=web", "write key=value, neither of them empty"),
        ("role=", "write key=value, neither of them empty"),
        (
            "role=web,db",
            "write one key=value on each line; metadata has no commas",
        ),
        ("role = web", "write key=value without blanks around the ="),
        ("role=web # front", "a comment needs a line of its own"),
        ("role=web ; front", "a comment needs a line of its own"),
        ("", "it has no value; give it one, or remove the line"),
    ] {
        for key in ["MachineMetadata", "X-ConditionMachineMetadata"] {
            let wanted =
                format!("web.service line 2: {key} {value:?}: {text}; nothing was submitted");
            assert_eq!(refusal(&format!("{key}={value}")), wanted);
        }
    }
    for value in [
        "role==web",
        "security!=high",
        "cpus>=4",
        "!role",
        "role in (a,b)",
        "role=~web",
    ] {
        let text = refusal(&format!("MachineMetadata={value}"));
        assert!(
            text.contains("operators such as != and >= are not understood"),
            "{text}"
        );
    }
    let second = refusal("MachineMetadata=\"role=web\" \"env:prod\"");
    assert!(
        second.contains("line 2: MachineMetadata \"env:prod\""),
        "{second}"
    );
}

#[test]
fn valid_values_count_beside_misread_ones() {
    let options = read(
        "a.service",
        "MachineMetadata=a=1 b=2\nMachineMetadata=\"c=3\" \"d\" \\\n  \"e= 5\"\n",
    );
    let pair = |key: &str, value: &str| (key.to_owned(), BTreeSet::from([value.to_owned()]));
    assert_eq!(
        options.machine_metadata,
        BTreeMap::from([pair("c", "3"), pair("e", " 5")])
    );
    let lines: Vec<_> = options.misread.iter().map(|misread| misread.line).collect();
    assert_eq!(lines, [2, 3]);
}

#[test]
fn invalid_values_are_refused_with_their_line() {
    for (section, text) in [
        ("Global=maybe", "Global \"maybe\": write true or false"),
        (
            "Global=true # all",
            "Global \"true # all\": a comment needs a line of its own",
        ),
        (
            "Global=",
            "Global \"\": it has no value; give it one, or remove the line",
        ),
        (
            "MachineID=junk",
            "MachineID \"junk\": write the 32 hexadecimal digits of a machine id",
        ),
        (
            "MachineOf=a/b",
            "MachineOf \"a/b\": write the name of a unit",
        ),
        (
            "Replaces=a/b",
            "Replaces \"a/b\": write names of units, or patterns such as web*.service",
        ),
        (
            "Conflicts=web[.service",
            "Conflicts \"web[.service\": its pattern is malformed; escape [ and \\",
        ),
        (
            "Conflicts=b\\ x",
            "Conflicts \"b\\\\\": its pattern is malformed; escape [ and \\",
        ),
        (
            "Conflicts=a.service,b.service",
            "Conflicts \"a.service,b.service\": write names of units, or patterns such as web*.service",
        ),
        (
            "Conflicts=a* \\\nMachineMetadata=role=web",
            "Conflicts \"MachineMetadata=role=web\": write names of units, or patterns such as web*.service",
        ),
        (
            "MaxUnavailable=0",
            "MaxUnavailable \"0\": use a number of machines, such as 2, or 1% to 100%",
        ),
        (
            "Target=inactive",
            "Target \"inactive\": write loaded or launched",
        ),
        (
            "MachineMetadata role=web",
            "unrecognized requirement in [X-Fleet] section: \"MachineMetadata role\"; did you mean MachineMetadata?",
        ),
        (
            "MachineMetadta=role=web",
            "unrecognized requirement in [X-Fleet] section: \"MachineMetadta\"; did you mean MachineMetadata?",
        ),
        (
            "machinemetadata=role=web",
            "unrecognized requirement in [X-Fleet] section: \"machinemetadata\"; did you mean MachineMetadata?",
        ),
        (
            "Colour=blue",
            "unrecognized requirement in [X-Fleet] section: \"Colour\"",
        ),
    ] {
        let wanted = format!("web.service line 2: {text}; nothing was submitted");
        assert_eq!(refusal(section), wanted);
    }
    assert_eq!(
        refusal("Global=true\n[x-fleet]\nMachineMetadata=a=b"),
        "web.service line 4: nothing reads the section [x-fleet]; write [X-Fleet]; nothing was submitted"
    );
    assert_eq!(
        refusal("Global=true\n[Service]\nMachineMetadata=a=b"),
        "web.service line 4: MachineMetadata stands in [Service], where nothing reads it; move it to [X-Fleet]; nothing was submitted"
    );
}

#[test]
fn foreign_sections_and_options_are_ignored() {
    let others = "Global=true\n[X-Vendor]\nMachineMetadata=x\n[Unit]\nConflicts=a.service\nOnFailure=b.service\n";
    assert_eq!(read("a.service", others).validate(), Ok(()));
}

#[test]
fn unit_with_over_a_hundred_conflicts_is_refused() {
    let patterns = |count: usize| format!("Conflicts={}\n", "a* ".repeat(count));
    assert_eq!(
        read("b.service", &patterns(CONFLICTS_MAX)).validate(),
        Ok(())
    );
    let text = refusal(&patterns(CONFLICTS_MAX + 1));
    assert!(text.contains("a unit may have 100 patterns"), "{text}");
    assert_eq!(
        read("b.service", &patterns(100_000)).conflicts.len(),
        CONFLICTS_MAX
    );
}

#[test]
fn conflict_that_matches_no_unit_name_is_noted() {
    let options = read("a.service", "Conflicts=apache web*\n");
    assert_eq!(options.validate(), Ok(()));
    assert_eq!(
        notes(&options),
        ["Conflicts \"apache\" matches no unit: names end in .service and the like (line 2)"]
    );
}

#[test]
fn conflicts_match_as_in_fleet_1_0() {
    for (pattern, name, matches) in [
        ("web*.service", "web@1.service", true),
        ("web*.service", "aweb.service", false),
        ("web-?.service", "web-1.service", true),
        ("web-[^1].service", "web-1.service", false),
        ("web-[^1].service", "web-2.service", true),
        ("**.timer", "a.timer", true),
        ("dev\\*.service", "dev*.service", true),
        ("dev\\*.service", "device.service", false),
        ("dev\\\\x2d*", "dev\\x2da.swap", true),
        ("%p@*.service", "a@2.service", true),
    ] {
        let options = read("a@1.service", &format!("Conflicts={pattern}\n"));
        assert!(options.notes.is_empty(), "{pattern}: {:?}", options.notes);
        assert_eq!(
            options.conflicting_pattern(name).is_some(),
            matches,
            "{pattern} {name}"
        );
    }
}

#[test]
fn specifiers_name_the_unit() {
    let options = read(
        "a@b%.service".replace('%', "x").as_str(),
        "MachineOf=%n %N %p %i %%i %z %\n",
    );
    assert_eq!(
        options.machine_of,
        ["a@bx.service", "a@bx", "a", "bx", "%i", "%z", "%"]
    );
    assert_eq!(read("a.service", "MachineOf=<%i>").machine_of, ["<>"]);
    let template = read(
        "a@.service",
        "MachineMetadata=host=%i\nConflicts=a@%i.service",
    );
    assert_eq!(template.validate(), Ok(()));
}

#[test]
fn newest_spelling_of_a_machine_wins() {
    let options = read(
        "a.service",
        "X-ConditionMachineBootID=boot\nX-ConditionMachineID=old\nMachineID=one\nMachineID=two\n",
    );
    assert_eq!(options.machine_id.as_deref(), Some("one"));
    assert!(options.notes.is_empty());
}

#[test]
fn contradictions_are_refused_as_in_fleet_1_0() {
    for (section, text) in [
        (
            "Global=true\nMachineID=x",
            "MachineID cannot be used with Global",
        ),
        (
            "Global=true\nMachineOf=a.service",
            "Global cannot be used with Peers",
        ),
        (
            "Global=true\nReplaces=a.service",
            "Global cannot be used with Replaces",
        ),
        (
            "MachineID=x\nMachineOf=a.service",
            "MachineID cannot be used with Peers",
        ),
        (
            "MachineID=x\nConflicts=a*",
            "MachineID cannot be used with Conflicts",
        ),
        (
            "MachineOf=a.service\nConflicts=a*",
            "unresolvable requirements: peer \"a.service\" matches conflict \"a*\"",
        ),
    ] {
        let error = read("b.service", section).validate().expect_err(section);
        assert_eq!(error.to_string(), text);
    }
    let fine = "Global=true\nConflicts=a*\nMachineMetadata=a=b\n";
    let options = read("b.service", fine);
    assert_eq!(options.validate(), Ok(()));
}

#[test]
fn target_state_is_read() {
    for (section, target) in [
        ("Target=loaded", Some(TargetState::Loaded)),
        ("Target=launched", Some(TargetState::Launched)),
        ("Global=true", None),
    ] {
        assert_eq!(read("a.service", section).target, target);
    }
}

#[test]
fn unit_tolerates_a_cordon_only_if_it_says_so() {
    use crate::machine::Scheduling::{Cordoned, Drained, Normal};
    for (section, cordoned) in [
        ("", Cordoned),
        ("Tolerates=cordon", Normal),
        ("Tolerates=\"cordon\"", Normal),
        ("Tolerates=drain", Cordoned),
    ] {
        let options = read("web.service", section);
        assert_eq!(options.scheduling_on(Cordoned), cordoned, "{section}");
        assert_eq!(options.scheduling_on(Drained), Drained, "{section}");
        assert_eq!(options.scheduling_on(Normal), Normal, "{section}");
        // It asks for more machines, and so keeps the unit off none.
        assert_eq!(options.unreadable(), None, "{section}");
    }
    let text = "web.service line 2: Tolerates \"drain\": write cordon; nothing was submitted";
    assert_eq!(refusal("Tolerates=drain"), text);
}
