//! roster.yaml: what is read, what is refused and where.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use kaizen_engagement::{RosterRepo, parse_roster};
use proptest::prelude::*;

fn refused(text: &str) -> Vec<String> {
    let errors = parse_roster("roster.yaml", text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn folder(path: &str, base: &str) -> String {
    let repo = RosterRepo {
        name: "pilot".to_owned(),
        path: path.to_owned(),
    };
    repo.folder(Path::new(base)).display().to_string()
}

#[test]
fn repos_are_read_in_their_order() {
    let roster = parse_roster(
        "roster.yaml",
        "version: 1\nengagement: coulomb-loop\nrepos:\n  - {name: pilot-b, path: ../b}\n  - name: Pilot.a\n    path: /srv/a\n",
    )
    .unwrap();
    assert_eq!(roster.engagement.as_str(), "coulomb-loop");
    let repos: Vec<_> = roster
        .repos
        .iter()
        .map(|r| (r.name.as_str(), r.path.as_str()))
        .collect();
    assert_eq!(repos, [("pilot-b", "../b"), ("Pilot.a", "/srv/a")]);
}

#[test]
fn roster_of_the_example_leads_to_three_pilots() {
    let text = include_str!("../../../examples/coulomb-loop/loops/kaizen-stack/roster.yaml");
    let roster = parse_roster("roster.yaml", text).unwrap();
    let base = Path::new("/e/loops/kaizen-stack");
    let folders = roster
        .repos
        .iter()
        .map(|repo| repo.folder(base).display().to_string());
    assert_eq!(
        folders.collect::<Vec<_>>(),
        [
            "/e/repos/pilot-api",
            "/e/repos/pilot-web",
            "/e/repos/pilot-data"
        ]
    );
}

#[test]
fn folders_are_joined_by_text() {
    assert_eq!(
        folder("../../../pilot-a", "/e/loops/kaizen-stack"),
        "/pilot-a"
    );
    assert_eq!(
        folder("../../repos/./x", "/e/loops/kaizen-stack"),
        "/e/repos/x"
    );
    assert_eq!(folder("/srv/a", "/e/loops"), "/srv/a");
    assert_eq!(folder("../../x", "loops"), "../x");
    assert_eq!(folder("../../x", "/"), "/x");
    assert_eq!(folder("x", ""), "x");
}

#[test]
fn git_repos_are_not_supported_yet() {
    let text =
        "version: 1\nengagement: e\nrepos:\n  - {name: a, git: \"https://x/a.git\", ref: main}\n";
    assert_eq!(
        refused(text),
        [
            "roster.yaml:4:15: repos[0].git: git repos are not supported yet; clone it and give its folder: path: ../pilot"
        ]
    );
}

#[test]
fn every_error_is_reported_at_its_place() {
    let text = r#"version: "1"
engagement: Coulomb
repos:
  - {name: a, path: ../a}
  - {nam: b, path: ""}
  - {name: a, path: ../a2}
  - {name: -x, path: ../x}
  - c
"#;
    let errors = refused(text);
    let starts = [
        "roster.yaml:1:10: version: takes the number 1, got the text \"1\"; write version: 1",
        "roster.yaml:2:13: engagement: engagement \"Coulomb\" is not a name",
        "roster.yaml:5:5: repos[1].name: `name` is required; add name: pilot",
        "roster.yaml:5:6: repos[1].nam: unknown key `nam`; did you mean `name`?",
        "roster.yaml:5:20: repos[1].path: path is empty",
        "roster.yaml:6:5: repos[2]: repo \"a\" is there twice, first in line 4",
        "roster.yaml:7:12: repos[3].name: repo name \"-x\" takes 1 to 100",
        "roster.yaml:8:5: repos[4]: takes a mapping, got the text \"c\"; write {name: pilot, path: ../pilot}",
    ];
    assert_eq!(errors.len(), starts.len(), "{errors:#?}");
    for (error, start) in errors.iter().zip(starts) {
        assert!(
            error.starts_with(start),
            "{error} does not start with {start}"
        );
    }
}

proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "\\PC{0,200}") {
        _ = parse_roster("roster.yaml", &text);
    }

    #[test]
    fn joined_folders_hold_no_dots_inside(
        base in "/?([a-c.]{1,2}/){0,4}", path in "/?(\\.\\./|[a-c]/|\\./){0,6}"
    ) {
        let joined = folder(&path, &base);
        let rest = joined.trim_start_matches("../");
        prop_assert!(rest == ".." || !rest.split('/').any(|part| part == ".." || part == "."), "{}", joined);
    }
}
