//! Typed ids. A name is parsed once, at the edge; whoever holds one may put it into a subject.

use std::{borrow::Borrow, fmt, str::FromStr};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::subject;

/// Longest name in bytes: `[a-z0-9][a-z0-9_-]{0,62}`.
pub const NAME_BYTES_MAX: usize = 63;

/// What the id of a shadow ends with, behind the name of its definition.
pub const SHADOW_SUFFIX: &str = "~shadow";

/// Longest event type in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 255;

/// A text that is no name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Outside `[a-z0-9][a-z0-9_-]{0,62}`.
    #[error(
        "{what} {text:?} is not a name: use 1 to 63 of a-z, 0-9, '_' and '-', beginning with a letter or digit"
    )]
    Name {
        /// What the text was to be, for example `queue`.
        what: &'static str,
        /// The text as given, cut after 80 characters.
        text: String,
    },
    /// Not dot-separated names.
    #[error(
        "event type {text:?} is not a dotted name such as kaizen.metrics.recorded: each part takes a-z, 0-9, '_' and '-', 255 characters in all"
    )]
    EventType {
        /// The text as given, cut after 80 characters.
        text: String,
    },
    /// Neither an event type nor a pattern of them.
    #[error(
        "{text:?} is no event type and no pattern of event types: each part is a name of a-z, 0-9, '_' and '-', or `*` for any one part; `>` at the end stands for one part or more, 255 characters in all{}",
        hint.map(|hint| format!("; {hint}")).unwrap_or_default()
    )]
    EventTypePattern {
        /// The text as given, cut after 80 characters.
        text: String,
        /// What seems to be meant.
        hint: Option<&'static str>,
    },
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

fn is_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    text.len() <= NAME_BYTES_MAX
        && bytes
            .next()
            .is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

macro_rules! text_id {
    ($(#[$doc:meta])* $type:ident, $parse:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                let parse: fn(&str) -> Result<(), NameError> = $parse;
                parse(text)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = NameError;

            fn try_from(text: String) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(id: $type) -> Self {
                id.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $type {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

macro_rules! name_id {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        text_id!($(#[$doc])* $type, |text| if is_name(text) {
            Ok(())
        } else {
            Err(NameError::Name { what: $what, text: shown(text) })
        });
    };
}

text_id!(
    /// Id of an ActivityDefinition: its name, or its name and [`SHADOW_SUFFIX`] for its shadow.
    DefinitionId,
    |text| if is_name(text.strip_suffix(SHADOW_SUFFIX).unwrap_or(text)) {
        Ok(())
    } else {
        Err(NameError::Name { what: "definition id", text: shown(text) })
    }
);

impl DefinitionId {
    /// Whether it is that of a shadow, which decides and records and makes no task.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.0.ends_with(SHADOW_SUFFIX)
    }

    /// The name that a definition and its shadow share.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.strip_suffix(SHADOW_SUFFIX).unwrap_or(&self.0)
    }

    /// The id of its shadow; of a shadow, its own.
    #[must_use]
    pub fn shadow(&self) -> Self {
        Self(format!("{}{SHADOW_SUFFIX}", self.name()))
    }

    /// The id of the definition that it is the shadow of; of any other, its own.
    #[must_use]
    pub fn live(&self) -> Self {
        Self(self.name().to_owned())
    }
}

name_id!(
    /// Where workers of one agent take their tasks from.
    QueueName,
    "queue"
);
name_id!(
    /// Name of an agent, for example `coach`.
    AgentName,
    "agent"
);
name_id!(
    /// Slug of an engagement, for example `coulomb-loop`.
    EngagementSlug,
    "engagement"
);
name_id!(
    /// Name of a label of a task, for example `project`.
    LabelName,
    "label"
);
name_id!(
    /// Type of a context source that a resolver of other people answers, for example `weather`.
    SourceType,
    "source type"
);
name_id!(
    /// Name that a repo's schedule is published under.
    RepoName,
    "repo"
);
text_id!(
    /// Dotted event type, for example `kaizen.metrics.recorded`.
    EventType,
    |text| if text.len() <= EVENT_TYPE_BYTES_MAX && text.split('.').all(is_name) {
        Ok(())
    } else {
        Err(NameError::EventType { text: shown(text) })
    }
);

text_id!(
    /// An event type, or a pattern of them with the wildcards of NATS subjects: `*` is any one
    /// part, `>` at the end is one part or more. `kaizen.metrics.*`, `kaizen.>`.
    EventTypePattern,
    |text| if text.len() <= EVENT_TYPE_BYTES_MAX && is_pattern(text) {
        Ok(())
    } else {
        Err(NameError::EventTypePattern { text: shown(text), hint: pattern_hint(text) })
    }
);

/// One part of an [`EventTypePattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatternPart<'a> {
    /// This very part.
    Name(&'a str),
    /// `*`: any one part.
    Any,
    /// `>`: one part or more, up to the end.
    Rest,
}

impl EventTypePattern {
    /// Its parts, in order; [`PatternPart::Rest`] comes last alone.
    pub fn parts(&self) -> impl Iterator<Item = PatternPart<'_>> {
        self.0.split('.').map(|part| match part {
            "*" => PatternPart::Any,
            ">" => PatternPart::Rest,
            name => PatternPart::Name(name),
        })
    }

    /// The one event type that it matches, where it has no wildcard.
    #[must_use]
    pub fn exact(&self) -> Option<EventType> {
        self.0.parse().ok()
    }

    /// Whether an event of `event_type` is one of those that are meant.
    #[must_use]
    pub fn matches(&self, event_type: &EventType) -> bool {
        subject::matches(&self.0, event_type.as_str())
    }
}

impl From<EventType> for EventTypePattern {
    fn from(event_type: EventType) -> Self {
        Self(event_type.0)
    }
}

fn is_pattern(text: &str) -> bool {
    let names = match text.strip_suffix('>') {
        Some("") => return true,
        Some(before) => match before.strip_suffix('.') {
            Some(names) => names,
            None => return false,
        },
        None => text,
    };
    names.split('.').all(|part| part == "*" || is_name(part))
}

fn pattern_hint(text: &str) -> Option<&'static str> {
    if text.contains("**") {
        Some("write `>` for any number of parts")
    } else if text
        .split('.')
        .any(|part| part.len() > 1 && part.contains(['*', '>']))
    {
        Some("a wildcard stands for a whole part")
    } else if text.contains(">.") {
        Some("`>` stands at the end alone, `*` anywhere")
    } else {
        None
    }
}

