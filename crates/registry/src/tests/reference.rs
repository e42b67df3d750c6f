//! The examples of the reference are documents.

use kaizen_document::{Diagnostic, read_all};
use serde_json::Value;

use crate::{Definition, Document, parse_documents, schema::Format};

const REFERENCE: &str = include_str!("../../../../docs/reference/definitions.md");

/// What stands in front of an example that shows rules alone.
const BEFORE_RULES: &str = "kind: ActivityDefinition\nid: example\n\
    trigger: {type: event, event_type: kaizen.metrics.recorded}\n\
    context_sources: [{type: event-payload, bind_to: context.metrics}]\n";

/// The YAML of each fenced example, with the line of the page on which it begins.
fn examples() -> Vec<(usize, &'static str)> {
    let mut examples = Vec::new();
    let mut rest = REFERENCE;
    while let Some((before, after)) = rest.split_once("```yaml\n") {
        let (example, next) = after.split_once("```").unwrap();
        let start = REFERENCE.len() - rest.len() + before.len();
        examples.push((REFERENCE[..start].lines().count() + 2, example));
        rest = next;
    }
    examples
}

/// The documents of an example; none where it shows no document.
fn read(example: &str) -> Result<Vec<Document>, Vec<Diagnostic>> {
    if example.starts_with("kind:") {
        parse_documents("definitions.md", example)
    } else if example.starts_with("rules:") {
        parse_documents("definitions.md", &format!("{BEFORE_RULES}{example}"))
    } else {
        assert!(example.starts_with("version:"), "what is this?\n{example}");
        Ok(Vec::new())
    }
}

#[test]
fn every_example_applies() {
    let mut count = 0;
    for (line, example) in examples() {
        let documents = read(example).unwrap_or_else(|found| panic!("line {line}: {found:#?}"));
        for document in documents {
            // What REGISTRY stores of it reads back as the same.
            assert_eq!(
                Document::from_json(&document.to_json()),
                Ok(document.clone())
            );
            if let Document::Definition(spec) = document {
                Definition::new(spec).unwrap();
            }
            count += 1;
        }
    }
    assert!(count >= 6, "only {count} documents were found");
}

/// The YAML as JSON, as an editor sees it.
fn as_json(yaml: &str) -> Vec<Value> {
    read_all("definitions.md", yaml, |node, _, _| Some(node.to_json())).unwrap()
}

#[test]
fn every_example_is_true_to_its_schema() {
    for (line, example) in examples() {
        let (format, yaml) = if example.starts_with("rules:") {
            (Format::Document, format!("{BEFORE_RULES}{example}"))
        } else if example.starts_with("version:") {
            (Format::Roster, example.to_owned())
        } else {
            (Format::Document, example.to_owned())
        };
        let validator = jsonschema::validator_for(&format.schema()).unwrap();
        for document in as_json(&yaml) {
            let errors: Vec<_> = validator.iter_errors(&document).collect();
            assert!(errors.is_empty(), "line {line}: {errors:#?}");
        }
    }
}
