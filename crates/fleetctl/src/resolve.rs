//! Decides for each unit on the command line where its content comes from, and whether the registry
//! needs it.
//!
//! ```text
//!            in the registry?
//!        no /                \ yes
//!          v                  v
//!  file at that path      --replace?
//!  else, of an instance:   no: the registry wins, with a warning if a local file differs
//!   template in registry  yes: the local file wins, unless the unit is further along
//!   else template file         than the command would bring it
//! ```

use fleet_core::api;
use fleet_core::unit::{Content, NameError, TargetState, UnitName};

use crate::client::{Client, ClientError};
use crate::local::{FileError, Local, typed_name};
use crate::manifest::Argument;
use crate::options::is_global;

/// The reason why a unit cannot be used. The texts are those of fleet 1.0 where it had one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ResolveError {
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("error retrieving Unit({name}) from Registry: {why}")]
    Registry {
        name: UnitName,
        why: Box<ClientError>,
    },
    #[error("fleetd answered without the {what} of Unit({name}): is it older than this fleetctl?")]
    Incomplete { name: UnitName, what: &'static str },
    #[error("unable to find Unit({0}) in Registry or on filesystem")]
    Missing(UnitName),
    #[error(
        "failed getting Unit({name}) from template: unable to find template Unit({template}) in Registry or on filesystem"
    )]
    MissingTemplate { name: UnitName, template: UnitName },
    #[error(
        "unable to replace Unit({name}): there is no file {path}; --replace takes the new content from there"
    )]
    NoReplacement { name: UnitName, path: String },
    #[error("failed getting Unit({name}) from file: {why}")]
    File { name: UnitName, why: FileError },
}

/// A unit as the registry has it.
#[derive(Clone, Debug)]
pub(crate) struct Registered {
    pub(crate) content: Content,
    pub(crate) target: TargetState,
    pub(crate) global: bool,
    /// The newest revision; `None` if an older fleetd does not send it.
    pub(crate) revision: Option<u64>,
}

impl Registered {
    /// Reads a unit from the registry.
    pub(crate) async fn get(
        client: &mut Client,
        name: &UnitName,
    ) -> Result<Option<Self>, ResolveError> {
        let unit = client
            .unit(name)
            .await
            .map_err(|why| ResolveError::Registry {
                name: name.clone(),
                why: Box::new(why),
            })?;
        unit.map(|unit| Self::read(name, unit)).transpose()
    }

    fn read(name: &UnitName, unit: api::Unit) -> Result<Self, ResolveError> {
        let incomplete = |what| ResolveError::Incomplete {
            name: name.clone(),
            what,
        };
        Ok(Self {
            global: is_global(&unit.options),
            revision: Some(unit.revision).filter(|revision| *revision > 0),
            target: TargetState::parse(&unit.desired_state)
                .ok_or_else(|| incomplete("target state"))?,
            content: unit.content.ok_or_else(|| incomplete("content"))?,
        })
    }
}

/// Everything known about one unit on the command line.
#[derive(Debug)]
pub(crate) struct Sources {
    pub(crate) name: UnitName,
    pub(crate) registered: Option<Registered>,
    local: Local,
    /// The template of an instance. `None` for other units.
    template: Option<Template>,
}

#[derive(Debug)]
struct Template {
    name: UnitName,
    registered: Option<Content>,
    local: Local,
}

impl Sources {
    /// Reads a unit from the registry and from the directory.
    pub(crate) async fn look_up(
        client: &mut Client,
        argument: &Argument,
    ) -> Result<Self, ResolveError> {
        let argument = match argument {
            Argument::Typed(argument) => argument,
            Argument::Converted(unit) => {
                return Ok(Self {
                    registered: Registered::get(client, &unit.name).await?,
                    name: unit.name.clone(),
                    local: Local {
                        path: unit.path.clone(),
                        content: Ok(Some(unit.content.clone())),
                    },
                    template: None,
                });
            }
        };
        let name = typed_name(argument)?;
        let local = Local::read(argument, &name);
        let template = match name.template() {
            Some(template) => Some(Template {
                registered: Registered::get(client, &template)
                    .await?
                    .map(|unit| unit.content),
                local: Local::read(argument, &template),
                name: template,
            }),
            None => None,
        };
        Ok(Self {
            registered: Registered::get(client, &name).await?,
            name,
            local,
            template,
        })
    }
}

/// The decision about a unit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Write this content to the registry.
    Write(Content),
    /// The registry already has it.
    Keep,
    /// `--replace` was given, but the local file equals the registry's content.
    Same,
    /// The registry keeps its content, and the user gets this warning.
    KeepWithWarning(String),
}

