//! The table of all options: files, environment, flags, `--help` and the documentation follow it.

/// The kind of text that an option takes, as far as sources and listings need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value; the text names it in `--help`.
    Value(&'static str),
    /// A boolean, whose flag may stand without a value.
    Switch,
    /// A value that is never shown.
    Secret,
    /// Accepted from old configurations, and without effect for the reason given.
    Unused(&'static str),
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Opt {
    /// Its key in fleet.conf. `FLEET_` and the name in capitals is its variable, `--` and the name
    /// with dashes its flag.
    pub name: &'static str,
    /// The kind of its value.
    pub kind: Kind,
    /// The text that replaces an absent or empty value; empty for none.
    pub default: &'static str,
    /// The unit or the form of the value.
    pub unit: &'static str,
    /// One sentence for `--help` and the documentation.
    pub meaning: &'static str,
}

impl Opt {
    /// Returns the environment variable.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.name.to_uppercase())
    }

    /// Returns the long flag without its dashes.
    pub fn flag(&self) -> String {
        self.name.replace('_', "-")
    }

    /// Returns why the option has no effect. `None` if it has one.
    pub fn unused(&self) -> Option<&'static str> {
        match self.kind {
            Kind::Unused(reason) => Some(reason),
            _ => None,
        }
    }
}

/// The prefix of fleetd's environment variables.
pub const VARIABLE_PREFIX: &str = "FLEET_";

/// Returns the option of that name.
pub fn find(name: &str) -> Option<&'static Opt> {
    OPTIONS.iter().find(|option| option.name == name)
}

/// Returns the known name that `name` most likely means.
pub fn nearest(name: &str) -> Option<&'static str> {
    // Three edits catch a lost or doubled letter, a plural, a swapped pair; more would guess.
    const EDITS_MAX: usize = 3;
    let wanted = name.to_lowercase().replace('-', "_");
    OPTIONS
        .iter()
        .map(|option| (strsim::osa_distance(&wanted, option.name), option.name))
        .min()
        .filter(|(edits, _)| *edits <= EDITS_MAX)
        .map(|(_, name)| name)
}

const fn opt(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    unit: &'static str,
    meaning: &'static str,
) -> Opt {
    Opt {
        name,
        kind,
        default,
        unit,
        meaning,
    }
}

const POLLS_NOTHING: &str = "the engine acts on each change at once and polls nothing";
const NO_SUCH_DUTY: &str = "fleetd no longer has what it switched";

/// All options, in the order of the documentation.
#[rustfmt::skip] // a table: two lines an option
pub const OPTIONS: [Opt; 30] = [
    opt("verbosity", Kind::Value("LEVEL"), "0", "0 or more",
        "How much is logged: 0 what matters to an operator, 1 debug, 2 and more trace."),
    opt("etcd_servers", Kind::Value("URLS"), "http://127.0.0.1:2379", "URLs: comma list or JSON array",
        "The etcd members that hold the registry; all of them https:// if TLS files are set."),
    opt("etcd_request_timeout", Kind::Value("TIME"), "1.0", "seconds (1.0) or a duration (1.5s)",
        "How long one request to etcd may take. The agent waits eight times that, up to 8 s."),
    opt("etcd_cafile", Kind::Value("FILE"), "", "path of a PEM file",
        "The authority that signs etcd's certificates; without it, those of the system."),
    opt("etcd_keyfile", Kind::Value("FILE"), "", "path of a PEM file",
        "The key of the client certificate; goes with etcd_certfile."),
    opt("etcd_certfile", Kind::Value("FILE"), "", "path of a PEM file",
        "The client certificate shown to etcd; goes with etcd_keyfile."),
    opt("etcd_username", Kind::Value("NAME"), "", "text",
        "The etcd user; goes with etcd_password."),
    opt("etcd_password", Kind::Secret, "", "text",
        "The etcd user's password. Every local user can read a flag: prefer the file, mode 0600."),
    opt("etcd_key_prefix", Kind::Value("PREFIX"), "/_coreos.com/fleet/", "key prefix",
        "The prefix of all keys in etcd. Fleets that share an etcd differ in it."),
    opt("public_ip", Kind::Value("ADDRESS"), "", "IPv4 or IPv6 address",
        "The address that listings show for this machine. Without it, the one of the default route."),
    opt("metadata", Kind::Value("PAIRS"), "", "key=value, comma separated",
        "This machine's metadata, which units select machines by."),
    opt("agent_ttl", Kind::Value("TIME"), "30s", "duration, whole seconds, at least 2s",
        "How long after its last renewal a machine counts as offline."),
    opt("token_limit", Kind::Value("COUNT"), "100", "1 to 65535 entries",
        "How many entries one page of an API listing holds."),
    opt("disable_engine", Kind::Switch, "false", "boolean",
        "Never lead: this machine does not claim leadership and does not read source_directory."),
    opt("units_directory", Kind::Value("DIRECTORY"), "/run/fleet/units", "absolute path",
        "The directory of the unit files that this machine runs. Nothing else belongs there."),
    opt("source_directory", Kind::Value("DIRECTORY"), "/etc/fleet/units", "absolute path",
        "The directory where people and tools drop unit files: they are launched on every matching machine."),
    opt("state_directory", Kind::Value("DIRECTORY"), "/var/lib/fleet", "absolute path",
        "The directory of the state that fleetd keeps across a reboot."),
    opt("listen", Kind::Value("SOCKET"), "/run/fleet.sock", "absolute path, at most 107 bytes",
        "The unix socket of the API if systemd hands none over."),
    opt("api_read_group", Kind::Value("GROUP"), "fleet", "group of this machine, or its number",
        "The group that may read over the API's unix sockets, beside root and api_change_group."),
    opt("api_change_group", Kind::Value("GROUP"), "fleet", "group of this machine, or its number",
        "The group that may read and change over the API's unix sockets, beside root: root's power everywhere."),
    opt("api_cafile", Kind::Value("FILE"), "", "path of a PEM file",
        "The authority that signs client certificates for TCP sockets that systemd hands over; goes with the next two."),
    opt("api_certfile", Kind::Value("FILE"), "", "path of a PEM file",
        "The certificate that fleetd shows there, followed by those that signed it."),
    opt("api_keyfile", Kind::Value("FILE"), "", "path of a PEM file",
        "The key of api_certfile; readable by root alone."),
    opt("insecure_tcp", Kind::Switch, "false", "boolean",
        "Serve the API without TLS, to every client, on TCP sockets that systemd hands over."),
    opt("engine_reconcile_interval", Kind::Unused(POLLS_NOTHING), "", "", ""),
    opt("disable_watches", Kind::Unused("changes arrive by watches only"), "", "", ""),
    opt("systemd_user", Kind::Unused("units always run in the system's own systemd"), "", "", ""),
    opt("enable_grpc", Kind::Unused("there is no second protocol between machines"), "", "", ""),
    opt("verify_units", Kind::Unused(NO_SUCH_DUTY), "", "", ""),
    opt("authorized_keys_file", Kind::Unused(NO_SUCH_DUTY), "", "", ""),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn misspelled_option_is_found_and_a_guess_is_not() {
        for (written, meant) in [
            ("etcd_server", Some("etcd_servers")),
            ("ETCD-SERVERS", Some("etcd_servers")),
            ("public-ip", Some("public_ip")),
            ("metdata", Some("metadata")),
            ("colour", None),
        ] {
            assert_eq!(nearest(written), meant, "{written}");
        }
    }
}
