//! Target repos that are no folder of the resolver: in git, and published to the registry.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kaizen_tests::{Cli, Mesh, Said, Which};
use serde_json::{Value, json};
use tokio::net::TcpListener;

const COACH: &str = "version: 1\nengagement: coulomb-loop\nagents: {coach: {cadence: daily}}\n";
const BOTH: &str = "version: 1\nengagement: coulomb-loop\nagents: {coach: {cadence: weekly}, optimization: {cadence: daily}}\n";

/// A git repo that others clone, and a working copy of it.
struct Remote {
    bare: PathBuf,
    work: PathBuf,
}

impl Remote {
    fn make(root: &Path, name: &str) -> Self {
        let remote = Self {
            bare: root.join(format!("{name}.git")),
            work: root.join(format!("{name}-work")),
        };
        fs::create_dir_all(&remote.work).unwrap();
        let bare = remote.bare.to_str().unwrap();
        git(
            &remote.work,
            &["init", "--quiet", "--bare", "--initial-branch=main", bare],
        );
        git(&remote.bare, &["config", "uploadpack.allowFilter", "true"]);
        git(&remote.work, &["init", "--quiet", "--initial-branch=main"]);
        git(&remote.work, &["remote", "add", "origin", bare]);
        remote
    }

    /// Commits a schedule and pushes it; the commit.
    fn push(&self, file: &str, schedule: &str) -> String {
        let path = self.work.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, schedule).unwrap();
        git(&self.work, &["add", "."]);
        git(&self.work, &["commit", "--quiet", "--message", "schedule"]);
        git(&self.work, &["push", "--quiet", "origin", "HEAD:main"]);
        git(&self.work, &["rev-parse", "HEAD"])
    }

    fn url(&self) -> String {
        format!("file://{}", self.bare.display())
    }

    fn away(&self) -> PathBuf {
        self.bare.with_extension("away")
    }
}

