//! Triggers that memory concludes: several events together (`all`), and no event (`silence`).

use std::collections::BTreeSet;

use jiff::SignedDuration;
use kaizen_document::{Fault, Fields, Path, Problems, cut};
use kaizen_proto::id::EventTypePattern;
use serde::Serialize;

use crate::{
    clause::{KEY_BYTES_MAX, Place, clause_hash, decode_period},
    scope::{Names, TriggerKind},
    source::is_identifier,
    template::Templates,
};

/// Fewest and most event types of a join.
pub(crate) const JOINED_MIN: usize = 2;
pub(crate) const JOINED_MAX: usize = 8;
/// Most keys that a silence declares.
pub(crate) const SILENCE_KEYS_MAX: usize = 10_000;

/// `type: all`: set off once events of all these types came for one key inside of a window.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JoinSpec {
    /// Template over `event` of what belongs together.
    pub key: String,
    /// How far the first and the last of them may lie apart. The first one opens the window; it
    /// sets off nothing more until the window is over.
    #[serde(serialize_with = "jiff::fmt::serde::duration::friendly::compact::required")]
    pub within: SignedDuration,
    /// The event types, each with a name in the context.
    pub events: Vec<JoinedSpec>,
}

/// One event type of a join.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct JoinedSpec {
    /// The type, or a pattern of types.
    pub event_type: EventTypePattern,
    /// Where `event_payload` binds its attributes, below its own place.
    #[serde(rename = "as")]
    pub name: String,
}

/// `type: silence`: set off once no event of a type came for a key, and again only after one did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SilenceSpec {
    /// The type, or a pattern of types.
    pub event_type: EventTypePattern,
    /// Template over `event` of whose silence it is.
    pub key: String,
    /// How long it takes.
    #[serde(
        rename = "for",
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::required"
    )]
    pub quiet: SignedDuration,
    /// The keys that are watched.
    pub keys: Vec<String>,
}

/// A compiled trigger of this kind.
#[derive(Debug)]
pub(crate) enum Watch {
    /// Of several events together.
    Join(Place),
    /// Of no event.
    Silence(Place),
}

impl Watch {
    /// Where it keeps its memory.
    pub(crate) fn place(&self) -> &Place {
        match self {
            Self::Join(place) | Self::Silence(place) => place,
        }
    }
}

pub(crate) fn decode_join(trigger: &Fields<'_>) -> Option<JoinSpec> {
    trigger.allow(&["type", "key", "within", "events"], &[]);
    let key = trigger.text("key");
    let within = trigger
        .required("within")
        .and_then(|_| decode_period(trigger, "within"));
    let events = decode_joined(trigger);
    check_key(key, trigger);
    Some(JoinSpec {
        key: key?.to_owned(),
        within: within?,
        events: events?,
    })
}

fn decode_joined(trigger: &Fields<'_>) -> Option<Vec<JoinedSpec>> {
    trigger.required("events")?;
    let items = trigger.list("events", JOINED_MAX)?;
    if items.len() < JOINED_MIN {
        let message = format!("takes {JOINED_MIN} to {JOINED_MAX} event types");
        trigger.report("events", message, Some("for one, use `type: event`".into()));
        return None;
    }
    let (mut types, mut names) = (BTreeSet::new(), BTreeSet::new());
    let decoded: Vec<_> = items
        .into_iter()
        .map(|(path, node)| {
            let fields = Fields::open(node, path, trigger.problems)?;
            fields.allow(&["event_type", "as"], &[]);
            let event_type: Option<EventTypePattern> = fields.parsed("event_type");
            let name = joined_name(&fields, event_type.as_ref());
            let joined = JoinedSpec {
                event_type: event_type?,
                name: name?,
            };
            let fresh = types.insert(joined.event_type.clone());
            if !fresh {
                fields.report("event_type", "is listed twice", None);
            }
            if !names.insert(joined.name.clone()) {
                let message = format!("`{}` is taken by an earlier event type", joined.name);
                fields.report("as", message, None);
                return None;
            }
            fresh.then_some(joined)
        })
        .collect();
    decoded.into_iter().collect()
}

/// `shop.build.finished` is `shop_build_finished` unless it says otherwise.
fn joined_name(fields: &Fields<'_>, event_type: Option<&EventTypePattern>) -> Option<String> {
    let written = fields.text_opt("as")?;
    let name = match written {
        Some(name) => name.to_owned(),
        None => event_type?.as_str().replace(['.', '-'], "_"),
    };
    if is_identifier(&name) {
        return Some(name);
    }
    let hint = "use a letter, then letters, digits and `_`".to_owned();
    fields.report("as", format!("{:?} is no name", cut(&name)), Some(hint));
    None
}

pub(crate) fn decode_silence(trigger: &Fields<'_>) -> Option<SilenceSpec> {
    trigger.allow(&["type", "event_type", "key", "for", "keys"], &[]);
    let event_type = trigger.parsed("event_type");
    let key = trigger.text("key");
    let quiet = trigger
        .required("for")
        .and_then(|_| decode_period(trigger, "for"));
    check_key(key, trigger);
    let keys = decode_keys(trigger);
    Some(SilenceSpec {
        event_type: event_type?,
        key: key?.to_owned(),
        quiet: quiet?,
        keys: keys?,
    })
}

fn decode_keys(trigger: &Fields<'_>) -> Option<Vec<String>> {
    trigger.required("keys")?;
    let keys: Vec<String> = trigger.parsed_list("keys", SILENCE_KEYS_MAX)?;
    if keys.is_empty() {
        let hint = "list whose silence matters: nobody else's is noticed".to_owned();
        trigger.report("keys", "is empty", Some(hint));
        return None;
    }
    let mut seen = BTreeSet::new();
    for (n, key) in keys.iter().enumerate() {
        let path = || trigger.path.key("keys").index(n);
        if key.len() > KEY_BYTES_MAX {
            let message = format!("a key of {} bytes exceeds {KEY_BYTES_MAX}", key.len());
            trigger.problems.report(path(), message, None);
            return None;
        }
        if !seen.insert(key) {
            trigger.problems.report(path(), "is listed twice", None);
            return None;
        }
    }
    Some(keys)
}

/// Compiles the key for its mistakes; [`compile_watch`] does it again for the definition.
fn check_key(key: Option<&str>, trigger: &Fields<'_>) {
    if let Some(key) = key {
        let mut templates = Templates::new();
        compile_key(key, &trigger.path, &mut templates, trigger.problems);
    }
}

fn compile_key(
    key: &str,
    trigger: &Path,
    templates: &mut Templates,
    problems: &Problems,
) -> Option<crate::template::Template> {
    let names = Names {
        sources: Some(&[]),
        kind: Some(TriggerKind::Event),
        item: None,
    };
    let path = trigger.key("key");
    let report = |fault: Fault| problems.report(path.clone(), fault.message, fault.hint);
    let compiled = templates.add(path.to_string(), key, &names);
    compiled.map_err(report).ok()
}

/// Compiles a trigger that memory concludes. `definition` is the hash of its id and trigger.
pub(crate) fn compile_watch(
    key: &str,
    definition: &str,
    watch: fn(Place) -> Watch,
    templates: &mut Templates,
    problems: &Problems,
) -> Option<Watch> {
    let template = compile_key(key, &Path::default().key("trigger"), templates, problems)?;
    Some(watch(Place {
        clause: clause_hash(definition, &["trigger"], &()),
        key: Some(template),
    }))
}
