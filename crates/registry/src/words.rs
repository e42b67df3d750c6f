//! The names of filters, tests and tags that a template uses, read from its text: the engine
//! looks them up only when it renders, which is too late for who applies a definition.

/// A name that a template uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word<'a> {
    /// After `|`.
    Filter(&'a str),
    /// After `is` or `is not`.
    Test(&'a str),
    /// A tag that asks for another template.
    Tag(&'a str),
}

/// Tags that ask for another template.
const TAGS: [&str; 4] = ["extends", "from", "import", "include"];

/// What `source`, a template that compiles, asks the engine for. Nothing is claimed of a template
/// with a `raw` block, whose text only looks like code.
pub(crate) fn asked(source: &str) -> Vec<Word<'_>> {
    let mut words = Vec::new();
    let mut rest = source;
    while let Some((code, is_tag, after)) = next_code(rest) {
        let tokens = tokens(code);
        let first = tokens.iter().find(|token| **token != "-" && **token != "+");
        match first {
            Some(&"raw") if is_tag => return Vec::new(),
            Some(tag) if is_tag && TAGS.contains(tag) => words.push(Word::Tag(tag)),
            _ => words.extend(names(&tokens)),
        }
        rest = after;
    }
    words
}

/// The next `{{ … }}` or `{% … %}`: its inside, whether it is a tag, and what follows.
fn next_code(source: &str) -> Option<(&str, bool, &str)> {
    let mut rest = source;
    loop {
        rest = rest.get(rest.find('{')?..)?;
        let close = match rest.get(1..2)? {
            "{" => "}}",
            "%" => "%}",
            "#" => {
                rest = rest.split_once("#}")?.1;
                continue;
            }
            _ => {
                rest = rest.get(1..)?;
                continue;
            }
        };
        let inside = rest.get(2..)?;
        let (code, after) = inside.split_once(close).unwrap_or((inside, ""));
        return Some((code, close == "%}", after));
    }
}

/// Names and single signs, text literals left out.
fn tokens(code: &str) -> Vec<&str> {
    let mut tokens = Vec::new();
    let mut rest = code.trim_start();
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' | '\'' => text_length(rest, first),
            c if is_word(c) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
            c => c.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        if !token.starts_with(['"', '\'']) {
            tokens.push(token);
        }
        rest = after.trim_start();
    }
    tokens
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Length in bytes of the text literal that `rest` begins with.
fn text_length(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at + c.len_utf8(),
            _ => {}
        }
    }
    rest.len()
}

fn names<'a>(tokens: &[&'a str]) -> Vec<Word<'a>> {
    let named = |token: &&'a str| token.starts_with(|c: char| c.is_alphabetic() || c == '_');
    tokens
        .iter()
        .enumerate()
        .filter_map(|(n, token)| {
            let after = tokens.get(n + 1..)?;
            match *token {
                "|" => after.first().filter(|t| named(t)).map(|t| Word::Filter(t)),
                "is" => after
                    .iter()
                    .find(|t| **t != "not")
                    .filter(|t| named(t))
                    .map(|t| Word::Test(t)),
                _ => None,
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_tests_and_tags_are_found_and_texts_are_not() {
        assert_eq!(
            asked("a | b {{ x | upper|join('|z') }} {% if x is not defined %}{# | c #}"),
            [
                Word::Filter("upper"),
                Word::Filter("join"),
                Word::Test("defined")
            ]
        );
        assert_eq!(asked("{%- include 'x' -%}"), [Word::Tag("include")]);
        assert_eq!(asked("{% raw %}{{ x|y }}{% endraw %}"), []);
        assert_eq!(asked("{{ 'a\\'|b' }} { {"), []);
    }
}
