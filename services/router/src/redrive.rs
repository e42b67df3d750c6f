//! A dead letter's trigger once more: it completes what stands, and decides nothing twice.

use kaizen_messaging::{Guard, read};
use kaizen_proto::{record::DecisionRecord, stream, subject};

use crate::{
    effect::{Effect, EffectError, Ledger},
    letter::is_letter,
};

impl Ledger {
    /// An effect of a redrive as it is to be stored behind what stands; `None` where nothing is
    /// left to be stored.
    pub(crate) async fn readied(&self, mut effect: Effect) -> Result<Option<Effect>, EffectError> {
        let mut messages = Vec::with_capacity(effect.messages.len());
        for mut message in std::mem::take(&mut effect.messages) {
            if is_letter(&message) {
                messages.extend(self.renewed(message).await?);
                continue;
            }
            if effect.pending && subject::parse_decision(&message.subject).is_some() {
                match self.waits(&effect).await? {
                    Waits::Nowhere => {}
                    Waits::At(sequence) => {
                        message.guard = Guard::Last(sequence);
                        effect.settled_after = sequence;
                    }
                    Waits::Already => continue,
                }
            }
            messages.push(message);
        }
        effect.messages = messages;
        Ok((!effect.messages.is_empty()).then_some(effect))
    }

    /// Where an activation that was redriven waits for its context.
    async fn waits(&self, effect: &Effect) -> Result<Waits, EffectError> {
        let standing = read::last(&self.nats, stream::LEDGER, &effect.settled_by).await?;
        let Some(standing) = standing else {
            return Ok(Waits::Nowhere);
        };
        Ok(match serde_json::from_slice(&standing.payload) {
            // What became of this redrive stands, or of a later one.
            Ok(DecisionRecord::Pending(pending)) if pending.redrive >= effect.redrive => {
                Waits::Already
            }
            Ok(DecisionRecord::Pending(pending))
                if effect.trigger_hash.as_ref() == Some(&pending.trigger_hash) =>
            {
                Waits::At(standing.sequence)
            }
            // A decision, or a conflict: its guard finds it standing.
            Ok(DecisionRecord::Pending(_) | DecisionRecord::Decided(_)) | Err(_) => Waits::Nowhere,
        })
    }
}

enum Waits {
    /// No record of it stands behind which another could be stored.
    Nowhere,
    /// The record has this sequence.
    At(u64),
    /// It was stored for this redrive.
    Already,
}
