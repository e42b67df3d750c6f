//! Why a rule would not match, as `event dry-run` tells it.

use kaizen_tests::Mesh;
use serde_json::{Value, json};

const DEFINITIONS: &str = "kind: EventType\nname: shop.build.done\n---\n\
    kind: ActivityDefinition\nid: review\n\
    trigger: {type: event, event_type: shop.build.done}\n\
    context_sources: [{type: event-payload, bind_to: context.build}]\n\
    rules:\n\
    - {id: slow, when: context.build.seconds > 60 && context.build.branch == \"main\", tasks: [{queue: coach, title: Slow}]}\n\
    - {id: flaky, for_each: context.build.suites, as: suite, when: suite.failed > 0, tasks: [{queue: coach, title: \"{{ suite.name }}\"}]}\n\
    - {id: never, when: context.build.seconds > 60 && context.build.seconds < 6, tasks: [{queue: coach, title: Never}]}\n\
    - {id: broken, when: context.build.second > 60, tasks: [{queue: coach, title: Broken}]}\n---\n\
    kind: ActivityDefinition\nid: often\n\
    trigger: {type: event, event_type: shop.build.done}\n\
    rules:\n\
    - {id: often, when: event.attributes.seconds > 60, cooldown: {for: 1h}, tasks: [{queue: coach, title: Often}]}\n";

fn build(seconds: &Value) -> String {
    json!({"id": "1", "type": "shop.build.done", "source": "ci", "attributes": {
        "seconds": seconds, "branch": "main",
        "suites": [{"name": "unit", "failed": 0}, {"name": "e2e", "failed": 2}],
    }})
    .to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_says_why_a_rule_would_not_match_and_its_sample_makes_it_match() {
    let mesh = Mesh::start().await;
    mesh.apply(DEFINITIONS).await;
    let file = mesh.folder().join("build.json");
    let dry_run = ["event", "dry-run", "-f", file.to_str().unwrap()];
    let with_json = [&dry_run[..], &["-o", "json"]].concat();

    std::fs::write(&file, build(&json!(7))).unwrap();
    // A rule fails: its path is not there.
    let table = mesh.cli.run(&dry_run).exits(1).stdout;
    let told: Vec<Vec<&str>> = table
        .lines()
        .skip_while(|line| !line.contains("WHY NOT"))
        .take_while(|line| !line.is_empty())
        .map(|line| {
            line.split("   ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect()
        })
        .collect();
    assert_eq!(
        told,
        [
            vec!["DEFINITION", "RULE", "WHY NOT"],
            vec![
                "often",
                "often",
                "event.attributes.seconds is 7, needed > 60"
            ],
            vec!["review", "slow", "context.build.seconds is 7, needed > 60"],
            vec!["review", "flaky[0]", "suite.failed is 0, needed > 0"],
            vec!["review", "never", "cannot match, whatever the values"],
            vec![
                "review",
                "broken",
                "context.build.second is not there; the nearest: context.build.seconds, context.build.suites, context.build.branch",
            ],
        ],
        "{table}"
    );

    let previews = mesh.cli.run(&with_json).exits(1).json();
    let why_not = &previews[1]["why_not"];
    assert_eq!(
        why_not[0],
        json!({"rule": "slow", "why_not": {"kind": "flips", "smallest": true, "confirmed": true, "flips": [{
            "leaf": "context.build.seconds > 60", "subject": "context.build.seconds",
            "path": "context.build.seconds", "seen": 7, "needed": "> 60", "sample": 61,
        }]}})
    );
    assert_eq!(why_not[1]["item"], 0);
    assert_eq!(why_not[2]["why_not"]["kind"], "never");
    assert_eq!(why_not[3]["why_not"]["kind"], "missing");

    let sample = &why_not[0]["why_not"]["flips"][0]["sample"];
    std::fs::write(&file, build(sample)).unwrap();
    let previews = mesh.cli.run(&with_json).exits(1).json();
    let rules = previews[1]["decision"]["rules"].as_array().unwrap();
    assert_eq!(rules[0]["outcome"], "matched");
    assert_eq!(previews[0]["why_not"], json!([]));
}
