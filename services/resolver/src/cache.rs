//! Values that a definition lets be used again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kaizen_proto::resolver::resolve_item::Trigger;
use kaizen_registry::ContextSource;
use serde_json::Value;
use tokio::time::Instant;

use crate::bind::Bound;

/// Most values that are kept, of whatever size a source may have.
const VALUES_MAX: usize = 1_000;
/// Most bytes that they take together, as JSON.
const BYTES_MAX: usize = 32 * 1024 * 1024;

/// All that a source's value depends on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    source_type: String,
    params: String,
    /// What it sees of the trigger.
    trigger: Option<Vec<u8>>,
}

impl Key {
    pub(crate) fn new(source: &ContextSource, trigger: Option<&Trigger>) -> Self {
        let sees = seen(source, trigger).map(|trigger| match trigger {
            Trigger::EventAttributes(json) => json.clone(),
            Trigger::Slot(slot) => slot.clone().into_bytes(),
        });
        Self {
            source_type: source.source_type.clone(),
            params: Value::Object(source.params.clone()).to_string(),
            trigger: sees,
        }
    }
}

/// What a source sees of the trigger. What is kept for others must not depend on one of them, so
/// an outside resolver whose answers are kept is not told.
pub(crate) fn seen<'a>(
    source: &ContextSource,
    trigger: Option<&'a Trigger>,
) -> Option<&'a Trigger> {
    let sees = match source.outside_type() {
        Some(_) => source.cache.is_none(),
        None => source.is_due_only(),
    };
    trigger.filter(|_| sees)
}

/// Values with when they were asked for. What is over the bounds goes, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Cache(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    values: HashMap<Key, (Instant, Arc<Bound>)>,
    bytes: usize,
}

impl Cache {
    /// A value no older than `age_max`, and its age.
    pub(crate) fn get(&self, key: &Key, age_max: Duration) -> Option<(Arc<Bound>, Duration)> {
        let kept = self.kept();
        let (at, bound) = kept.values.get(key)?;
        let age = at.elapsed();
        (age <= age_max).then(|| (bound.clone(), age))
    }

    /// Keeps a value that was asked for just now.
    pub(crate) fn put(&self, key: Key, bound: Arc<Bound>) {
        let mut kept = self.kept();
        kept.bytes += bound.bytes;
        if let Some((_, before)) = kept.values.insert(key, (Instant::now(), bound)) {
            kept.bytes -= before.bytes;
        }
        kept.shrink();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn shrink(&mut self) {
        while self.values.len() > VALUES_MAX || self.bytes > BYTES_MAX {
            let oldest = self.values.iter().min_by_key(|(_, (at, _))| *at);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else {
                return;
            };
            if let Some((_, bound)) = self.values.remove(&oldest) {
                self.bytes -= bound.bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;

    fn source(source_type: &str, params: Value, cache: bool) -> ContextSource {
        let Value::Object(params) = params else {
            panic!("an object")
        };
        ContextSource {
            source_type: source_type.to_owned(),
            bind_to: "context.x".to_owned(),
            params,
            optional: false,
            timeout: None,
            max_bytes: None,
            cache: cache.then(|| jiff::SignedDuration::from_secs(60)),
        }
    }

    fn key(n: usize) -> Key {
        let mut params = Map::new();
        params.insert("n".to_owned(), json!(n));
        Key::new(&source("weather", Value::Object(params), true), None)
    }

    fn bound(bytes: usize) -> Arc<Bound> {
        Arc::new(Bound {
            value: Value::Null,
            bytes,
            warnings: Vec::new(),
            unread: Vec::new(),
        })
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_is_used_again_until_it_is_too_old() {
        let cache = Cache::default();
        cache.put(key(1), bound(10));
        tokio::time::advance(Duration::from_secs(30)).await;
        let age = |max| {
            cache
                .get(&key(1), Duration::from_secs(max))
                .map(|(_, age)| age)
        };
        assert_eq!(age(60), Some(Duration::from_secs(30)));
        assert_eq!(age(20), None, "another definition wants it younger");
        assert!(cache.get(&key(2), Duration::from_secs(60)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_kept_is_bounded_by_number_and_by_size() {
        let cache = Cache::default();
        for n in 0..=VALUES_MAX {
            cache.put(key(n), bound(1));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
        let there = |n| cache.get(&key(n), Duration::MAX).is_some();
        assert_eq!((there(0), there(1), there(VALUES_MAX)), (false, true, true));
        cache.put(key(1), bound(BYTES_MAX));
        assert_eq!((there(1), there(VALUES_MAX)), (true, false));
        let kept = cache.kept();
        assert_eq!((kept.values.len(), kept.bytes), (1, BYTES_MAX));
    }

    #[test]
    fn a_key_holds_what_the_source_sees_and_nothing_else() {
        let slot = |text: &str| Some(Trigger::Slot(text.to_owned()));
        let differs = |source: &ContextSource| {
            Key::new(source, slot("a").as_ref()) != Key::new(source, slot("b").as_ref())
        };
        let discover = source::DISCOVER_SCHEDULED_REPOS;
        assert!(!differs(&source(discover, json!({}), false)));
        assert!(differs(&source(discover, json!({"due": true}), false)));
        assert!(differs(&source("weather", json!({}), false)));
        assert!(!differs(&source("weather", json!({}), true)));
    }

    use kaizen_registry::source;
}
