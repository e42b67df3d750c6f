//! Expressions, templates and YAML far too long or too deep: refused in a few words, and the mesh
//! goes on.

use kaizen_proto::subject::{self, RegistryKind};
use kaizen_tests::Mesh;
use serde_json::json;

use crate::documents::{RECORDED, REVIEW, REVIEW_ID, bad_run_bytes};

/// Longest answer to a bad file, in bytes: it names what is wrong and repeats little of it.
const ANSWER_BYTES_MAX: usize = 2_000;

fn with_condition(condition: &str) -> String {
    let line = REVIEW
        .lines()
        .find(|line| line.trim_start().starts_with("when:"))
        .unwrap();
    let indent = &line[..line.len() - line.trim_start().len()];
    REVIEW.replace(line, &format!("{indent}when: {}", json!(condition)))
}

fn with_title(title: &str) -> String {
    let line = REVIEW
        .lines()
        .find(|line| line.trim_start().starts_with("title:"))
        .unwrap();
    let indent = &line[..line.len() - line.trim_start().len()];
    REVIEW.replace(line, &format!("{indent}title: {}", json!(title)))
}

fn deep(open: &str, n: usize, inside: &str, close: &str) -> String {
    format!("{}{inside}{}", open.repeat(n), close.repeat(n))
}

/// Files that no mesh takes, and what is said of them.
fn files() -> Vec<(&'static str, String, &'static str)> {
    let chain = |n: usize| format!("1 == 1{}", " && 1 == 1".repeat(n));
    let blocks =
        |n: usize| -> String { (0..n).map(|n| format!("{}a:\n", " ".repeat(n))).collect() };
    vec![
        (
            "a condition of a million characters",
            with_condition(&"x".repeat(1_000_000)),
            "condition of 1000000 bytes exceeds 1024",
        ),
        (
            "a chain of a million characters",
            with_condition(&chain(99_999)),
            "bytes exceeds 1024",
        ),
        (
            "a condition 10,000 brackets deep",
            with_condition(&deep("(", 10_000, "true", ")")),
            "condition of 20004 bytes exceeds 1024",
        ),
        (
            "10,000 macros deep",
            with_condition(&deep("event.l.all(x, ", 10_000, "true", ")")),
            "bytes exceeds 1024",
        ),
        (
            "as deep as a condition has room for",
            with_condition(&deep("(", 510, "true", ")")),
            "condition nests 510 deep, which exceeds 16",
        ),
        (
            "as long a sum as it has room for",
            with_condition(&format!("1{} > 1", "+1".repeat(500))),
            "chains more than 100 operations",
        ),
        (
            "a title of a million characters",
            with_title(&"x".repeat(1_000_000)),
            "template of 1000000 bytes exceeds 16384",
        ),
        (
            "a title 10,000 brackets deep",
            with_title(&format!("{{{{ {} }}}}", deep("(", 8_000, "1", ")"))),
            "not a template",
        ),
        ("lists 10,000 deep", deep("[", 10_000, "", "]"), ""),
        ("mappings 10,000 deep", deep("{a: ", 10_000, "1", "}"), ""),
        ("items 10,000 deep", "- ".repeat(10_000), ""),
        ("blocks 1,000 deep", blocks(1_000), ""),
        (
            "filters 10,000 deep",
            REVIEW.replace(
                "event_type: kaizen.metrics.recorded",
                &format!(
                    "event_type: kaizen.metrics.recorded, filters: [{}]",
                    deep("{not: ", 10_000, "{exact: {id: a}}", "}")
                ),
            ),
            "",
        ),
        (
            "more than a mebibyte",
            format!("{REVIEW}# {}\n", "x".repeat(1024 * 1024)),
            "exceeds 1048576",
        ),
        (
            "blocks 10,000 deep, more than a message may hold",
            blocks(10_000),
            "file of 50025000 bytes exceeds 1048576",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_far_too_large_or_deep_is_refused_in_a_few_words_and_the_mesh_lives() {
    let mesh = Mesh::start().await;
    let before = mesh.stored.last_sequence("REGISTRY").await;
    let file = mesh.folder().join("large.yaml");
    for (what, yaml, expected) in files() {
        std::fs::write(&file, &yaml).unwrap();
        let path = file.to_str().unwrap();
        for args in [
            &["definition", "apply", "-f", path][..],
            &["definition", "apply", "-f", path, "--dry-run"],
        ] {
            let said = mesh.cli.run(args);
            assert_eq!(said.code, 1, "{what}: {}", said.stderr);
            assert!(said.stdout.is_empty(), "{what}");
            assert!(
                said.stderr.contains("large.yaml:"),
                "{what}: {}",
                said.stderr
            );
            assert!(said.stderr.contains(expected), "{what}: {}", said.stderr);
            assert!(
                said.stderr.len() < ANSWER_BYTES_MAX,
                "{what}: {}",
                said.stderr
            );
        }
        // Whoever speaks to the API without the command line gets no further.
        let refused = mesh.try_apply(&[("large.yaml", &yaml)]).await.unwrap_err();
        let codes = [tonic::Code::InvalidArgument, tonic::Code::OutOfRange];
        assert!(codes.contains(&refused.code()), "{what}: {refused:?}");
    }
    assert_eq!(mesh.stored.last_sequence("REGISTRY").await, before);
    works(&mesh).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_far_too_deep_in_the_registry_itself_harms_no_reader() {
    let mesh = Mesh::start().await;
    let task = json!({"queue": "coach", "title": "a"});
    let document = |when: &str| {
        json!({"kind": "ActivityDefinition", "id": "deep", "enabled": true,
            "trigger": {"type": "event", "event_type": "kaizen.metrics.recorded"},
            "context_sources": [], "rules": [{"id": "r", "when": when, "tasks": [task]}]})
        .to_string()
    };
    for payload in [
        document(&deep("(", 10_000, "true", ")")),
        document(&deep("(", 500, "true", ")")),
        document(&"x".repeat(900_000)),
        deep("[", 100_000, "", "]"),
        deep("{\"a\":", 100_000, "1", "}"),
    ] {
        let subject = subject::registry(RegistryKind::Definition, "deep");
        mesh.publish(&subject, payload.as_bytes()).await;
    }
    works(&mesh).await;
    let listed = mesh
        .cli
        .run(&["definition", "list", "-o", "json"])
        .ok()
        .json();
    let ids: Vec<_> = listed
        .as_array()
        .unwrap()
        .iter()
        .map(|d| &d["id"])
        .collect();
    assert_eq!(ids, [REVIEW_ID]);
}

/// A definition is applied, and an event orders its task.
async fn works(mesh: &Mesh) {
    mesh.apply(REVIEW).await;
    mesh.publish(RECORDED, &bad_run_bytes("after")).await;
    mesh.stored.settled().await;
    assert_eq!(mesh.stored.tasks(REVIEW_ID).await.len(), 1);
    assert!(mesh.stored.dead().await.is_empty());
}