/// Identity of what set a definition off, safe as a subject token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TriggerId(String);

impl TriggerId {
    /// Identity of an event: the first 128 bits of SHA-256 over length(source), source and id,
    /// as 32 hex digits. Also its `Nats-Msg-Id` in EVENTS.
    #[must_use]
    pub fn of_event(source: &str, id: &str) -> Self {
        let mut hash = Sha256::new();
        // The length keeps ("ab", "c") and ("a", "bc") apart.
        hash.update(
            u64::try_from(source.len())
                .unwrap_or(u64::MAX)
                .to_be_bytes(),
        );
        hash.update(source.as_bytes());
        hash.update(id.as_bytes());
        Self(hex128(&hash.finalize()))
    }

    /// Identity of a slot, whether scheduled or backfilled: `slot-<definition>-20261122T101500Z`.
    #[must_use]
    pub fn of_slot(definition: &DefinitionId, slot: Timestamp) -> Self {
        Self(format!(
            "slot-{definition}-{}",
            slot.strftime("%Y%m%dT%H%M%SZ")
        ))
    }

    /// Identity of a manual tick: definition, and the id that whoever asked for it chose.
    #[must_use]
    pub fn of_request(definition: &DefinitionId, request_id: &str) -> Self {
        let hash = content_hash(request_id.as_bytes());
        Self(format!("manual-{definition}-{hash}"))
    }

    /// Identity of bytes that hold no envelope: where they stand.
    #[must_use]
    pub fn of_position(stream: &str, sequence: u64) -> Self {
        Self(format!("at-{stream}-{sequence}"))
    }

    /// Stream and sequence of which a text is the [identity](Self::of_position); `None` for any
    /// other identity.
    #[must_use]
    pub fn parse_position(text: &str) -> Option<(&str, u64)> {
        let (stream, sequence) = text.strip_prefix("at-")?.rsplit_once('-')?;
        Some((stream, sequence.parse().ok()?))
    }

