//! Shows what a person does who comes from Kubernetes: the manifests of two DaemonSets, as they
//! are, and what is asked about them.

use anyhow::{Context, Result, ensure};
use lab::Lab;

use super::{MACHINES, SOON, commands, end_of_rollout, fleetctl, on_three_hosts};

const APP_A: &str = include_str!("app-a.yaml");
const APP_B: &str = include_str!("app-b.yaml");
const PAGE: &str = "<h1>Welcome to nginx!</h1>\n";

#[test]
fn two_manifests_run_where_kubernetes_runs_them() {
    on_three_hosts(|lab| {
        let one = lab.host(1);
        one.write_file("/root/app-a.yaml", APP_A)?;
        one.write_file("/root/app-b.yaml", APP_B)?;
        fleetctl(lab, "cordon c46a")?.ok()?;
        let started = fleetctl(lab, "start app-a.yaml")?;
        ensure!(
            started.code == 0 && started.stderr.contains("\"kationind\" is read as \"kind\""),
            "{started:?}"
        );
        counts(lab, "app-a.service", 3, "-").context("the cordoned machine counts, too")?;
        let rows = MACHINES.map(|machine| format!("app-a.service\t{machine}\tactive\trunning\n"));
        ensure!(fleetctl(lab, "list-units --no-legend")?.ok()? == rows.concat());
        answers(lab, &[1, 2, 3])?;
        as_systemd_sees_it(lab).context("as systemd sees it")?;
        a_missing_image_is_rolled_back(lab).context("a missing image")?;
        let submitted = fleetctl(lab, "submit app-b.yaml")?;
        ensure!(
            submitted.stderr.contains("want the same port 8000/tcp"),
            "{submitted:?}"
        );
        fleetctl(lab, "destroy app-a.service")?.ok()?;
        answers(lab, &[])?;

        fleetctl(lab, "start app-b.yaml")?.ok()?;
        counts(lab, "app-b.service", 0, "app=app-b-node").context("before any metadata")?;
        fleetctl(lab, "metadata d77c app=app-b-node")?.ok()?;
        counts(lab, "app-b.service", 1, "app=app-b-node").context("with metadata")?;
        answers(lab, &[3])?;
        fleetctl(lab, "metadata d77c app-")?.ok()?;
        counts(lab, "app-b.service", 0, "app=app-b-node").context("without it again")?;
        answers(lab, &[])
    });
}

/// Waits until a unit is listed with this in DESIRED, CURRENT, READY, UP-TO-DATE and AVAILABLE, and
/// this selector.
fn counts(lab: &Lab, unit: &str, count: usize, selector: &str) -> Result<()> {
    const COLUMNS: [&str; 8] = [
        "UNIT",
        "DESIRED",
        "CURRENT",
        "READY",
        "UP-TO-DATE",
        "AVAILABLE",
        "METADATA",
        "AGE",
    ];
    let number = count.to_string();
    let expected = [unit, &number, &number, &number, &number, &number, selector];
    lab.wait_until(SOON, &format!("{unit} is listed with {count}"), || {
        let listed = fleetctl(lab, "list-globals")?.ok()?;
        let rows: Vec<Vec<&str>> = listed
            .lines()
            .map(|line| line.split('\t').filter(|cell| !cell.is_empty()).collect())
            .collect();
        let (header, row) = (
            rows.first().context("no header")?,
            rows.iter().find(|row| row[0] == unit).context("no row")?,
        );
        let cell = |column| {
            let place = header.iter().position(|name| *name == column);
            place
                .and_then(|place| row.get(place))
                .copied()
                .unwrap_or("missing")
        };
        let found = COLUMNS.map(cell);
        ensure!(found[..7] == expected && found[7] != "missing", "{listed}");
        Ok(true)
    })
}

/// Waits until port 8000 of exactly these hosts answers, asked from the first.
fn answers(lab: &Lab, numbers: &[usize]) -> Result<()> {
    lab.wait_until(SOON, &format!("{numbers:?} answer"), || {
        for host in lab.hosts() {
            let url = format!("http://{}:8000", host.address());
            let said = lab
                .host(1)
                .sh(&format!("curl --silent --max-time 3 {url}"))?;
            let expected = if numbers.contains(&host.number()) {
                PAGE
            } else {
                ""
            };
            ensure!(said.stdout == expected, "{}: {said:?}", host.name());
        }
        Ok(true)
    })
}

/// The main process is podman's monitor, the unit holds the container, and systemd limits it.
fn as_systemd_sees_it(lab: &Lab) -> Result<()> {
    let limited = APP_A.replace(
        "        image: nginx\n",
        "        image: nginx\n        resources:\n          limits:\n            memory: 64Mi\n",
    );
    lab.host(1).write_file("/root/app-a.yaml", limited)?;
    fleetctl(lab, "start --replace app-a.yaml")?.ok()?;
    end_of_rollout(lab, "app-a.service")?.ok()?;
    for host in lab.hosts() {
        let show = |property| host.systemctl_show("app-a.service", property);
        let main = host.read_file(&format!("/proc/{}/comm", show("MainPID")?))?;
        let found = (main.trim(), show("NRestarts")?, show("MemoryMax")?);
        ensure!(
            found == ("conmon", "0".into(), (64 << 20).to_string()),
            "{}: {found:?}",
            host.name()
        );
        let cgroup = host.sh("cat /proc/$(pidof httpd)/cgroup")?.ok()?;
        ensure!(
            cgroup.contains("/app-a.service/"),
            "{}: {cgroup}",
            host.name()
        );
    }
    answers(lab, &[1, 2, 3])
}

/// One machine at most is without the container meanwhile.
fn a_missing_image_is_rolled_back(lab: &Lab) -> Result<()> {
    let missing = APP_A.replace("image: nginx", "image: nosuchimage");
    lab.host(1).write_file("/root/app-a.yaml", missing)?;
    fleetctl(lab, "start --replace app-a.yaml")?.ok()?;
    let ended = end_of_rollout(lab, "app-a.service")?;
    ensure!(
        ended.code == 7 && ended.stdout.contains("rolled back: it failed on "),
        "{ended:?}"
    );
    let granted = fleetctl(lab, "events app-a.service")?.ok()?;
    let granted = granted
        .lines()
        .filter(|line| line.contains("revision 3 on "));
    ensure!(granted.count() == 1, "more than one machine had it");
    for host in lab.hosts() {
        ensure!(commands(host)?.starts_with("app-a: "), "{}", host.name());
    }
    answers(lab, &[1, 2, 3])
}
