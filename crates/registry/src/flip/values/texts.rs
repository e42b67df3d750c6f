//! Texts to try: what leaves ask a text for, in every combination.

use cel::{IdedExpr, Value as CelValue, common::ast::Expr};
use serde_json::Value;

use super::Constants;
use crate::{
    flip::{
        shape::{bare, is_cell, is_closed},
        skeleton::Leaf,
        world::Cell,
    },
    machine::Machine,
};

/// Longest text that others are made of, in bytes; longer ones are not told anyway.
const TEXT_BYTES_MAX: usize = 1024;
/// Most texts whose subsets are joined.
const PIECES_MAX: usize = 4;

/// Texts that leaves ask a cell for.
pub(super) struct Texts<'a> {
    constants: &'a [String],
    starts: Vec<String>,
    ends: Vec<String>,
    middles: Vec<String>,
    sizes: Vec<usize>,
}

impl<'a> Texts<'a> {
    pub(super) fn of(cell: &Cell, leaves: &[&Leaf<'_>], constants: &'a Constants) -> Self {
        let mut texts = Self {
            constants: &constants.texts,
            starts: Vec::new(),
            ends: Vec::new(),
            middles: Vec::new(),
            sizes: constants.sizes(),
        };
        for (function, argument) in leaves.iter().filter_map(|leaf| tested(leaf.tree, cell)) {
            match function {
                "startsWith" => texts.starts.push(argument),
                "endsWith" => texts.ends.push(argument),
                "contains" => texts.middles.push(argument),
                _ => texts.add_pattern(&argument),
            }
        }
        texts
    }

    /// A regular expression that asks for a plain text.
    fn add_pattern(&mut self, pattern: &str) {
        let inner = pattern.strip_prefix('^');
        let (anchored, inner) = (inner.is_some(), inner.unwrap_or(pattern));
        let ended = inner.strip_suffix('$');
        let (closed, inner) = (ended.is_some(), ended.unwrap_or(inner));
        if !inner
            .chars()
            .all(|c| c.is_alphanumeric() || "-_ /:@".contains(c))
        {
            return;
        }
        let list = match (anchored, closed) {
            (true, _) => &mut self.starts,
            (false, true) => &mut self.ends,
            (false, false) => &mut self.middles,
        };
        list.push(inner.to_owned());
    }

    /// Whether every choice of them is tried.
    pub(super) fn are_joined(&self) -> bool {
        self.starts.len() + self.ends.len() + self.middles.len() <= PIECES_MAX
    }

    pub(super) fn values(&self, now: Option<&Value>) -> Vec<String> {
        let filler = self.filler();
        let mut values = Vec::new();
        if let Some(now) = now
            .and_then(Value::as_str)
            .filter(|now| now.len() <= TEXT_BYTES_MAX)
        {
            values.extend(self.starts.iter().map(|start| format!("{start}{now}")));
            values.extend(self.ends.iter().map(|end| format!("{now}{end}")));
            values.extend(self.middles.iter().map(|middle| format!("{now}{middle}")));
            values.extend(self.without(now));
        }
        values.extend(self.constants.iter().cloned());
        values.extend(self.joined(filler));
        values.extend(self.constants.iter().flat_map(|text| {
            // What comes right after a text in order, which reads worse than what comes later.
            [format!("{text}{filler}"), format!("{text}\0")]
        }));
        values.push(String::new());
        values
    }

    /// A text without what it may not have.
    fn without(&self, now: &str) -> Vec<String> {
        let starts = self
            .starts
            .iter()
            .filter_map(|start| now.strip_prefix(start.as_str()));
        let ends = self
            .ends
            .iter()
            .filter_map(|end| now.strip_suffix(end.as_str()));
        let stripped = starts.chain(ends).map(str::to_owned);
        let middles = self.middles.iter().filter(|middle| !middle.is_empty());
        let cut = middles.map(|middle| now.replace(middle.as_str(), ""));
        stripped.chain(cut).collect()
    }

    /// Every choice of starts, middles and ends, with a filler between that no constant has: once,
    /// and as often as it takes to have a size.
    fn joined(&self, filler: char) -> Vec<String> {
        let filled = |n: usize| filler.to_string().repeat(n);
        let texts = self.choices(filler).into_iter().flat_map(|(start, end)| {
            let length = start.chars().count() + end.chars().count();
            let sizes = self
                .sizes
                .iter()
                .filter_map(|size| size.checked_sub(length));
            let fillers: Vec<_> = [1].into_iter().chain(sizes).collect();
            let texts = fillers
                .into_iter()
                .map(|n| [&start, filled(n).as_str(), &end].concat());
            texts.collect::<Vec<_>>()
        });
        texts.collect()
    }

    /// What stands before a filler, and after it.
    fn choices(&self, filler: char) -> Vec<(String, String)> {
        if !self.are_joined() {
            return Vec::new();
        }
        let mut choices = Vec::new();
        for starts in subsets(&self.starts) {
            for ends in subsets(&self.ends) {
                for middles in subsets(&self.middles) {
                    let middles = middles
                        .iter()
                        .flat_map(|middle| [filler.to_string(), (*middle).clone()]);
                    let start = [longest(&starts)].into_iter().chain(middles).collect();
                    choices.push((start, longest(&ends)));
                }
            }
        }
        choices
    }

    /// A character that no text has.
    fn filler(&self) -> char {
        let texts = [self.constants, &self.starts, &self.ends, &self.middles];
        let taken = |c: char| texts.into_iter().flatten().any(|text| text.contains(c));
        let mut chars = ('x'..='z').chain('a'..='w').chain('\u{e000}'..='\u{f8ff}');
        chars.find(|c| !taken(*c)).unwrap_or('x')
    }
}

fn longest(texts: &[&String]) -> String {
    let longest = texts.iter().max_by_key(|text| text.len());
    longest.map_or_else(String::new, |text| (*text).clone())
}

fn subsets<T>(items: &[T]) -> Vec<Vec<&T>> {
    let mut subsets = vec![Vec::new()];
    for item in items {
        let with: Vec<_> = subsets
            .iter()
            .map(|subset: &Vec<_>| subset.iter().copied().chain([item]).collect())
            .collect();
        subsets.extend(with);
    }
    subsets
}

/// The test of texts that `tree` makes of `cell`, with the constant that it asks for.
pub(super) fn tested<'a>(tree: &'a IdedExpr, cell: &Cell) -> Option<(&'a str, String)> {
    let Expr::Call(call) = &bare(tree).expr else {
        return None;
    };
    let tests = ["startsWith", "endsWith", "contains", "matches"];
    let function = tests.into_iter().find(|name| *name == call.func_name)?;
    let [argument] = call.args.as_slice() else {
        return None;
    };
    let target = call
        .target
        .as_deref()
        .filter(|target| is_cell(target, cell));
    target.filter(|_| is_closed(argument))?;
    match Machine::evaluate(argument, []) {
        Ok(CelValue::String(text)) => Some((function, text.to_string())),
        _ => None,
    }
}