    /// Identity of what the mesh concludes from memory: the cell that it was kept in, and since
    /// when. `word` says what it is, for example `silent`.
    #[must_use]
    pub fn of_memory(word: &str, cell: &CellId, since: Timestamp) -> Self {
        Self(format!("{word}-{cell}-{}", since.as_nanosecond()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TriggerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// 128-bit content hash as 32 hex digits.
#[must_use]
pub fn content_hash(bytes: &[u8]) -> String {
    hex128(&Sha256::digest(bytes))
}

fn hex128(digest: &[u8]) -> String {
    let first = digest.iter().take(16);
    // A digit at a time: formatting each byte takes longer than the hash of an event.
    let halves = first.flat_map(|byte| [byte >> 4, byte & 0xf]);
    let digits = halves.filter_map(|half| char::from_digit(half.into(), 16));
    let mut text = String::with_capacity(32);
    text.extend(digits);
    text
}

/// Address of one cell of memory: 32 hex digits over what keeps it and the key that it is kept for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CellId(u128);

/// A text that is no address of a cell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no cell id: it has 32 hex digits")]
pub struct CellIdError(String);

impl CellId {
    /// The cell that `clause` keeps for `key`. `clause` is a hash of all that gives the cell its
    /// meaning, so that a changed clause starts afresh.
    #[must_use]
    pub fn new(clause: &str, key: &str) -> Self {
        let mut hash = Sha256::new();
        hash.update(clause.as_bytes());
        hash.update([0]);
        hash.update(key.as_bytes());
        let digest = hash.finalize();
        let first = digest.iter().take(16);
        Self(first.fold(0, |number, byte| number << 8 | u128::from(*byte)))
    }
}

impl fmt::Display for CellId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl FromStr for CellId {
    type Err = CellIdError;

    fn from_str(text: &str) -> Result<Self, CellIdError> {
        let number = u128::from_str_radix(text, 16).ok();
        number
            .map(Self)
            .filter(|cell| cell.to_string() == text)
            .ok_or_else(|| CellIdError(text.chars().take(64).collect()))
    }
}

/// Namespace of all activation ids; arbitrary, fixed for ever.
const ACTIVATION_NAMESPACE: Uuid = Uuid::from_u128(0x6b61_697a_656e_5d6d_8573_6861_6374_6976);

/// Identity of one definition set off by one trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ActivationId(Uuid);

impl ActivationId {
    /// UUIDv5 over (definition id, trigger id): the same on every replica and every delivery.
    #[must_use]
    pub fn new(definition: &DefinitionId, trigger: &TriggerId) -> Self {
        let namespace = Uuid::new_v5(&ACTIVATION_NAMESPACE, definition.as_str().as_bytes());
        Self(Uuid::new_v5(&namespace, trigger.as_str().as_bytes()))
    }

    /// Its 128 bits, spread evenly: for who divides activations among several passes.
    #[must_use]
    pub fn bits(self) -> u128 {
        self.0.as_u128()
    }

    /// The activation with these bits.
    #[must_use]
    pub fn from_bits(bits: u128) -> Self {
        Self(Uuid::from_u128(bits))
    }
}

impl fmt::Display for ActivationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ActivationId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(text).map(Self)
    }
}

/// Id of a task as people see it: `<activation>.<n>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId {
    /// The activation that ordered it.
    pub activation: ActivationId,
    /// Its index among the activation's tasks, from 0.
    pub n: u32,
}

/// A text that is no task id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a task id: it looks like 6fa459ea-ee8a-5ca4-894e-db77e160355e.0")]
pub struct TaskIdError(String);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.activation, self.n)
    }
}

impl FromStr for TaskId {
    type Err = TaskIdError;

