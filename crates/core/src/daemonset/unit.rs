//! The units of a DaemonSet: one service for each container, which runs `podman`.

use super::manifest::{Container, HostPath, Manifest, Mount, PreStop, Volume};
use super::quote::{Text, line, value};

const PODMAN: &str = "/usr/bin/podman";

/// How long a container may take to become ready. An image may have to be pulled.
const START_SECONDS: u64 = 900;

/// How much longer systemd waits than podman, before it kills what is left.
const STOP_MARGIN: u64 = 15;

/// How long a container without a probe must run before an update goes on. systemd knows only that
/// podman started it, so it is given as long as any service that cannot say when it is ready.
const UNPROVEN_SECONDS: u64 = 5;

/// The default of `ProgressDeadlineSec=`.
const PROGRESS_SECONDS: u64 = 600;

/// A unit before it has a checked name.
pub(super) struct Written {
    pub(super) name: String,
    pub(super) text: String,
}

/// Writes the units, the first container's first.
pub(super) fn write(manifest: &Manifest, file: &str) -> Vec<Written> {
    let containers = manifest.pod.containers.iter().enumerate();
    containers
        .map(|(index, container)| Written {
            name: format!("{}.service", stem(manifest, container)),
            text: Writer {
                manifest,
                container,
                first: index == 0,
            }
            .unit(file),
        })
        .collect()
}

/// The unit's name without its suffix.
pub(super) fn stem(manifest: &Manifest, container: &Container) -> String {
    match manifest.pod.containers.len() {
        1 => manifest.name.clone(),
        _ => format!("{}-{}", manifest.name, container.name),
    }
}

struct Writer<'m> {
    manifest: &'m Manifest,
    container: &'m Container,
    /// Whether it is the first container: init containers run before it, and it has the network.
    first: bool,
}

