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
    if yaml.len() > FILE_BYTES_MAX {
        let message = format!("file of {} bytes exceeds {FILE_BYTES_MAX}", yaml.len());
        return Err(one(file, Position::START, Fault::new(message, None)));
    }
    on_big_stack(|| read_here(file, yaml, decode))
        .unwrap_or_else(|fault| Err(one(file, Position::START, fault)))
}

fn read_here<T>(
    file: &str,
    yaml: &str,
    decode: Decode<T>,
) -> Result<Vec<(Position, T)>, Vec<Diagnostic>> {
    let mut values = Vec::new();
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
            Ok(value) => values.push((node.at, value)),
            Err(problems) => {
                diagnostics.extend(located(problems, file, &node));
            }
        }
    }
    if diagnostics.is_empty() {
        return Ok(values);
    }
    diagnostics.sort_by_key(|diagnostic| (diagnostic.line, diagnostic.column));
    diagnostics.truncate(DIAGNOSTICS_MAX);
    Err(diagnostics)
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
