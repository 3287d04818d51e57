//! Decides what systemd must do when one version of a unit file replaces another.

use sha1::{Digest, Sha1};

use super::{Assignment, UnitFile};

/// What systemd must do for a change of a unit file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Effect {
    /// systemd sees no difference and need not even reload.
    Nothing,
    /// systemd must read the file again; running processes continue.
    Reload,
    /// The running process was started from other content, and must restart.
    Restart,
}

/// An effect with its reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The effect.
    pub effect: Effect,
    /// The difference, for people.
    pub reason: String,
}

/// Returns what systemd must do for a change from one file to another.
///
/// In doubt it returns [`Effect::Restart`]. Settings in another order, or other blanks within a
/// value, count as different, because for some settings they are.
pub fn difference(old: &UnitFile, new: &UnitFile) -> Difference {
    for effect in [Effect::Restart, Effect::Reload] {
        if let Some(changed) = first_changed(&settings(old, effect), &settings(new, effect)) {
            let reason = format!("[{}] {}= differs", changed.section, changed.key);
            return Difference { effect, reason };
        }
    }
    Difference {
        effect: Effect::Nothing,
        reason: "nothing that systemd reads differs".to_owned(),
    }
}

/// Returns 16 hexadecimal digits. They are equal for two files exactly if a change between them
/// needs no [`Effect::Restart`].
pub fn process_fingerprint(file: &UnitFile) -> String {
    let mut hash = Sha1::new();
    for setting in settings(file, Effect::Restart) {
        for part in [&setting.section, &setting.key, &setting.value] {
            hash.update(part);
            // A NUL ends a line, so no part contains one.
            hash.update([0]);
        }
    }
    hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Returns the settings whose change has this effect.
fn settings(file: &UnitFile, effect: Effect) -> Vec<&Assignment> {
    file.assignments()
        .iter()
        .filter(|setting| effect_of(&setting.section, &setting.key) == effect)
        .collect()
}

fn effect_of(section: &str, key: &str) -> Effect {
    match (section, key) {
        // systemd ignores all of these sections.
        (section, _) if section.starts_with("X-") => Effect::Nothing,
        ("Install", _) | ("Unit", "Description" | "Documentation") => Effect::Reload,
        _ => Effect::Restart,
    }
}

/// Returns the first setting in which the lists differ: a removed one, else a new one.
fn first_changed<'a>(old: &[&'a Assignment], new: &[&'a Assignment]) -> Option<&'a Assignment> {
    let same = |a: &Assignment, b: &Assignment| {
        (&a.section, &a.key, &a.value) == (&b.section, &b.key, &b.value)
    };
    let at = (0..old.len().max(new.len())).find(|at| match (old.get(*at), new.get(*at)) {
        (Some(a), Some(b)) => !same(a, b),
        _ => true,
    })?;
    match (old.get(at), new.get(at)) {
        (Some(gone), Some(_)) if !new.iter().any(|kept| same(gone, kept)) => Some(gone),
        (_, Some(added)) => Some(added),
        (gone, None) => gone.copied(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: &str = "[Unit]\nDescription=web\nAfter=a.target\n\n[Service]\nExecStart=/bin/a\n\
        Environment=A=1\nEnvironment=B=2\n\n[Install]\nWantedBy=b.target\n\n[X-Fleet]\nGlobal=true\n";

    fn from_base(old: &str, new: &str) -> String {
        let before = UnitFile::parse(BASE.as_bytes());
        let after = UnitFile::parse(BASE.replacen(old, new, 1).as_bytes());
        let Difference { effect, reason } = difference(&before, &after);
        assert_eq!(
            process_fingerprint(&before) == process_fingerprint(&after),
            effect != Effect::Restart,
            "{reason}"
        );
        format!("{effect:?}: {reason}")
    }

    #[test]
    fn change_outside_systemds_settings_needs_nothing() {
        for (old, new) in [
            ("", ""),
            ("[Service]", "# a comment\n\n[Service]"),
            ("Description=web\n", "Description = web  \r\n"),
            ("Global=true", "Global=true\nMachineMetadata=disk=ssd"),
            ("[X-Fleet]", "[X-Other]\nk=v\n[X-Fleet]"),
            ("/bin/a\nEnv", "/bin/a\n[Service]\nEnv"),
        ] {
            assert_eq!(
                from_base(old, new),
                "Nothing: nothing that systemd reads differs"
            );
        }
    }

    #[test]
    fn change_outside_the_process_needs_a_reload() {
        for (old, new, reason) in [
            ("web", "site", "[Unit] Description= differs"),
            (
                "[Unit]",
                "[Unit]\nDocumentation=man:a(1)",
                "[Unit] Documentation= differs",
            ),
            ("b.target", "c.target", "[Install] WantedBy= differs"),
            (
                "[Install]\nWantedBy=b.target\n",
                "",
                "[Install] WantedBy= differs",
            ),
        ] {
            assert_eq!(from_base(old, new), format!("Reload: {reason}"));
        }
    }

    #[test]
    fn every_other_change_needs_a_restart() {
        for (old, new, reason) in [
            ("/bin/a", "/bin/b", "[Service] ExecStart= differs"),
            ("Environment=A=1\n", "", "[Service] Environment= differs"),
            (
                "Environment=A=1",
                "User=a\nEnvironment=A=1",
                "[Service] User= differs",
            ),
            (
                "Environment=A=1",
                "EnvironmentA==1",
                "[Service] Environment= differs",
            ),
            (
                "A=1\nEnvironment=B=2",
                "B=2\nEnvironment=A=1",
                "[Service] Environment= differs",
            ),
            ("a.target", "b.target", "[Unit] After= differs"),
            (
                "B=2\n",
                "B=2\nRestart=always\n",
                "[Service] Restart= differs",
            ),
            (
                "web\nAfter=a.target",
                "site\nAfter=b.target",
                "[Unit] After= differs",
            ),
        ] {
            assert_eq!(from_base(old, new), format!("Restart: {reason}"));
        }
    }

    fn file() -> impl Strategy<Value = String> {
        let lines = [
            "[Unit]",
            "[Service]",
            "[Install]",
            "[X-Fleet]",
            "Description=a",
            "K=a",
            "K=b",
            "# c",
        ];
        proptest::collection::vec(proptest::sample::select(lines.to_vec()), 0..8)
            .prop_map(|lines| lines.join("\n"))
    }

    proptest! {
        #[test]
        fn fingerprints_are_equal_exactly_when_no_restart_is_needed(old in file(), new in file()) {
            let (old, new) = (UnitFile::parse(old.as_bytes()), UnitFile::parse(new.as_bytes()));
            prop_assert_eq!(
                process_fingerprint(&old) == process_fingerprint(&new),
                difference(&old, &new).effect != Effect::Restart
            );
        }
    }
}
