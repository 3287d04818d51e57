//! What systemd's own directories hold of a unit: fleet's links, and what others put there.
//!
//! Links are made by systemd, which knows `[Install]`, and removed here. DisableUnitFiles would
//! remove too much and too little: the links of every unit in `Also=`, which run on, and none of a
//! masked unit.

use std::fs::{DirEntry, FileType};
use std::io::ErrorKind;
use std::iter::once;
use std::path::{Component, Path, PathBuf};

use fleet_core::systemd::MASKED;
use fleet_core::unit::UnitName;

use super::files::{Directory, failed, unlink};
use crate::systemd::Result;

/// Where systemd puts links that go with a reboot.
pub(super) const RUNTIME: &str = "/run/systemd/system";

/// The first thing in these directories that has this unit's name, or that of its template, and is
/// not a link to fleet's file. A directory of drop-ins (`NAME.d`) is an administrator's addition
/// and no clash.
pub(super) fn clash(unit_path: &[PathBuf], ours: &Directory, name: &UnitName) -> Option<String> {
    let template = name.template();
    for directory in unit_path {
        for name in once(name).chain(&template) {
            let path = directory.join(name.as_str());
            if path.symlink_metadata().is_err() {
                continue;
            }
            match path.read_link() {
                Ok(target) if target == ours.file(name) => {}
                Ok(target) if target == Path::new("/dev/null") => {
                    return Some(format!("{}{MASKED}", path.display()));
                }
                _ => return Some(path.display().to_string()),
            }
        }
    }
    None
}

/// Whether systemd's link to this unit's file is in place.
pub(super) fn is_linked(runtime: &Path, ours: &Directory, name: &UnitName) -> bool {
    let target = runtime.join(name.as_str()).read_link();
    target.is_ok_and(|target| target == ours.file(name))
}

/// Whether there is a directory whose drop-ins systemd adds to this unit: one of its own, of its
/// template, of its kind, or of the beginning of its name up to a dash (systemd.unit(5)).
pub(super) fn has_drop_ins(unit_path: &[PathBuf], name: &UnitName) -> bool {
    let (kind, prefix) = (name.kind().as_str(), name.prefix());
    let dashes = prefix.match_indices('-').map(|(at, _)| &prefix[..=at]);
    let stems = dashes.chain(once(prefix));
    let instance = name.instance().map(|instance| format!("@{instance}"));
    let ends = ["", "@"].into_iter().chain(instance.as_deref());
    let named = stems.flat_map(|stem| {
        let ends = ends.clone();
        ends.map(move |end| format!("{stem}{end}.{kind}.d"))
    });
    let names: Vec<String> = named.chain(once(format!("{kind}.d"))).collect();
    let mut all = unit_path
        .iter()
        .flat_map(|directory| names.iter().map(|name| directory.join(name)));
    all.any(|path| path.symlink_metadata().is_ok())
}

/// Removes what an `[Install]` section made: aliases, and links in `.wants` and its like. A section
/// that has changed leaves nothing of what it was.
pub(super) fn uninstall(runtime: &Path, ours: &Directory, name: &UnitName) -> Result<()> {
    let main = runtime.join(name.as_str());
    let file = ours.file(name);
    // systemd 252 links to the file itself, others may link to the link. Of thousands of links few
    // lead to that name.
    let leads_here = |link: &Path| {
        let to = link.read_link().unwrap_or_default();
        to.file_name().is_some_and(|to| to == name.as_str()) && {
            let to = without_dots(&link.with_file_name("").join(to));
            to == file || to == main
        }
    };
    for (path, kind) in entries(runtime)? {
        if kind.is_symlink() {
            if path != main && leads_here(&path) {
                unlink(&path)?;
            }
        } else if kind.is_dir() {
            let links = entries(&path)?;
            let mut found = false;
            for (link, _) in links.iter().filter(|(link, _)| leads_here(link)) {
                found = true;
                unlink(link)?;
            }
            if found {
                // Only an empty directory goes.
                let _ = std::fs::remove_dir(&path);
            }
        }
    }
    Ok(())
}

/// Removes every link to this unit's file, whether the file is there or not.
pub(super) fn remove(runtime: &Path, ours: &Directory, name: &UnitName) -> Result<()> {
    uninstall(runtime, ours, name)?;
    let main = runtime.join(name.as_str());
    match main.read_link() {
        Ok(to) if to == ours.file(name) => unlink(&main),
        _ => Ok(()),
    }
}