impl Writer<'_> {
    fn unit(&self, file: &str) -> String {
        let mut lines = vec![self.heading(file)];
        lines.push("[Unit]".to_owned());
        lines.push(format!("Description={}", value(&self.description())));
        lines.push("Wants=network-online.target".to_owned());
        lines.push("After=network-online.target".to_owned());
        lines.extend(self.joined().map(|first| format!("After={first}.service")));
        lines.push(format!("AssertFileIsExecutable={PODMAN}"));
        lines.extend(self.asserts());
        lines.extend(self.architectures());
        lines.push("StartLimitIntervalSec=0".to_owned());
        lines.push("[Service]".to_owned());
        lines.extend(self.service());
        lines.push("[X-Fleet]".to_owned());
        lines.extend(self.fleet());
        lines.join("\n") + "\n"
    }

    fn heading(&self, file: &str) -> String {
        let name = &self.manifest.name;
        let container = match self.manifest.pod.containers.len() {
            1 => String::new(),
            _ => format!(", container {}", self.container.name),
        };
        format!("# From DaemonSet {name}{container} ({file}), by fleetctl import")
    }

    fn description(&self) -> String {
        match self.manifest.pod.containers.len() {
            1 => self.manifest.name.clone(),
            _ => format!("{}: {}", self.manifest.name, self.container.name),
        }
    }

    /// The first container's unit, whose network this container joins; `None` if it has its own.
    fn joined(&self) -> Option<String> {
        let first = self.manifest.pod.containers.first()?;
        (!self.first && !self.manifest.pod.host_network).then(|| stem(self.manifest, first))
    }

    fn host_paths(&self) -> impl Iterator<Item = (&Mount, &str, HostPath)> {
        let init = self.manifest.pod.init.iter().filter(|_| self.first);
        let mounts = init.chain([self.container]).flat_map(|it| &it.mounts);
        mounts.filter_map(
            |mount| match self.manifest.pod.volumes.get(&mount.volume)? {
                Volume::Host { path, kind } => Some((mount, path.as_str(), *kind)),
                _ => None,
            },
        )
    }

    /// What must be on the machine, so that `explain` says what is missing.
    fn asserts(&self) -> Vec<String> {
        let asserts = self.host_paths().filter_map(|(_, path, kind)| match kind {
            HostPath::Directory => Some(format!("AssertPathIsDirectory={}", value(path))),
            HostPath::Present => Some(format!("AssertPathExists={}", value(path))),
            _ => None,
        });
        distinct(asserts)
    }

    fn architectures(&self) -> Vec<String> {
        let all = &self.manifest.placement.architectures;
        let or = if all.len() > 1 { "|" } else { "" };
        all.iter()
            .map(|it| format!("ConditionArchitecture={or}{it}"))
            .collect()
    }

    fn service(&self) -> Vec<String> {
        let pod = &self.manifest.pod;
        let stop = pod.grace;
        let mut lines: Vec<String> = [
            "Type=notify",
            "NotifyAccess=all",
            "Delegate=yes",
            "KillMode=mixed",
            "SyslogIdentifier=%N",
            "Environment=PODMAN_SYSTEMD_UNIT=%n",
        ]
        .map(str::to_owned)
        .into();
        lines.extend(self.container.limits.iter().cloned());
        lines.extend(self.made());
        if self.first {
            for init in &pod.init {
                lines.push(format!("ExecStartPre={PODMAN} {}", line(&self.init(init))));
            }
        }
        lines.push(format!("ExecStart={PODMAN} {}", line(&self.run())));
        lines.extend(self.started());
        match &self.container.pre_stop {
            Some(PreStop::Exec(command)) => {
                lines.push(format!("ExecStop=-{PODMAN} exec %N {}", line(command)));
            }
            Some(PreStop::Sleep(seconds)) => lines.push(format!("ExecStop=-/bin/sleep {seconds}")),
            None => {}
        }
        lines.push(format!("ExecStop={PODMAN} stop --ignore --time={stop} %N"));
        lines.push(format!(
            "ExecStopPost=-{PODMAN} rm --force --ignore --volumes %N"
        ));
        // It stays while another container uses it.
        for volume in self.shared_volumes() {
            lines.push(format!("ExecStopPost=-{PODMAN} volume rm {volume}"));
        }
        lines.push("Restart=always".to_owned());
        lines.push("RestartSec=10".to_owned());
        lines.push(format!("TimeoutStartSec={START_SECONDS}"));
        lines.push(format!("TimeoutStopSec={}", stop + STOP_MARGIN));
        lines
    }

    /// Makes paths that Kubernetes would make.
    fn made(&self) -> Vec<String> {
        let made = self.host_paths().filter_map(|(_, path, kind)| {
            let script = match kind {
                HostPath::Any | HostPath::DirectoryOrCreate => "test -e \"$0\" || mkdir -p \"$0\"",
                HostPath::FileOrCreate => "test -e \"$0\" || touch \"$0\"",
                HostPath::Directory | HostPath::Present => return None,
            };
            // Something is always there.
            if path == "/" {
                return None;
            }
            let words = ["/bin/sh", "-c", script, path].map(Text::plain);
            Some(format!("ExecStartPre={}", line(&words)))
        });
        distinct(made)
    }

    fn started(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(command) = &self.container.post_start {
            lines.push(format!("ExecStartPost={PODMAN} exec %N {}", line(command)));
        }
        for probe in &self.container.ready {
            let delay = match probe.delay {
                0 => String::new(),
                delay => format!("sleep {delay}; "),
            };
            let period = probe.period;
            let script =
                format!("{delay}until {PODMAN} exec \"$0\" \"$@\"; do sleep {period}; done");
            let shell = ["/bin/sh", "-c", &script].map(Text::plain);
            let mut words: Vec<Text> = shell.into();
            words.push(Text::specifier("%N"));
            words.extend(probe.command.iter().cloned());
            lines.push(format!("ExecStartPost={}", line(&words)));
        }
        // The others are in the network of a container that was just replaced.
        if self.first && !self.manifest.pod.host_network {
            for other in self.manifest.pod.containers.iter().skip(1) {
                let unit = stem(self.manifest, other);
                lines.push(format!(
                    "ExecStartPost=-/usr/bin/systemctl try-restart --no-block {unit}.service"
                ));
            }
        }
        lines
    }

    fn run(&self) -> Vec<Text> {
        let pod = &self.manifest.pod;
        let mut words: Vec<Text> = vec!["run".into(), Text::specifier("%N").after("--name=")];
        for option in [
            "--replace",
            "--rm",
            "-d",
            "--cgroups=split",
            "--sdnotify=conmon",
        ] {
            words.push(option.into());
        }
        words.push(format!("--pull={}", self.container.pull).into());
        words.push("--log-driver=passthrough".into());
        words.push(format!("--stop-timeout={}", pod.grace).into());
        let label = |(key, value): &(String, String)| format!("--label={key}={value}").into();
        words.extend(pod.labels.iter().map(label));
        match self.joined() {
            Some(first) => words.push(format!("--network=container:{first}").into()),
            None => {
                words.extend(pod.network.iter().cloned());
                let publish = pod.containers.iter().flat_map(|it| &it.publish);
                words.extend(publish.map(|port| format!("--publish={port}").into()));
            }
        }
        words.extend(self.common(self.container));
        words
    }

    fn init(&self, container: &Container) -> Vec<Text> {
        let name = format!("_{}", container.name);
        let mut names = Text::specifier("%N").after("--name=");
        names.push_plain(&name);
        let mut words: Vec<Text> = vec!["run".into(), names];
        for option in ["--replace", "--rm", "--cgroups=split"] {
            words.push(option.into());
        }
        words.push(format!("--pull={}", container.pull).into());
        words.push("--log-driver=passthrough".into());
        words.extend(self.manifest.pod.network.iter().cloned());
        words.extend(self.common(container));
        words
    }

    /// The options that follow from the container, its image and its command.
    fn common(&self, container: &Container) -> Vec<Text> {
        let mut words = self.manifest.pod.options.clone();
        words.extend(container.options.iter().cloned());
        words.extend(
            container
                .mounts
                .iter()
                .filter_map(|mount| self.mount(mount)),
        );
        let env = container.env.iter();
        words.extend(env.map(|(name, value)| value.after(&format!("--env={name}="))));
        let (program, rest) = match container.command.split_first() {
            Some((program, rest)) => (Some(program), rest),
            None => (None, [].as_slice()),
        };
        // podman would read a program that looks like a list as one.
        words.extend(program.map(|program| match program.known() {
            Some(text) if text.starts_with('[') => {
                let list = serde_json::Value::from(vec![text]);
                format!("--entrypoint={list}").into()
            }
            _ => program.after("--entrypoint="),
        }));
        words.push(container.image.as_str().into());
        words.extend(rest.iter().chain(&container.args).cloned());
        words
    }

    fn mount(&self, mount: &Mount) -> Option<Text> {
        let path = &mount.path;
        let source = match self.manifest.pod.volumes.get(&mount.volume)? {
            Volume::Host { path, .. } => match &mount.sub_path {
                Some(below) => format!("{}/{below}:", path.trim_end_matches('/')),
                None => format!("{path}:"),
            },
            Volume::Memory(size) => {
                let mut options = Vec::new();
                options.extend(size.map(|size| format!("size={size}")));
                options.extend(mount.read_only.then(|| "ro".to_owned()));
                let options = match options.is_empty() {
                    true => String::new(),
                    false => format!(":{}", options.join(",")),
                };
                return Some(format!("--tmpfs={path}{options}").into());
            }
            Volume::Empty if self.is_shared(&mount.volume) => {
                format!("{}:", self.volume(&mount.volume))
            }
            // A volume without a name ends with its container.
            Volume::Empty => return Some(format!("--volume={path}").into()),
            Volume::Refused => return None,
        };
        let mut options = Vec::new();
        options.extend(mount.read_only.then_some("ro"));
        options.extend(mount.propagation);
        let options = match options.is_empty() {
            true => String::new(),
            false => format!(":{}", options.join(",")),
        };
        Some(format!("--volume={source}{path}{options}").into())
    }

    /// The name that podman has for a volume of several containers.
    fn volume(&self, name: &str) -> String {
        // No DaemonSet and no volume has an underscore in its name.
        format!("{}_{name}", self.manifest.name)
    }

    /// Returns whether a volume needs a name. podman makes none without a name that is read-only.
    fn is_shared(&self, volume: &str) -> bool {
        let pod = &self.manifest.pod;
        let mut mounts = pod
            .init
            .iter()
            .chain(&pod.containers)
            .flat_map(|it| &it.mounts);
        let read_only = mounts.any(|mount| mount.volume == volume && mount.read_only);
        read_only || uses(self.manifest, volume) > 1
    }

    /// The volumes that this unit's containers share, with each other or with other units.
    fn shared_volumes(&self) -> Vec<String> {
        let init = self.manifest.pod.init.iter().filter(|_| self.first);
        let mounts = init.chain([self.container]).flat_map(|it| &it.mounts);
        let shared = mounts.filter(|mount| {
            let volume = self.manifest.pod.volumes.get(&mount.volume);
            volume == Some(&Volume::Empty) && self.is_shared(&mount.volume)
        });
        distinct(shared.map(|mount| self.volume(&mount.volume)))
    }

    fn fleet(&self) -> Vec<String> {
        let policy = &self.manifest.policy;
        let mut lines = vec!["Global=true".to_owned()];
        for (key, values) in &self.manifest.placement.metadata {
            lines.extend(
                values
                    .iter()
                    .map(|value| format!("MachineMetadata={key}={value}")),
            );
        }
        if policy.manual {
            lines.push("UpdateStrategy=manual".to_owned());
        }
        lines.push(format!("MaxUnavailable={}", policy.max_unavailable));
        let unproven = self.container.ready.is_empty().then_some(UNPROVEN_SECONDS);
        let min_ready = policy.min_ready.or(unproven).unwrap_or_default();
        if min_ready > 0 {
            lines.push(format!("MinReadySec={min_ready}"));
        }
        // Otherwise no update would ever be in time.
        if min_ready >= PROGRESS_SECONDS {
            lines.push(format!(
                "ProgressDeadlineSec={}",
                PROGRESS_SECONDS + min_ready
            ));
        }
        // Kubernetes runs DaemonSets on cordoned nodes.
        lines.push("Tolerates=cordon".to_owned());
        lines
    }
}

/// How many containers mount a volume.
pub(super) fn uses(manifest: &Manifest, volume: &str) -> usize {
    let containers = manifest.pod.init.iter().chain(&manifest.pod.containers);
    let using = |it: &&Container| it.mounts.iter().any(|mount| mount.volume == volume);
    containers.filter(using).count()
}

/// Returns the lines without repetitions, in their order.
fn distinct(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for line in lines {
        if !all.contains(&line) {
            all.push(line);
        }
    }
    all
}