/// Decides for one unit. `target` is the command's target state: submit `inactive`, load `loaded`,
/// start `launched`.
pub(crate) fn decide(
    sources: Sources,
    target: TargetState,
    replace: bool,
) -> Result<Decision, ResolveError> {
    let Sources {
        name,
        registered,
        local,
        template,
    } = sources;
    let file_error = |why| ResolveError::File {
        name: name.clone(),
        why,
    };
    let Some(registered) = registered else {
        if let Some(content) = local.content.map_err(file_error)? {
            return Ok(Decision::Write(content));
        }
        let Some(template) = template else {
            return Err(ResolveError::Missing(name));
        };
        if let Some(content) = template.registered {
            return Ok(Decision::Write(content));
        }
        return match template.local.content.map_err(file_error)? {
            Some(content) => Ok(Decision::Write(content)),
            None => Err(ResolveError::MissingTemplate {
                name,
                template: template.name,
            }),
        };
    };
    if !replace {
        // The registry wins, so an unreadable local file does not matter.
        let differing = [Some(&local), template.as_ref().map(|t| &t.local)]
            .into_iter()
            .flatten()
            .find_map(|local| match &local.content {
                Ok(Some(content)) => Some((content != &registered.content).then_some(&local.path)),
                _ => None,
            })
            .flatten();
        return Ok(match differing {
            Some(path) => Decision::KeepWithWarning(format!(
                "WARNING: Unit {name} in registry differs from local unit file {path}. Add --replace to override."
            )),
            None => Decision::Keep,
        });
    }
    let content = match (local.content.map_err(file_error)?, template) {
        (Some(content), _) => Some(content),
        (None, Some(template)) => template
            .local
            .content
            .map_err(file_error)?
            .or(template.registered),
        (None, None) => None,
    };
    let Some(content) = content else {
        return Err(ResolveError::NoReplacement {
            name,
            path: local.path,
        });
    };
    Ok(if content == registered.content {
        Decision::Same
    } else if registered.target > target {
        Decision::KeepWithWarning(format!(
            "Warning: can not replace Unit({name}) in state '{}', use the appropriate command",
            registered.target
        ))
    } else {
        Decision::Write(content)
    })
}

/// Returns the content that `start --replace` would use from a file, or for an instance from its
/// template.
pub(crate) fn replacement(sources: Sources) -> Result<Content, ResolveError> {
    let name = sources.name.clone();
    let registered = sources.registered.as_ref();
    let registered = registered.map(|unit| unit.content.clone());
    match decide(sources, TargetState::Launched, true)? {
        Decision::Write(content) => Ok(content),
        _ => registered.ok_or(ResolveError::Missing(name)),
    }
}

