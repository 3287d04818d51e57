//! Programs from the crate registry that the checks run: one version each, built once for each
//! user.

use std::env;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// A program at one version.
#[derive(Debug)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    /// Whether it is built without its default features.
    is_bare: bool,
}

pub(crate) const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    is_bare: false,
};

pub(crate) const MDBOOK: Tool = Tool {
    name: "mdbook",
    version: "0.5.4",
    // Its default features only serve, watch and search, which a build does not need.
    is_bare: true,
};

impl Tool {
    /// Returns a command for it, after installing this version if it is missing.
    pub(crate) fn command(&self) -> Result<Command> {
        let home = cache().join(format!("{}-{}", self.name, self.version));
        let program = home.join("bin").join(self.name);
        if !program.exists() {
            println!(
                "installing {} {} in {}",
                self.name,
                self.version,
                home.display()
            );
            let mut install = lab::cargo();
            // Not optimised: it runs for a second, and an optimised build takes minutes.
            install.args(["install", "--quiet", "--locked", "--debug", "--root"]);
            install
                .arg(&home)
                .args(["--version", self.version, self.name]);
            if self.is_bare {
                install.arg("--no-default-features");
            }
            let status = install.status().context("cannot start cargo")?;
            ensure!(
                status.success(),
                "{} {} cannot be installed",
                self.name,
                self.version
            );
        }
        let mut command = Command::new(program);
        command.current_dir(lab::repository());
        Ok(command)
    }
}

/// Returns the user's cache, which outlives this clone. Without one, returns `target/tools`.
fn cache() -> PathBuf {
    let set = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let home = || Some(set("HOME")?.join(".cache"));
    let cache = set("XDG_CACHE_HOME").or_else(home);
    cache.map_or_else(
        || lab::target().join("tools"),
        |cache| cache.join("fleet-tools"),
    )
}
