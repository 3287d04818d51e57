//! All sources merged: the text in effect for each option, and where it was written.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::Path;

use super::args::Args;
use super::fragment::{Fragment, Origin, Written};
use super::options::{self, OPTIONS};
use super::values;
use super::{DEFAULT_FILE, Note, Problem};

/// The values of all sources together.
#[derive(Clone, Default)]
pub struct Inputs {
    values: BTreeMap<&'static str, Written>,
    /// Whether `--standalone` was given: the registry is then this machine's own.
    pub standalone: bool,
    /// The problems with values of all sources.
    pub problems: Vec<Problem>,
    /// Notes for the operator.
    pub notes: Vec<Note>,
}

impl Inputs {
    /// Reads the file, the environment and the flags.
    pub fn gather(args: &Args, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        Self::gather_from(args, Path::new(DEFAULT_FILE), variables)
    }

    /// Works like [`gather`](Self::gather), with another default file.
    pub(super) fn gather_from(
        args: &Args,
        default_file: &Path,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut inputs = Self::merge([
            read_file(args.config.as_deref(), default_file),
            Fragment::from_environment(variables),
            Fragment::from_flags(&args.flags.0),
        ]);
        inputs.standalone = args.standalone;
        let (_, etcd) = inputs.get("etcd_servers");
        if args.standalone && etcd != Origin::Default {
            inputs.notes.push(Note(format!(
                "etcd_servers in {etcd} has no effect: --standalone keeps the registry here"
            )));
        }
        inputs
    }

    /// Merges the fragments. A later one wins.
    pub fn merge(fragments: impl IntoIterator<Item = Fragment>) -> Self {
        let mut inputs = Self::default();
        for fragment in fragments {
            inputs.values.extend(fragment.values);
            inputs.problems.extend(fragment.problems);
            inputs.notes.extend(fragment.notes);
        }
        for (option, written) in inputs.set() {
            if let Some(reason) = option.unused() {
                let note = format!(
                    "{} in {} has no effect: {reason}",
                    option.name, written.origin
                );
                inputs.notes.push(Note(note));
            }
        }
        let (metadata, origin) = inputs.get("metadata");
        let repeated = values::repeated_key(metadata);
        let note = repeated.map(|key| {
            format!("metadata in {origin} has the key {key} twice: its last value counts")
        });
        inputs.notes.extend(note.map(Note));
        inputs
    }

    /// Returns the text of an option and its place. An empty text means the default in every
    /// source, so a flag can reset a value of the file.
    pub fn get(&self, name: &'static str) -> (&str, Origin) {
        match self.values.get(name) {
            Some(written) if !written.text.trim().is_empty() => {
                (written.text.trim(), written.origin.clone())
            }
            _ => (
                options::find(name).map_or("", |option| option.default),
                Origin::Default,
            ),
        }
    }

    /// Takes over the values that `others` has for these options.
    pub fn adopt(&mut self, others: &Self, names: &[&'static str]) {
        for name in names {
            match others.values.get(name) {
                Some(written) => self.values.insert(name, written.clone()),
                None => self.values.remove(name),
            };
        }
    }

    /// Returns the options that a source sets, in the order of the table.
    fn set(&self) -> Vec<(&'static options::Opt, Written)> {
        let set = OPTIONS.iter().filter_map(|option| {
            let written = self.values.get(option.name)?;
            Some((option, written.clone()))
        });
        set.collect()
    }
}

fn read_file(named: Option<&Path>, default: &Path) -> Fragment {
    let path = named.unwrap_or(default);
    match std::fs::read(path) {
        Ok(bytes) => Fragment::from_file(path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound && named.is_none() => {
            Fragment::default()
        }
        Err(error) => Fragment {
            problems: vec![Problem(format!(
                "{} cannot be read: {error}",
                path.display()
            ))],
            ..Fragment::default()
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    fn gather(default: &Path, flags: &[&str], environment: &[(&str, &str)]) -> Inputs {
        let args = Args::try_parse_from([&["fleetd"], flags].concat()).expect("valid flags");
        let variables = environment.iter().map(|(k, v)| (k.into(), v.into()));
        Inputs::gather_from(&args, default, variables)
    }

    #[test]
    fn a_flag_wins_over_the_environment_and_that_over_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(
            file.path(),
            "verbosity=1\nmetadata=from=file\npublic_ip=10.0.0.1\n",
        )
        .expect("written");
        let inputs = gather(
            file.path(),
            &["--verbosity=3"],
            &[
                ("FLEET_VERBOSITY", "2"),
                ("FLEET_METADATA", "from=environment"),
            ],
        );
        assert_eq!(
            inputs.get("verbosity"),
            ("3", Origin::Flag("verbosity".into()))
        );
        assert_eq!(
            inputs.get("metadata"),
            (
                "from=environment",
                Origin::Variable("FLEET_METADATA".into())
            )
        );
        assert_eq!(
            inputs.get("public_ip"),
            ("10.0.0.1", Origin::File(file.path().into(), 3))
        );
        assert_eq!(inputs.get("agent_ttl"), ("30s", Origin::Default));
    }

    #[test]
    fn empty_value_restores_the_default_over_the_file() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "etcd_key_prefix=/mine/\n").expect("written");
        let inputs = gather(file.path(), &["--etcd-key-prefix="], &[]);
        assert_eq!(
            inputs.get("etcd_key_prefix"),
            ("/_coreos.com/fleet/", Origin::Default)
        );
    }

    #[test]
    fn only_the_default_file_may_be_absent() {
        let nowhere = Path::new("/nonexistent/fleet.conf");
        assert_eq!(gather(nowhere, &[], &[]).problems, []);
        let named = gather(nowhere, &["--config=/nonexistent/other.conf"], &[]);
        assert_eq!(
            named.problems[0].to_string(),
            "/nonexistent/other.conf cannot be read: No such file or directory (os error 2)"
        );
    }

    #[test]
    fn a_fleet_of_one_machine_says_that_it_uses_no_etcd() {
        let inputs = gather(
            Path::new("/nonexistent"),
            &["--standalone"],
            &[("FLEET_ETCD_SERVERS", "http://a:1")],
        );
        assert_eq!(
            inputs.notes[0].to_string(),
            "etcd_servers in $FLEET_ETCD_SERVERS has no effect: --standalone keeps the registry here"
        );
    }

    #[test]
    fn a_metadata_key_that_is_there_twice_is_noted() {
        let noted = |metadata| {
            let inputs = gather(
                Path::new("/nonexistent"),
                &[],
                &[("FLEET_METADATA", metadata)],
            );
            inputs
                .notes
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let text = "metadata in $FLEET_METADATA has the key az twice: its last value counts";
        assert_eq!(noted("az=1, role=web, az = 2"), [text]);
        assert_eq!(noted("az=1,role=web,az=1"), [""; 0]);
    }

    #[test]
    fn an_option_without_effect_is_taken_and_noted() {
        let inputs = gather(
            Path::new("/nonexistent"),
            &[],
            &[("FLEET_DISABLE_WATCHES", "1")],
        );
        assert_eq!(inputs.problems, []);
        assert_eq!(
            inputs.notes[0].to_string(),
            "disable_watches in $FLEET_DISABLE_WATCHES has no effect: changes arrive by watches only"
        );
    }
}
