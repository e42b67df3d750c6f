//! What is wrong with a document, and where.

use std::{cell::RefCell, fmt};

use crate::{
    node::{Node, Position},
    path::Path,
};

/// Most diagnostics that are told of one file; the rest would only bury the first ones.
pub const DIAGNOSTICS_MAX: usize = 50;

/// One thing that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as its caller named it.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
    /// Path inside the document, for example `rules[0].when`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(crate) fn new(file: &str, at: Position, path: &Path, fault: Fault) -> Self {
        Self {
            file: file.to_owned(),
            line: at.line,
            column: at.column,
            path: path.to_string(),
            message: fault.message,
            hint: fault.hint,
        }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: ", self.file, self.line, self.column)?;
        write_finding(f, &self.path, &self.message, self.hint.as_deref())
    }
}

impl std::error::Error for Diagnostic {}

fn write_finding(
    f: &mut fmt::Formatter<'_>,
    path: &str,
    message: &str,
    hint: Option<&str>,
) -> fmt::Result {
    if !path.is_empty() {
        write!(f, "{path}: ")?;
    }
    f.write_str(message)?;
    hint.map_or(Ok(()), |hint| write!(f, "; {hint}"))
}

/// What is wrong, and what to do about it, before its place is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub message: String,
    /// What to write instead, where that is known.
    pub hint: Option<String>,
}

impl Fault {
    /// A fault with or without a hint.
    pub fn new(message: impl Into<String>, hint: Option<String>) -> Self {
        Self {
            message: message.into(),
            hint,
        }
    }
}

/// A finding at a path of a document. Its text has no place in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    path: Path,
    place: Place,
    fault: Fault,
}

/// What a finding points at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// The value at its path.
    Value,
    /// The key of that value.
    Key,
    /// A place that no path leads to.
    At(Position),
}

impl Problem {
    /// Looks the place up in the document that the finding is about.
    pub(crate) fn locate(self, file: &str, root: &Node) -> Diagnostic {
        let at = match self.place {
            Place::Value => root.position_of(&self.path, false),
            Place::Key => root.position_of(&self.path, true),
            Place::At(at) => at,
        };
        Diagnostic::new(file, at, &self.path, self.fault)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string();
        write_finding(f, &path, &self.fault.message, self.fault.hint.as_deref())
    }
}

/// Findings as one text.
#[must_use]
pub fn joined(problems: &[Problem]) -> String {
    let texts: Vec<_> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// Collects the findings of one document, at most [`DIAGNOSTICS_MAX`].
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// Reports a finding on the value at `path`.
    pub fn report(&self, path: Path, message: impl Into<String>, hint: Option<String>) {
        self.push(path, Place::Value, Fault::new(message, hint));
    }

    /// Reports a finding on the last key of `path` itself.
    pub fn report_key(&self, path: Path, message: impl Into<String>, hint: Option<String>) {
        self.push(path, Place::Key, Fault::new(message, hint));
    }

    pub(crate) fn report_at(&self, at: Position, path: Path, message: String) {
        self.push(path, Place::At(at), Fault::new(message, None));
    }

    fn push(&self, path: Path, place: Place, fault: Fault) {
        if !self.is_full() {
            self.0.borrow_mut().push(Problem { path, place, fault });
        }
    }

    /// Whether a further finding would be lost.
    pub(crate) fn is_full(&self) -> bool {
        self.0.borrow().len() >= DIAGNOSTICS_MAX
    }

    /// The value, where nothing was reported.
    ///
    /// # Errors
    /// Everything that was reported, at least one finding.
    pub fn settle<T>(self, value: Option<T>) -> Result<T, Vec<Problem>> {
        let mut problems = self.0.into_inner();
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => {
                if problems.is_empty() {
                    problems.push(unexplained());
                }
                Err(problems)
            }
        }
    }
}

// Every decoder that answers None has reported why; this keeps a slip of ours from passing.
fn unexplained() -> Problem {
    Problem {
        path: Path::default(),
        place: Place::Value,
        fault: Fault::new("the document cannot be read", None),
    }
}
