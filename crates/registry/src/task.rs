//! The tasks of a rule: as they are written, compiled, and rendered into what is ordered.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Span, SpanRelativeTo, Timestamp};
use kaizen_document::{Fault, Fields, Node, Path, Problems, cut};
use kaizen_proto::{
    id::{LabelName, QueueName},
    record::Priority,
};
use serde::{Deserialize, Serialize};

use crate::{
    scope::Names,
    template::{Template, Templates},
};

/// Most tasks that one rule lists.
const TASKS_PER_RULE_MAX: usize = 100;
/// Most labels of a task.
pub const LABELS_MAX: usize = 16;
/// Longest value of a label in bytes.
pub const LABEL_BYTES_MAX: usize = 256;
/// Longest title in bytes.
pub const TITLE_BYTES_MAX: usize = 512;
/// Longest body in bytes.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Furthest that a task is due after its trigger.
pub const DUE_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);
/// Shortest and longest time that one attempt may be given.
pub const TIMEOUT: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(1), SignedDuration::from_hours(24));

/// One entry of a rule's `tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TaskSpec {
    /// The queue, literally.
    pub queue: QueueName,
    /// Template of the title.
    pub title: String,
    /// Template of the body.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// Template of the value of each label.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<LabelName, String>,
    /// How urgent it is.
    #[serde(skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
    /// When it should be done: a duration after the trigger's time, an instant, or a template of
    /// one of the two.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub due: Option<String>,
    /// How long one attempt may take.
    #[serde(
        skip_serializing_if = "Option::is_none",
        serialize_with = "jiff::fmt::serde::duration::friendly::compact::optional"
    )]
    pub timeout: Option<SignedDuration>,
}

/// A task with its templates compiled.
#[derive(Debug)]
pub(crate) struct TaskTemplates {
    queue: QueueName,
    title: Template,
    body: Option<Template>,
    labels: Vec<(LabelName, Template)>,
    priority: Priority,
    due: Option<Template>,
    timeout: Option<SignedDuration>,
}

impl TaskTemplates {
    /// Every template, each with its path; `path` is that of the task.
    pub(crate) fn templates(&self, path: &Path) -> Vec<(Path, &Template)> {
        let mut templates = vec![(path.key("title"), &self.title)];
        templates.extend(self.body.iter().map(|body| (path.key("body"), body)));
        let labels = path.key("labels");
        let label = |(name, value)| (labels.key(LabelName::as_str(name)), value);
        templates.extend(
            self.labels
                .iter()
                .map(|(name, value)| (name, value))
                .map(label),
        );
        templates.extend(self.due.iter().map(|due| (path.key("due"), due)));
        templates
    }
}

/// A task before it is numbered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draft {
    /// Its queue.
    pub queue: QueueName,
    /// Its title.
    pub title: String,
    /// Its body; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub body: String,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<LabelName, String>,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "Priority::is_default")]
    pub priority: Priority,
    /// When it should be done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due: Option<Timestamp>,
    /// How many seconds one attempt may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_s: Option<u32>,
}

impl Draft {
    /// One without anything but these.
    pub(crate) fn plain(queue: QueueName, title: String, body: String) -> Self {
        Self {
            queue,
            title,
            body,
            labels: BTreeMap::new(),
            priority: Priority::default(),
            due: None,
            timeout_s: None,
        }
    }
}

/// Decodes `tasks` of a rule.
pub(crate) fn decode_all(fields: &Fields<'_>) -> Option<Vec<TaskSpec>> {
    fields.required("tasks")?;
    let entries = fields.list("tasks", TASKS_PER_RULE_MAX)?;
    if entries.is_empty() {
        fields.report("tasks", "is empty: a rule takes at least one task", None);
        return None;
    }
    let decoded: Vec<_> = entries
        .into_iter()
        .map(|(path, node)| decode(node, path, fields.problems))
        .collect();
    decoded.into_iter().collect()
}

