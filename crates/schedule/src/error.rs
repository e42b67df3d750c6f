//! Why a text is no cron expression, and why a document is no schedule.

use std::fmt;

use crate::{expr::CRON_BYTES_MAX, field::Field};

/// A text that is no cron expression: what is wrong, what is allowed, and the place, with a
/// caret under it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CronError {
    /// Longer than [`CRON_BYTES_MAX`].
    #[error("cron expression of {len} bytes exceeds {CRON_BYTES_MAX}")]
    Length {
        /// Its length in bytes.
        len: usize,
    },
    /// Neither five nor six fields.
    #[error(
        "cron expression {text:?} has {count} field{}: use five (minute, hour, day of month, month, day of week), or six with the second in front{hint}{excerpt}",
        if *count == 1 { "" } else { "s" },
    )]
    FieldCount {
        /// The text as given, cut after 80 characters.
        text: String,
        /// How many fields it has.
        count: usize,
        /// What may have been meant.
        hint: String,
        /// What is too much, or where something is missing.
        excerpt: Excerpt,
    },
    /// A word with `@` that is no known name.
    #[error(
        "cron name {text:?} is not known: use @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually or @every{hint}{excerpt}"
    )]
    Nickname {
        /// The text as given, cut after 80 characters.
        text: String,
        /// What may have been meant.
        hint: String,
        /// The name.
        excerpt: Excerpt,
    },
    /// A name that stands for something this mesh does not have.
    #[error("{text} is not supported: {problem}{excerpt}")]
    Unsupported {
        /// The name.
        text: String,
        /// Why, and what to write instead.
        problem: String,
        /// The name.
        excerpt: Excerpt,
    },
    /// One field is wrong.
    #[error("{field} {text:?}: {problem}; {field} takes {}{excerpt}", field.allowed())]
    Field {
        /// Which field.
        field: Field,
        /// The field's text, cut after 80 characters.
        text: String,
        /// What is wrong in it.
        problem: String,
        /// The part that is wrong.
        excerpt: Excerpt,
    },
    /// `@every` with something that is no period or phase.
    #[error("@every: {problem}; write for example @every 90s or @every 6h phase 15m{excerpt}")]
    Every {
        /// What is wrong.
        problem: String,
        /// The part that is wrong.
        excerpt: Excerpt,
    },
    /// No day matches, as in `0 0 30 2 *`.
    #[error(
        "cron expression {text:?} never fires: no date matches its day of month, month and day of week{excerpt}"
    )]
    NeverFires {
        /// The text as given.
        text: String,
        /// The three fields.
        excerpt: Excerpt,
    },
    /// The calendar refused what the fields were translated to.
    #[error("cron expression {text:?} is not supported: {problem}")]
    Calendar {
        /// The text as given.
        text: String,
        /// What the calendar said.
        problem: String,
    },
}

/// A line of text with carets under a part of it. Shown on two lines of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Excerpt {
    line: String,
    from: usize,
    width: usize,
}

impl Excerpt {
    /// The `len` bytes of `text` from `from` on; at least one caret.
    pub(crate) fn new(text: &str, from: usize, len: usize) -> Self {
        let chars = |part: Option<&str>| part.map_or(0, |part| part.chars().count());
        Self {
            // A control character would move the caret, or worse.
            line: text.replace(char::is_control, "\u{fffd}"),
            from: chars(text.get(..from)),
            width: chars(text.get(from..from + len)).max(1),
        }
    }
}

impl fmt::Display for Excerpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { line, from, width } = self;
        write!(f, "\n    {line}\n    {:from$}{}", "", "^".repeat(*width))
    }
}

/// What an error repeats of a text from outside.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A document that is no schedule: what is wrong, and under which of its keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct ScheduleError {
    key: Key,
    problem: String,
}

impl ScheduleError {
    pub(crate) fn new(key: Key, problem: impl Into<String>) -> Self {
        Self {
            key,
            problem: problem.into(),
        }
    }

    pub(crate) fn cron(key: Key, error: &CronError) -> Self {
        Self::new(key, error.to_string())
    }

    /// Which key is wrong.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }
}

/// A key of a [`ScheduleSpec`](crate::ScheduleSpec); shown as its path: `exclude.dates[1]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// `cron`
    Cron,
    /// `timezone`
    Timezone,
    /// `dst`
    Dst,
    /// `start`
    Start,
    /// `end`
    End,
    /// `exclude`
    Exclude,
    /// `exclude.dates`
    ExcludeDates,
    /// `exclude.crons`
    ExcludeCrons,
    /// One of `exclude.crons`, from 0.
    ExcludeCron(usize),
    /// `jitter`
    Jitter,
}

impl Key {
    /// The keys on the way to it, outermost first.
    #[must_use]
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Cron => &["cron"],
            Self::Timezone => &["timezone"],
            Self::Dst => &["dst"],
            Self::Start => &["start"],
            Self::End => &["end"],
            Self::Exclude => &["exclude"],
            Self::ExcludeDates => &["exclude", "dates"],
            Self::ExcludeCrons | Self::ExcludeCron(_) => &["exclude", "crons"],
            Self::Jitter => &["jitter"],
        }
    }

    /// The place in the list that the last of [`Key::names`] holds.
    #[must_use]
    pub fn index(self) -> Option<usize> {
        match self {
            Self::ExcludeCron(index) => Some(index),
            _ => None,
        }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join("."))?;
        match self.index() {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}
