//! What differs between two revisions of a document, in a few words.

use serde_json::Value;

/// What of a document differs, given its canonical JSON before and after: names of its keys, in
/// their order, and of rules and context sources those that differ, as in
/// `rules[low-success-rate]`.
#[must_use]
pub fn changes(before: &Value, after: &Value) -> Vec<String> {
    let (Value::Object(before), Value::Object(after)) = (before, after) else {
        return Vec::new();
    };
    let mut keys: Vec<&String> = before.keys().chain(after.keys()).collect();
    keys.sort();
    keys.dedup();
    let differing = keys
        .into_iter()
        .filter(|key| before.get(*key) != after.get(*key));
    differing
        .flat_map(
            |key| match (key.as_str(), before.get(key), after.get(key)) {
                ("rules", Some(before), Some(after)) => named(key, "id", before, after),
                ("context_sources", Some(before), Some(after)) => {
                    named(key, "bind_to", before, after)
                }
                _ => vec![key.clone()],
            },
        )
        .collect()
}

/// The items of a list that differ, each by what its `key` says; the list itself where only their
/// order does.
fn named(list: &str, key: &str, before: &Value, after: &Value) -> Vec<String> {
    let (before, after) = (items(before), items(after));
    let named = |list: &[Value], name: &str| list.iter().find(|item| item[key] == *name).cloned();
    let mut names: Vec<&str> = Vec::new();
    for name in before
        .iter()
        .chain(after)
        .filter_map(|item| item[key].as_str())
    {
        if !names.contains(&name) && named(before, name) != named(after, name) {
            names.push(name);
        }
    }
    if names.is_empty() {
        return vec![list.to_owned()];
    }
    let named = names.into_iter().map(|name| format!("{list}[{name}]"));
    named.collect()
}

fn items(list: &Value) -> &[Value] {
    list.as_array().map_or(&[], Vec::as_slice)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_differs_is_named() {
        let before =
            json!({"enabled": true, "rules": [{"id": "a", "n": 1}, {"id": "b"}], "trigger": 1});
        let after = json!({"enabled": true, "description": "d",
            "rules": [{"id": "a", "n": 2}, {"id": "b"}, {"id": "c"}], "trigger": 2});
        assert_eq!(
            changes(&before, &after),
            ["description", "rules[a]", "rules[c]", "trigger"]
        );
        assert_eq!(changes(&before, &before), [""; 0]);
    }

    #[test]
    fn another_order_is_a_change_of_the_list() {
        let before = json!({"rules": [{"id": "a"}, {"id": "b"}]});
        let after = json!({"rules": [{"id": "b"}, {"id": "a"}]});
        assert_eq!(changes(&before, &after), ["rules"]);
    }
}