fn decode(node: &Node, path: Path, problems: &Problems) -> Option<TaskSpec> {
    let fields = Fields::open(node, path, problems)?;
    let known = [
        "queue", "title", "body", "labels", "priority", "due", "timeout",
    ];
    fields.allow(&known, &[]);
    let queue = fields.parsed("queue");
    let title = fields.text("title");
    let body = fields.text_opt("body");
    let labels = labels(&fields);
    let priority = priority(&fields);
    let due = fields.text_opt("due");
    let timeout = timeout(&fields);
    Some(TaskSpec {
        queue: queue?,
        title: title?.to_owned(),
        body: body?.map(str::to_owned),
        labels: labels?,
        priority: priority?,
        due: due?.map(str::to_owned),
        timeout: timeout?,
    })
}

fn labels(fields: &Fields<'_>) -> Option<BTreeMap<LabelName, String>> {
    let Some(value) = fields.optional("labels") else {
        return Some(BTreeMap::new());
    };
    let entries = Fields::open(value, fields.path.key("labels"), fields.problems)?;
    let count = entries.entries().count();
    if count > LABELS_MAX {
        let message = format!("{count} labels exceed {LABELS_MAX}");
        fields.report("labels", message, None);
        return None;
    }
    let mut labels = BTreeMap::new();
    let mut complete = true;
    for (key, path, _) in entries.entries() {
        let name = key
            .parse()
            .map_err(|error: kaizen_proto::id::NameError| {
                fields.problems.report_key(path, error.to_string(), None);
            })
            .ok();
        // Null is no text: a label without a value would be a slip.
        match (name, entries.text(key)) {
            (Some(name), Some(value)) => {
                labels.insert(name, value.to_owned());
            }
            _ => complete = false,
        }
    }
    complete.then_some(labels)
}

fn priority(fields: &Fields<'_>) -> Option<Priority> {
    let Some(value) = fields.optional("priority") else {
        return Some(Priority::default());
    };
    let priority = value.as_u64().and_then(|number| number.try_into().ok());
    if priority.is_none() {
        let message = format!(
            "takes an integer from 0 to {}, got {}",
            Priority::MAX,
            value.shown()
        );
        let hint = format!(
            "{} is the most urgent, {} is meant where it is left out",
            Priority::MAX,
            Priority::default()
        );
        fields.report("priority", message, Some(hint));
    }
    priority
}

fn timeout(fields: &Fields<'_>) -> Option<Option<SignedDuration>> {
    let Some(text) = fields.text_opt("timeout")? else {
        return Some(None);
    };
    let (shortest, longest) = TIMEOUT;
    let timeout = duration(text)
        .filter(|timeout| (shortest..=longest).contains(timeout) && timeout.subsec_nanos() == 0);
    if timeout.is_none() {
        let message = format!(
            "{:?} is no time that one attempt may take: use whole seconds from {shortest:#} to {longest:#}",
            cut(text)
        );
        let hint = Some("write for example 30m".to_owned());
        fields.report("timeout", message, hint);
    }
    timeout.map(Some)
}

/// A length of time such as `4h`, `90m` or `2d`, where a day is 24 hours.
fn duration(text: &str) -> Option<SignedDuration> {
    let span: Span = text.parse().ok()?;
    span.to_duration(SpanRelativeTo::days_are_24_hours()).ok()
}

/// Compiles a task; what is wrong is reported below `path`.
pub(crate) fn compile(
    task: &TaskSpec,
    path: &Path,
    names: &Names<'_>,
    templates: &mut Templates,
    report: &impl Fn(Path, Fault),
) -> Option<TaskTemplates> {
    let mut add = |path: Path, source: &str| {
        templates
            .add(path.to_string(), source, names)
            .map_err(|fault| report(path, fault))
            .ok()
    };
    let title = add(path.key("title"), &task.title);
    let body = match &task.body {
        None => Some(None),
        Some(source) => add(path.key("body"), source).map(Some),
    };
    let labels: Vec<_> = task
        .labels
        .iter()
        .map(|(name, source)| {
            let template = add(path.key("labels").key(name.as_str()), source)?;
            Some((name.clone(), template))
        })
        .collect();
    let due = match &task.due {
        None => Some(None),
        Some(source) => add(path.key("due"), source)
            .filter(|_| check_due(source, &path.key("due"), report))
            .map(Some),
    };
    Some(TaskTemplates {
        queue: task.queue.clone(),
        title: title?,
        body: body?,
        labels: labels.into_iter().collect::<Option<_>>()?,
        priority: task.priority,
        due: due?,
        timeout: task.timeout,
    })
}

