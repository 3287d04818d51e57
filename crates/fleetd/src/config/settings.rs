//! The settings that fleetd runs with. Every value is parsed and consistent with the others.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use fleet_core::machine::Metadata;

use super::args::Args;
use super::fragment::Origin;
use super::inputs::Inputs;
use super::{ConfigError, Note, Problem, values};
use crate::store::EtcdConfig;

/// The settings of fleetd. The fields are the options of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// 0 for what matters to an operator, 1 for debug, 2 and more for trace.
    pub verbosity: u16,
    /// The way to the registry. Unused if `standalone`.
    pub etcd: EtcdConfig,
    /// The file that has the password of etcd's user. `None` if no file has it.
    pub password_file: Option<PathBuf>,
    /// Whether the registry is this machine's own, in `state_directory`.
    pub standalone: bool,
    /// The address that listings show. `None` for the source address of the default route.
    pub public_ip: Option<IpAddr>,
    /// This machine's metadata.
    pub metadata: Metadata,
    /// How long a machine counts as alive after its last renewal. Whole seconds, at least 2.
    pub agent_ttl: Duration,
    /// Entries on one page of a listing, at least 1.
    pub token_limit: u16,
    /// Whether this machine takes no part in leading and reads no `source_directory`.
    pub disable_engine: bool,
    /// The directory where the agent puts unit files.
    pub units_directory: PathBuf,
    /// The directory where operators put unit files.
    pub source_directory: PathBuf,
    /// The directory of state that outlives a reboot.
    pub state_directory: PathBuf,
    /// The API's unix socket, used if none was handed over.
    pub listen: PathBuf,
    /// The group that may read over unix sockets.
    pub api_read_group: String,
    /// The group that may read and change over unix sockets.
    pub api_change_group: String,
    /// The files of TLS on TCP sockets that systemd hands over.
    pub api_tls: Option<TlsFiles>,
    /// Whether TCP sockets that were handed over are served to every client, without TLS.
    pub insecure_tcp: bool,
}

/// The files of a TLS server that asks for client certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authority that signs client certificates.
    pub ca: PathBuf,
    /// The server's own certificate, and those between it and its authority.
    pub cert: PathBuf,
    /// The key of the server's certificate.
    pub key: PathBuf,
}

