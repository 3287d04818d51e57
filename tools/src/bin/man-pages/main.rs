//! Writes the man pages of fleetd: `cargo run --package fleet-tools --bin man-pages DIRECTORY`.
//!
//! They contain the text of `fleetd --help` and of pages in docs/. This is no part of fleetd: a
//! program that runs as root on every host needs no typesetting.

mod markdown;

use std::path::Path;
use std::{env, fs, io};

use clap::CommandFactory as _;
use clap_mangen::Man;
use fleetd::config::Args;

/// A page of section 5, made from pages in docs/.
struct FilePage {
    name: &'static str,
    what: &'static str,
    synopsis: &'static str,
    documents: &'static [&'static str],
    see_also: &'static str,
}

const FILE_PAGES: [FilePage; 2] = [
    FilePage {
        name: "fleet.conf",
        what: "configuration of fleetd",
        synopsis: "/etc/fleet/fleet.conf",
        documents: &[include_str!("../../../../docs/reference/configuration.md")],
        see_also: "fleetd(8), fleet.unit(5)",
    },
    FilePage {
        name: "fleet.unit",
        what: "unit files that fleet runs on every machine that should have them",
        synopsis: "NAME.service, NAME@.service, NAME.timer, ...; /etc/fleet/units",
        documents: &[
            include_str!("../../../../docs/reference/unit-options.md"),
            include_str!("../../../../docs/explanation/rollouts.md"),
        ],
        see_also: "fleetctl(1), fleetd(8), systemd.unit(5), systemd.service(5)",
    },
];

/// The part of fleetd(8) beyond the command line.
const TROUBLESHOOTING: &str = include_str!("../../../../docs/howto/troubleshooting.md");

fn main() -> io::Result<()> {
    let Some(directory) = env::args_os().nth(1) else {
        return Err(io::Error::other(
            "say into which directory: man-pages DIRECTORY",
        ));
    };
    fs::create_dir_all(&directory)?;
    for (name, page) in pages()? {
        fs::write(Path::new(&directory).join(name), page)?;
    }
    Ok(())
}

/// Returns all pages as roff, by file name.
fn pages() -> io::Result<Vec<(String, String)>> {
    let files = FILE_PAGES.iter().map(|page| {
        let name = format!("{}.5", page.name);
        (name, page.roff())
    });
    let daemon = ("fleetd.8".to_owned(), daemon_page()?);
    Ok(files.chain([daemon]).collect())
}

fn daemon_page() -> io::Result<String> {
    let command = Args::command().override_usage("fleetd [OPTIONS]");
    let about = command.get_after_help().map(ToString::to_string);
    let man = Man::new(command)
        .section("8")
        .source(source())
        .manual("fleet");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let page = String::from_utf8(page).map_err(io::Error::other)?;
    let about = markdown::to_roff(&about.unwrap_or_default());
    let trouble = markdown::to_roff(TROUBLESHOOTING);
    Ok(format!(
        "{page}.PP\n{about}{trouble}.SH SEE ALSO\nfleetctl(1), fleet.conf(5), fleet.unit(5)\n"
    ))
}

fn source() -> String {
    format!("fleet {}", env!("CARGO_PKG_VERSION"))
}

impl FilePage {
    fn roff(&self) -> String {
        let Self {
            name,
            what,
            synopsis,
            see_also,
            ..
        } = self;
        let source = source();
        let mut page = format!(
            ".TH {name} 5 \"\" \"{source}\" fleet\n.SH NAME\n{name} \\- {what}\n.SH SYNOPSIS\n{synopsis}\n"
        );
        for document in self.documents {
            page += &markdown::to_roff(document);
        }
        page + &format!(".SH SEE ALSO\n{see_also}\n")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    use fleet_core::unit::X_FLEET;
    use fleetd::config::options::OPTIONS;

    use super::*;

    fn page(name: &str) -> String {
        let mut pages = pages().expect("written").into_iter();
        pages.find(|(file, _)| file == name).expect("a page").1
    }

    /// Returns a page as a reader sees it, with its faults in roff. `None` without groff.
    fn set(page: &str) -> Option<(String, String)> {
        let groff = Command::new("groff")
            .args(["-man", "-Tutf8", "-P-cbou", "-rLL=100n", "-ww"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut groff) = groff else {
            println!("skipped: groff is not installed (apt-get install groff-base)");
            return None;
        };
        let mut stdin = groff.stdin.take().expect("piped");
        stdin.write_all(page.as_bytes()).expect("taken");
        drop(stdin);
        let output = groff.wait_with_output().expect("it ends");
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Some((text(output.stdout), text(output.stderr)))
    }

    #[test]
    fn man_pages_have_no_faults_in_groff() {
        for (name, page) in pages().expect("written") {
            if let Some((shown, faults)) = set(&page) {
                assert_eq!(faults, "", "{name}");
                assert!(shown.contains("SEE ALSO"), "{name}");
            }
        }
    }

    #[test]
    fn option_of_fleetd_is_in_both_its_pages() {
        let (daemon, file) = (page("fleetd.8"), page("fleet.conf.5"));
        for flag in Args::command()
            .get_arguments()
            .filter(|it| !it.is_hide_set())
        {
            let Some(long) = flag.get_long() else {
                continue;
            };
            let flag = format!("\\-\\-{}", long.replace('-', "\\-"));
            assert!(daemon.contains(&flag), "{flag}");
        }
        for option in OPTIONS {
            assert!(
                file.contains(&format!("\\fB{}\\fR", option.name)),
                "{}",
                option.name
            );
        }
    }

    #[test]
    fn every_option_of_a_unit_is_in_its_page() {
        let page = page("fleet.unit.5");
        for option in X_FLEET {
            assert!(page.contains(&option.replace('-', "\\-")), "{option}");
        }
    }

    #[test]
    fn an_option_reads_with_its_default_and_its_form() {
        let Some((shown, _)) = set(&page("fleet.conf.5")) else {
            return;
        };
        let (_, ttl) = shown.split_once("agent_ttl").expect("the option");
        let (ttl, _) = ttl.split_once("token_limit").expect("the next");
        let words: Vec<_> = ttl.split_whitespace().collect();
        let ends = "Default: 30s. Form: duration, whole seconds, at least 2s.";
        assert!(words.join(" ").contains(ends), "{ttl}");
    }
}
