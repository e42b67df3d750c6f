//! What is wrong with a document, and where.

use std::{cell::RefCell, fmt};

/// One thing that is wrong in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file, as its caller named it.
    pub file: String,
    /// Line, from 1; 0 where no place is known.
    pub line: u64,
    /// Column in characters, from 1; 0 where no place is known.
    pub column: u64,
    /// Path inside the document, for example `rules[0].when`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        f.write_str(" ")?;
        write_finding(f, &self.path, &self.message, self.hint.as_deref())
    }
}

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

/// One step into a document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

/// Path to a value of a document.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Path(pub(crate) Vec<Step>);

impl Path {
    pub(crate) fn key(&self, key: &str) -> Self {
        self.with(Step::Key(key.to_owned()))
    }

    pub(crate) fn index(&self, index: usize) -> Self {
        self.with(Step::Index(index))
    }

    fn with(&self, step: Step) -> Self {
        let mut steps = self.0.clone();
        steps.push(step);
        Self(steps)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if n == 0 => write!(f, "{key}")?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A finding before its place in the file is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    pub(crate) path: Path,
    /// The finding is about the key itself, not about its value.
    pub(crate) on_key: bool,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.to_string();
        write_finding(f, &path, &self.message, self.hint.as_deref())
    }
}

/// Collects findings, so that one look at a document tells them all.
#[derive(Debug, Default)]
pub(crate) struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    pub(crate) fn report(&self, path: Path, message: impl Into<String>, hint: Option<String>) {
        self.push(path, false, message.into(), hint);
    }

    pub(crate) fn report_key(&self, path: Path, message: impl Into<String>, hint: Option<String>) {
        self.push(path, true, message.into(), hint);
    }

    fn push(&self, path: Path, on_key: bool, message: String, hint: Option<String>) {
        self.0.borrow_mut().push(Problem {
            path,
            on_key,
            message,
            hint,
        });
    }

    pub(crate) fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}
