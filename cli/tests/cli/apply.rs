//! `definition apply`: all documents or none, and each error with its place.

use crate::{mesh::Mesh, sandbox::Sandbox};

const APPLY: [&str; 4] = ["definition", "apply", "-f", "engagement"];

#[test]
fn folder_is_created_then_unchanged_then_configured() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    let said = mesh.run(&APPLY).ok();
    insta::assert_snapshot!(said.stdout, @"
    activitydefinition/hourly-coach-orientation created
    activitydefinition/hourly-metrics-optimize created
    activitydefinition/hourly-optimization-review created
    activitydefinition/low-success-rate-review created
    engagement/coulomb-loop created
    ");
    insta::assert_snapshot!(said.stderr, @"skipped engagement/loops/kaizen-stack/roster.yaml: no document with `kind:`");

    let again = mesh.run(&[&APPLY[..], &["-o", "json"]].concat()).ok();
    let unchanged = again.json();
    for applied in unchanged.as_array().unwrap() {
        assert_eq!(applied["action"], "unchanged", "{applied}");
    }

    let file = "engagement/definitions/hourly-coach-orientation.yaml";
    let later = sandbox.read(file).replace("15 * * * *", "20 * * * *");
    sandbox.write(file, &later);
    let said = mesh.run(&APPLY).ok();
    insta::assert_snapshot!(said.stdout, @"
    activitydefinition/hourly-coach-orientation configured
    activitydefinition/hourly-metrics-optimize unchanged
    activitydefinition/hourly-optimization-review unchanged
    activitydefinition/low-success-rate-review unchanged
    engagement/coulomb-loop unchanged
    ");
    // Only what changed is stored anew: five documents and a built-in event type stood before.
    let changed = mesh.run(&[
        "definition",
        "get",
        "hourly-coach-orientation",
        "-o",
        "json",
    ]);
    let changed = changed.ok().json();
    assert_eq!(changed["revision"], 7);
    assert_eq!(changed["trigger"], "cron 20 * * * *");
    let others = mesh.run(&["definition", "get", "hourly-metrics-optimize", "-o", "json"]);
    let revision = others.ok().json()["revision"].as_u64().unwrap();
    assert!((2..7).contains(&revision), "{revision}");
}

#[test]
fn dry_run_judges_as_apply_does_and_stores_nothing() {
    let sandbox = Sandbox::new();
    sandbox.copy_engagement();
    let mesh = Mesh::up(&sandbox);
    let dry = mesh.run(&[&APPLY[..], &["--dry-run"]].concat()).ok();
    insta::assert_snapshot!(dry.stdout, @"
    activitydefinition/hourly-coach-orientation created (dry run)
    activitydefinition/hourly-metrics-optimize created (dry run)
    activitydefinition/hourly-optimization-review created (dry run)
    activitydefinition/low-success-rate-review created (dry run)
    engagement/coulomb-loop created (dry run)
    ");
    assert_eq!(mesh.run(&["definition", "list"]).ok().stdout, "");
    let created = mesh.run(&APPLY).ok();
    assert_eq!(dry.stdout.replace(" (dry run)", ""), created.stdout);
}

#[test]
fn folders_are_read_in_order_and_without_what_is_hidden_or_has_no_kind() {
    let sandbox = Sandbox::new();
    sandbox.write("engagement/b.yaml", &ticking("b"));
    sandbox.write("engagement/a/z.yml", "kind: EventType\nname: a.b\n");
    sandbox.write("engagement/roster.yaml", "repos: []\n");
    sandbox.write("engagement/README.md", "kind: of\n");
    sandbox.write("engagement/.hidden/c.yaml", "kind: EventType\n");
    let mesh = Mesh::up(&sandbox);
    let said = mesh.run(&APPLY).ok();
    assert_eq!(
        said.stdout,
        "eventtype/a.b created\nactivitydefinition/b created\n"
    );
    assert_eq!(
        said.stderr,
        "skipped engagement/roster.yaml: no document with `kind:`\n"
    );
}

fn ticking(id: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: {id}\ntrigger: {{type: cron, cron: \"15 * * * *\"}}\n\
         rules: [{{id: always, tasks: [{{queue: coach, title: Do it}}]}}]\n"
    )
}

#[test]
fn every_error_is_shown_with_its_place_and_nothing_is_stored() {
    let sandbox = Sandbox::new();
    sandbox.write("engagement/good.yaml", &ticking("good"));
    sandbox.write(
        "engagement/bad.yaml",
        "kind: ActivityDefinition\nid: bad\ntrigger: {type: cron, cron: \"15 * * *\"}\n\
         rules:\n  - id: low\n    wen: context.x < 1\n    tasks: [{queue: coach, title: Do it}]\n",
    );
    sandbox.write(
        "engagement/worse.yaml",
        "kind: EventType\nname: a.b\nmode: of\n---\nkind: EventTyp\nname: a.c\n",
    );
    let mesh = Mesh::up(&sandbox);
    let said = mesh.run(&APPLY).fails(1);
    assert_eq!(said.stdout, "");
    insta::assert_snapshot!(said.stderr, @r#"
    engagement/bad.yaml:3:29: trigger.cron: cron expression "15 * * *" has 4 fields: use five (minute, hour, day of month, month, day of week), or six with the second in front
        15 * * *
                ^
    engagement/bad.yaml:6:5: rules[0].wen: unknown key `wen`; did you mean `when`?
    engagement/worse.yaml:3:7: mode: unknown mode "of"; use enforce, warn or off
    engagement/worse.yaml:5:7: kind: unknown kind "EventTyp"; did you mean `EventType`?
    error: refused, nothing is stored: 4 errors
    "#);
    assert_eq!(mesh.run(&["definition", "list"]).ok().stdout, "");
}

#[test]
fn a_single_error_is_said_once() {
    let sandbox = Sandbox::new();
    sandbox.write("bad.yaml", "kind: ActivityDefinition\nid: bad\n  x: [\n");
    let mesh = Mesh::up(&sandbox);
    let said = mesh
        .run(&["definition", "apply", "-f", "bad.yaml"])
        .fails(1);
    insta::assert_snapshot!(said.stderr, @"
    bad.yaml:3:4: mapping values are not allowed in this context
    error: refused, nothing is stored
    ");
}

#[test]
fn stdin_may_hold_several_documents() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    let documents = format!("kind: EventType\nname: a.b\n---\n{}", ticking("b"));
    let args = ["definition", "apply", "-f", "-", "-o", "json"];
    let said = mesh.run_with(&args, &documents).ok();
    insta::assert_snapshot!(said.stdout, @r#"
    [
      {
        "kind": "EventType",
        "name": "a.b",
        "action": "created",
        "revision": 2
      },
      {
        "kind": "ActivityDefinition",
        "name": "b",
        "action": "created",
        "revision": 3
      }
    ]
    "#);
    let said = mesh.run_with(&args, "kind: EventType\nnam: a.b\n").fails(1);
    insta::assert_snapshot!(said.stderr, @"
    stdin:1:1: name: `name` is required
    stdin:2:1: nam: unknown key `nam`; did you mean `name`?
    error: refused, nothing is stored: 2 errors
    ");
}

#[test]
fn apply_of_nothing_is_an_error_without_any_server() {
    let sandbox = Sandbox::new();
    sandbox.write("empty/roster.yaml", "repos: []\n");
    let said = sandbox
        .run(&["definition", "apply", "-f", "empty"])
        .fails(1);
    insta::assert_snapshot!(said.stderr, @"
    skipped empty/roster.yaml: no document with `kind:`
    error: nothing to read in empty: no .yaml or .yml file there has a document with `kind:`
    ");
    let said = sandbox
        .run(&["definition", "apply", "-f", "nowhere.yaml"])
        .fails(1);
    insta::assert_snapshot!(said.stderr, @"error: cannot read nowhere.yaml: No such file or directory (os error 2)");
}