/// Returns that content, or the registry's if there is no file.
pub(crate) fn proposed(sources: Sources) -> Result<Content, ResolveError> {
    let registered = sources.registered.as_ref();
    let registered = registered.map(|unit| unit.content.clone());
    match (replacement(sources), registered) {
        (Err(ResolveError::NoReplacement { .. }), Some(content)) => Ok(content),
        (proposed, _) => proposed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use TargetState::{Inactive, Launched, Loaded};

    fn local(path: &str, content: Option<&str>) -> Local {
        Local {
            path: path.into(),
            content: Ok(content.map(Content::from)),
        }
    }

    fn hello(registered: Option<(&str, TargetState)>, file: Option<&str>) -> Sources {
        Sources {
            name: UnitName::parse("hello.service").expect("valid"),
            registered: registered.map(|(content, target)| Registered {
                content: content.into(),
                target,
                global: true,
                revision: Some(1),
            }),
            local: local("dir/hello.service", file),
            template: None,
        }
    }

    fn instance(file: Option<&str>, in_registry: Option<&str>, in_dir: Option<&str>) -> Sources {
        Sources {
            name: UnitName::parse("web@1.service").expect("valid"),
            registered: None,
            local: local("web@1.service", file),
            template: Some(Template {
                name: UnitName::parse("web@.service").expect("valid"),
                registered: in_registry.map(Content::from),
                local: local("web@.service", in_dir),
            }),
        }
    }

    fn warning(decision: Result<Decision, ResolveError>) -> String {
        match decision {
            Ok(Decision::KeepWithWarning(text)) => text,
            other => panic!("no warning: {other:?}"),
        }
    }

    #[test]
    fn proposal_is_the_file_or_else_the_registrys_content() {
        let content = |text: &str| Content::from(text);
        let new = hello(Some(("old", Launched)), Some("new"));
        assert_eq!(proposed(new).expect("content"), content("new"));
        let same = hello(Some(("old", Launched)), Some("old"));
        assert_eq!(proposed(same).expect("content"), content("old"));
        let no_file = || hello(Some(("old", Launched)), None);
        assert_eq!(proposed(no_file()).expect("content"), content("old"));
        assert!(matches!(
            replacement(no_file()),
            Err(ResolveError::NoReplacement { .. })
        ));
        assert!(matches!(
            proposed(hello(None, None)),
            Err(ResolveError::Missing(_))
        ));
    }

    #[test]
    fn a_new_unit_comes_from_its_file() {
        for replace in [false, true] {
            assert_eq!(
                decide(hello(None, Some("new")), Launched, replace).expect("found"),
                Decision::Write("new".into())
            );
        }
    }

    #[test]
    fn unit_without_any_source_is_refused() {
        assert_eq!(
            decide(hello(None, None), Launched, false)
                .expect_err("nowhere")
                .to_string(),
            "unable to find Unit(hello.service) in Registry or on filesystem"
        );
    }

    #[test]
    fn instance_prefers_its_file_then_registry_then_template_file() {
        for (sources, taken) in [
            (instance(Some("own"), Some("reg"), Some("dir")), "own"),
            (instance(None, Some("reg"), Some("dir")), "reg"),
            (instance(None, None, Some("dir")), "dir"),
        ] {
            assert_eq!(
                decide(sources, Launched, false).expect("found"),
                Decision::Write(taken.into())
            );
        }
        assert_eq!(
            decide(instance(None, None, None), Launched, false)
                .expect_err("nowhere")
                .to_string(),
            "failed getting Unit(web@1.service) from template: unable to find template Unit(web@.service) in Registry or on filesystem"
        );
    }

    #[test]
    fn registry_wins_without_replace_and_warns_if_files_differ() {
        let registered = Some(("old", Launched));
        for file in [None, Some("old")] {
            assert_eq!(
                decide(hello(registered, file), Launched, false).expect("kept"),
                Decision::Keep
            );
        }
        assert_eq!(
            warning(decide(hello(registered, Some("new")), Launched, false)),
            "WARNING: Unit hello.service in registry differs from local unit file dir/hello.service. Add --replace to override."
        );
    }

    #[test]
    fn a_registered_instance_is_compared_with_the_template_file() {
        let mut sources = instance(None, Some("old"), Some("new"));
        sources.registered = hello(Some(("old", Launched)), None).registered;
        assert!(warning(decide(sources, Launched, false)).contains("local unit file web@.service"));
    }

    #[test]
    fn an_unreadable_file_matters_only_when_it_is_needed() {
        let unreadable = |registered| {
            let mut sources = hello(registered, None);
            let why = std::io::ErrorKind::IsADirectory.into();
            let path = "dir/hello.service".to_owned();
            sources.local.content = Err(FileError::Unreadable { path, why });
            sources
        };
        let registered = Some(("old", Launched));
        assert_eq!(
            decide(unreadable(registered), Launched, false).expect("kept"),
            Decision::Keep
        );
        for (registered, replace) in [(None, false), (registered, true)] {
            let error = decide(unreadable(registered), Launched, replace).expect_err("needed");
            assert!(
                error.to_string().starts_with(
                    "failed getting Unit(hello.service) from file: cannot read dir/hello.service: "
                ),
                "{error}"
            );
        }
    }

    #[test]
    fn replace_needs_a_file() {
        assert_eq!(
            decide(hello(Some(("old", Launched)), None), Launched, true)
                .expect_err("no file")
                .to_string(),
            "unable to replace Unit(hello.service): there is no file dir/hello.service; --replace takes the new content from there"
        );
    }

    #[test]
    fn replaced_instance_prefers_its_file_then_template_file() {
        for (file, in_dir, taken) in [
            (Some("own"), Some("dir"), "own"),
            (None, Some("dir"), "dir"),
            (None, None, "reg"),
        ] {
            let mut sources = instance(file, Some("reg"), in_dir);
            sources.registered = hello(Some(("old", Launched)), None).registered;
            assert_eq!(
                decide(sources, Launched, true).expect("found"),
                Decision::Write(taken.into())
            );
        }
    }

    #[test]
    fn replace_never_takes_a_unit_back() {
        for (target, registered, allowed) in [
            (Inactive, Inactive, true),
            (Inactive, Loaded, false),
            (Loaded, Loaded, true),
            (Loaded, Launched, false),
            (Launched, Launched, true),
        ] {
            let decision = decide(hello(Some(("old", registered)), Some("new")), target, true);
            if allowed {
                assert_eq!(decision.expect("allowed"), Decision::Write("new".into()));
            } else {
                assert_eq!(
                    warning(decision),
                    format!(
                        "Warning: can not replace Unit(hello.service) in state '{registered}', use the appropriate command"
                    )
                );
            }
        }
    }

    #[test]
    fn replacing_a_unit_with_its_own_content_does_nothing() {
        assert_eq!(
            decide(hello(Some(("old", Launched)), Some("old")), Inactive, true).expect("same"),
            Decision::Same
        );
    }
}
