//! What happened, for people.

use crate::world::{MS, Micros};

/// Lines in the order in which they happened; none where nobody reads them.
#[derive(Debug, Default)]
pub struct History(Option<Vec<String>>);

impl History {
    /// A history that is kept.
    #[must_use]
    pub fn kept() -> Self {
        Self(Some(Vec::new()))
    }

    /// Whether lines are kept.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Adds a line.
    pub fn line(&mut self, at: Micros, who: &str, what: &str) {
        if let Some(lines) = &mut self.0 {
            let (ms, us) = (at / MS, at % MS);
            lines.push(format!("{ms:>7}.{us:03} ms  {who:<12} {what}"));
        }
    }

    /// All lines.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        self.0.as_deref().unwrap_or_default()
    }
}