fn entries(directory: &Path) -> Result<Vec<(PathBuf, FileType)>> {
    let entry = |entry: DirEntry| Ok((entry.path(), entry.file_type()?));
    match std::fs::read_dir(directory) {
        Ok(entries) => entries.map(|found| entry(found?)).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
    .map_err(|error| failed("read", directory, &error))
}

/// `/a/b/../c` is `/a/c`. Nothing is looked up: where a link is meant to lead counts, also while it
/// leads nowhere.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs::{create_dir, write};
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn unit(name: &str) -> UnitName {
        UnitName::parse(name).expect("valid")
    }

    /// `etc` and `run` of systemd, empty, and a directory of fleet's.
    fn place() -> (TempDir, [PathBuf; 2], Directory) {
        let place = TempDir::new().expect("a temporary directory");
        let systemd = ["etc", "run"].map(|name| place.path().join(name));
        for directory in &systemd {
            create_dir(directory).expect("created");
        }
        let ours = Directory::new(place.path().join("fleet"));
        (place, systemd, ours)
    }

    #[test]
    fn drop_ins_count_as_systemd_finds_them() {
        let (_place, [etc, run], _) = place();
        let unit_path = [etc, run.clone()];
        let name = unit("a-b-c@1.service");
        for others in [
            "a-b.service.d",
            "b-.service.d",
            "a-b-c@2.service.d",
            "timer.d",
        ] {
            create_dir(run.join(others)).expect("created");
        }
        assert!(!has_drop_ins(&unit_path, &name));
        for own in [
            "service.d",
            "a-.service.d",
            "a-b-.service.d",
            "a-b-c@.service.d",
            "a-b-c@1.service.d",
        ] {
            create_dir(run.join(own)).expect("created");
            assert!(has_drop_ins(&unit_path, &name), "{own}");
            std::fs::remove_dir(run.join(own)).expect("removed");
        }
    }

    #[test]
    fn only_a_link_to_fleets_file_is_no_clash() {
        let (_place, [etc, run], ours) = place();
        let unit_path = [etc.clone(), run.clone()];
        let name = unit("a@1.service");
        symlink(ours.file(&name), run.join("a@1.service")).expect("linked");
        create_dir(etc.join("a@1.service.d")).expect("created");
        assert_eq!(clash(&unit_path, &ours, &name), None);

        for (path, target, asked) in [
            (
                etc.join("a@.service"),
                Path::new("../elsewhere"),
                "a@1.service",
            ),
            (run.join("b.service"), &ours.file(&name), "b.service"),
        ] {
            symlink(target, &path).expect("linked");
            let told = clash(&unit_path, &ours, &unit(asked));
            assert_eq!(told, Some(path.display().to_string()));
        }
        let masked = etc.join("c.service");
        symlink("/dev/null", &masked).expect("linked");
        let told = clash(&unit_path, &ours, &unit("c.service"));
        assert_eq!(told, Some(format!("{} (masked)", masked.display())));
    }

    #[test]
    fn fleets_links_go_and_those_of_others_stay() {
        let (_place, [_, run], ours) = place();
        let name = unit("a.service");
        for directory in ["x.target.wants", "y.target.requires", "z.service.d"] {
            create_dir(run.join(directory)).expect("created");
        }
        write(run.join("theirs.service"), "").expect("written");
        for (link, target) in [
            ("a.service", &*ours.file(&name)),
            ("alias.service", &*ours.file(&name)),
            ("x.target.wants/a.service", &*ours.file(&name)),
            ("y.target.requires/a.service", Path::new("../a.service")),
            (
                "y.target.requires/b.service",
                &*ours.file(&unit("b.service")),
            ),
            ("b.service", &*ours.file(&unit("b.service"))),
        ] {
            symlink(target, run.join(link)).expect("linked");
        }
        let left = || {
            let mut left = entries(&run).expect("read");
            left.extend(entries(&run.join("y.target.requires")).expect("read"));
            let left = left.into_iter().map(|(path, _)| path);
            left.collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        };
        let others = [
            "b.service",
            "theirs.service",
            "y.target.requires",
            "y.target.requires/b.service",
            "z.service.d",
        ]
        .map(|other| run.join(other));
        uninstall(&run, &ours, &name).expect("uninstalled");
        assert_eq!(left()[0], run.join("a.service"));
        assert_eq!(left()[1..], others);
        remove(&run, &ours, &name).expect("removed");
        assert_eq!(left(), others);
        remove(&run, &ours, &unit("theirs.service")).expect("nothing of fleet");
        assert_eq!(left(), others);
    }
}
