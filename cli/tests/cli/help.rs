//! Every command's help ends with an example, and the examples are real.

use clap::Command;

use crate::sandbox::Sandbox;

/// Every command with the words that lead to it.
fn walk(path: &[String], command: &Command, visit: &mut impl FnMut(&[String], &Command)) {
    visit(path, command);
    for sub in command
        .get_subcommands()
        .filter(|sub| sub.get_name() != "help" && !sub.is_hide_set())
    {
        let mut path = path.to_vec();
        path.push(sub.get_name().to_owned());
        walk(&path, sub, visit);
    }
}

fn example(command: &Command) -> String {
    let help = command.clone().render_long_help().to_string();
    let (_, example) = help.rsplit_once("Example:").unwrap_or_default();
    example.to_owned()
}

#[test]
fn every_help_ends_with_an_example_of_that_command() {
    let mut commands = 0;
    walk(&[], &kaizen_agentic::command(), &mut |path, command| {
        let example = example(command);
        let words = format!("kaizen-agentic {}", path.join(" "));
        assert!(
            example.contains(words.trim()),
            "{path:?} has no example of {words:?}: {example:?}"
        );
        commands += 1;
    });
    assert!(commands > 25, "{commands}");
}

#[test]
fn every_example_parses() {
    walk(&[], &kaizen_agentic::command(), &mut |path, command| {
        let example = example(command);
        assert!(
            example.lines().all(|line| line.len() < 80),
            "{path:?} wraps: {example}"
        );
        let joined = example.replace("\\\n", " ");
        for line in joined
            .lines()
            .filter(|line| line.contains("kaizen-agentic"))
        {
            let line = line.split(" > ").next().unwrap();
            let parsed = kaizen_agentic::command().try_get_matches_from(words(line));
            assert!(parsed.is_ok(), "{path:?}: {line}: {}", parsed.unwrap_err());
        }
    });
}

/// As a shell splits it, with single quotes.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    for (nth, part) in line.trim().split('\'').enumerate() {
        if nth % 2 == 1 {
            words.push(part.to_owned());
        } else {
            words.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    words
}

#[test]
fn wrong_usage_exits_2_and_says_what_is_allowed() {
    let sandbox = Sandbox::new();
    for (args, text) in [
        (&["schedule", "init"][..], "--engagement <SLUG>"),
        (
            &["schedule", "init", "--engagement", "Big"],
            "is not a name",
        ),
        (&["memory", "init", "../x"], "is not a name"),
        (
            &["metrics", "record", "coach", "--time", "1"],
            "--success|--failure",
        ),
        (
            &["metrics", "record", "coach", "--success", "--time", "-1"],
            "from 0 up",
        ),
        (
            &[
                "metrics",
                "record",
                "coach",
                "--success",
                "--time",
                "1",
                "--quality",
                "1.1",
            ],
            "not between 0 and 1",
        ),
        (&["task", "list", "--since", "yesterday"], "such as 24h"),
        (&["event", "publish"], "--type"),
        (
            &[
                "event",
                "publish",
                "--type",
                "a.b",
                "--source",
                "s",
                "--attributes",
                "[1]",
            ],
            "JSON object",
        ),
        (&["resolve", "dry-run"], "--source"),
        (&["definition", "apply"], "--file"),
        (&["definiton", "apply"], "definition"),
    ] {
        let said = sandbox.run(args).fails(2);
        assert!(said.stderr.contains(text), "{args:?}: {}", said.stderr);
        assert_eq!(said.stdout, "");
    }
}

#[test]
fn completions_come_on_stdout() {
    let sandbox = Sandbox::new();
    for shell in ["bash", "zsh", "fish"] {
        let said = sandbox.run(&["completions", shell]).ok();
        assert!(said.stdout.contains("emit-event"), "{shell}");
        assert_eq!(said.stderr, "");
    }
}
