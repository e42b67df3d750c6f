//! Schemas for editors.

use serde_json::Value;

use crate::sandbox::Sandbox;

#[test]
fn every_listed_schema_is_printed_and_written_alike() {
    let sandbox = Sandbox::new();
    let written = sandbox
        .type_in("kaizen-agentic schema --write schemas")
        .ok();
    assert_eq!(written.stdout, "");
    let listed = sandbox.type_in("kaizen-agentic schema -o json").ok();
    let listed: Vec<Value> = serde_json::from_str(&listed.stdout).unwrap();
    let names: Vec<_> = listed
        .iter()
        .map(|format| format["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"schedule"), "{names:?}");
    for name in &names {
        let printed = sandbox
            .type_in(&format!("kaizen-agentic schema {name}"))
            .ok();
        assert_eq!(
            printed.stdout,
            sandbox.read(&format!("schemas/{name}.json"))
        );
        let schema: Value = serde_json::from_str(&printed.stdout).unwrap();
        assert!(schema["title"].is_string(), "{name}");
    }
    assert_eq!(sandbox.names("schemas").len(), names.len());
}

#[test]
fn a_format_that_is_not_there_is_a_usage_error_that_names_those_that_are() {
    let said = Sandbox::new().type_in("kaizen-agentic schema rooster");
    assert_eq!(said.code, 2);
    assert!(said.stderr.contains("roster, schedule"), "{}", said.stderr);
}
