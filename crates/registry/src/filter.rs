//! The filters of an event trigger, in the dialects of CloudEvents Subscriptions: judged on the
//! envelope, before anything is bound or evaluated.

use std::{borrow::Cow, collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use kaizen_document::{Examples, Fields, Node, Path, Problems, cut, shown};
use kaizen_proto::envelope::{EventEnvelope, is_extension_name};
use serde::Serialize;
use serde_json::Value;

use crate::json::Part;

/// Most conditions of a trigger: filters, at any depth, and attributes that they name.
const CONDITIONS_MAX: usize = 100;
/// Deepest nesting of filters.
const DEPTH_MAX: usize = 8;
/// Longest value that an attribute is compared with, in bytes.
const VALUE_BYTES_MAX: usize = 1024;
/// Deepest path into the event's attributes.
const PATH_PARTS_MAX: usize = 16;

const DIALECTS: [&str; 6] = ["exact", "prefix", "suffix", "all", "any", "not"];
/// A dialect of CloudEvents that is built later.
const RESERVED_DIALECTS: [&str; 1] = ["sql"];
const EXAMPLES: &Examples = &[("exact", "{source: my-ci}")];

/// Attributes of every envelope.
const CONTEXT_ATTRIBUTES: [&str; 4] = ["id", "source", "time", "type"];
/// Further ones that CloudEvents names.
const OPTIONAL_ATTRIBUTES: [&str; 3] = ["datacontenttype", "dataschema", "subject"];
/// What the path into the event's attributes begins with.
const ATTRIBUTES: &str = "attributes";

/// One filter. An event passes a trigger when it passes every filter of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Filter {
    /// Every attribute has this value.
    Exact(BTreeMap<Attribute, Value>),
    /// Every attribute is a text that begins so.
    Prefix(BTreeMap<Attribute, String>),
    /// Every attribute is a text that ends so.
    Suffix(BTreeMap<Attribute, String>),
    /// Every filter passes.
    All(Vec<Filter>),
    /// At least one filter passes.
    Any(Vec<Filter>),
    /// The filter does not pass.
    Not(Box<Filter>),
}

/// An attribute that a filter names: `id`, `source`, `time`, `type`, an extension attribute of
/// CloudEvents such as `subject`, or a path into the event's attributes such as
/// `attributes.summary.runs`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct Attribute(String);

/// A text that names no attribute.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is no attribute: name id, source, time or type, an extension attribute of a-z and 0-9 such as subject, or a path of at most {PATH_PARTS_MAX} keys such as attributes.project"
)]
pub struct AttributeError(String);

/// Why an event does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// Leads from the trigger to what did not pass: `filters[1].exact.source`.
    pub path: String,
    /// What was wanted, and what there is.
    pub why: String,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.why)
    }
}

impl Filter {
    /// Whether an event passes.
    #[must_use]
    pub fn passes(&self, envelope: &EventEnvelope) -> bool {
        match self {
            Self::Exact(wanted) => wanted.iter().all(|(a, v)| a.is(v, envelope)),
            Self::Prefix(wanted) => wanted
                .iter()
                .all(|(a, v)| a.text(envelope).is_some_and(|text| text.starts_with(v))),
            Self::Suffix(wanted) => wanted
                .iter()
                .all(|(a, v)| a.text(envelope).is_some_and(|text| text.ends_with(v))),
            Self::All(filters) => filters.iter().all(|filter| filter.passes(envelope)),
            Self::Any(filters) => filters.iter().any(|filter| filter.passes(envelope)),
            Self::Not(filter) => !filter.passes(envelope),
        }
    }

    /// The extension attributes that it names.
    pub(crate) fn extensions(&self) -> Vec<&str> {
        match self {
            Self::Exact(wanted) => wanted.keys().filter_map(Attribute::extension).collect(),
            Self::Prefix(wanted) | Self::Suffix(wanted) => {
                wanted.keys().filter_map(Attribute::extension).collect()
            }
            Self::All(filters) | Self::Any(filters) => {
                filters.iter().flat_map(Self::extensions).collect()
            }
            Self::Not(filter) => filter.extensions(),
        }
    }