fn git(folder: &Path, args: &[&str]) -> String {
    let done = Command::new("git")
        .args(["-c", "user.name=t", "-c", "user.email=t@example.com"])
        .args(args)
        .current_dir(folder)
        .output()
        .expect("git runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "git {args:?}: {said}");
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

/// A gateway and a resolver that reads git repos of this disk, each time anew.
async fn mesh() -> Mesh {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.config.resolver.cache_dir = Some(mesh.folder().join("clones"));
    mesh.config.resolver.git_allow_file = true;
    mesh.config.resolver.git_fetch_every_s = 0;
    mesh.start_service(Which::Resolver).await;
    mesh
}

fn roster(mesh: &Mesh, repos: &[Value]) -> String {
    let path = mesh.folder().join("roster.yaml");
    let roster = json!({"version": 1, "engagement": "coulomb-loop", "repos": repos});
    fs::write(&path, roster.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

fn discover(mesh: &Mesh, roster: &str) -> Said {
    let params = json!({"roster_path": roster}).to_string();
    mesh.cli.run(&[
        "resolve",
        "dry-run",
        "--source",
        "discover_kaizen_scheduled_repos",
        "--params",
        &params,
        "-o",
        "json",
    ])
}

/// `repo agent`, of each run.
fn runs(said: &Said) -> Vec<String> {
    let text = |run: &Value, key: &str| run[key].as_str().unwrap().to_owned();
    let runs = said.json()["runs"].as_array().unwrap().clone();
    runs.iter()
        .map(|run| format!("{} {}", text(run, "repo"), text(run, "agent")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn schedule_of_a_git_repo_is_read_at_its_ref_and_kept_while_the_remote_is_gone() {
    let mut mesh = mesh().await;
    let remote = Remote::make(mesh.folder(), "pilot");
    let first = remote.push(".kaizen/schedule.yml", COACH);
    let beside = mesh.folder().join("beside/.kaizen");
    fs::create_dir_all(&beside).unwrap();
    fs::write(beside.join("schedule.yml"), COACH).unwrap();
    let roster = roster(
        &mesh,
        &[
            json!({"name": "pilot", "git": remote.url(), "ref": "main"}),
            json!({"name": "beside", "path": "beside"}),
        ],
    );
    let said = discover(&mesh, &roster).ok();
    assert_eq!(said.stderr, "");
    assert_eq!(runs(&said), ["pilot coach", "beside coach"]);
    let run = &said.json()["runs"][0];
    assert_eq!(run["path"], json!(remote.url()));
    let origin = json!({"url": remote.url(), "ref": "main", "commit": first});
    assert_eq!(run["git"], origin);

    let second = remote.push(".kaizen/schedule.yml", BOTH);
    let said = discover(&mesh, &roster).ok();
    assert_eq!(
        runs(&said),
        ["pilot coach", "pilot optimization", "beside coach"]
    );
    assert_eq!(said.json()["runs"][0]["git"]["commit"], json!(second));

    // The remote is gone half-way: what it said last holds, and says so, after a restart too.
    fs::rename(&remote.bare, remote.away()).unwrap();
    for _ in 0..2 {
        let said = discover(&mesh, &roster).ok();
        assert_eq!(
            runs(&said),
            ["pilot coach", "pilot optimization", "beside coach"]
        );
        let run = &said.json()["runs"][0];
        assert_eq!(run["git"]["commit"], json!(second));
        let stale = run["git"]["stale"].as_str().unwrap();
        assert!(stale.contains("; what it said at 2"), "{stale}");
        assert!(
            said.stderr.contains("warning: repo pilot: stale: "),
            "{}",
            said.stderr
        );
        mesh.stop_service(Which::Resolver).await;
        mesh.start_service(Which::Resolver).await;
    }

    fs::rename(remote.away(), &remote.bare).unwrap();
    let third = remote.push(".kaizen/schedule.yml", COACH);
    let said = discover(&mesh, &roster).ok();
    assert_eq!((said.stderr.as_str(), runs(&said).len()), ("", 2));
    assert_eq!(said.json()["runs"][0]["git"]["commit"], json!(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn git_repo_that_cannot_be_read_says_why_and_hides_no_other() {
    let mesh = mesh().await;
    let remote = Remote::make(mesh.folder(), "pilot");
    remote.push("apps/api/.kaizen/schedule.yml", COACH);
    let gone = format!("file://{}/gone.git", mesh.folder().display());
    let roster = roster(
        &mesh,
        &[
            json!({"name": "gone", "git": gone}),
            json!({"name": "bare", "git": remote.url()}),
            json!({"name": "branch", "git": remote.url(), "ref": "no-such"}),
            json!({"name": "api", "git": remote.url(), "path": "apps/api"}),
        ],
    );
    let said = discover(&mesh, &roster).ok();
    assert_eq!(runs(&said), ["api coach"]);
    let lines: Vec<_> = said.stderr.lines().collect();
    assert_eq!(lines.len(), 3, "{}", said.stderr);
    assert!(
        lines[0].starts_with(&format!(
            "warning: repo gone: {gone}@HEAD cannot be read, and there is no copy of it: "
        )),
        "{}",
        lines[0]
    );
    assert_eq!(
        lines[1],
        "warning: repo bare: there is no .kaizen/schedule.yml"
    );
    assert!(lines[2].contains("no-such"), "{}", lines[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_fetch_left_behind_is_thrown_away() {
    let mesh = mesh().await;
    let remote = Remote::make(mesh.folder(), "pilot");
    remote.push(".kaizen/schedule.yml", COACH);
    let roster = roster(&mesh, &[json!({"name": "pilot", "git": remote.url()})]);
    let _ = discover(&mesh, &roster).ok();
    let clones: Vec<_> = fs::read_dir(mesh.folder().join("clones"))
        .unwrap()
        .collect();
    let clone = clones[0].as_ref().unwrap().path();
    for left in ["shallow.lock", "refs/kaizen/fetched.lock"] {
        fs::write(clone.join(left), "").unwrap();
        remote.push(
            ".kaizen/schedule.yml",
            if left.starts_with('s') { BOTH } else { COACH },
        );
        let said = discover(&mesh, &roster).ok();
        assert_eq!(said.stderr, "", "{left}");
        assert!(!clone.join(left).exists());
    }
    assert_eq!(runs(&discover(&mesh, &roster).ok()), ["pilot coach"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn remote_that_hangs_holds_nobody_up_for_longer_than_git_may_take() {
    let mut mesh = Mesh::start_with(&[Which::Gateway]).await;
    mesh.config.resolver.cache_dir = Some(mesh.folder().join("clones"));
    mesh.config.resolver.git_timeout_s = 2;
    mesh.start_service(Which::Resolver).await;
    // Accepts and never says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/pilot.git", silent.local_addr().unwrap());
    let beside = mesh.folder().join("beside/.kaizen");
    fs::create_dir_all(&beside).unwrap();
    fs::write(beside.join("schedule.yml"), COACH).unwrap();
    let roster = roster(
        &mesh,
        &[
            json!({"name": "silent", "git": url}),
            json!({"name": "disk", "git": "file:///srv/pilot.git"}),
            json!({"name": "beside", "path": "beside"}),
        ],
    );
    let said = discover(&mesh, &roster).ok();
    assert_eq!(runs(&said), ["beside coach"]);
    let lines: Vec<_> = said.stderr.lines().collect();
    assert!(
        lines[0].contains("git took longer than 2s"),
        "{}",
        said.stderr
    );
    assert!(
        lines[1].contains("only where resolver.git_allow_file is set"),
        "{}",
        said.stderr
    );
    // It is known by now, and not asked again for a minute.
    let from = std::time::Instant::now();
    assert_eq!(runs(&discover(&mesh, &roster).ok()), ["beside coach"]);
    assert!(from.elapsed() < Duration::from_secs(2));

    // Without a word yet, it is worth another try.
    mesh.config.resolver.git_timeout_s = 60;
    mesh.stop_service(Which::Resolver).await;
    mesh.start_service(Which::Resolver).await;
    let yaml = format!(
        "kind: ActivityDefinition\nid: hurried\ntrigger: {{type: cron, cron: '0 3 * * *'}}\n\
         context_sources: [{{type: discover_kaizen_scheduled_repos, bind_to: context.runs, timeout: 1s, params: {{roster_path: {roster}}}}}]\n\
         rules: [{{id: r, tasks: [{{queue: q, title: t}}]}}]\n"
    );
    mesh.apply(&yaml).await;
    let said = mesh.cli.run(&["resolve", "dry-run", "hurried"]).exits(1);
    assert!(
        said.stderr.contains("repo silent: ")
            && said
                .stderr
                .contains("is still being fetched for the first time"),
        "{}",
        said.stderr
    );
}

fn publish(repo: &Cli, more: &[&str]) -> Said {
    repo.run(&[&["schedule", "publish"], more].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn published_schedule_is_read_by_rosters_that_name_it() {
    let mesh = Mesh::start_with(&[Which::Gateway, Which::Resolver]).await;
    let folder = mesh.folder().join("pilot-api");
    fs::create_dir_all(folder.join(".kaizen")).unwrap();
    let file = folder.join(".kaizen/schedule.yml");
    fs::write(&file, COACH).unwrap();
    let repo = mesh.cli.in_folder(&folder);
    let roster = roster(
        &mesh,
        &[
            json!({"name": "api", "published": "pilot-api"}),
            json!({"name": "web", "published": "pilot-web"}),
        ],
    );
    assert_eq!(
        publish(&repo, &["--dry-run"]).ok().stdout,
        "schedule/pilot-api created (dry run)\n"
    );
    let said = discover(&mesh, &roster).ok();
    assert!(runs(&said).is_empty());
    assert!(
        said.stderr.contains("warning: repo web: no schedule is published as pilot-web; in the repo, type kaizen-agentic schedule publish --repo pilot-web"),
        "{}",
        said.stderr
    );

    let said = publish(&repo, &[]).ok();
    assert_eq!(said.stdout, "schedule/pilot-api created\n");
    assert!(
        said.stderr
            .contains("{name: pilot-api, published: pilot-api}"),
        "{}",
        said.stderr
    );
    assert_eq!(
        publish(&repo, &[]).ok().stdout,
        "schedule/pilot-api unchanged\n"
    );
    assert_eq!(
        publish(&repo, &["--repo", "pilot-web"]).ok().stdout,
        "schedule/pilot-web created\n"
    );
    let said = discover(&mesh, &roster).ok();
    assert_eq!(
        (runs(&said), said.stderr.as_str()),
        (vec!["api coach".to_owned(), "web coach".to_owned()], "")
    );
    assert_eq!(said.json()["runs"][0]["path"], "published:pilot-api");

    // What is published is what the rosters see, at once, with its crons.
    fs::write(&file, "version: 1\nengagement: coulomb-loop\nagents:\n  on: {cadence: daily, cron: '15 * * * *'}\n").unwrap();
    assert_eq!(
        publish(&repo, &[]).ok().stdout,
        "schedule/pilot-api configured\n"
    );
    let said = discover(&mesh, &roster).ok();
    assert_eq!(runs(&said), ["api on", "web coach"]);
    assert_eq!(said.json()["runs"][0]["cron"], "15 * * * *");

    fs::write(
        &file,
        "version: 1\nengagement: coulomb-loop\nagents: {coach: {cadence: hourly}}\n",
    )
    .unwrap();
    let said = publish(&repo, &[]).exits(1);
    assert!(
        said.stderr.contains(".kaizen/schedule.yml:3:"),
        "{}",
        said.stderr
    );

    // By the same document, like any other.
    let document = "kind: Schedule\nname: pilot-web\nversion: 1\nengagement: e\nagents: {coach: {cadence: weekly}}\n";
    mesh.apply(document).await;
    let said = discover(&mesh, &roster).ok();
    assert_eq!(said.json()["runs"][1]["cadence"], "weekly");
    let refused = mesh
        .try_apply(&[("s.yaml", &document.replace("weekly", "hourly"))])
        .await;
    assert!(
        refused
            .unwrap_err()
            .message()
            .contains("`hourly` is not a cadence")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn alignment_sees_repos_wherever_they_are() {
    let mesh = mesh().await;
    let remote = Remote::make(mesh.folder(), "pilot");
    remote.push(
        ".kaizen/schedule.yml",
        &COACH.replace("daily", "daily, cron: '15 * * * *'"),
    );
    mesh.apply("kind: Schedule\nname: web\nversion: 1\nengagement: coulomb-loop\nagents: {coach: {cadence: daily, cron: '20 * * * *'}}\n").await;
    let roster = roster(
        &mesh,
        &[
            json!({"name": "api", "git": remote.url()}),
            json!({"name": "web", "published": "web"}),
        ],
    );
    mesh.apply(&format!(
        "kind: ActivityDefinition\nid: hourly\ntrigger: {{type: cron, cron: '15 * * * *'}}\n\
         context_sources: [{{type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {{roster_path: {roster}}}}}]\n\
         rules: [{{id: r, for_each: context.runs, as: run, tasks: [{{queue: q, title: '{{{{ run.repo }}}}'}}]}}]\n"
    ))
    .await;
    let said = mesh.cli.run(&["schedule", "align", "-o", "json"]).exits(1);
    let pairs = said.json()["rosters"][0]["pairs"].clone();
    let verdicts: Vec<_> = pairs
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["repo"].clone(), p["verdict"].clone()))
        .collect();
    assert_eq!(
        verdicts,
        [
            (json!("api"), json!("equal")),
            (json!("web"), json!("drift"))
        ]
    );
}
