use clap::CommandFactory as _;

use super::*;
use crate::cli::Cli;

fn help(topic: &[&str]) -> String {
    let mut command = presented(Cli::command());
    command.build();
    let mut found = &mut command;
    for word in topic {
        found = found.find_subcommand_mut(word).expect("a command");
    }
    found.render_help().to_string()
}

/// Calls `check` for each visible command that runs something, with the words that name it.
fn each_leaf(command: &Command, path: &[&str], check: &mut impl FnMut(&[&str])) {
    let visible = command.get_subcommands().filter(|it| !it.is_hide_set());
    for below in visible.filter(|it| it.get_name() != "help" || path.is_empty()) {
        let path: Vec<&str> = path.iter().copied().chain([below.get_name()]).collect();
        if below.has_subcommands() {
            each_leaf(below, &path, check);
        } else {
            check(&path);
        }
    }
}

#[test]
fn overview_groups_every_command_and_has_the_version() {
    let overview = help(&[]);
    assert!(overview.starts_with(concat!("fleetctl version v", env!("CARGO_PKG_VERSION"))));
    for (heading, _) in GROUPS {
        assert!(overview.contains(&format!("\n{heading}:\n")), "{heading}");
    }
    for command in Cli::command().get_subcommands() {
        let line = format!("\n  {} ", command.get_name());
        let wanted = usize::from(!command.is_hide_set());
        assert_eq!(overview.matches(&line).count(), wanted, "{line}");
    }
}

#[test]
fn groups_name_only_commands_that_exist() {
    let command = Cli::command();
    for name in GROUPS.iter().flat_map(|(_, names)| *names) {
        assert!(command.find_subcommand(name).is_some(), "{name}");
    }
}

#[test]
fn command_help_has_an_example_and_no_global_options() {
    each_leaf(&Cli::command(), &[], &mut |path| {
        let help = help(path);
        assert!(help.contains("Example"), "{path:?}:\n{help}");
        assert!(help.contains(path[path.len() - 1]), "{path:?}:\n{help}");
        assert!(help.contains("fleetctl options"), "{path:?}:\n{help}");
        for global in ["--endpoint", "--tunnel", "--color", "--ssh-username"] {
            let own = help
                .lines()
                .any(|line| line.trim_start().starts_with(global));
            assert!(!own, "{path:?} lists {global}:\n{help}");
        }
    });
}

#[test]
fn options_lists_each_global_option_once() {
    let options = global_options(&presented(Cli::command()));
    for global in [
        "--endpoint",
        "--tunnel",
        "--color",
        "--ssh-username",
        "--ca-file",
    ] {
        let listed = options
            .lines()
            .filter(|line| line.trim_start().starts_with(global));
        assert_eq!(listed.count(), 1, "{global}:\n{options}");
    }
    for accepted in ["--driver", "--debug", "--etcd-cafile", "--help"] {
        assert!(!options.contains(accepted), "{accepted}:\n{options}");
    }
}

#[test]
fn foreign_verbs_name_the_command_that_does_it() {
    for (verb, ours) in [
        ("logs", "journal"),
        ("log", "journal"),
        ("get", "list-units"),
        ("describe", "status"),
        ("delete", "destroy"),
        ("rm", "destroy"),
        ("apply", "start --replace"),
        ("top", "status"),
        ("rollback", "rollout undo"),
    ] {
        let error = Cli::from(["fleetctl", verb, "web.service"]).err();
        let error = error.expect("it is refused").to_string();
        assert!(error.contains(&format!("use `fleetctl {ours}`")), "{error}");
    }
}

#[test]
fn foreign_verbs_lead_to_commands_that_exist() {
    let command = Cli::command();
    for (verb, ours) in foreign::FOREIGN {
        assert!(command.find_subcommand(verb).is_none(), "{verb} is ours");
        let mut words = ours.split(' ').filter(|word| !word.starts_with('-'));
        let mut found = words.next().and_then(|word| command.find_subcommand(word));
        for word in words {
            found = found.and_then(|command| command.find_subcommand(word));
        }
        assert!(found.is_some(), "{ours}");
    }
}

#[test]
fn words_of_kubectl_name_the_whole_command() {
    for (typed, ours) in [
        ("get ds", "list-globals"),
        ("get daemonsets -A", "list-globals"),
        ("get ds app-a", "status app-a"),
        ("get ds/app-a -o yaml", "status app-a"),
        ("get no", "list-machines"),
        ("get nodes", "list-machines"),
        ("get pods -o wide", "list-units"),
        ("get all", "list-units"),
        ("get events", "events"),
        ("get deployments", "list-units"),
        ("get", "list-units"),
        ("label node n1 app=app-b-node", "metadata n1 app=app-b-node"),
        ("label nodes n1 app-", "metadata n1 app-"),
        ("label node", "metadata MACHINE KEY=VALUE"),
        ("create -f app-a.yaml", "start app-a.yaml"),
        ("apply -f app-a.yaml", "start --replace app-a.yaml"),
        ("apply --filename=dir/a.yml", "start --replace dir/a.yml"),
        ("apply", "start --replace"),
        ("delete ds app-a", "destroy app-a"),
        ("delete -f dir/app-a.yaml", "destroy app-a"),
        ("delete pod app-a-x7k2p", "restart UNIT"),
        ("logs ds/app-a -f", "journal app-a"),
        ("logs app-a", "journal"),
        ("describe ds app-a", "status app-a"),
        ("describe node n1", "list-machines"),
        ("taint node n1 a=b:NoSchedule", "cordon n1"),
    ] {
        let words = ["fleetctl"].into_iter().chain(typed.split(' '));
        let error = Cli::from(words).err().expect("it is refused");
        assert_ne!(error.exit_code(), 0, "{typed}");
        let error = error.to_string();
        assert!(
            error.contains(&format!("use `fleetctl {ours}`")),
            "{typed}: {error}"
        );
    }
}
