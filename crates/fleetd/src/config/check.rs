//! `--check-config`: the settings in effect, their sources, and the problems with them.

use std::ffi::OsString;
use std::fmt::Write as _;

use super::args::Args;
use super::fragment::Origin;
use super::inputs::Inputs;
use super::options::{Kind, OPTIONS, Opt};
use super::{EX_CONFIG, Note, Problem, Settings};

/// The result of `--check-config`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// The text for standard output, with a closing newline.
    pub text: String,
    /// 0, or [`EX_CONFIG`] if there is a problem.
    pub exit_code: u8,
}

/// Reads the sources as [`Settings::load`] does, and describes them instead. `look` returns further
/// problems with settings that do not stop fleetd, and notes for the operator.
pub fn check(
    args: &Args,
    variables: impl IntoIterator<Item = (OsString, OsString)>,
    look: impl Fn(&Settings) -> (Vec<Problem>, Vec<Note>),
) -> Check {
    describe(Inputs::gather(args, variables), look)
}

fn describe(mut inputs: Inputs, look: impl Fn(&Settings) -> (Vec<Problem>, Vec<Note>)) -> Check {
    let (settings, mut problems) = Settings::validate(&inputs);
    if let Some(settings) = &settings {
        let (more, notes) = look(settings);
        problems.extend(more);
        inputs.notes.extend(notes);
    }
    let mut text = String::new();
    let rows = OPTIONS.iter().filter(|option| option.unused().is_none());
    for option in rows {
        let (value, origin) = inputs.get(option.name);
        let setting = format!("{}={}", option.name, shown(option, value, &origin));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{setting:<48} # {origin}");
    }
    let standalone = if inputs.standalone {
        "--standalone"
    } else {
        "etcd"
    };
    let _ = writeln!(text, "# registry: {standalone}");
    for note in &inputs.notes {
        let _ = writeln!(text, "# note: {note}");
    }
    for problem in &problems {
        let _ = writeln!(text, "# problem: {problem}");
    }
    let exit_code = if problems.is_empty() { 0 } else { EX_CONFIG };
    Check { text, exit_code }
}

fn shown<'a>(option: &Opt, value: &'a str, origin: &Origin) -> &'a str {
    // A URL with a user in it is refused, but it is shown here anyway.
    let secret =
        option.kind == Kind::Secret || option.name == "etcd_servers" && value.contains('@');
    if secret && *origin != Origin::Default {
        "(hidden)"
    } else {
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fragment::Fragment;
    use std::path::Path;

    fn describe_file(text: &str) -> Check {
        let file = Fragment::from_file(Path::new("/etc/fleet/fleet.conf"), text.as_bytes());
        describe(Inputs::merge([file]), |_| (Vec::new(), Vec::new()))
    }

    #[test]
    fn it_shows_every_setting_with_its_origin_and_hides_secrets() {
        let check = describe_file(
            "metadata=az=1\netcd_username=root\netcd_password=hunter2\nverify_units=true\nagent_ttl=1s\n",
        );
        insta::assert_snapshot!(check.text, @r#"
        verbosity=0                                      # default
        etcd_servers=http://127.0.0.1:2379               # default
        etcd_request_timeout=1.0                         # default
        etcd_cafile=                                     # default
        etcd_keyfile=                                    # default
        etcd_certfile=                                   # default
        etcd_username=root                               # /etc/fleet/fleet.conf line 2
        etcd_password=(hidden)                           # /etc/fleet/fleet.conf line 3
        etcd_key_prefix=/_coreos.com/fleet/              # default
        public_ip=                                       # default
        metadata=az=1                                    # /etc/fleet/fleet.conf line 1
        agent_ttl=1s                                     # /etc/fleet/fleet.conf line 5
        token_limit=100                                  # default
        disable_engine=false                             # default
        units_directory=/run/fleet/units                 # default
        source_directory=/etc/fleet/units                # default
        state_directory=/var/lib/fleet                   # default
        listen=/run/fleet.sock                           # default
        api_read_group=fleet                             # default
        api_change_group=fleet                           # default
        api_cafile=                                      # default
        api_certfile=                                    # default
        api_keyfile=                                     # default
        insecure_tcp=false                               # default
        # registry: etcd
        # note: verify_units in /etc/fleet/fleet.conf line 4 has no effect: fleetd no longer has what it switched
        # problem: agent_ttl in /etc/fleet/fleet.conf line 5: "1s" is too short: at least 2s
        "#);
        assert_eq!(check.exit_code, 78);
    }

    #[test]
    fn a_password_in_a_url_is_hidden_too() {
        let check = describe_file("etcd_servers=http://root:hunter2@a:2379\n");
        assert!(!check.text.contains("hunter2"), "{}", check.text);
        assert_eq!(check.exit_code, 78);
    }

    #[test]
    fn valid_configuration_exits_with_0() {
        assert_eq!(describe_file("").exit_code, 0);
    }
}