impl Settings {
    /// Reads and validates everything. `variables` is the environment.
    ///
    /// The notes are for the log. An error has every problem, not only the first.
    pub fn load(
        args: &Args,
        variables: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<(Self, Vec<Note>), ConfigError> {
        let inputs = Inputs::gather(args, variables);
        let (settings, problems) = Self::validate(&inputs);
        match settings {
            Some(settings) if problems.is_empty() => Ok((settings, inputs.notes)),
            _ => Err(ConfigError { problems }),
        }
    }

    /// Parses the values of the sources. Returns settings only if no value has a problem. The
    /// problems of the sources are first, then those of values, then those between values.
    pub fn validate(inputs: &Inputs) -> (Option<Self>, Vec<Problem>) {
        let mut reader = Reader {
            inputs,
            problems: inputs.problems.clone(),
        };
        let settings = reader.settings();
        let mut problems = reader.problems;
        if let Some(settings) = &settings {
            problems.extend(settings.conflicts().into_iter().map(Problem));
        }
        (settings, problems)
    }

    /// Returns the conflicts between values that are each valid.
    fn conflicts(&self) -> Vec<String> {
        let mut conflicts = Vec::new();
        let etcd = &self.etcd;
        if etcd.cert_file.is_some() != etcd.key_file.is_some() {
            conflicts.push("etcd_certfile and etcd_keyfile go together; set both or none".into());
        }
        if etcd.username.is_some() != etcd.password.is_some() {
            conflicts.push("etcd_username and etcd_password go together; set both or none".into());
        }
        let tls = [&etcd.ca_file, &etcd.cert_file, &etcd.key_file];
        let plain = etcd.endpoints.iter().find(|url| !url.starts_with("https:"));
        if let (Some(url), true) = (plain, tls.iter().any(|file| file.is_some())) {
            conflicts.push(format!(
                "etcd_servers has {url}, where TLS files have no effect; write https:// or remove etcd_cafile, etcd_certfile and etcd_keyfile"
            ));
        }
        let directories = [
            ("units_directory", &self.units_directory),
            ("source_directory", &self.source_directory),
            ("state_directory", &self.state_directory),
        ];
        for (index, (name, path)) in directories.iter().enumerate() {
            for (other, _) in directories[..index].iter().filter(|(_, it)| it == path) {
                conflicts.push(format!(
                    "{other} and {name} are both {}; they must differ",
                    path.display()
                ));
            }
        }
        if self.insecure_tcp && self.api_tls.is_some() {
            conflicts.push(
                "insecure_tcp=true and api_cafile exclude each other: who needs no certificate shows none; remove one".into(),
            );
        }
        if self.standalone && self.disable_engine {
            conflicts.push(
                "--standalone and disable_engine exclude each other: nobody would lead".into(),
            );
        }
        conflicts
    }
}

/// A reader of single values that collects their problems.
struct Reader<'a> {
    inputs: &'a Inputs,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn settings(&mut self) -> Option<Settings> {
        // Every value is read before the first `?`, so that every problem is found.
        let etcd = self.etcd();
        let password_file = match self.inputs.get("etcd_password").1 {
            Origin::File(path, _) => Some(path),
            _ => None,
        };
        let verbosity = self.value("verbosity", |text| values::number(text, 0));
        let public_ip = self.optional("public_ip", values::address);
        let metadata = self.value("metadata", values::metadata);
        let agent_ttl = self.value("agent_ttl", values::time_to_live);
        let token_limit = self.value("token_limit", |text| values::number(text, 1));
        let disable_engine = self.value("disable_engine", values::boolean);
        let units_directory = self.value("units_directory", values::absolute);
        let source_directory = self.value("source_directory", values::absolute);
        let state_directory = self.value("state_directory", values::absolute);
        let listen = self.value("listen", values::socket_path);
        let api_read_group = self.value("api_read_group", values::group);
        let api_change_group = self.value("api_change_group", values::group);
        let api_tls = self.api_tls();
        let insecure_tcp = self.value("insecure_tcp", values::boolean);
        Some(Settings {
            verbosity: verbosity?,
            etcd: etcd?,
            password_file,
            standalone: self.inputs.standalone,
            public_ip: public_ip?,
            metadata: metadata?,
            agent_ttl: agent_ttl?,
            token_limit: token_limit?,
            disable_engine: disable_engine?,
            units_directory: units_directory?,
            source_directory: source_directory?,
            state_directory: state_directory?,
            listen: listen?,
            api_read_group: api_read_group?,
            api_change_group: api_change_group?,
            api_tls: api_tls?,
            insecure_tcp: insecure_tcp?,
        })
    }

    fn api_tls(&mut self) -> Option<Option<TlsFiles>> {
        let ca = self.optional("api_cafile", values::absolute);
        let cert = self.optional("api_certfile", values::absolute);
        let key = self.optional("api_keyfile", values::absolute);
        match (ca?, cert?, key?) {
            (None, None, None) => Some(None),
            (Some(ca), Some(cert), Some(key)) => Some(Some(TlsFiles { ca, cert, key })),
            _ => {
                let problem =
                    "api_cafile, api_certfile and api_keyfile go together; set all or none";
                self.problems.push(Problem(problem.to_owned()));
                None
            }
        }
    }

    fn etcd(&mut self) -> Option<EtcdConfig> {
        let endpoints = self.value("etcd_servers", values::servers);
        let prefix = self.value("etcd_key_prefix", |text| Ok(text.to_owned()));
        let request_timeout = self.value("etcd_request_timeout", values::timeout);
        let ca_file = self.optional("etcd_cafile", values::absolute);
        let cert_file = self.optional("etcd_certfile", values::absolute);
        let key_file = self.optional("etcd_keyfile", values::absolute);
        let username = self.optional("etcd_username", |text| Ok(text.to_owned()));
        let password = self.optional("etcd_password", |text| Ok(text.to_owned()));
        Some(EtcdConfig {
            endpoints: endpoints?,
            prefix: prefix?,
            request_timeout: request_timeout?,
            ca_file: ca_file?,
            cert_file: cert_file?,
            key_file: key_file?,
            username: username?,
            password: password?,
        })
    }

    fn value<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let (text, origin) = self.inputs.get(name);
        read(text)
            .map_err(|what| {
                let problem = format!("{name} in {origin}: {what}");
                self.problems.push(Problem(problem));
            })
            .ok()
    }

    fn optional<T>(
        &mut self,
        name: &'static str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Option<T>> {
        match self.inputs.get(name).1 {
            Origin::Default => Some(None),
            _ => self.value(name, read).map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::fragment::Fragment;
    use std::path::Path;

    fn validate(file: &str) -> (Option<Settings>, Vec<String>) {
        let inputs = Inputs::merge([Fragment::from_file(Path::new("f"), file.as_bytes())]);
        let (settings, problems) = Settings::validate(&inputs);
        (settings, problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn empty_configuration_has_the_defaults_of_fleet_1_and_new_ones() {
        let (settings, problems) = validate("");
        assert_eq!(problems, Vec::<String>::new());
        insta::assert_debug_snapshot!(settings.expect("valid"), @r#"
        Settings {
            verbosity: 0,
            etcd: EtcdConfig {
                endpoints: [
                    "http://127.0.0.1:2379",
                ],
                prefix: "/_coreos.com/fleet/",
                request_timeout: 1s,
                ca_file: None,
                cert_file: None,
                key_file: None,
                username: None,
                password: None,
            },
            password_file: None,
            standalone: false,
            public_ip: None,
            metadata: {},
            agent_ttl: 30s,
            token_limit: 100,
            disable_engine: false,
            units_directory: "/run/fleet/units",
            source_directory: "/etc/fleet/units",
            state_directory: "/var/lib/fleet",
            listen: "/run/fleet.sock",
            api_read_group: "fleet",
            api_change_group: "fleet",
            api_tls: None,
            insecure_tcp: false,
        }
        "#);
    }

    #[test]
    fn configuration_of_fleet_1_is_read_as_before() {
        let (settings, problems) = validate(
            "verbosity=1\netcd_servers=\"http://192.0.2.12:4001\"\npublic_ip=\"\"\nmetadata=\"region=us-west,az=us-west-1\"\nagent_ttl=\"60s\"\nengine_reconcile_interval=2\n",
        );
        assert_eq!(problems, Vec::<String>::new());
        let settings = settings.expect("valid");
        assert_eq!(settings.etcd.endpoints, ["http://192.0.2.12:4001"]);
        assert_eq!(settings.public_ip, None);
        assert_eq!(settings.metadata["az"], "us-west-1");
        assert_eq!(settings.agent_ttl, Duration::from_secs(60));
    }

    #[test]
    fn every_problem_is_found_at_once() {
        let (settings, problems) = validate(
            "colour=red\nagent_ttl=1s\npublic_ip=here\nmetadata=a=1,b\ndisable_engine=yes\nlisten=fleet.sock\ntoken_limit=0\n",
        );
        assert_eq!(settings, None);
        assert_eq!(
            problems,
            [
                "unknown option `colour` in f line 1",
                "public_ip in f line 3: \"here\" is not an IP address",
                "metadata in f line 4: \"b\" is not of the form key=value",
                "agent_ttl in f line 2: \"1s\" is too short: at least 2s",
                "token_limit in f line 7: \"0\" is not a whole number from 1 to 65535",
                "disable_engine in f line 5: \"yes\" is neither true nor false",
                "listen in f line 6: \"fleet.sock\" is not an absolute path",
            ]
        );
    }

    #[test]
    fn values_must_fit_each_other() {
        for (file, problem) in [
            (
                "etcd_servers=https://a:1\netcd_certfile=/c.pem",
                "etcd_certfile and etcd_keyfile go together; set both or none",
            ),
            (
                "api_cafile=/ca",
                "api_cafile, api_certfile and api_keyfile go together; set all or none",
            ),
            (
                "insecure_tcp=true\napi_cafile=/ca\napi_certfile=/c\napi_keyfile=/k",
                "insecure_tcp=true and api_cafile exclude each other: who needs no certificate shows none; remove one",
            ),
            (
                "etcd_password=x",
                "etcd_username and etcd_password go together; set both or none",
            ),
            (
                "etcd_cafile=/ca.pem",
                "etcd_servers has http://127.0.0.1:2379, where TLS files have no effect; write https:// or remove etcd_cafile, etcd_certfile and etcd_keyfile",
            ),
            (
                "source_directory=/run/fleet/units/",
                "units_directory and source_directory are both /run/fleet/units/; they must differ",
            ),
        ] {
            assert_eq!(validate(file).1, [problem], "{file}");
        }
    }

    #[test]
    fn a_password_is_never_printed() {
        let (settings, _) = validate("etcd_username=root\netcd_password=hunter2");
        let settings = settings.expect("valid");
        assert_eq!(settings.etcd.password.as_deref(), Some("hunter2"));
        assert!(!format!("{settings:?}").contains("hunter2"));
    }
}
