//! Titles and bodies of tasks: minijinja, strict about what is undefined, and bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
};

use kaizen_document::Fault;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value as Jinja, value::Serde,
};

use crate::{
    json::{self, Part},
    scope::{Names, VARIABLES, Variables},
    words::{self, Word},
};

/// Longest template in bytes.
pub(crate) const TEMPLATE_BYTES_MAX: usize = 16 * 1024;
/// Steps and bytes that one rendering may cost; enough for the largest body.
const FUEL: u64 = 300_000;
/// Deepest nesting of macro calls.
const RECURSION_MAX: usize = 16;
/// What a template may call beside its variables.
const GLOBALS: [&str; 3] = ["dict", "namespace", "range"];

/// All templates of a definition. Compiled, one takes some ten kilobytes: most definitions of a
/// large registry rest, and in most services none is ever rendered.
#[derive(Debug, Default)]
pub(crate) struct Templates {
    /// By name.
    sources: Vec<(String, String)>,
    /// The variables that any of them names.
    reads: BTreeSet<&'static str>,
    /// All of them, once one is rendered.
    compiled: OnceLock<Environment<'static>>,
}

/// One template of [`Templates`].
#[derive(Debug)]
pub(crate) struct Template {
    name: String,
    reads: Vec<(String, Vec<Part>)>,
}

/// What templates are compiled in and rendered by.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_fuel(Some(FUEL));
    environment.set_recursion_limit(RECURSION_MAX);
    environment.remove_global("debug");
    environment
}

impl Templates {
    /// Takes a template under a name that is its path in the definition, if it compiles.
    pub(crate) fn add(
        &mut self,
        name: String,
        source: &str,
        names: &Names<'_>,
    ) -> Result<Template, Fault> {
        self.add_checked(name, source, |variable, parts| names.check(variable, parts))
    }

    /// The same, with what the template may read told by `check`.
    pub(crate) fn add_checked(
        &mut self,
        name: String,
        source: &str,
        check: impl Fn(&str, &[Part]) -> Result<(), Fault>,
    ) -> Result<Template, Fault> {
        if source.len() > TEMPLATE_BYTES_MAX {
            let message = format!(
                "template of {} bytes exceeds {TEMPLATE_BYTES_MAX}",
                source.len()
            );
            return Err(Fault::new(message, None));
        }
        let broken = |error: Error| Fault::new(format!("not a template: {}", told(&error)), None);
        let environment = environment();
        let template = environment
            .template_from_named_str(&name, source)
            .map_err(broken)?;
        check_words(&environment, source)?;
        let mut reads: Vec<_> = template
            .undeclared_variables(true)
            .iter()
            .map(|path| split(path))
            .filter(|(variable, _)| !GLOBALS.contains(&variable.as_str()))
            .collect();
        reads.sort();
        for (variable, parts) in &reads {
            check(variable, parts)?;
        }
        // By the text: a name that a template sets in one branch counts as declared in all.
        let named = VARIABLES.into_iter().filter(|name| source.contains(name));
        self.reads.extend(named);
        self.sources.push((name.clone(), source.to_owned()));
        Ok(Template { name, reads })
    }

    /// Renders a template.
    pub(crate) fn render(
        &self,
        template: &Template,
        input: &Input,
        variables: &Variables<'_>,
    ) -> Result<String, String> {
        self.compiled
            .get_or_init(|| compiled(&self.sources))
            .get_template(&template.name)
            .and_then(|compiled| compiled.render(input.0.clone()))
            .map_err(|error| template.explain(&error, variables))
    }
}

/// Refuses what the engine finds out only when it renders: filters and tests that are not
/// there, and templates that ask for other templates.
fn check_words(environment: &Environment<'_>, source: &str) -> Result<(), Fault> {
    for word in words::asked(source) {
        let (probe, unknown, what) = match word {
            Word::Tag(tag) => {
                return Err(Fault::new(
                    format!("a template cannot use `{tag}`: there are no other templates"),
                    None,
                ));
            }
            Word::Filter(name) => (
                format!("{{{{ 1|{name} }}}}"),
                ErrorKind::UnknownFilter,
                name,
            ),
            Word::Test(name) => (
                format!("{{{{ 1 is {name} }}}}"),
                ErrorKind::UnknownTest,
                name,
            ),
        };
        let found = environment.render_str(&probe, ());
        if found.is_err_and(|error| error.kind() == unknown) {
            return Err(Fault::new(format!("{unknown}: `{what}`"), None));
        }
    }
    Ok(())
}

fn compiled(sources: &[(String, String)]) -> Environment<'static> {
    let mut environment = environment();
    for (name, source) in sources {
        // Each of them compiled when it was taken; one that did not would be missed by name.
        _ = environment.add_template_owned(name.clone(), source.clone());
    }
    environment
}

impl Template {
    /// Path of the template in the definition.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Every path that it reads: a variable, and what follows.
    pub(crate) fn reads(&self) -> &[(String, Vec<Part>)] {
        &self.reads
    }

    fn explain(&self, error: &Error, variables: &Variables<'_>) -> String {
        let missing = (error.kind() == ErrorKind::UndefinedError)
            .then(|| self.missing(variables))
            .flatten();
        format!("{}: {}", self.name, missing.unwrap_or_else(|| told(error)))
    }

    /// The path that is not there: the engine does not say.
    fn missing(&self, variables: &Variables<'_>) -> Option<String> {
        self.reads.iter().find_map(|(variable, parts)| {
            let missing = json::follow(variables.get(variable)?, parts).err()?;
            let path = json::path_text(variable, parts);
            Some(format!("{path}: {}", missing.message))
        })
    }
}

fn split(path: &str) -> (String, Vec<Part>) {
    let mut keys = path.split('.').map(str::to_owned);
    let variable = keys.next().unwrap_or_default();
    (variable, keys.map(Part::Field).collect())
}

/// The engine's message without the name of the template, which its reader knows by path.
fn told(error: &Error) -> String {
    let detail = error.detail().map_or_else(
        || error.kind().to_string(),
        |detail| format!("{}: {detail}", error.kind()),
    );
    match error.line() {
        Some(line) if line > 1 => format!("{detail} (line {line})"),
        _ => detail,
    }
}

/// The variables in the engine's form.
#[derive(Debug, Clone)]
pub(crate) struct Input(Jinja);

/// The variables of one activation that its templates name, in the engine's form, made once and
/// shared by its rules.
#[derive(Debug)]
pub(crate) struct Inputs(BTreeMap<Arc<str>, Jinja>);

impl Inputs {
    pub(crate) fn new(variables: &Variables<'_>, templates: &Templates) -> Self {
        let values = templates.reads.iter().filter_map(|name| {
            let value = Jinja::from(Serde(variables.get(name)?));
            Some((Arc::from(*name), value))
        });
        Self(values.collect())
    }

    /// The input of one rule, or of one item of it.
    pub(crate) fn of(&self, variables: &Variables<'_>) -> Input {
        let mut values = self.0.clone();
        if let Some((name, item)) = variables.item {
            values.insert(Arc::from(name), Jinja::from(Serde(item)));
        }
        Input(Jinja::from(values))
    }
}