    fn from_str(text: &str) -> Result<Self, TaskIdError> {
        let parse = || {
            let (activation, n) = text.split_once('.')?;
            Some(Self {
                activation: activation.parse().ok()?,
                n: n.parse().ok()?,
            })
        };
        parse().ok_or_else(|| TaskIdError(shown(text)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_keep_to_the_alphabet() {
        for good in ["a", "0", "low-success-rate-review", "a_b", &"x".repeat(63)] {
            assert!(good.parse::<DefinitionId>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "-a",
            "_a",
            "A",
            "a.b",
            "a b",
            "ä",
            "a*",
            "a>",
            &"x".repeat(64),
        ] {
            assert!(bad.parse::<DefinitionId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_shadow_is_named_after_its_definition() {
        let live: DefinitionId = "low-rate".parse().unwrap();
        let shadow: DefinitionId = "low-rate~shadow".parse().unwrap();
        assert!(shadow.is_shadow() && !live.is_shadow());
        assert_eq!(
            (live.shadow(), shadow.live()),
            (shadow.clone(), live.clone())
        );
        assert_eq!(
            (shadow.shadow(), live.live()),
            (shadow.clone(), live.clone())
        );
        assert_eq!((shadow.name(), live.name()), ("low-rate", "low-rate"));
        let longest = format!("{}~shadow", "x".repeat(63));
        assert!(longest.parse::<DefinitionId>().is_ok());
        for bad in [
            "~shadow",
            "a~",
            "a~live",
            "a~Shadow",
            "a~shadow~shadow",
            "a~shadow-b",
            &format!("{}~shadow", "x".repeat(64)),
        ] {
            assert!(bad.parse::<DefinitionId>().is_err(), "{bad}");
        }
        assert!("a~shadow".parse::<QueueName>().is_err());
    }

    #[test]
    fn event_types_are_dotted_names() {
        assert!("kaizen.metrics.recorded".parse::<EventType>().is_ok());
        for bad in ["", ".", "a.", ".a", "a..b", "a.*", "a.>", "kaizen.Metrics"] {
            assert!(bad.parse::<EventType>().is_err(), "{bad}");
        }
    }

    #[test]
    fn patterns_match_as_nats_matches_subjects() {
        let matches = |pattern: &str, event_type: &str| {
            let pattern: EventTypePattern = pattern.parse().unwrap();
            pattern.matches(&event_type.parse().unwrap())
        };
        for (pattern, matched, not) in [
            ("a.b", vec!["a.b"], vec!["a", "a.b.c", "a.c"]),
            ("a.*", vec!["a.b", "a.b-c"], vec!["a", "a.b.c", "b.a"]),
            ("*.b", vec!["a.b"], vec!["b", "a.b.b", "a.c"]),
            ("a.*.c", vec!["a.b.c"], vec!["a.c", "a.b", "a.b.b.c"]),
            ("a.>", vec!["a.b", "a.b.c"], vec!["a", "ab.c"]),
            ("*.>", vec!["a.b", "a.b.c"], vec!["a"]),
            ("*", vec!["a"], vec!["a.b"]),
            (">", vec!["a", "a.b.c"], vec![]),
        ] {
            for event_type in matched {
                assert!(matches(pattern, event_type), "{pattern} {event_type}");
            }
            for event_type in not {
                assert!(!matches(pattern, event_type), "{pattern} {event_type}");
            }
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_with_a_hint() {
        let refused = |text: &str| text.parse::<EventTypePattern>().unwrap_err().to_string();
        for (text, hint) in [
            ("kaizen.met*", "a wildcard stands for a whole part"),
            ("kaizen.*d.x", "a wildcard stands for a whole part"),
            ("kaizen>", "a wildcard stands for a whole part"),
            ("kaizen.**", "write `>` for any number of parts"),
            ("kaizen.>.x", "`>` stands at the end alone"),
            (">.x", "`>` stands at the end alone"),
        ] {
            let found = refused(text);
            assert!(found.contains(hint), "{text}: {found}");
        }
        for text in [
            "",
            ".",
            "a.",
            ".>",
            "a..*",
            "A.*",
            "a.* ",
            "a.#",
            &"a.".repeat(200),
        ] {
            assert!(
                refused(text).contains("no pattern of event types"),
                "{text}"
            );
        }
        let exact: EventTypePattern = "a.b".parse().unwrap();
        assert_eq!(exact.exact(), Some("a.b".parse().unwrap()));
        assert_eq!("a.*".parse::<EventTypePattern>().unwrap().exact(), None);
    }

    #[test]
    fn event_identity_keeps_source_and_id_apart() {
        assert_ne!(
            TriggerId::of_event("ab", "c"),
            TriggerId::of_event("a", "bc")
        );
        assert_eq!(TriggerId::of_event("a", "b"), TriggerId::of_event("a", "b"));
        assert_eq!(TriggerId::of_event("a", "b").as_str().len(), 32);
    }

    #[test]
    fn position_and_bits_read_back() {
        let at = TriggerId::of_position("EVENTS", 7);
        assert_eq!(TriggerId::parse_position(at.as_str()), Some(("EVENTS", 7)));
        assert_eq!(TriggerId::parse_position("slot-d-7"), None);
        let activation = ActivationId::new(&"d".parse().unwrap(), &at);
        assert_eq!(ActivationId::from_bits(activation.bits()), activation);
    }

    #[test]
    fn activation_differs_by_definition_and_by_trigger() {
        let (d1, d2) = ("d1".parse().unwrap(), "d2".parse().unwrap());
        let (t1, t2) = (TriggerId::of_event("s", "1"), TriggerId::of_event("s", "2"));
        assert_eq!(ActivationId::new(&d1, &t1), ActivationId::new(&d1, &t1));
        assert_ne!(ActivationId::new(&d1, &t1), ActivationId::new(&d2, &t1));
        assert_ne!(ActivationId::new(&d1, &t1), ActivationId::new(&d1, &t2));
    }

    #[test]
    fn task_id_reads_back() {
        let id = TaskId {
            activation: ActivationId::new(&"d".parse().unwrap(), &TriggerId::of_event("s", "1")),
            n: 3,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("nonsense".parse::<TaskId>().is_err());
    }
}
