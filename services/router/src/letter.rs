//! Storing dead letters: once each, and again where an activation that was redriven dies again.

use kaizen_messaging::{
    Committed, Message, letters,
    read::{self, ReadError},
};
use kaizen_proto::{header, stream, subject};

use crate::effect::{EffectError, Ledger};

/// How often a letter is stored behind another before its input comes again.
const ATTEMPTS_MAX: u32 = 3;

/// Whether it is a dead letter.
pub(crate) fn is_letter(message: &Message) -> bool {
    subject::parse_dead(&message.subject).is_some()
}

impl Ledger {
    /// The letter as it is to be stored, in the place of one that stands where there is one;
    /// `None` where it stands already.
    pub(crate) async fn renewed(&self, letter: Message) -> Result<Option<Message>, ReadError> {
        let standing = read::last(&self.nats, stream::LEDGER, &letter.subject).await?;
        match standing {
            Some(standing) if !letters::replaces(&letter.headers, &standing.headers) => Ok(None),
            Some(_) if self.is_overtaken(&letter).await? => Ok(None),
            Some(standing) => Ok(Some(letters::died_again(&standing, letter))),
            None => self.with_history(letter).await.map(Some),
        }
    }

    /// Another letter of a redriven activation may stand, with another reason: it has the
    /// original.
    async fn with_history(&self, letter: Message) -> Result<Message, ReadError> {
        let parsed = subject::parse_dead(&letter.subject);
        let definition = parsed.as_ref().and_then(|parsed| parsed.definition);
        let definition = definition.and_then(|definition| definition.parse().ok());
        let activation = parsed.and_then(|parsed| parsed.identity.parse().ok());
        let (Some(definition), Some(activation), true) = (
            definition,
            activation,
            letter.headers.get(header::REDRIVE).is_some(),
        ) else {
            return Ok(letter);
        };
        let filter = subject::dead_activation_filter(&definition, activation);
        let other = read::last(&self.nats, stream::LEDGER, &filter).await?;
        Ok(match other {
            Some(other) => letters::died_again(&other, letter),
            None => letter,
        })
    }

    /// Whether the pending record that a letter is of was stored anew: what becomes of the old
    /// one counts no more.
    async fn is_overtaken(&self, letter: &Message) -> Result<bool, ReadError> {
        let original = letters::text(&letter.headers, header::ORIG_SUBJECT);
        if subject::parse_decision(original).is_none() {
            return Ok(false);
        }
        let last = read::last(&self.nats, stream::LEDGER, original).await?;
        let sequence = letters::text(&letter.headers, header::ORIG_SEQUENCE).parse();
        Ok(last.is_some_and(|last| Ok(last.sequence) != sequence))
    }

    /// Stores a letter of which it is not known whether it stands.
    pub(crate) async fn settle_letter(&self, letter: Message) -> Result<(), EffectError> {
        let subject = letter.subject.clone();
        for _ in 0..ATTEMPTS_MAX {
            let Some(message) = self.renewed(letter.clone()).await? else {
                return Ok(());
            };
            if let Committed::Stored(_) = self.nats.commit.store(vec![message]).await? {
                return Ok(());
            }
        }
        Err(EffectError::Unsettled { subject })
    }
}
