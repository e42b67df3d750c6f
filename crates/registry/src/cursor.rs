//! From when on a revision's slots count.

use jiff::Timestamp;
use kaizen_proto::record::{Cursor, TickRecord};

use crate::{
    definition::Definition,
    view::{Revision, View},
};

/// The cursor record that `revision` needs behind `last`, the definition's last message in
/// TICKS; `None` where it needs none. A change of the trigger, or of whether the definition is
/// enabled, starts the slots at the change; any other change leaves them where they were.
#[must_use]
pub fn cursor_for(
    view: &View,
    revision: &Revision<Definition>,
    last: Option<&TickRecord>,
) -> Option<Cursor> {
    let definition = &revision.value;
    let Some(last) = last else {
        let scheduled = definition.enabled() && definition.schedule().is_some();
        return scheduled.then(|| Cursor {
            revision: revision.number,
            after: revision.at,
            previous_slot: None,
            why: "created".to_owned(),
            ..Cursor::default()
        });
    };
    if last.revision() >= revision.number {
        return None;
    }
    let (why, after) = match last_change(view, revision, last.revision()) {
        // Never behind a slot that was ticked: slots strictly increase.
        Some((why, at)) => (why, at.max(last.after())),
        None => ("revised", last.after()),
    };
    Some(Cursor {
        revision: revision.number,
        after,
        previous_slot: last.last_slot(),
        why: why.to_owned(),
        paused: last.paused().cloned(),
        ..Cursor::default()
    })
}

/// The last change between revision `since` and this one that starts the slots anew, with its
/// time. All that came between counts: a definition that was disabled and enabled again has
/// missed nothing in between, although both ends look alike.
fn last_change(
    view: &View,
    revision: &Revision<Definition>,
    since: u64,
) -> Option<(&'static str, Timestamp)> {
    let stood: Vec<_> = view.definition_since(revision.value.id(), since).collect();
    if stood.is_empty() {
        return Some((TRIGGER_CHANGED, revision.at));
    }
    stood.windows(2).rev().find_map(|pair| {
        let [(_, before), (at, after)] = pair else {
            return None;
        };
        let why = change(before.map(|b| &b.value), after.map(|a| &a.value))?;
        Some((why, *at))
    })
}

const TRIGGER_CHANGED: &str = "trigger_changed";

fn change(before: Option<&Definition>, after: Option<&Definition>) -> Option<&'static str> {
    match (before, after) {
        (Some(before), Some(after)) if before.enabled() != after.enabled() => {
            Some(if after.enabled() {
                "enabled"
            } else {
                "disabled"
            })
        }
        (Some(before), Some(after)) if before.trigger() == after.trigger() => None,
        _ => Some(TRIGGER_CHANGED),
    }
}

#[cfg(test)]
mod tests {
    use kaizen_proto::{record::Tick, subject, subject::RegistryKind};

    use super::*;
    use crate::{document::parse_documents, view::StoredRevision};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn definition(cron: &str, enabled: bool, title: &str) -> String {
        format!(
            "kind: ActivityDefinition\nid: d\nenabled: {enabled}\n\
             trigger: {{type: cron, cron: \"{cron}\"}}\n\
             rules: [{{id: r, tasks: [{{queue: q, title: {title}}}]}}]\n"
        )
    }

    /// A view that holds these revisions as numbers 1, 2, … stored at seconds 100, 200, …
    fn view(revisions: &[String]) -> View {
        let mut view = View::default();
        for (number, yaml) in (1_u64..).zip(revisions) {
            let document = parse_documents("d.yaml", yaml).unwrap().remove(0);
            view.apply(StoredRevision {
                sequence: number,
                stored_at: at(100 * i64::try_from(number).unwrap()),
                subject: &subject::registry(RegistryKind::Definition, "d"),
                payload: document.to_json().to_string().as_bytes(),
                more: false,
            })
            .unwrap();
        }
        view
    }

    fn cursor(revisions: &[String], last: Option<&TickRecord>) -> Option<Cursor> {
        let view = view(revisions);
        let latest = view.definition(&"d".parse().unwrap()).unwrap();
        cursor_for(&view, &latest, last)
    }

    fn tick(revision: u64, slot: i64) -> TickRecord {
        let (previous_slot, skipped) = (None, Vec::new());
        TickRecord::Tick(Tick {
            slot: at(slot),
            revision,
            previous_slot,
            skipped,
        })
    }

    #[test]
    fn new_definition_never_ticks_from_the_past() {
        let made = cursor(&[definition("* * * * *", true, "t")], None).unwrap();
        assert_eq!(
            (made.revision, made.after, made.why.as_str()),
            (1, at(100), "created")
        );
        assert_eq!(cursor(&[definition("* * * * *", false, "t")], None), None);
    }

    #[test]
    fn changed_title_keeps_the_slots_that_are_still_due() {
        let revisions = [
            definition("* * * * *", true, "t"),
            definition("* * * * *", true, "u"),
        ];
        let made = cursor(&revisions, Some(&tick(1, 120))).unwrap();
        assert_eq!(
            (made.revision, made.after, made.why.as_str()),
            (2, at(120), "revised")
        );
        assert_eq!(made.previous_slot, Some(at(120)));
    }

    #[test]
    fn changed_trigger_or_enabling_starts_at_the_change() {
        let minutely = || definition("* * * * *", true, "t");
        let changed = [minutely(), definition("*/2 * * * *", true, "t")];
        let made = cursor(&changed, Some(&tick(1, 120))).unwrap();
        assert_eq!(
            (made.after, made.why.as_str()),
            (at(200), "trigger_changed")
        );
        let disabled = [minutely(), definition("* * * * *", false, "t")];
        let made = cursor(&disabled, Some(&tick(1, 120))).unwrap();
        assert_eq!((made.after, made.why.as_str()), (at(200), "disabled"));
        let late = cursor(&disabled, Some(&tick(1, 240))).unwrap();
        assert_eq!(late.after, at(240), "never behind a slot that was ticked");
    }

    #[test]
    fn what_was_between_counts_although_both_ends_look_alike() {
        let on = || definition("* * * * *", true, "t");
        let off = definition("* * * * *", false, "t");
        // Whoever disabled it died before the cursor record.
        let made = cursor(&[on(), off, on()], Some(&tick(1, 120))).unwrap();
        assert_eq!((made.after, made.why.as_str()), (at(300), "enabled"));
        let other = definition("*/2 * * * *", true, "t");
        let retitled = definition("*/2 * * * *", true, "u");
        let made = cursor(&[on(), other, retitled], Some(&tick(1, 120))).unwrap();
        assert_eq!(
            (made.revision, made.after),
            (3, at(200)),
            "from the change on, no later"
        );
        assert_eq!(made.why, "trigger_changed");
    }

    #[test]
    fn cursor_of_this_revision_or_a_later_one_needs_no_other() {
        assert_eq!(
            cursor(&[definition("* * * * *", true, "t")], Some(&tick(1, 120))),
            None
        );
        assert_eq!(
            cursor(&[definition("* * * * *", true, "t")], Some(&tick(9, 120))),
            None
        );
    }
}
