//! Files that fleet.conf names and others create: certificates and keys. They may appear after
//! boot. So problems with them are problems of this machine, and prevent no unit from running.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use super::problems::{ByThing, Problems};
use super::tls::Tls;
use crate::config::Settings;

/// The time between checks of files that could not be used. Connections read them anyway.
const AGAIN: Duration = Duration::from_secs(5);

/// Returns the present problems with the files, by option.
pub(super) fn problems(settings: &Settings) -> ByThing {
    let mut problems = ByThing::new();
    if !settings.standalone {
        let found = settings.etcd.file_problems();
        problems.extend(found.into_iter().map(|(name, why)| (name.to_owned(), why)));
    }
    if let Some(files) = &settings.api_tls
        && let Err(error) = Tls::new(files.clone()).current()
    {
        problems.insert("certificates of the API".to_owned(), error.to_string());
    }
    problems
}

/// Keeps the problems with files current until there is none.
pub(super) async fn watch(settings: &Settings, known: &Problems) {
    let mut named = ByThing::new();
    loop {
        let now = problems(settings);
        for thing in named.keys().filter(|thing| !now.contains_key(*thing)) {
            known.set(thing, None);
        }
        for (thing, text) in &now {
            known.set(thing, Some(text.clone()));
        }
        if now.is_empty() {
            return;
        }
        named = now;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Returns notes about secrets that every local user can read.
pub(super) fn exposed(settings: &Settings) -> Vec<String> {
    let keys = [
        ("etcd_keyfile", settings.etcd.key_file.as_deref()),
        (
            "api_keyfile",
            settings.api_tls.as_ref().map(|tls| &*tls.key),
        ),
        ("etcd_password", settings.password_file.as_deref()),
    ];
    let exposed = keys.into_iter().filter_map(|(option, path)| {
        let path = path.filter(|path| is_for_all(path))?;
        Some(format!(
            "{option}: every local user can read {path}; chmod 600 {path}",
            path = path.display()
        ))
    });
    exposed.collect()
}

fn is_for_all(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| found.permissions().mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Inputs;
    use crate::config::fragment::Fragment;

    fn settings(path: &Path, text: &str) -> Settings {
        fs::write(path, text).expect("written");
        let inputs = Inputs::merge([Fragment::from_file(path, text.as_bytes())]);
        Settings::validate(&inputs).0.expect("valid")
    }

    #[test]
    fn a_password_that_every_user_can_read_is_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fleet.conf");
        let settings = settings(&path, "etcd_username=a\netcd_password=b\n");
        let set = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode));
        set(0o600).expect("set");
        assert_eq!(exposed(&settings), Vec::<String>::new());
        set(0o644).expect("set");
        let path = path.display();
        let note = format!("etcd_password: every local user can read {path}; chmod 600 {path}");
        assert_eq!(exposed(&settings), [note]);
    }

    #[test]
    fn files_that_are_missing_are_problems_of_their_options() {
        let folder = tempfile::tempdir().expect("a folder");
        let text = "etcd_servers=https://a:1\netcd_cafile=/nonexistent/ca\n\
            api_cafile=/nonexistent/a\napi_certfile=/nonexistent/b\napi_keyfile=/nonexistent/c\n";
        let found = problems(&settings(&folder.path().join("fleet.conf"), text));
        let things: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(things, ["certificates of the API", "etcd_cafile"]);
    }
}
