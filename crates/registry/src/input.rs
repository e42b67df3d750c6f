//! One message of EVENTS or TICKS: what it sets off, or why it sets nothing off.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kaizen_proto::{
    envelope::EventEnvelope,
    id::{DefinitionId, TriggerId},
    record::{AdminTick, Redrive, TickKind, TickRecord},
    stream, subject,
    subject::DeadReason,
};

use crate::{
    admission::{Refusal, admit},
    definition::Definition,
    trigger::Trigger,
    view::{Revision, View},
};

/// Hops after which a chain of tasks and events is taken for a loop.
const HOPS_MAX: u32 = 16;

/// A message, as its stream has stored it.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a> {
    /// EVENTS or TICKS.
    pub stream: &'a str,
    /// Its subject.
    pub subject: &'a str,
    /// Its sequence.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// How many tasks and events lie between it and the first trigger.
    pub hops: u32,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// A trigger, and the definitions that it sets off.
#[derive(Debug)]
pub struct SetOff {
    /// The trigger.
    pub trigger: Trigger,
    /// The revisions that decide, one for each definition.
    pub revisions: Vec<Arc<Revision<Definition>>>,
    /// Whether it is the trigger of a dead letter, once more.
    pub redriven: bool,
}

/// Why an input is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The reason as dead letters name it.
    pub reason: DeadReason,
    /// What is wrong, and what to do next where that is known.
    pub error: String,
}

/// How long before the ledger forgets it a trigger is too old: clocks differ, and between judging
/// and storing time passes.
const STALE_MARGIN: SignedDuration = SignedDuration::from_hours(1);

/// What was stored before this instant may have been forgotten by a ledger that remembers for
/// `ledger_age`, where it is `now`.
#[must_use]
pub fn horizon(now: Timestamp, ledger_age: SignedDuration) -> Timestamp {
    let forgets = ledger_age.saturating_sub(STALE_MARGIN);
    now.saturating_sub(forgets).unwrap_or(Timestamp::MIN)
}

impl SetOff {
    /// Refuses a trigger that was stored before the ledger's [`horizon`]: what followed from it
    /// may have been forgotten, and would follow twice.
    ///
    /// # Errors
    /// It is too old.
    pub fn fresh(&self, horizon: Timestamp) -> Result<(), Refused> {
        let stored_at = self.trigger.record.stored_at();
        // Somebody who redrives a letter wants it, however old it is; and the ledger remembers
        // what followed from it for as long as the letter.
        if self.redriven || stored_at >= horizon {
            return Ok(());
        }
        let error = format!(
            "stored at {stored_at}, before {horizon}: the ledger may have forgotten what followed from it"
        );
        Err(refused(DeadReason::Stale, error))
    }
}

fn refused(reason: DeadReason, error: impl Into<String>) -> Refused {
    let error = error.into();
    Refused { reason, error }
}

impl Input<'_> {
    /// What it sets off, as the registry stood when it was stored; `None` where it is no trigger.
    /// Every lane asks this, so all of them agree.
    ///
    /// # Errors
    /// It is not let in.
    pub fn judge(&self, view: &View) -> Result<Option<SetOff>, Refused> {
        if self.stream == stream::TICKS || subject::redrive_definition(self.subject).is_some() {
            self.judge_asked(view)
        } else {
            self.judge_event(view)
        }
    }

    fn judge_event(&self, view: &View) -> Result<Option<SetOff>, Refused> {
        let envelope = self.admitted(view)?;
        let revisions: Vec<_> = view.set_off_by(&envelope, self.stored_at).collect();
        if revisions.is_empty() {
            return Ok(None);
        }
        let trigger = Trigger::of_event(envelope, self.sequence, self.stored_at, self.hops);
        Ok(Some(SetOff {
            trigger,
            revisions,
            redriven: false,
        }))
    }

    /// The event that it is.
    ///
    /// # Errors
    /// It is not let in.
    pub(crate) fn admitted(&self, view: &View) -> Result<EventEnvelope, Refused> {
        let subject_type = subject::activity_type(self.subject);
        let envelope = admit(view, self.stored_at, subject_type, self.payload)
            .map_err(|refusal| refused(refusal.reason(), told(&refusal)))?;
        if self.hops > HOPS_MAX {
            let error = format!(
                "{} hops exceed {HOPS_MAX}: events and tasks set each other off",
                self.hops
            );
            return Err(refused(DeadReason::TooManyHops, error));
        }
        Ok(envelope)
    }

    /// The tick that it is, and whose; `None` where it is none, malformed, or of a dead letter.
    #[must_use]
    pub fn tick(&self) -> Option<(DefinitionId, Trigger)> {
        let asked = Asked::read(self).ok().flatten()?;
        (!asked.redriven).then_some((asked.definition, asked.trigger))
    }

    /// What names its definition and its revision.
    fn judge_asked(&self, view: &View) -> Result<Option<SetOff>, Refused> {
        let asked = Asked::read(self);
        // A cursor record sets nothing off.
        let Some(asked) = asked.map_err(|error| refused(DeadReason::Malformed, error))? else {
            return Ok(None);
        };
        let Some(revision) = view.definition_revision(&asked.definition, asked.revision) else {
            let error = format!(
                "revision {} of {} is not in REGISTRY",
                asked.revision, asked.definition
            );
            return Err(refused(DeadReason::UnknownRevision, error));
        };
        Ok(Some(SetOff {
            trigger: asked.trigger,
            revisions: vec![revision],
            redriven: asked.redriven,
        }))
    }
}