    /// The paths into the event's attributes that it names, as the variable `event` has them, each
    /// with its place below `at`.
    pub(crate) fn paths(&self, at: &Path) -> Vec<(Path, Vec<Part>)> {
        let at = at.key(self.dialect());
        let of = |attribute: &Attribute| Some((at.key(&attribute.0), attribute.parts()?));
        match self {
            Self::Exact(wanted) => wanted.keys().filter_map(of).collect(),
            Self::Prefix(wanted) | Self::Suffix(wanted) => wanted.keys().filter_map(of).collect(),
            Self::All(filters) | Self::Any(filters) => {
                let numbered = filters.iter().enumerate();
                numbered
                    .flat_map(|(n, filter)| filter.paths(&at.index(n)))
                    .collect()
            }
            Self::Not(filter) => filter.paths(&at),
        }
    }

    /// Why an event does not pass; `None` where it does.
    fn miss(&self, path: &Path, envelope: &EventEnvelope) -> Option<Miss> {
        if self.passes(envelope) {
            return None;
        }
        let path = path.key(self.dialect());
        let miss = |path: Path, why: String| {
            let path = path.to_string();
            Some(Miss { path, why })
        };
        let attribute = |attribute: &Attribute, wanted: String| {
            let got = attribute.told(envelope);
            miss(path.key(&attribute.0), format!("wants {wanted}, got {got}"))
        };
        match self {
            Self::Exact(wanted) => {
                let (name, value) = wanted.iter().find(|(a, v)| !a.is(v, envelope))?;
                attribute(name, shown(value))
            }
            Self::Prefix(wanted) => {
                let begins = |text: Cow<'_, str>, value: &str| text.starts_with(value);
                let (name, value) = first_miss(wanted, envelope, begins)?;
                attribute(name, format!("a text that begins with {:?}", cut(value)))
            }
            Self::Suffix(wanted) => {
                let ends = |text: Cow<'_, str>, value: &str| text.ends_with(value);
                let (name, value) = first_miss(wanted, envelope, ends)?;
                attribute(name, format!("a text that ends with {:?}", cut(value)))
            }
            Self::All(filters) => (0..)
                .zip(filters)
                .find_map(|(n, filter)| filter.miss(&path.index(n), envelope)),
            Self::Any(_) => miss(path, "none of them passes".to_owned()),
            Self::Not(_) => miss(path, "what it excludes passes".to_owned()),
        }
    }

    fn dialect(&self) -> &'static str {
        match self {
            Self::Exact(_) => "exact",
            Self::Prefix(_) => "prefix",
            Self::Suffix(_) => "suffix",
            Self::All(_) => "all",
            Self::Any(_) => "any",
            Self::Not(_) => "not",
        }
    }
}

/// The first attribute that is no text, or not as it is wanted.
fn first_miss<'a>(
    wanted: &'a BTreeMap<Attribute, String>,
    envelope: &EventEnvelope,
    fits: impl Fn(Cow<'_, str>, &str) -> bool,
) -> Option<(&'a Attribute, &'a String)> {
    let passes = |name: &Attribute, value: &str| {
        let text = name.text(envelope);
        text.is_some_and(|text| fits(text, value))
    };
    wanted.iter().find(|(name, value)| !passes(name, value))
}

/// The names of attributes that are no extension of anybody's own.
pub(crate) fn known_names() -> impl Iterator<Item = &'static str> {
    CONTEXT_ATTRIBUTES.into_iter().chain(OPTIONAL_ATTRIBUTES)
}

/// Why an event does not pass `filters`; `None` where it does.
pub(crate) fn miss(filters: &[Filter], envelope: &EventEnvelope) -> Option<Miss> {
    let root = Path::default().key("filters");
    (0..)
        .zip(filters)
        .find_map(|(n, filter)| filter.miss(&root.index(n), envelope))
}

impl Attribute {
    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Keys below the event's attributes, where it is a path into them.
    fn path(&self) -> Option<impl Iterator<Item = &str>> {
        let keys = self.0.strip_prefix(ATTRIBUTES)?.strip_prefix('.')?;
        Some(keys.split('.'))
    }

    /// The same below the variable `event`.
    fn parts(&self) -> Option<Vec<Part>> {
        let keys = std::iter::once(ATTRIBUTES).chain(self.path()?);
        Some(keys.map(|key| Part::Field(key.to_owned())).collect())
    }

