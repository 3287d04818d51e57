//! Probes and hooks of a container's life.

use super::fields::{Fate, Field, Fields, Rule};
use super::manifest::{Container, PreStop, Probe};
use super::quote::Text;
use super::remark::Remarks;

const HTTP: &str = "podman runs a check inside the container only, and most images cannot make a request: \
                    write an exec probe, or leave it out and watch the port from outside";

const CHECKS: &[Rule] = &[
    ("httpGet", Fate::Refused, HTTP),
    ("tcpSocket", Fate::Refused, HTTP),
    ("grpc", Fate::Refused, HTTP),
    (
        "terminationGracePeriodSeconds",
        Fate::Refused,
        "a container that fails its check is killed at once",
    ),
];

const HOOKS: &[Rule] = &[
    ("httpGet", Fate::Refused, "write an exec hook"),
    ("tcpSocket", Fate::Refused, "write an exec hook"),
];

struct Check {
    command: Vec<String>,
    delay: u64,
    period: u64,
    timeout: u64,
    failures: u64,
}

/// Reads a probe, with the defaults of Kubernetes.
fn check(field: &Field<'_>, remarks: &mut Remarks) -> Option<Check> {
    let mut fields = field.fields(remarks)?;
    let command = exec(&mut fields, remarks);
    let mut number = |key, default, least| {
        let field = fields.take(key);
        let found = field.as_ref().and_then(|it| it.number(remarks));
        if let (Some(field), Some(found)) = (&field, found)
            && found < least
        {
            field.refuse(remarks, format!("write {least} or more"));
        }
        found.unwrap_or(default)
    };
    let delay = number("initialDelaySeconds", 0, 0);
    let period = number("periodSeconds", 10, 1);
    let timeout = number("timeoutSeconds", 1, 1);
    let failures = number("failureThreshold", 3, 1);
    if let Some(field) = fields.take("successThreshold")
        && field.number(remarks).is_some_and(|number| number != 1)
    {
        field.refuse(remarks, "a check that succeeds once has succeeded; write 1");
    }
    fields.finish(CHECKS, remarks);
    if command.is_none() && !remarks.refused() {
        field.refuse(remarks, "a probe needs exec with a command");
    }
    Some(Check {
        command: command?,
        delay,
        period,
        timeout,
        failures,
    })
}

/// Reads `exec: {command: [...]}`. Kubernetes does not expand `$(NAME)` there.
fn exec(fields: &mut Fields<'_>, remarks: &mut Remarks) -> Option<Vec<String>> {
    let exec = fields.take("exec")?;
    let mut fields = exec.fields(remarks)?;
    let command = fields.take("command").map(|it| it.texts(remarks));
    fields.finish(&[], remarks);
    let command = command.filter(|command| !command.is_empty());
    if command.is_none() {
        exec.refuse(remarks, "exec needs a command");
    }
    command
}

/// Reads the probes and hooks of a container.
pub(super) fn read(fields: &mut Fields<'_>, container: &mut Container, remarks: &mut Remarks) {
    if let Some(field) = fields.take("startupProbe")
        && let Some(check) = check(&field, remarks)
    {
        field.note(
            remarks,
            "the unit is ready when this succeeds; it has 15 minutes for that, whatever failureThreshold is",
        );
        container.ready.push(once(&check));
    }
    if let Some(field) = fields.take("readinessProbe")
        && let Some(check) = check(&field, remarks)
    {
        field.note(
            remarks,
            "the unit is ready when this succeeds for the first time; a later failure is not seen",
        );
        container.ready.push(once(&check));
    }
    if let Some(field) = fields.take("livenessProbe")
        && let Some(check) = check(&field, remarks)
    {
        if check.command.len() == 1 {
            field.note(
                remarks,
                "podman runs a command of one word with /bin/sh in the container",
            );
        }
        container.options.extend(health(&check));
    }
    if let Some(mut lifecycle) = fields.map("lifecycle", remarks) {
        if let Some(mut hook) = lifecycle.map("postStart", remarks) {
            container.post_start = exec(&mut hook, remarks).map(texts);
            hook.finish(HOOKS, remarks);
        }
        if let Some(mut hook) = lifecycle.map("preStop", remarks) {
            container.pre_stop = exec(&mut hook, remarks).map(texts).map(PreStop::Exec);
            if let Some(mut sleep) = hook.map("sleep", remarks) {
                container.pre_stop = sleep.number("seconds", remarks).map(PreStop::Sleep);
                sleep.finish(&[], remarks);
            }
            hook.finish(HOOKS, remarks);
        }
        let rules = [(
            "stopSignal",
            Fate::Refused,
            "the image says which signal stops it",
        )];
        lifecycle.finish(&rules, remarks);
    }
}

fn texts(command: Vec<String>) -> Vec<Text> {
    command.into_iter().map(Text::from).collect()
}

fn once(check: &Check) -> Probe {
    Probe {
        command: texts(check.command.clone()),
        delay: check.delay,
        period: check.period,
    }
}

/// The options that make podman check a container, and kill it so that systemd restarts it.
fn health(check: &Check) -> Vec<Text> {
    let command = serde_json::Value::from(check.command.clone());
    [
        format!("--health-cmd={command}"),
        format!("--health-interval={}s", check.period),
        format!("--health-retries={}", check.failures),
        format!("--health-timeout={}s", check.timeout),
        format!("--health-start-period={}s", check.delay),
        "--health-on-failure=kill".to_owned(),
    ]
    .map(Text::from)
    .into()
}