/// Checks a `due` that is no template; one that is can be told only when it is rendered.
fn check_due(source: &str, path: &Path, report: &impl Fn(Path, Fault)) -> bool {
    if source.contains(['{', '}']) {
        return true;
    }
    let due = Due::read(source);
    if let Err(message) = &due {
        let hint = Some("write for example 4h, or 2026-12-01T09:00:00Z".to_owned());
        report(path.clone(), Fault::new(message.clone(), hint));
    }
    due.is_ok()
}

/// When a task should be done, as it is written.
enum Due {
    After(SignedDuration),
    At(Timestamp),
}

impl Due {
    fn read(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        match duration(text) {
            Some(after) if after.is_negative() || after > DUE_MAX => Err(format!(
                "{:?} is no time after the trigger: use 0s to {} days",
                cut(text),
                DUE_MAX.as_hours() / 24
            )),
            Some(after) => Ok(Self::After(after)),
            None => Err(format!(
                "{:?} is neither a duration nor an instant of RFC 3339",
                cut(text)
            )),
        }
    }

    /// The instant, for a trigger of `now`.
    fn after(self, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::After(duration) => now.checked_add(duration).ok(),
            Self::At(at) => Some(at),
        }
    }
}

impl TaskTemplates {
    /// Renders the task for a trigger of `now`.
    ///
    /// # Errors
    /// The path of the template, and what is wrong with it or with what it gives.
    pub(crate) fn draft(
        &self,
        now: Timestamp,
        render: impl Fn(&Template) -> Result<String, String>,
    ) -> Result<Draft, String> {
        let line = |template: &Template, what: &str, bytes_max: usize| {
            let text = render(template)?;
            one_line(text.trim(), what, bytes_max)
                .map_err(|wrong| format!("{}: {wrong}", template.name()))
        };
        let title = line(&self.title, "title", TITLE_BYTES_MAX)?;
        if title.is_empty() {
            let path = self.title.name();
            return Err(format!("{path}: the title comes out empty"));
        }
        let labels = self
            .labels
            .iter()
            .map(|(name, template)| Ok((name.clone(), line(template, "label", LABEL_BYTES_MAX)?)))
            .collect::<Result<_, String>>()?;
        Ok(Draft {
            queue: self.queue.clone(),
            title,
            body: self.body(&render)?,
            labels,
            priority: self.priority,
            due: self.due(now, &render)?,
            // Bounded by TIMEOUT.
            timeout_s: self
                .timeout
                .map(|timeout| u32::try_from(timeout.as_secs()).unwrap_or(u32::MAX)),
        })
    }

    fn body(
        &self,
        render: &impl Fn(&Template) -> Result<String, String>,
    ) -> Result<String, String> {
        let body = self
            .body
            .as_ref()
            .map_or_else(|| Ok(String::new()), render)?;
        if body.len() > BODY_BYTES_MAX {
            return Err(format!(
                "a body of {} bytes exceeds {BODY_BYTES_MAX}",
                body.len()
            ));
        }
        Ok(body)
    }

    fn due(
        &self,
        now: Timestamp,
        render: &impl Fn(&Template) -> Result<String, String>,
    ) -> Result<Option<Timestamp>, String> {
        let Some(template) = &self.due else {
            return Ok(None);
        };
        let wrong = |what: String| format!("{}: {what}", template.name());
        let due = Due::read(&render(template)?).map_err(wrong)?;
        let due = due.after(now);
        due.map(Some)
            .ok_or_else(|| wrong("is later than any instant".to_owned()))
    }
}

fn one_line(text: &str, what: &str, bytes_max: usize) -> Result<String, String> {
    if text.len() > bytes_max {
        let length = text.len();
        return Err(format!("a {what} of {length} bytes exceeds {bytes_max}"));
    }
    if text.contains(char::is_control) {
        return Err(format!(
            "the {what} takes one line without control characters"
        ));
    }
    Ok(text.to_owned())
}