    fn extension(&self) -> Option<&str> {
        let known = CONTEXT_ATTRIBUTES.contains(&self.0.as_str()) || self.path().is_some();
        (!known).then_some(self.0.as_str())
    }

    /// What is compared, where it is there.
    fn value<'a>(&self, envelope: &'a EventEnvelope) -> Option<Cow<'a, Value>> {
        if let Some(mut keys) = self.path() {
            let first = envelope.attributes.get(keys.next()?)?;
            return keys
                .try_fold(first, |value, key| value.get(key))
                .map(Cow::Borrowed);
        }
        if let Some(extension) = envelope.extensions.get(&self.0) {
            return Some(Cow::Borrowed(extension));
        }
        let text = self.text(envelope)?;
        Some(Cow::Owned(Value::String(text.into_owned())))
    }

    /// The text that is compared, where it is there and a text.
    fn text<'a>(&self, envelope: &'a EventEnvelope) -> Option<Cow<'a, str>> {
        match self.0.as_str() {
            "id" => Some(Cow::Borrowed(&envelope.id)),
            "source" => Some(Cow::Borrowed(&envelope.source)),
            "type" => Some(Cow::Borrowed(envelope.event_type.as_str())),
            "time" => envelope.time.map(|time| Cow::Owned(time.to_string())),
            _ => match self.path() {
                None => envelope.extensions.get(&self.0),
                Some(mut keys) => {
                    let first = envelope.attributes.get(keys.next()?)?;
                    keys.try_fold(first, |value, key| value.get(key))
                }
            }
            .and_then(Value::as_str)
            .map(Cow::Borrowed),
        }
    }

    fn is(&self, wanted: &Value, envelope: &EventEnvelope) -> bool {
        match wanted {
            Value::String(wanted) => self.text(envelope).is_some_and(|text| text == *wanted),
            wanted => self
                .value(envelope)
                .is_some_and(|value| same(&value, wanted)),
        }
    }

    fn told(&self, envelope: &EventEnvelope) -> String {
        self.value(envelope)
            .map_or_else(|| "nothing".to_owned(), |value| shown(&value))
    }
}

/// Scalars are the same where their values are: 1 is 1.0.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            a == b || (a.is_f64() || b.is_f64()) && a.as_f64() == b.as_f64()
        }
        (a, b) => a == b,
    }
}

impl FromStr for Attribute {
    type Err = AttributeError;

    fn from_str(text: &str) -> Result<Self, AttributeError> {
        let attribute = Self(text.to_owned());
        let valid = match attribute.path() {
            Some(keys) => {
                let keys: Vec<_> = keys.collect();
                keys.len() <= PATH_PARTS_MAX && keys.iter().all(|key| !key.is_empty())
            }
            None => text != ATTRIBUTES && is_extension_name(text),
        };
        if valid && text.len() <= VALUE_BYTES_MAX {
            Ok(attribute)
        } else {
            Err(AttributeError(cut(text).to_owned()))
        }
    }
}

impl From<Attribute> for String {
    fn from(attribute: Attribute) -> Self {
        attribute.0
    }
}

/// Decodes `filters` of a trigger.
pub(crate) fn decode_all(trigger: &Fields<'_>) -> Option<Vec<Filter>> {
    let items = trigger.list("filters", CONDITIONS_MAX)?;
    let mut decoder = Decoder {
        problems: trigger.problems,
        left: Some(CONDITIONS_MAX),
    };
    let filters = decoder.each(items, 1);
    if decoder.left.is_none() {
        let message = format!("more than {CONDITIONS_MAX} filters and attributes");
        let hint = Some("write a rule with `when`".to_owned());
        trigger.report("filters", message, hint);
        return None;
    }
    filters
}

struct Decoder<'a> {
    problems: &'a Problems,
    /// How many more conditions there may be; `None` once there were too many.
    left: Option<usize>,
}

