//! Two triggers of one identity, where memory has taken the first one in: nothing follows from
//! the second, so nothing refuses it.

use std::collections::HashSet;

use futures::future::try_join_all;
use jiff::Timestamp;
use kaizen_messaging::read;
use kaizen_proto::{
    envelope::EventEnvelope,
    stream,
    subject::{self, DeadReason, DeadStage},
};
use kaizen_registry::Trigger;

use crate::effect::{CONFLICT, Effect, EffectError, Identity, Ledger, Letter, is_of_other};

/// A trigger that memory had taken in before, and the letter that it may have to be.
pub(crate) struct Repeated {
    pub(crate) content_hash: String,
    pub(crate) letter: Letter,
}

impl Ledger {
    /// A letter for each of them that is another one of the same identity, however often it came.
    /// All are looked up at once.
    pub(crate) async fn conflicting(
        &self,
        repeated: Vec<Repeated>,
    ) -> Result<Vec<Effect>, EffectError> {
        let looks = repeated.into_iter().map(|repeated| self.conflict(repeated));
        let letters = try_join_all(looks).await?.into_iter().flatten();
        let mut known = HashSet::new();
        Ok(letters.filter(|letter| known.insert(letter.of())).collect())
    }

    /// A letter for a trigger, where what stands under its activation followed from another
    /// content.
    async fn conflict(&self, repeated: Repeated) -> Result<Option<Effect>, EffectError> {
        let Repeated {
            content_hash,
            letter,
        } = repeated;
        let Identity::Activation {
            definition,
            activation,
            ..
        } = &letter.identity
        else {
            return Ok(None);
        };
        let decision = subject::decision(definition, *activation);
        let tasks = subject::activation_tasks(definition, *activation);
        let unbound = subject::dead_unbound(definition, *activation);
        let (decision, task, unbound) = tokio::try_join!(
            read::first(&self.nats, stream::LEDGER, &decision),
            read::first(&self.nats, stream::LEDGER, &tasks),
            read::first(&self.nats, stream::LEDGER, &unbound)
        )?;
        let mut firsts = decision.into_iter().chain(task);
        let is_of_other = firsts.any(|first| is_of_other(&first.payload, &content_hash))
            || unbound.is_some_and(|letter| holds_other(&letter.payload, &content_hash));
        if !is_of_other {
            return Ok(None);
        }
        let (stage, reason) = (DeadStage::Store, DeadReason::IdentityConflict);
        Ok(Some(self.dead(stage, reason, CONFLICT, letter)))
    }
}

/// Whether a letter holds an event of another content.
fn holds_other(original: &[u8], hash: &str) -> bool {
    let event = EventEnvelope::parse(original);
    event.is_ok_and(|event| {
        Trigger::of_event(event, 0, Timestamp::UNIX_EPOCH, 0).content_hash != hash
    })
}
