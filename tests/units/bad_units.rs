//! Shows that a unit file that cannot work is refused with a sentence before any change.

use anyhow::{Context, Result, ensure};
use lab::Lab;

use crate::support::looking::{listed, refused, settled, sleeper};

/// A name, a content, and the full error of `fleetctl start`.
const BAD: &[(&str, &[u8], &str)] = &[
    (
        "bad name.service",
        b"x",
        "Error creating units: invalid character ' ' in unit name\n",
    ),
    (
        "@x.service",
        b"x",
        "Error creating units: unit name cannot start in \"@\"\n",
    ),
    (
        "x@1.mount",
        b"x",
        "Error creating units: invalid unit type for template: \"mount\"\n",
    ),
    (
        "empty.service",
        b"",
        "Error creating units: failed creating unit empty.service: unit file is empty\n",
    ),
    (
        "unclosed.service",
        b"[Service\nExecStart=/bin/true\n",
        "Error creating units: failed creating unit unclosed.service: ",
    ),
    (
        "binary.service",
        b"\x7fELF\x02\x01\x01\x00\x00\x00",
        "Error creating units: failed creating unit binary.service: ",
    ),
    (
        "id.service",
        b"[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\nMachineID=abc\n",
        "Error creating units: failed creating unit id.service: MachineID cannot be used with Global\n",
    ),
    (
        "of.service",
        b"[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\nMachineOf=a.service\n",
        "Error creating units: failed creating unit of.service: Global cannot be used with Peers\n",
    ),
    (
        "replaces.service",
        b"[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\nReplaces=a.service\n",
        "Error creating units: failed creating unit replaces.service: Global cannot be used with Replaces\n",
    ),
    (
        "template@.service",
        b"[Service]\nExecStart=/bin/true\n[X-Fleet]\nGlobal=true\n",
        "Error starting units: cannot activate template \"template@.service\"\n",
    ),
];

#[test]
fn a_unit_file_that_cannot_work_is_refused_and_nothing_changes() {
    Lab::builder().etcd(1).test(|lab| {
        listed(lab)?;
        let before = settled(lab)?;
        for (name, content, text) in BAD {
            lab.host(1).write_file(&format!("/root/{name}"), content)?;
            start(lab, &[name], text).with_context(|| (*name).to_owned())?;
        }
        too_long(lab).context("a file of 3 MB")?;
        one_of_several(lab).context("several units of which one is bad")?;
        ensure!(settled(lab)? == before, "a refusal wrote to the registry");
        let files = lab.host(1).sh("find /run/fleet/units -type f")?.stdout;
        ensure!(files.is_empty(), "a refusal left files: {files}");
        misread_options(lab).context("options that cannot be understood")?;
        not_global(lab).context("a unit without Global=true")
    });
}

fn start(lab: &Lab, names: &[&str], text: &str) -> Result<()> {
    let paths: Vec<_> = names.iter().map(|name| format!("/root/{name}")).collect();
    let arguments: Vec<_> = ["start"]
        .into_iter()
        .chain(paths.iter().map(String::as_str))
        .collect();
    let output = lab.host(1).fleetctl(&arguments)?;
    refused(&output, 1, text)?;
    // For several units, a second line says that none was changed.
    let lines = if names.len() > 1 { 2 } else { 1 };
    let untouched = format!("started: none; not started: {}\n", paths.join(", "));
    ensure!(
        output.stdout.is_empty()
            && output.stderr.lines().count() == lines
            && output.stderr.ends_with(&untouched) == (names.len() > 1),
        "{output:?}"
    );
    Ok(())
}

fn too_long(lab: &Lab) -> Result<()> {
    lab.host(1)
        .write_file("/root/long.service", "#".repeat(3_000_000))?;
    start(
        lab,
        &["long.service"],
        "/root/long.service is 3000000 bytes long, and a unit file may have at most 524288\n",
    )
}

fn one_of_several(lab: &Lab) -> Result<()> {
    lab.host(1)
        .write_file("/root/good.service", sleeper(1000))?;
    start(
        lab,
        &["good.service", "id.service"],
        "unit id.service: MachineID cannot be used with Global\n",
    )?;
    start(
        lab,
        &["good.service", "missing.service"],
        "unable to find Unit(missing.service)",
    )
}

/// Checks that options in `[X-Fleet]` that cannot be understood are refused, and the running unit
/// stays unchanged.
fn misread_options(lab: &Lab) -> Result<()> {
    let host = lab.host(1);
    let file = |option: &str| sleeper(1001) + option + "\n";
    host.write_file("/root/odd.service", file("MaxUnavailable=1"))?;
    host.fleetctl(&["start", "--wait", "/root/odd.service"])?
        .ok()?;
    let before = (settled(lab)?, host.main_pid("odd.service")?);
    for (option, text) in [
        (
            "MachineMetadata=role:web",
            "line 6: MachineMetadata \"role:web\": write key=value, or quote each of several",
        ),
        (
            "MachineMetadata=role=web env=prod",
            "line 6: MachineMetadata \"role=web env=prod\": ",
        ),
        ("MachineMetadata=", "line 6: MachineMetadata \"\": "),
        (
            "MachineMetadata=role=web # front",
            "line 6: MachineMetadata \"role=web # front\": a comment needs a line of its own",
        ),
        (
            "MachineMetadata=security!=high",
            "line 6: MachineMetadata \"security!=high\": ",
        ),
        (
            "MachineMetadta=role=web",
            "line 6: unrecognized requirement in [X-Fleet] section: \"MachineMetadta\"; did you mean MachineMetadata?",
        ),
        ("Global=maybe", "line 6: Global \"maybe\": "),
        (
            "Conflicts=web[.service",
            "line 6: Conflicts \"web[.service\": ",
        ),
    ] {
        host.write_file("/root/odd.service", file(option))?;
        let output = host.fleetctl(&["start", "--replace", "/root/odd.service"])?;
        refused(
            &output,
            1,
            &format!("Error creating units: odd.service {text}"),
        )?;
        ensure!(
            output.stderr.ends_with("; nothing was submitted\n"),
            "{output:?}"
        );
    }
    ensure!(
        (settled(lab)?, host.main_pid("odd.service")?) == before,
        "a refused file changed something"
    );
    host.fleetctl(&["destroy", "odd.service"])?.ok().map(drop)
}

/// Checks that a unit that is not global can be kept in the registry, and nothing more.
fn not_global(lab: &Lab) -> Result<()> {
    const TEXT: &str = "[Service]\nExecStart=/bin/sleep 1002\n";
    const WHY: &str = "unit single.service is not global, and this version does not schedule such units to a machine";
    let host = lab.host(1);
    host.write_file("/root/single.service", TEXT)?;
    host.fleetctl(&["submit", "/root/single.service"])?.ok()?;
    for verb in ["start", "load"] {
        refused(&host.fleetctl(&[verb, "single.service"])?, 1, WHY)?;
    }
    let listed = host
        .fleetctl(&[
            "list-unit-files",
            "--no-legend",
            "--fields=unit,dstate,state,target",
        ])?
        .ok()?;
    ensure!(
        listed == "single.service\tinactive\tinactive\t-\n",
        "{listed:?}"
    );
    ensure!(host.fleetctl(&["cat", "single"])?.ok()? == TEXT);
    ensure!(host.systemctl_show("single.service", "LoadState")? == "not-found");
    host.fleetctl(&["destroy", "single.service"])?.ok()?;
    ensure!(
        host.fleetctl(&["list-unit-files", "--no-legend"])?
            .ok()?
            .is_empty()
    );
    Ok(())
}
