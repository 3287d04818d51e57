//! Shows that a user of fleet 1.0 types the same commands and reads the same words, columns and
//! exit codes.

use anyhow::ensure;
use lab::repository;

use super::{
    assert_files, await_listing, await_on, destroy_all, fleetctl, main_pids, on_all_suites,
};

const HEADER: &str = "UNIT\tMACHINE\tACTIVE\tSUB\n";

const RUNNING: &str = "\
UNIT\t\tMACHINE\t\t\tACTIVE\tSUB
hello.service\t190c6f8f.../10.99.1.1\tactive\trunning
hello.service\tc46a8ace.../10.99.1.2\tactive\trunning
hello.service\td77c07da.../10.99.1.3\tactive\trunning
";

const LOADED: &str = "\
UNIT\t\tMACHINE\t\t\tACTIVE\t\tSUB
hello.service\t190c6f8f.../10.99.1.1\tinactive\tdead
hello.service\tc46a8ace.../10.99.1.2\tinactive\tdead
hello.service\td77c07da.../10.99.1.3\tinactive\tdead
";

fn unit_files(state: &str) -> String {
    // Cells end at a multiple of eight. `loaded` and its blank fit into the first eight, the others
    // do not.
    let tabs = if state == "loaded" { "\t" } else { "\t\t" };
    format!("UNIT\t\tHASH\tDSTATE{tabs}STATE\tTARGET\nhello.service\te83c16e\t{state}\t-\tglobal\n")
}

#[test]
fn one_unit_from_start_to_destroy() {
    on_all_suites(|lab| {
        let one = lab.host(1);
        let hello = std::fs::read(repository().join("units/hello.service"))?;
        one.write_file("/root/hello.service", &hello)?;
        let says = |arguments: &str, code: i32, stdout: &str, stderr: &str| {
            let output = fleetctl(one, arguments)?;
            let said = (output.code, output.stdout.as_str(), output.stderr.as_str());
            ensure!(
                said == (code, stdout, stderr),
                "fleetctl {arguments}: {said:#?}"
            );
            Ok(())
        };
        says(
            "list-machines",
            0,
            "MACHINE\t\tIP\t\tMETADATA\n190c6f8f...\t10.99.1.1\thost=n1\nc46a8ace...\t10.99.1.2\thost=n2\n\
             d77c07da...\t10.99.1.3\thost=n3\n",
            "",
        )?;
        says("list-units", 0, HEADER, "")?;
        says(
            "list-unit-files",
            0,
            "UNIT\tHASH\tDSTATE\tSTATE\tTARGET\n",
            "",
        )?;

        says("submit hello.service", 0, "Unit hello.service \n", "")?;
        says("submit hello.service", 0, "", "")?;
        says("list-unit-files", 0, &unit_files("inactive"), "")?;
        says("list-units", 0, HEADER, "")?;
        says("destroy hello", 0, "Destroyed hello.service\n", "")?;

        says(
            "start hello.service",
            0,
            "Unit hello.service \nTriggered global unit hello.service start\n",
            "",
        )?;
        await_on(lab, "hello.service", "active", &[1, 2, 3])?;
        assert_files(lab, "hello.service", &hello)?;
        await_listing(lab, "", RUNNING)?;
        says("list-unit-files", 0, &unit_files("launched"), "")?;
        says("start hello.service", 0, "", "")?;
        says("cat hello", 0, &String::from_utf8(hello)?, "")?;
        says(
            "list-units --full --no-legend --fields=unit,load,hash,machine",
            0,
            &[(1, "190c6f8fbbd25efb88aad49e6c499b79"), (2, "c46a8acecb14499365bce5a3533bd6c5"), (3, "d77c07da461707ed4699d4df0c87385e")]
                .map(|(number, id)| {
                    format!("hello.service\tloaded\te83c16edc9c35e3b86d078e1c4c8841f42bf397b\t{id}/10.99.1.{number}\n")
                })
                .concat(),
            "",
        )?;
        says(
            "list-units --fields=unit,bogus",
            1,
            "",
            "Invalid key in output format: \"bogus\"; the fields are \
             active,hash,load,machine,restarts,result,revision,since,sub,unit\n",
        )?;
        let status = fleetctl(one, "status hello")?.ok()?;
        let places =
            "Machines: on 3 of 3 machines\n  190c6f8f.../10.99.1.1  active (running) since ";
        ensure!(
            status.starts_with("hello.service - Hello global\n  Target: launched\n"),
            "{status}"
        );
        ensure!(status.contains(places), "{status}");
        let cluster = fleetctl(one, "status")?.ok()?;
        ensure!(
            cluster.ends_with("Machines: 3\n   Units: 1\nProblems: none\n"),
            "{cluster}"
        );
        let before = main_pids(lab, "hello.service")?;

        let stopped = "Triggered global unit hello.service stop\n";
        says(
            "stop hello.service",
            0,
            stopped,
            "Successfully stopped units [hello.service].\n",
        )?;
        await_on(lab, "hello.service", "inactive", &[1, 2, 3])?;
        await_listing(lab, "", LOADED)?;
        says("list-unit-files", 0, &unit_files("loaded"), "")?;
        ensure!(
            fleetctl(one, "status hello")?.code == 3,
            "a stopped unit is active"
        );
        says(
            "stop hello.service",
            0,
            stopped,
            "Successfully stopped units [hello.service].\n",
        )?;

        says(
            "start hello",
            0,
            "Triggered global unit hello.service start\n",
            "",
        )?;
        await_on(lab, "hello.service", "active", &[1, 2, 3])?;
        ensure!(
            main_pids(lab, "hello.service")? != before,
            "it was never stopped"
        );

        let unloaded = "Triggered global unit hello.service unload\n";
        says(
            "unload hello",
            0,
            unloaded,
            "Successfully unloaded units [hello.service].\n",
        )?;
        await_on(lab, "hello.service", "active", &[])?;
        await_listing(lab, "", HEADER)?;
        says(
            "stop hello",
            1,
            "",
            "Unable to stop unit hello.service in state inactive\n",
        )?;
        says(
            "load hello",
            0,
            "Triggered global unit hello.service load\n",
            "",
        )?;
        await_on(lab, "hello.service", "inactive", &[1, 2, 3])?;

        says("destroy hello.service", 0, "Destroyed hello.service\n", "")?;
        await_on(lab, "hello.service", "active", &[])?;
        await_listing(lab, "", HEADER)?;
        for verb in ["stop", "unload", "destroy"] {
            says(
                &format!("{verb} hello"),
                0,
                "",
                "Units not found in registry\n",
            )?;
        }
        says("cat hello", 1, "", "Unit hello.service not found\n")?;
        says(
            "status hello",
            4,
            "",
            "Unit hello.service does not exist.\n",
        )?;
        ensure!(
            fleetctl(one, "list-unit")?.code == 2,
            "an unclear command is accepted"
        );
        one.sh("rm /root/hello.service")?.ok()?;
        destroy_all(lab)
    });
}
