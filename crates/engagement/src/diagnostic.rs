//! What is wrong in a file, where, and what to do about it.

use std::fmt;

/// Most diagnostics that are kept of one file; the rest would only bury the first ones.
pub const DIAGNOSTICS_MAX: usize = 50;

/// One thing that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as the caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// Where in the document, for example `agents.coach.cadence`; empty for the whole of it.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Diagnostic {}

/// A place in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) line: u64,
    pub(crate) column: u64,
}

impl Position {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// Gathers the diagnostics of one file.
pub(crate) struct Report<'a> {
    file: &'a str,
    diagnostics: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(file: &'a str) -> Self {
        Self {
            file,
            diagnostics: Vec::new(),
        }
    }

    pub(crate) fn add(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.push(at, path, message.into(), None);
    }

    pub(crate) fn add_hint(
        &mut self,
        at: Position,
        path: &str,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(at, path, message.into(), Some(hint.into()));
    }

    pub(crate) fn push(&mut self, at: Position, path: &str, message: String, hint: Option<String>) {
        if self.diagnostics.len() < DIAGNOSTICS_MAX {
            self.diagnostics.push(Diagnostic {
                file: self.file.to_owned(),
                line: at.line,
                column: at.column,
                path: path.to_owned(),
                message,
                hint,
            });
        }
    }

    /// The value, where nothing was wrong; else all that was, in the order of the file.
    pub(crate) fn finish<T>(mut self, value: Option<T>) -> Result<T, Vec<Diagnostic>> {
        match value {
            Some(value) if self.diagnostics.is_empty() => Ok(value),
            _ => {
                self.diagnostics.sort_by_key(|d| (d.line, d.column));
                Err(self.diagnostics)
            }
        }
    }
}
