//! From when on a revision's slots count, and what somebody who asks may change about it.

use jiff::Timestamp;
use kaizen_proto::{
    id::DefinitionId,
    record::{Cursor, Paused, TickRecord},
};

use crate::{
    definition::Definition,
    view::{Revision, View},
};

/// What [`Cursor::why`] says.
pub mod why {
    /// The definition is new, or its ticks are: slots start at its revision.
    pub const CREATED: &str = "created";
    /// It was enabled: slots start then. What was between is not missed.
    pub const ENABLED: &str = "enabled";
    /// It was disabled: whoever still means to tick it is refused.
    pub const DISABLED: &str = "disabled";
    /// Its trigger is another: slots start at the change.
    pub const TRIGGER_CHANGED: &str = "trigger_changed";
    /// Anything else in it changed: the slots stay where they were, the next tick names the new
    /// revision.
    pub const REVISED: &str = "revised";
    /// It was deleted: whoever still means to tick it is refused.
    pub const DELETED: &str = "deleted";
    /// Somebody paused it: nothing is ticked until it is resumed. Moves no slot.
    pub const PAUSED: &str = "paused";
    /// Somebody resumed it: slots start then. What was in the pause is not missed.
    pub const RESUMED: &str = "resumed";
    /// Somebody moved the cursor by hand: slots start where they said.
    pub const RESET: &str = "reset";
}

/// Longest note, and longest name of who asks, in bytes.
pub const NOTE_BYTES_MAX: usize = 1_024;

/// Why a cursor is not changed as somebody asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CursorRefusal {
    /// There are no slots.
    #[error("definition {0} has no cron trigger, so it is never ticked: disable it instead")]
    NotScheduled(DefinitionId),
    /// It is paused already.
    #[error(
        "definition {definition} is paused since {}{}: resume it first with `tick resume {definition}`",
        paused.since, said(&paused.by, &paused.note)
    )]
    AlreadyPaused {
        /// The definition.
        definition: DefinitionId,
        /// By whom, since when and why.
        paused: Paused,
    },
    /// There is nothing to resume.
    #[error("definition {0} is not paused")]
    NotPaused(DefinitionId),
    /// A reset would have slots ticked twice.
    #[error(
        "definition {definition} cannot be reset to {after}: its slots up to {floor} are done, and none is ticked twice; use `tick backfill {definition}` for slots of the past"
    )]
    ResetBehind {
        /// The definition.
        definition: DefinitionId,
        /// Where it was to be reset to.
        after: Timestamp,
        /// The earliest that it can be reset to.
        floor: Timestamp,
    },
    /// The stream knows a later revision than who asks.
    #[error(
        "definition {definition} stands at revision {stands}, which is later than the {known} known here: try again"
    )]
    Outdated {
        /// The definition.
        definition: DefinitionId,
        /// Revision of the last record.
        stands: u64,
        /// Revision that was given.
        known: u64,
    },
    /// A text from outside is too long.
    #[error("{what} of {len} bytes exceeds {NOTE_BYTES_MAX}")]
    TooLong {
        /// `note` or `name`.
        what: &'static str,
        /// Its length.
        len: usize,
    },
}

