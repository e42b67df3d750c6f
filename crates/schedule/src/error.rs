//! Why a text is no cron expression.

use crate::{expr::CRON_BYTES_MAX, field::Field};

/// A text that is no cron expression. Says what is wrong, where, and what is allowed.
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
        "cron expression {text:?} has {count} field{}: use five (minute, hour, day of month, month, day of week), or six with the second in front{}",
        if *count == 1 { "" } else { "s" },
        nickname_hint(text)
    )]
    FieldCount {
        /// The text as given, cut after 80 characters.
        text: String,
        /// How many fields it has.
        count: usize,
    },
    /// A word with `@` that is no known name.
    #[error(
        "cron name {text:?} is not known: use @hourly, @daily, @midnight, @weekly, @monthly, @yearly or @annually"
    )]
    Nickname {
        /// The text as given, cut after 80 characters.
        text: String,
    },
    /// One field is wrong.
    #[error("{field} {text:?}: {problem}; {field} takes {}", field.allowed())]
    Field {
        /// Which field.
        field: Field,
        /// The field's text, cut after 80 characters.
        text: String,
        /// What is wrong in it.
        problem: String,
    },
    /// No day matches, as in `0 0 30 2 *`.
    #[error(
        "cron expression {text:?} never fires: no date matches its day of month, month and day of week"
    )]
    NeverFires {
        /// The text as given.
        text: String,
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

fn nickname_hint(text: &str) -> String {
    let name = format!("@{}", text.to_ascii_lowercase());
    match crate::expr::nickname(&name) {
        Some(_) => format!("; did you mean \"{name}\"?"),
        None => String::new(),
    }
}

/// What an error repeats of a text from outside.
pub(crate) fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
