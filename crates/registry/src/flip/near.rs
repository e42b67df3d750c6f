//! Paths that are there, where one is not.

use kaizen_document::by_distance;
use serde_json::Value;

use crate::{
    condition::Read,
    json::{self, Part},
};

/// Most paths that are looked at.
const PATHS_MAX: usize = 200;
/// Deepest path that is looked at.
const DEPTH_MAX: usize = 8;
/// Longest path that is compared, in bytes.
const PATH_BYTES_MAX: usize = 200;
/// Most paths that are told.
const NEAR_MAX: usize = 3;

/// Paths in `root`, the variable that `missing` leads into: those that end in the same key first,
/// then by how much they differ.
pub(super) fn paths(root: &Value, missing: &Read) -> Vec<String> {
    let mut paths = Vec::new();
    gather(root, &mut Vec::new(), &mut paths);
    let last = missing.parts.last();
    let of = |same: bool| {
        let paths = paths
            .iter()
            .filter(move |path| (path.last() == last) == same);
        let texts = paths.map(|path| json::path_text(&missing.variable, path));
        texts
            .filter(|text| text.len() <= PATH_BYTES_MAX)
            .collect::<Vec<_>>()
    };
    let text = missing.text();
    let ranked = [of(true), of(false)].into_iter().flat_map(|texts| {
        let ranked = by_distance(&text, texts.iter().map(String::as_str));
        ranked.into_iter().map(str::to_owned).collect::<Vec<_>>()
    });
    ranked.take(NEAR_MAX).collect()
}

/// Paths to values that are no mappings, in the order of the keys.
fn gather(value: &Value, path: &mut Vec<Part>, paths: &mut Vec<Vec<Part>>) {
    let Value::Object(map) = value else { return };
    for (key, value) in map {
        if paths.len() == PATHS_MAX || path.len() == DEPTH_MAX {
            return;
        }
        path.push(Part::Field(key.clone()));
        if value.is_object() {
            gather(value, path, paths);
        } else {
            paths.push(path.clone());
        }
        path.pop();
    }
}
