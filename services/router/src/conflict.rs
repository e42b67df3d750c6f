//! Two triggers of one identity, where memory has taken the first one in: nothing follows from
//! the second, so nothing refuses it.

use kaizen_messaging::read;
use kaizen_proto::{
    stream,
    subject::{self, DeadReason, DeadStage},
};

use crate::effect::{CONFLICT, Effect, EffectError, Identity, Ledger, Letter, is_of_other};

impl Ledger {
    /// A letter for a trigger with this content, where what stands under its activation followed
    /// from another one.
    pub(crate) async fn conflict(
        &self,
        trigger_hash: &str,
        letter: Letter,
    ) -> Result<Option<Effect>, EffectError> {
        let Identity::Activation {
            definition,
            activation,
            ..
        } = &letter.identity
        else {
            return Ok(None);
        };
        for filter in [
            subject::decision(definition, *activation),
            subject::activation_tasks(definition, *activation),
        ] {
            let first = read::first(&self.nats, stream::LEDGER, &filter).await?;
            if first.is_some_and(|first| is_of_other(&first.payload, trigger_hash)) {
                let (stage, reason) = (DeadStage::Store, DeadReason::IdentityConflict);
                return Ok(Some(self.dead(stage, reason, CONFLICT, letter)));
            }
        }
        Ok(None)
    }
}
