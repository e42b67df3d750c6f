//! How often an agent runs in a repo.

use std::{fmt, str::FromStr};

use kaizen_document::{Fields, cut, suggest};
use serde::{Deserialize, Serialize};

/// How often an agent runs in a repo. Discovery filters on this, never on the cron text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cadence {
    /// Each day.
    Daily,
    /// Each week.
    Weekly,
    /// Each month.
    Monthly,
}

impl Cadence {
    /// All cadences.
    pub const ALL: [Self; 3] = [Self::Daily, Self::Weekly, Self::Monthly];

    /// As written in a file.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
        }
    }

    /// The cron of an agent without an override, in UTC: 03:00 each day, each Monday, or each
    /// first of the month.
    #[must_use]
    pub fn default_cron(self) -> &'static str {
        match self {
            Self::Daily => "0 3 * * *",
            Self::Weekly => "0 3 * * 1",
            Self::Monthly => "0 3 1 * *",
        }
    }
}

/// A text that is no cadence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CadenceError {
    /// `hourly`: tempting, and refused by name.
    #[error("`hourly` is not a cadence")]
    Hourly,
    /// Any other text, cut.
    #[error("{0:?} is not a cadence")]
    Unknown(String),
}

impl CadenceError {
    /// What to write instead.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            Self::Hourly => "use daily, with an hourly `cron` override in the repo's schedule: {cadence: daily, cron: \"15 * * * *\"}".to_owned(),
            Self::Unknown(text) => suggest(text, "cadences", &Cadence::ALL.map(Cadence::as_str)),
        }
    }
}

/// Parses the text of `key`; what is wrong is reported there.
pub(crate) fn read(fields: &Fields<'_>, key: &str, text: &str) -> Option<Cadence> {
    let parsed: Result<Cadence, _> = text.parse();
    parsed
        .map_err(|error| fields.report(key, error.to_string(), Some(error.hint())))
        .ok()
}

impl FromStr for Cadence {
    type Err = CadenceError;

    fn from_str(text: &str) -> Result<Self, CadenceError> {
        let known = Self::ALL.into_iter().find(|c| c.as_str() == text);
        known.ok_or_else(|| {
            if text.eq_ignore_ascii_case("hourly") {
                CadenceError::Hourly
            } else {
                CadenceError::Unknown(cut(text).to_owned())
            }
        })
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
