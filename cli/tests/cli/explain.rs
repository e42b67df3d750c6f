//! `explain`: the words of it; that it is true is tested end to end.

use crate::{mesh::Mesh, sandbox::Sandbox};

const WEIGHED: &str = "\
kind: EventType
name: parcel.weighed
---
kind: ActivityDefinition
id: parcels
trigger: {type: event, event_type: parcel.weighed}
context_sources: [{type: event-payload, bind_to: context.parcel}]
rules:
  - {id: heavy, when: context.parcel.grams > 1000, tasks: [{queue: carriers, title: \"Carry {{ context.parcel.grams }} g\"}]}
  - {id: far, when: 'context.parcel.city == \"Perth\"', tasks: [{queue: carriers, title: Fly it}]}
---
kind: ActivityDefinition
id: letters
enabled: false
trigger: {type: event, event_type: parcel.*}
rules: [{id: r, tasks: [{queue: carriers, title: Carry it}]}]
";

#[test]
fn an_event_is_shown_with_each_rule_each_reason_and_the_state_of_each_task() {
    let sandbox = Sandbox::new();
    let mesh = Mesh::up(&sandbox);
    mesh.apply(WEIGHED);
    let event = r#"{"id":"1","type":"parcel.weighed","source":"scales","attributes":{"grams":2000,"city":"Bonn"}}"#;
    mesh.run_with(&["event", "publish", "-f", "-"], event).ok();
    mesh.await_entries(1, &["task", "list"]);
    let said = mesh
        .run(&["explain", "--event", "1", "--source", "scales"])
        .ok();
    assert_eq!(said.stderr, "");
    let (head, rest) = said.stdout.split_once("\n\n").unwrap();
    assert!(
        head.starts_with("Event    parcel.weighed 1 of scales\nStored   "),
        "{head}"
    );
    insta::assert_snapshot!(rest, @r#"
    DEFINITION   REVISION   LANE     BY           RULE    OUTCOME       WHY
    letters      4          -        -            -       ruled out     it was disabled by revision 4, in effect then
    parcels      3          direct   recomputed   heavy   matched       context.parcel.grams = 2000
    parcels      3          direct   recomputed   far     not matched   context.parcel.city = "Bonn"

    DEFINITION   RULE   WHY NOT
    parcels      far    context.parcel.city is "Bonn", needed == "Perth"

    DEFINITION   QUEUE      TITLE          TASK                                     STATE
    parcels      carriers   Carry 2000 g   fad5e637-9755-5858-9164-6d295f4aaf7d.0   open
    "#);
    let said = mesh.run(&["explain", "--event", "1", "--slot", "now"]);
    said.fails(2);
}
