//! Files and stored documents → what a decoder makes of them.

use serde_json::Value;

use crate::{
    diagnostic::{DIAGNOSTICS_MAX, Diagnostic, Fault, Problem, Problems, joined},
    node::{Node, Position},
    path::Path,
    stack::on_big_stack,
    yaml,
};

/// Longest file in bytes.
pub const FILE_BYTES_MAX: usize = 1024 * 1024;

/// Makes something of a document, or answers `None` where it has reported why not.
pub type Decode<T> = fn(&Node, Path, &Problems) -> Option<T>;

/// Reads every document of a file; `file` names it in the diagnostics.
///
/// # Errors
/// What is wrong in any of them, in the order of the file, at most [`DIAGNOSTICS_MAX`] things.
pub fn read_all<T: Send>(
    file: &str,
    yaml: &str,
    decode: Decode<T>,
) -> Result<Vec<T>, Vec<Diagnostic>> {
    let read = read(file, yaml, decode)?;
    Ok(read.into_iter().map(|(_, value)| value).collect())
}

/// What a file holds: every document that can be read, and what is wrong with the others.
#[derive(Debug)]
pub struct Found<T> {
    /// The documents in order, each with the tree that knows its places.
    pub documents: Vec<(Node, T)>,
    /// In the order of the file, at most [`DIAGNOSTICS_MAX`] things.
    pub diagnostics: Vec<Diagnostic>,
}

/// Reads every document of a file, for who has more to say of those that are right; `file` names
/// it in the diagnostics.
pub fn read_each<T: Send>(file: &str, yaml: &str, decode: Decode<T>) -> Found<T> {
    let nothing = |diagnostics| Found {
        documents: Vec::new(),
        diagnostics,
    };
    if let Err(too_long) = check_length(file, yaml) {
        return nothing(too_long);
    }
    on_big_stack(|| find(file, yaml, decode))
        .unwrap_or_else(|fault| nothing(one(file, Position::START, fault)))
}

/// Reads a file that holds one document; `file` names it in the diagnostics.
///
/// # Errors
/// What is wrong, in the order of the file, at most [`DIAGNOSTICS_MAX`] things.
pub fn read_one<T: Send>(file: &str, yaml: &str, decode: Decode<T>) -> Result<T, Vec<Diagnostic>> {
    let mut read = read(file, yaml, decode)?.into_iter();
    match (read.next(), read.next()) {
        (Some((_, value)), None) => Ok(value),
        (None, _) => read_nothing(file, decode),
        (_, Some((at, _))) => {
            let hint = "this file takes one".to_owned();
            let fault = Fault::new("a second document begins here", Some(hint));
            Err(one(file, at, fault))
        }
    }
}

/// An empty file is null, which lets the decoder tell what it takes.
fn read_nothing<T>(file: &str, decode: Decode<T>) -> Result<T, Vec<Diagnostic>> {
    let node = Node::from_json(&Value::Null);
    decode_node(&node, decode).map_err(|problems| located(problems, file, &node).collect())
}

/// Reads a stored document, as strictly as from a file. `root` is what its paths begin with.
///
/// # Errors
/// Every finding, joined.
pub fn read_json<T: Send>(json: &Value, root: Path, decode: Decode<T>) -> Result<T, String> {
    let work = || {
        let problems = Problems::default();
        let value = decode(&Node::from_json(json), root, &problems);
        problems.settle(value).map_err(|problems| joined(&problems))
    };
    on_big_stack(work).unwrap_or_else(|fault| Err(fault.message))
}

fn read<T: Send>(
    file: &str,
    yaml: &str,
    decode: Decode<T>,
) -> Result<Vec<(Position, T)>, Vec<Diagnostic>> {
    let found = read_each(file, yaml, decode);
    if !found.diagnostics.is_empty() {
        return Err(found.diagnostics);
    }
    let documents = found.documents.into_iter();
    Ok(documents.map(|(node, value)| (node.at, value)).collect())
}

fn check_length(file: &str, yaml: &str) -> Result<(), Vec<Diagnostic>> {
    if yaml.len() <= FILE_BYTES_MAX {
        return Ok(());
    }
    let message = format!("file of {} bytes exceeds {FILE_BYTES_MAX}", yaml.len());
    Err(one(file, Position::START, Fault::new(message, None)))
}

fn find<T>(file: &str, yaml: &str, decode: Decode<T>) -> Found<T> {
    let mut documents = Vec::new();
    let mut diagnostics = Vec::new();
    for document in yaml::read(yaml) {
        let node = match document {
            Ok(node) => node,
            Err(error) => {
                diagnostics.extend(one(file, error.at, error.fault));
                continue;
            }
        };
        match decode_node(&node, decode) {
            Ok(value) => documents.push((node, value)),
            Err(problems) => {
                diagnostics.extend(located(problems, file, &node));
            }
        }
    }
    diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    diagnostics.truncate(DIAGNOSTICS_MAX);
    Found {
        documents,
        diagnostics,
    }
}

fn decode_node<T>(node: &Node, decode: Decode<T>) -> Result<T, Vec<Problem>> {
    let problems = Problems::default();
    node.report_repeated(&mut Path::default(), &problems);
    let value = decode(node, Path::default(), &problems);
    problems.settle(value)
}

fn located(problems: Vec<Problem>, file: &str, root: &Node) -> impl Iterator<Item = Diagnostic> {
    problems
        .into_iter()
        .map(move |problem| problem.locate(file, root))
}

fn one(file: &str, at: Position, fault: Fault) -> Vec<Diagnostic> {
    vec![Diagnostic::new(file, at, &Path::default(), fault)]
}
