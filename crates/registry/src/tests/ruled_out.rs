//! Why an event does not concern a definition.

use kaizen_proto::id::EventType;

use super::{ORIENT, revision};
use crate::ruled_out;

fn event_trigger(enabled: bool, trigger: &str) -> String {
    format!(
        "kind: ActivityDefinition\nid: d\nenabled: {enabled}\ntrigger: {trigger}\n\
         rules: [{{id: r, tasks: [{{queue: q, title: t}}]}}]\n"
    )
}

fn told(yaml: &str) -> Option<(&'static str, String)> {
    let event_type: EventType = "shop.build.done".parse().unwrap();
    let out = ruled_out(&revision(yaml).value, &event_type)?;
    Some((out.reason(), out.to_string()))
}

#[test]
fn first_reason_is_told_with_the_nearest_pattern() {
    let event = |event_type: &str| {
        event_trigger(
            true,
            &format!("{{type: event, event_type: {event_type:?}}}"),
        )
    };
    let said = |reason, text: &str| Some((reason, text.to_owned()));
    assert_eq!(told(&event("shop.build.*")), None);
    assert_eq!(told(ORIENT), said("cron", "set off by cron 15 * * * *"));
    assert_eq!(
        told(&event("shop.builds.*")),
        said("event_type", "names shop.builds.*, which is near")
    );
    assert_eq!(
        told(&event("shop.bild.>")),
        said("event_type", "names shop.bild.>, which is near")
    );
    assert_eq!(
        told(&event("kaizen.metrics.recorded")),
        said("event_type", "names kaizen.metrics.recorded")
    );
    let joined = "{type: all, key: k, within: 1h, events: [{event_type: kaizen.metrics.recorded, as: m}, {event_type: shop.build.don, as: b}]}";
    assert_eq!(
        told(&event_trigger(true, joined)),
        said(
            "event_type",
            "names kaizen.metrics.recorded, shop.build.don; the nearest is shop.build.don"
        )
    );
    // Another type comes first: enabling it would not help.
    let other = "{type: event, event_type: parcel.weighed}";
    assert_eq!(
        told(&event_trigger(false, other)),
        said("event_type", "names parcel.weighed")
    );
    let same = "{type: event, event_type: shop.build.done}";
    assert_eq!(
        told(&event_trigger(false, same)),
        said("disabled", "names the event's type, but is disabled")
    );
}
