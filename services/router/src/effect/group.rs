//! Group commit: what a batch of deliveries leads to is gathered into atomic batches, as each of
//! those is one sync of the server's disk, however many messages it holds. Still each effect is
//! stored or refused for itself: where a group is not stored, each of its effects is tried alone.

use std::collections::HashSet;

use futures::future::join_all;
use kaizen_messaging::{Committed, Message, mutant::Mutant};
use tracing::{Instrument as _, Span, debug};

use super::{Effect, EffectError, HEADERS_BYTES_MAX, Ledger};

/// Most messages of a group.
const MESSAGES_MAX: usize = 500;
/// Most bytes of a group.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Fewer effects are stored one by one: a batch costs as much as several single messages.
const EFFECTS_MIN: usize = 4;

/// An effect, and which of the inputs it follows from.
struct Following {
    input: usize,
    effect: Effect,
}

/// Effects that are stored together.
#[derive(Default)]
struct Group {
    follows: Vec<Following>,
    messages: usize,
    bytes: usize,
}

/// What a batch of inputs leads to, as it is to be stored.
#[derive(Default)]
struct Groups {
    groups: Vec<Group>,
    /// Stored one by one: what is too large for a group, or alone in one.
    alone: Vec<Following>,
    /// Stored after all others: of an activation of which an effect is among them. Guards see
    /// what is committed alone, so together both would be stored; later it finds the first.
    later: Vec<Following>,
}

impl Groups {
    fn of(effects: Vec<Vec<Effect>>, payload_max: usize) -> Self {
        let mut groups = Self::default();
        let mut known = HashSet::new();
        for (input, effects) in effects.into_iter().enumerate() {
            for effect in effects {
                let follows = Following { input, effect };
                let is_new = known.insert(follows.effect.of());
                if !is_new && !Mutant::TwiceInABatch.lives() {
                    groups.later.push(follows);
                } else if follows.effect.goes_alone(payload_max) {
                    groups.alone.push(follows);
                } else {
                    groups.gather(follows);
                }
            }
        }
        let few = |group: &mut Group| group.follows.len() < EFFECTS_MIN;
        let few: Vec<Group> = groups.groups.extract_if(.., few).collect();
        groups
            .alone
            .extend(few.into_iter().flat_map(|group| group.follows));
        groups
    }

    fn gather(&mut self, follows: Following) {
        let (messages, bytes) = (follows.effect.messages.len(), follows.effect.bytes());
        let has_room = |group: &&mut Group| {
            group.messages + messages <= MESSAGES_MAX && group.bytes + bytes <= BYTES_MAX
        };
        match self.groups.last_mut().filter(has_room) {
            Some(group) => {
                group.messages += messages;
                group.bytes += bytes;
                group.follows.push(follows);
            }
            None => self.groups.push(Group {
                follows: vec![follows],
                messages,
                bytes,
            }),
        }
    }
}

impl Effect {
    fn bytes(&self) -> usize {
        self.messages
            .iter()
            .map(|message| message.payload.len())
            .sum()
    }

    /// Whether it would take a group for itself, or might take one down with it.
    fn goes_alone(&self, payload_max: usize) -> bool {
        let is_large = |message: &Message| message.payload.len() + HEADERS_BYTES_MAX > payload_max;
        self.is_in_parts()
            // It is stored behind what stands.
            || self.redrive != 0
            || self.messages.len() > MESSAGES_MAX
            || self.bytes() > BYTES_MAX
            || self.messages.iter().any(is_large)
    }
}

impl Ledger {
    /// Stores what each input of a batch leads to; answers for each whether all of it is settled.
    pub(crate) async fn store_each(
        &self,
        effects: Vec<Vec<Effect>>,
        spans: &[Span],
    ) -> Vec<Result<(), EffectError>> {
        let mut settled: Vec<Result<(), EffectError>> = Vec::new();
        settled.resize_with(effects.len(), || Ok(()));
        let Groups {
            groups,
            alone,
            later,
        } = Groups::of(effects, self.payload_max());
        let groups = join_all(
            groups
                .into_iter()
                .map(|group| self.store_group(group, spans)),
        );
        let (groups, alone) = tokio::join!(groups, self.store_alone(alone, spans));
        let later = self.store_alone(later, spans).await;
        let answers = groups.into_iter().flatten().chain(alone).chain(later);
        for (input, answer) in answers {
            if let (Err(error), Some(settled)) = (answer, settled.get_mut(input)) {
                *settled = Err(error);
            }
        }
        settled
    }

    /// Stores a group at once, or, where that does not do, each effect for itself.
    async fn store_group(
        &self,
        group: Group,
        spans: &[Span],
    ) -> Vec<(usize, Result<(), EffectError>)> {
        let effects = group.follows.iter().map(|follows| &follows.effect);
        let messages: Vec<Message> = effects.flat_map(|e| &e.messages).cloned().collect();
        match self.nats.commit.store(messages).await {
            Ok(Committed::Stored(last)) => {
                let (effects, messages) = (group.follows.len(), group.messages);
                debug!(effects, messages, last, "stored a group");
                group
                    .follows
                    .into_iter()
                    .map(|f| (f.input, Ok(())))
                    .collect()
            }
            Ok(Committed::Doubtful) | Err(_) => {
                let effects = group.follows.len();
                debug!(effects, "a group is not stored; each effect is tried alone");
                self.store_alone(group.follows, spans).await
            }
        }
    }

    async fn store_alone(
        &self,
        follows: Vec<Following>,
        spans: &[Span],
    ) -> Vec<(usize, Result<(), EffectError>)> {
        join_all(
            follows
                .into_iter()
                .map(|Following { input, effect }| async move {
                    let span = spans.get(input).cloned().unwrap_or_else(Span::none);
                    (input, self.store(effect).instrument(span).await)
                }),
        )
        .await
    }
}