impl Decoder<'_> {
    fn each(&mut self, items: Vec<(Path, &Node)>, depth: usize) -> Option<Vec<Filter>> {
        let filters: Vec<_> = items
            .into_iter()
            .map(|(path, node)| self.filter(node, path, depth))
            .collect();
        filters.into_iter().collect()
    }

    fn filter(&mut self, node: &Node, path: Path, depth: usize) -> Option<Filter> {
        self.count(1)?;
        if depth > DEPTH_MAX {
            let message = format!("filters nest deeper than {DEPTH_MAX}");
            self.problems.report(path, message, None);
            return None;
        }
        let fields = Fields::open_like(node, path, EXAMPLES, self.problems)?;
        fields.allow(&DIALECTS, &RESERVED_DIALECTS);
        let mut entries = fields.entries();
        let (Some((dialect, path, value)), None) = (entries.next(), entries.next()) else {
            let message = format!("takes one of {}", DIALECTS.join(", "));
            let hint = Some("write an item of the list for each".to_owned());
            self.problems.report(fields.path.clone(), message, hint);
            return None;
        };
        match dialect {
            "exact" => self.attributes(value, path, exact).map(Filter::Exact),
            "prefix" => self.attributes(value, path, affix).map(Filter::Prefix),
            "suffix" => self.attributes(value, path, affix).map(Filter::Suffix),
            "all" => self.list(&fields, dialect, depth).map(Filter::All),
            "any" => self.list(&fields, dialect, depth).map(Filter::Any),
            "not" => {
                let filter = self.filter(value, path, depth + 1)?;
                Some(Filter::Not(Box::new(filter)))
            }
            // Reported as an unknown key.
            _ => None,
        }
    }

    fn list(&mut self, fields: &Fields<'_>, dialect: &str, depth: usize) -> Option<Vec<Filter>> {
        fields.required(dialect)?;
        let items = fields.list(dialect, CONDITIONS_MAX)?;
        if items.is_empty() {
            fields.report(dialect, "is empty: it takes at least one filter", None);
            return None;
        }
        self.each(items, depth + 1)
    }

    fn attributes<T>(
        &mut self,
        node: &Node,
        path: Path,
        read: impl Fn(&Attribute, &Node) -> Result<T, String>,
    ) -> Option<BTreeMap<Attribute, T>> {
        let fields = Fields::open(node, path, self.problems)?;
        let mut attributes = BTreeMap::new();
        let mut complete = true;
        for (name, path, value) in fields.entries() {
            self.count(1)?;
            let read = name
                .parse()
                .map_err(|error: AttributeError| error.to_string())
                .and_then(|name: Attribute| read(&name, value).map(|value| (name, value)));
            match read {
                Ok((name, value)) => {
                    attributes.insert(name, value);
                }
                Err(message) => {
                    complete = false;
                    self.problems.report(path, message, None);
                }
            }
        }
        if attributes.is_empty() && complete {
            let message = "is empty: it takes at least one attribute";
            self.problems.report(fields.path, message, None);
            return None;
        }
        complete.then_some(attributes)
    }

    /// `None` where there are too many.
    fn count(&mut self, conditions: usize) -> Option<()> {
        self.left = self.left?.checked_sub(conditions);
        self.left.map(drop)
    }
}

fn exact(attribute: &Attribute, node: &Node) -> Result<Value, String> {
    let value = node.to_json();
    let payload = attribute.path().is_some();
    match &value {
        Value::String(text) if attribute.as_str() == "time" => text
            .parse()
            .map(|time: Timestamp| Value::String(time.to_string()))
            .map_err(|error| format!("`time` is no instant of RFC 3339: {error}")),
        Value::String(text) => bounded(text).map(|()| value),
        Value::Bool(_) | Value::Number(_) if payload || attribute.extension().is_some() => {
            Ok(value)
        }
        _ if payload => Err(format!(
            "takes a text, a number or a bool, got {}",
            node.shown()
        )),
        _ => Err(format!("takes a text, got {}", node.shown())),
    }
}

fn affix(_: &Attribute, node: &Node) -> Result<String, String> {
    let text = node
        .as_str()
        .ok_or_else(|| format!("takes a text, got {}", node.shown()))?;
    if text.is_empty() {
        return Err("is empty: every text begins and ends with it".to_owned());
    }
    bounded(text).map(|()| text.to_owned())
}

fn bounded(text: &str) -> Result<(), String> {
    if text.len() > VALUE_BYTES_MAX {
        let length = text.len();
        return Err(format!(
            "a text of {length} bytes exceeds {VALUE_BYTES_MAX}"
        ));
    }
    Ok(())
}