fn told(refusal: &Refusal) -> String {
    match refusal.hint() {
        Some(hint) => format!("{refusal}; {hint}"),
        None => refusal.to_string(),
    }
}

/// One message that sets off the one definition that its subject names.
struct Asked {
    definition: DefinitionId,
    revision: u64,
    trigger: Trigger,
    redriven: bool,
}

impl Asked {
    /// `None` for a cursor record; an error says what is malformed.
    fn read(input: &Input<'_>) -> Result<Option<Self>, String> {
        let Input {
            subject, payload, ..
        } = input;
        if let Some(definition) = subject::redrive_definition(subject) {
            return Self::redriven(definition_id(definition)?, payload).map(Some);
        }
        if let Some(definition) = subject::tick_definition(subject) {
            return Self::scheduled(definition_id(definition)?, payload, input);
        }
        match subject::trigger_definition(subject) {
            Some(definition) => {
                Self::asked_for(definition_id(definition)?, payload, input).map(Some)
            }
            None => Err("neither a tick nor a trigger by its subject".to_owned()),
        }
    }

    fn scheduled(
        definition: DefinitionId,
        payload: &[u8],
        input: &Input<'_>,
    ) -> Result<Option<Self>, String> {
        let record = serde_json::from_slice(payload)
            .map_err(|error| format!("not a tick record: {error}"))?;
        Ok(match record {
            TickRecord::Cursor(_) => None,
            TickRecord::Tick(tick) => {
                let trigger_id = TriggerId::of_slot(&definition, tick.slot);
                Some(Self {
                    definition,
                    revision: tick.revision,
                    trigger: input.of_tick(trigger_id, TickKind::Scheduled, tick.slot),
                    redriven: false,
                })
            }
        })
    }

    fn asked_for(
        definition: DefinitionId,
        payload: &[u8],
        input: &Input<'_>,
    ) -> Result<Self, String> {
        let record = serde_json::from_slice(payload)
            .map_err(|error| format!("not a record of a tick that was asked for: {error}"))?;
        let (kind, trigger_id, slot, revision) = match record {
            AdminTick::Manual {
                slot,
                revision,
                request_id,
                ..
            } => {
                if request_id.is_empty() {
                    return Err("request_id is empty: nobody could ask twice for the same".into());
                }
                let trigger_id = TriggerId::of_request(&definition, &request_id);
                (TickKind::Manual, trigger_id, slot, revision)
            }
            // The identity of the slot: where its tick was routed, nothing new follows.
            AdminTick::Backfill { slot, revision, .. } => {
                let trigger_id = TriggerId::of_slot(&definition, slot);
                (TickKind::Backfill, trigger_id, slot, revision)
            }
            AdminTick::Redrive(redrive) => return Self::of_redrive(definition, *redrive),
        };
        Ok(Self {
            definition,
            revision,
            trigger: input.of_tick(trigger_id, kind, slot),
            redriven: false,
        })
    }

    fn redriven(definition: DefinitionId, payload: &[u8]) -> Result<Self, String> {
        match serde_json::from_slice(payload) {
            Ok(AdminTick::Redrive(redrive)) => Self::of_redrive(definition, *redrive),
            Ok(AdminTick::Manual { .. } | AdminTick::Backfill { .. }) => {
                Err("a tick is not asked for here, but in TICKS".to_owned())
            }
            Err(error) => Err(format!("not the record of a redrive: {error}")),
        }
    }

    fn of_redrive(definition: DefinitionId, redrive: Redrive) -> Result<Self, String> {
        let revision = redrive.revision;
        Ok(Self {
            trigger: Trigger::again(&definition, redrive)?,
            definition,
            revision,
            redriven: true,
        })
    }
}

impl Input<'_> {
    fn of_tick(&self, trigger_id: TriggerId, kind: TickKind, slot: Timestamp) -> Trigger {
        Trigger::of_tick(
            trigger_id,
            kind,
            slot,
            self.sequence,
            self.stored_at,
            self.hops,
        )
    }
}

fn definition_id(token: &str) -> Result<DefinitionId, String> {
    token
        .parse()
        .map_err(|error| format!("the subject names no definition: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn set_off(stored_at: &str) -> SetOff {
        let definition: DefinitionId = "d".parse().unwrap();
        let (slot, stored_at) = (at("2026-01-01T00:00:00Z"), at(stored_at));
        let id = TriggerId::of_slot(&definition, slot);
        SetOff {
            trigger: Trigger::of_tick(id, TickKind::Scheduled, slot, 1, stored_at, 0),
            revisions: Vec::new(),
            redriven: false,
        }
    }

    #[test]
    fn what_the_ledger_may_have_forgotten_is_stale_an_hour_before_it_does() {
        let now = at("2026-01-31T00:00:00Z");
        let horizon = horizon(now, SignedDuration::from_hours(30 * 24));
        assert_eq!(horizon, at("2026-01-01T01:00:00Z"));
        assert_eq!(set_off("2026-01-01T01:00:00Z").fresh(horizon), Ok(()));
        let refused = set_off("2026-01-01T00:59:59.999999999Z").fresh(horizon);
        let refused = refused.unwrap_err();
        assert_eq!(refused.reason, DeadReason::Stale);
        assert!(refused.error.contains("2026-01-01T00:59:59"), "{refused:?}");
    }

    #[test]
    fn a_horizon_beyond_time_itself_lets_everything_in() {
        let horizon = horizon(Timestamp::MIN, SignedDuration::from_hours(48));
        assert_eq!(horizon, Timestamp::MIN);
    }
}