/// ` by alice: why`, as far as it is known.
fn said(by: &str, note: &str) -> String {
    let mut said = String::new();
    for (before, text) in [(" by ", by), (" (", note)] {
        if !text.is_empty() {
            said.push_str(before);
            said.push_str(text);
        }
    }
    if !note.is_empty() {
        said.push(')');
    }
    said
}

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
            why: why::CREATED.to_owned(),
            ..Cursor::default()
        });
    };
    if last.revision() >= revision.number {
        return None;
    }
    let (why, after) = match last_change(view, revision, last.revision()) {
        // Never behind a slot that was ticked: slots strictly increase.
        Some((why, at)) => (why, at.max(last.after())),
        None => (why::REVISED, last.after()),
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

/// The cursor record that a removed definition needs behind `last`, its last message in TICKS;
/// `None` where it stands, was never ticked, or needs none. A pause outlasts it: who brings the
/// definition back may not know of it, but sees it.
#[must_use]
pub fn removal_cursor(view: &View, id: &DefinitionId, last: Option<&TickRecord>) -> Option<Cursor> {
    let last = last?;
    let (number, at) = view.definition_removed(id)?;
    (last.revision() < number).then(|| Cursor {
        revision: number,
        after: at.max(last.after()),
        previous_slot: last.last_slot(),
        why: why::DELETED.to_owned(),
        paused: last.paused().cloned(),
        ..Cursor::default()
    })
}

/// The record that pauses a definition at `at`, behind `last`, its last message in TICKS. The
/// slots stay where they are: which were left out is settled when it is resumed.
///
/// # Errors
/// It is paused already, is never ticked, or `last` is of a later revision.
pub fn pause_cursor(
    view: &View,
    revision: &Revision<Definition>,
    last: Option<&TickRecord>,
    at: Timestamp,
    by: &str,
    note: &str,
) -> Result<Cursor, CursorRefusal> {
    let stands = standing(view, revision, last)?;
    if let Some(paused) = stands.paused {
        let definition = revision.value.id().clone();
        return Err(CursorRefusal::AlreadyPaused { definition, paused });
    }
    let paused = Paused {
        since: at,
        by: by.to_owned(),
        note: note.to_owned(),
    };
    Ok(Cursor {
        paused: Some(paused),
        ..asked_for(stands, why::PAUSED, by, note)?
    })
}

/// The record that resumes a definition at `at`, behind `last`. Slots start at `at`: a pause is
/// not missed time.
///
/// # Errors
/// It is not paused, is never ticked, or `last` is of a later revision.
pub fn resume_cursor(
    view: &View,
    revision: &Revision<Definition>,
    last: Option<&TickRecord>,
    at: Timestamp,
    by: &str,
    note: &str,
) -> Result<Cursor, CursorRefusal> {
    let stands = standing(view, revision, last)?;
    if stands.paused.is_none() {
        return Err(CursorRefusal::NotPaused(revision.value.id().clone()));
    }
    Ok(Cursor {
        after: at.max(stands.after),
        paused: None,
        ..asked_for(stands, why::RESUMED, by, note)?
    })
}

/// The record that has slots start strictly after `after`, behind `last`: forward, which leaves
/// slots out, or back, which has those due again that a change, a pause or a reset left out.
/// Never behind the slot ticked last, or, where none was, the revision: slots strictly increase.
/// A paused definition stays paused.
///
/// # Errors
/// `after` is too early, the definition is never ticked, or `last` is of a later revision.
pub fn reset_cursor(
    view: &View,
    revision: &Revision<Definition>,
    last: Option<&TickRecord>,
    after: Timestamp,
    by: &str,
    note: &str,
) -> Result<Cursor, CursorRefusal> {
    let stands = standing(view, revision, last)?;
    let begin = revision.at.min(stands.after);
    let floor = stands.previous_slot.unwrap_or(begin);
    if after < floor {
        return Err(CursorRefusal::ResetBehind {
            definition: revision.value.id().clone(),
            after,
            floor,
        });
    }
    Ok(Cursor {
        after,
        ..asked_for(stands, why::RESET, by, note)?
    })
}

/// Where the definition stands under `revision`: the record that it lacks, or else its last one
/// as a cursor.
fn standing(
    view: &View,
    revision: &Revision<Definition>,
    last: Option<&TickRecord>,
) -> Result<Cursor, CursorRefusal> {
    let definition = revision.value.id();
    if revision.value.schedule().is_none() {
        return Err(CursorRefusal::NotScheduled(definition.clone()));
    }
    if let Some(last) = last.filter(|last| last.revision() > revision.number) {
        return Err(CursorRefusal::Outdated {
            definition: definition.clone(),
            stands: last.revision(),
            known: revision.number,
        });
    }
    let lacking = cursor_for(view, revision, last);
    Ok(lacking.unwrap_or_else(|| Cursor {
        revision: revision.number,
        after: last.map_or(revision.at, TickRecord::after),
        previous_slot: last.and_then(TickRecord::last_slot),
        paused: last.and_then(TickRecord::paused).cloned(),
        ..Cursor::default()
    }))
}

fn asked_for(stands: Cursor, why: &str, by: &str, note: &str) -> Result<Cursor, CursorRefusal> {
    for (what, text) in [("name", by), ("note", note)] {
        if text.len() > NOTE_BYTES_MAX {
            let len = text.len();
            return Err(CursorRefusal::TooLong { what, len });
        }
    }
    Ok(Cursor {
        why: why.to_owned(),
        by: by.to_owned(),
        note: note.to_owned(),
        ..stands
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
        return Some((why::TRIGGER_CHANGED, revision.at));
    }
    stood.windows(2).rev().find_map(|pair| {
        let [(_, before), (at, after)] = pair else {
            return None;
        };
        let why = change(before.map(|b| &b.value), after.map(|a| &a.value))?;
        Some((why, *at))
    })
}

fn change(before: Option<&Definition>, after: Option<&Definition>) -> Option<&'static str> {
    match (before, after) {
        (Some(before), Some(after)) if before.enabled() != after.enabled() => {
            Some(if after.enabled() {
                why::ENABLED
            } else {
                why::DISABLED
            })
        }
        (Some(before), Some(after)) if before.trigger() == after.trigger() => None,
        _ => Some(why::TRIGGER_CHANGED),
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

    const BY: (&str, &str) = ("alice", "the repos move");

    type Build = fn(
        &View,
        &Revision<Definition>,
        Option<&TickRecord>,
        Timestamp,
        &str,
        &str,
    ) -> Result<Cursor, CursorRefusal>;

    fn ask(
        build: Build,
        revisions: &[String],
        last: Option<&TickRecord>,
        second: i64,
    ) -> Result<Cursor, CursorRefusal> {
        let view = view(revisions);
        let latest = view.definition(&"d".parse().unwrap()).unwrap();
        build(&view, &latest, last, at(second), BY.0, BY.1)
    }

    fn minutely() -> String {
        definition("* * * * *", true, "t")
    }

    fn paused() -> TickRecord {
        TickRecord::Cursor(ask(pause_cursor, &[minutely()], Some(&tick(1, 120)), 150).unwrap())
    }

    #[test]
    fn pause_says_by_whom_and_moves_no_slot() {
        let made = ask(pause_cursor, &[minutely()], Some(&tick(1, 120)), 150).unwrap();
        assert_eq!((made.why.as_str(), made.after), (why::PAUSED, at(120)));
        assert_eq!((made.revision, made.previous_slot), (1, Some(at(120))));
        let paused = made.paused.unwrap();
        assert_eq!(paused.since, at(150));
        assert_eq!((paused.by.as_str(), paused.note.as_str()), BY);
        assert_eq!((made.by.as_str(), made.note.as_str()), BY);
    }

    #[test]
    fn second_pause_is_refused_and_says_who_paused() {
        let refused = ask(pause_cursor, &[minutely()], Some(&paused()), 200).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "definition d is paused since 1970-01-01T00:02:30Z by alice (the repos move): \
             resume it first with `tick resume d`"
        );
    }

    #[test]
    fn resumed_definition_has_missed_nothing() {
        let made = ask(resume_cursor, &[minutely()], Some(&paused()), 500).unwrap();
        assert_eq!((made.why.as_str(), made.after), (why::RESUMED, at(500)));
        assert_eq!((made.paused, made.previous_slot), (None, Some(at(120))));
        let refused = ask(resume_cursor, &[minutely()], Some(&tick(1, 120)), 500);
        assert_eq!(
            refused.unwrap_err().to_string(),
            "definition d is not paused"
        );
    }

    #[test]
    fn paused_stays_paused_through_every_change() {
        let wanted = paused().paused().cloned();
        for (next, why) in [
            (definition("* * * * *", true, "u"), why::REVISED),
            (definition("* * * * *", false, "t"), why::DISABLED),
            (definition("*/2 * * * *", true, "t"), why::TRIGGER_CHANGED),
        ] {
            let made = cursor(&[minutely(), next], Some(&paused())).unwrap();
            assert_eq!((made.why.as_str(), &made.paused), (why, &wanted));
        }
        let off = definition("* * * * *", false, "t");
        let made = cursor(&[minutely(), off, minutely()], Some(&paused())).unwrap();
        assert_eq!((made.why.as_str(), &made.paused), (why::ENABLED, &wanted));
        let reset = ask(reset_cursor, &[minutely()], Some(&paused()), 500).unwrap();
        assert_eq!(reset.paused, wanted);
    }

    #[test]
    fn pause_on_a_changed_definition_carries_the_change() {
        let changed = [minutely(), definition("*/2 * * * *", true, "t")];
        let made = ask(pause_cursor, &changed, Some(&tick(1, 120)), 250).unwrap();
        assert_eq!((made.revision, made.after), (2, at(200)));
    }

    #[test]
    fn reset_goes_forward_or_back_to_the_slot_ticked_last() {
        let resumed = ask(resume_cursor, &[minutely()], Some(&paused()), 500).unwrap();
        let resumed = TickRecord::Cursor(resumed);
        let reset = |second| ask(reset_cursor, &[minutely()], Some(&resumed), second);
        for second in [120, 300, 900] {
            let made = reset(second).unwrap();
            assert_eq!((made.why.as_str(), made.after), (why::RESET, at(second)));
            assert_eq!(made.previous_slot, Some(at(120)));
        }
        let refused = reset(119).unwrap_err().to_string();
        assert_eq!(
            refused,
            "definition d cannot be reset to 1970-01-01T00:01:59Z: its slots up to \
             1970-01-01T00:02:00Z are done, and none is ticked twice; use `tick backfill d` \
             for slots of the past"
        );
    }

    #[test]
    fn reset_before_the_first_tick_goes_back_to_the_revision() {
        let created = cursor(&[minutely()], None).map(TickRecord::Cursor);
        let reset = |second| ask(reset_cursor, &[minutely()], created.as_ref(), second);
        assert_eq!(reset(100).unwrap().after, at(100));
        assert!(matches!(reset(99), Err(CursorRefusal::ResetBehind { .. })));
    }

    #[test]
    fn nothing_is_asked_of_what_is_never_ticked_or_of_an_old_revision() {
        let event = "kind: ActivityDefinition\nid: d\n\
            trigger: {type: event, event_type: a.b}\n\
            rules: [{id: r, tasks: [{queue: q, title: t}]}]\n";
        for build in [pause_cursor, resume_cursor, reset_cursor] {
            let refused = ask(build, &[event.to_owned()], None, 500).unwrap_err();
            assert!(refused.to_string().contains("no cron trigger"), "{refused}");
            let refused = ask(build, &[minutely()], Some(&tick(9, 120)), 500).unwrap_err();
            assert!(matches!(
                refused,
                CursorRefusal::Outdated {
                    stands: 9,
                    known: 1,
                    ..
                }
            ));
        }
    }

    #[test]
    fn overlong_note_is_refused() {
        let view = view(&[minutely()]);
        let latest = view.definition(&"d".parse().unwrap()).unwrap();
        let note = "x".repeat(NOTE_BYTES_MAX + 1);
        let refused = pause_cursor(&view, &latest, None, at(500), "", &note).unwrap_err();
        assert_eq!(refused.to_string(), "note of 1025 bytes exceeds 1024");
    }
}
