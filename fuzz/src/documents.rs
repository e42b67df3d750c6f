//! YAML documents of every kind.

use kaizen_document::{DIAGNOSTICS_MAX, Diagnostic};
use kaizen_registry::{Definition, Document, RegisteredType, View, parse_documents, warnings};
use serde_json::json;

use crate::text;

/// A file of documents, as `definition apply` reads it.
pub(crate) fn documents(bytes: &[u8]) {
    let Some(yaml) = text(bytes) else { return };
    match parse_documents("fuzz.yaml", yaml) {
        Ok(documents) => {
            _ = warnings(&View::default(), &documents);
            documents.iter().for_each(accepted);
        }
        Err(findings) => refused(&findings, yaml),
    }
}

/// What was accepted is stored as JSON, read back as strictly, and compiled.
fn accepted(document: &Document) {
    let stored = document.to_json();
    let read = Document::from_json(&stored);
    assert_eq!(read.as_ref(), Ok(document), "what is stored reads back");
    match document {
        Document::Definition(spec) => {
            let compiled = Definition::new(spec.clone()).expect("what was accepted compiles");
            _ = compiled.lane();
            _ = compiled.scheduled_runs();
        }
        Document::EventType(spec) => {
            let compiled = RegisteredType::new(spec.clone()).expect("what was accepted compiles");
            _ = compiled.violations(&json!({"agent": "coach", "list": [1, {"deep": null}]}));
        }
        _ => {}
    }
}

/// Findings name places in the file, in its order.
pub(crate) fn refused(findings: &[Diagnostic], yaml: &str) {
    assert!(!findings.is_empty(), "a refusal says why");
    assert!(findings.len() <= DIAGNOSTICS_MAX);
    let lines = yaml
        .split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}'])
        .count();
    for finding in findings {
        let line = usize::try_from(finding.line).unwrap_or(usize::MAX);
        assert!(
            (1..=lines + 1).contains(&line),
            "{finding:?} of {lines} lines"
        );
        assert!(finding.column >= 1, "{finding:?}");
        _ = finding.to_string();
    }
}
