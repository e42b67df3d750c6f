//! roster.yaml: what is read, what is refused and where.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;

use kaizen_engagement::{Place, Remote, RosterRepo, parse_roster, repo_folder};
use proptest::prelude::*;

fn refused(text: &str) -> Vec<String> {
    let errors = parse_roster("roster.yaml", text).unwrap_err();
    errors.iter().map(ToString::to_string).collect()
}

fn folder(path: &str, base: &str) -> String {
    repo_folder(path, Path::new(base)).display().to_string()
}

fn path(repo: &RosterRepo) -> &str {
    match &repo.place {
        Place::Folder(path) => path,
        other => panic!("{other:?}"),
    }
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
        .map(|r| (r.name.as_str(), path(r)))
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
        .map(|repo| repo_folder(path(repo), base).display().to_string());
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

fn place(entry: &str) -> Place {
    let text = format!("version: 1\nengagement: e\nrepos: [{{name: a, {entry}}}]\n");
    let roster = parse_roster("roster.yaml", &text).unwrap_or_else(|e| panic!("{e:?}"));
    roster.repos[0].place.clone()
}

fn refused_place(entry: &str) -> String {
    let errors = refused(&format!(
        "version: 1\nengagement: e\nrepos: [{{name: a, {entry}}}]\n"
    ));
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

#[test]
fn git_repos_and_published_schedules_are_read() {
    let remote = |url: &str, reference: &str, folder: &str| {
        Place::Git(Remote {
            url: url.to_owned(),
            reference: reference.to_owned(),
            folder: folder.to_owned(),
        })
    };
    let https = "https://git.example/team/pilot.git";
    assert_eq!(place(&format!("git: '{https}'")), remote(https, "HEAD", ""));
    assert_eq!(
        place(&format!("git: '{https}', ref: release/1.2, path: apps/api")),
        remote(https, "release/1.2", "apps/api")
    );
    for url in [
        "ssh://git@git.example/pilot.git",
        "ssh://git.example:2222/~team/pilot",
        "https://[::1]:8443/pilot",
        "file:///srv/git/pilot.git",
    ] {
        assert_eq!(place(&format!("git: '{url}'")), remote(url, "HEAD", ""));
    }
    assert_eq!(
        place("published: pilot-api"),
        Place::Published("pilot-api".parse().unwrap())
    );
}

#[test]
fn what_git_could_take_for_something_else_is_refused() {
    for (entry, expected) in [
        (
            "git: 'git@git.example:team/pilot.git'",
            "is no URL of a git repo; write ssh://git@git.example/team/pilot.git",
        ),
        (
            "git: '../pilot'",
            "is no URL of a git repo; write for example https://git.example",
        ),
        (
            "git: '--upload-pack=touch /tmp/x'",
            "is no URL of a git repo",
        ),
        ("git: 'ext::sh -c touch% /tmp/x'", "is no URL of a git repo"),
        (
            "git: 'http://git.example/p'",
            "is of a protocol that is not allowed; use https:// or ssh://",
        ),
        (
            "git: 'https://ada:secret@git.example/p'",
            "holds credentials",
        ),
        ("git: 'https://token@git.example/p'", "holds credentials"),
        ("git: 'ssh://git:secret@git.example/p'", "holds credentials"),
        ("git: 'ssh://-oProxyCommand=x/p'", "lacks a host or a path"),
        ("git: 'ssh://-oX@git.example/p'", "looks like an option"),
        ("git: 'https://git.example'", "lacks a host or a path"),
        ("git: 'file://host/p'", "lacks a host or a path"),
        (
            "git: \"https://git.example/a\\nb\"",
            "holds a character that is not allowed",
        ),
        (
            "git: 'https://git.example/p', ref: '--all'",
            "\"--all\" is no branch, tag or commit",
        ),
        (
            "git: 'https://git.example/p', ref: 'a:b'",
            "is no branch, tag or commit",
        ),
        (
            "git: 'https://git.example/p', ref: 'a..b'",
            "is no branch, tag or commit",
        ),
        (
            "git: 'https://git.example/p', ref: 'a/.b'",
            "is no branch, tag or commit",
        ),
        (
            "git: 'https://git.example/p', path: ../x",
            "is no folder inside of the git repo",
        ),
        (
            "git: 'https://git.example/p', path: /x",
            "is no folder inside of the git repo",
        ),
        (
            "path: ../a, ref: main",
            "names a branch of a git repo that is not there",
        ),
        (
            "path: ../a, published: a",
            "is in the registry, so it has no other place",
        ),
        ("published: A B", "is not a name"),
    ] {
        let error = refused_place(entry);
        assert!(error.contains(expected), "{entry}: {error}");
    }
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
