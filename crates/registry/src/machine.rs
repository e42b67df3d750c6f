//! The evaluator: the variables of an activation in CEL's own form, and one bounded run.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cel::{
    Context, ExecutionError, FunctionContext, IdedExpr, Value as CelValue,
    common::{
        types::{CelBool, CelList, CelMap as OrderlessMap, CelMapKey, CelString},
        value::{CowVal, Val},
    },
    objects::{Key, Map as CelMap},
};
use jiff::Timestamp;
use serde_json::Value;

use crate::{needs::Needs, parsing, scope::Variables};

/// Longest list anywhere in what a condition sees.
pub(crate) const LIST_ITEMS_MAX: usize = 10_000;
/// Most steps that the comprehensions of one evaluation take together.
pub(crate) const STEPS_MAX: u64 = 100_000;
/// Most values that one evaluation looks at where macros make it look again and again; what a list
/// or a map is built of counts [`COPY_COST`] times.
pub(crate) const VALUES_MAX: u64 = 5_000_000;
/// A copy takes memory as well.
const COPY_COST: u64 = 10;
/// Bytes of a text that count as one value.
pub(crate) const TEXT_BYTES_PER_VALUE: usize = 64;

/// Why an evaluation gave nothing.
pub(crate) enum Failure {
    Cel(Box<ExecutionError>),
    Told(String),
}

/// The variables of one activation in CEL's own form, made once and shared by its rules.
pub(crate) struct Machine {
    root: Context<'static, 'static>,
    spent: Arc<Spent>,
}

/// What an evaluation has used up.
#[derive(Debug, Default)]
struct Spent {
    steps: AtomicU64,
    values: AtomicU64,
}

impl Machine {
    /// Converts what is needed of the variables. Fails on a list that is too long, anywhere in a
    /// variable of which something is needed.
    pub(crate) fn new(variables: &Variables<'_>, needs: &Needs) -> Result<Self, String> {
        let mut machine = Self::empty()?;
        let root = &mut machine.root;
        for (name, needs) in needs.fields.iter().filter(|(name, _)| *name != "now") {
            if let Some(value) = variables.get(name) {
                let value = needed(value, needs).map_err(|e| format!("{name}{e}"))?;
                root.add_variable_as_val(name.as_str(), value);
            }
        }
        root.add_variable_from_value("now", timestamp(variables.facts.now_at));
        Ok(machine)
    }

    /// Without variables.
    fn empty() -> Result<Self, String> {
        let mut root = Context::with_env(parsing::environment());
        let spent = Arc::new(Spent::default());
        for (name, function) in [
            (parsing::STEP, counted(&spent, step)),
            (parsing::ORDERED, counted(&spent, ordered)),
            (parsing::WEIGHED, counted(&spent, weighed)),
            (parsing::COPIED, counted(&spent, copied)),
        ] {
            root.add_function(name, function)
                .map_err(|error| error.to_string())?;
        }
        Ok(Self { root, spent })
    }

    /// Evaluates `tree`, which takes at most [`STEPS_MAX`] steps and [`VALUES_MAX`] values.
    pub(crate) fn run(&self, tree: &IdedExpr, variables: &Variables<'_>) -> Result<bool, Failure> {
        let mut scope = self.root.new_inner_scope();
        if let Some((name, item)) = variables.item {
            let item = to_cel(item).map_err(|e| Failure::Told(format!("{name}{e}")))?;
            scope.add_variable_from_value(name, item);
        }
        match self.value(tree, &scope)? {
            CelValue::Bool(holds) => Ok(holds),
            other => Err(Failure::Told(format!(
                "the condition gives a value of type {}, not a bool",
                other.type_of()
            ))),
        }
    }

    /// What `tree` gives in `scope`, which was made from the root.
    fn value(&self, tree: &IdedExpr, scope: &Context<'_, '_>) -> Result<CelValue, Failure> {
        self.spent.steps.store(0, Ordering::Relaxed);
        self.spent.values.store(0, Ordering::Relaxed);
        // An evaluator that panics harms this rule alone.
        match catch_unwind(AssertUnwindSafe(|| CelValue::resolve(tree, scope))) {
            Ok(value) => value.map_err(|error| Failure::Cel(Box::new(error))),
            Err(_) => Err(Failure::Told(
                "the condition breaks the evaluator".to_owned(),
            )),
        }
    }
}

impl Machine {
    /// What `tree` gives, be it a bool or not, with `variables` of any type, for lint and tests: a
    /// rule has what JSON gives and takes a bool alone.
    pub(crate) fn evaluate(
        tree: &IdedExpr,
        variables: impl IntoIterator<Item = (String, CelValue)>,
    ) -> Result<CelValue, Failure> {
        Self::of(variables).map_err(Failure::Told)?.give(tree)
    }

    /// With `variables` of any type.
    pub(crate) fn of(
        variables: impl IntoIterator<Item = (String, CelValue)>,
    ) -> Result<Self, String> {
        let mut machine = Self::empty()?;
        for (name, value) in variables {
            machine.root.add_variable_from_value(name, value);
        }
        Ok(machine)
    }

    /// What `tree` gives, be it a bool or not.
    pub(crate) fn give(&self, tree: &IdedExpr) -> Result<CelValue, Failure> {
        self.value(tree, &self.root.new_inner_scope())
    }

    /// Steps and values that the last evaluation used up.
    pub(crate) fn spent(&self) -> u64 {
        let steps = self.spent.steps.load(Ordering::Relaxed);
        steps.saturating_add(self.spent.values.load(Ordering::Relaxed))
    }
}

/// A function in the evaluator's form: it borrows its argument where it gives it back.
type Function = Box<
    dyn for<'a, 'v> Fn(&mut FunctionContext<'a, 'v>) -> Result<CowVal<'a, 'v>, ExecutionError>
        + Send
        + Sync,
>;

/// A function of one argument that counts what it uses up.
fn counted(
    spent: &Arc<Spent>,
    function: for<'a, 'v> fn(&Spent, CowVal<'a, 'v>) -> Result<CowVal<'a, 'v>, ExecutionError>,
) -> Function {
    let spent = Arc::clone(spent);
    Box::new(move |context| {
        let argument = context.args.pop();
        let argument = argument.ok_or_else(ExecutionError::missing_argument_or_target)?;
        function(&spent, argument)
    })
}

/// Whether a comprehension goes on.
fn step<'a, 'v>(spent: &Spent, go_on: CowVal<'a, 'v>) -> Result<CowVal<'a, 'v>, ExecutionError> {
    spent.step(1)?;
    match go_on.downcast_ref::<CelBool>() {
        Some(_) => Ok(go_on),
        None => Err(ExecutionError::UnexpectedType {
            got: go_on.get_type().name().to_owned(),
            want: "bool".to_owned(),
        }),
    }
}

/// What a comprehension goes over, weighed, since it copies each item. Of a map the keys in order:
/// the evaluator's own order differs between two maps that are equal, and so would what two
/// replicas decide.
fn ordered<'a, 'v>(spent: &Spent, range: CowVal<'a, 'v>) -> Result<CowVal<'a, 'v>, ExecutionError> {
    let Some(map) = range.downcast_ref::<OrderlessMap<'_>>() else {
        return weighed(spent, range);
    };
    spent.step(length(map.len()))?;
    let mut keys: Vec<_> = map.keys().collect();
    keys.sort();
    let keys: Vec<Box<dyn Val>> = keys
        .into_iter()
        .map(|key| key.clone().into_static().inner().clone_as_boxed())
        .collect();
    Ok(CowVal::owned(CelList::from(keys)))
}

fn weighed<'a, 'v>(spent: &Spent, value: CowVal<'a, 'v>) -> Result<CowVal<'a, 'v>, ExecutionError> {
    spent.weigh(value.as_ref(), 1)?;
    Ok(value)
}

fn copied<'a, 'v>(spent: &Spent, value: CowVal<'a, 'v>) -> Result<CowVal<'a, 'v>, ExecutionError> {
    spent.weigh(value.as_ref(), COPY_COST)?;
    Ok(value)
}

impl Spent {
    fn step(&self, steps: u64) -> Result<(), ExecutionError> {
        spend(&self.steps, steps, STEPS_MAX).ok_or_else(|| exceeds(STEPS_MAX, "steps"))
    }

    /// Counts all that `value` holds; stops where it is too much.
    fn weigh(&self, value: &dyn Val, cost: u64) -> Result<(), ExecutionError> {
        let one = |values: u64| spend(&self.values, values.saturating_mul(cost), VALUES_MAX);
        let all = each_value(value, &one);
        all.ok_or_else(|| exceeds(VALUES_MAX, "values looked at or copied"))
    }
}

/// `None` where it is more than there is.
fn spend(counter: &AtomicU64, more: u64, most: u64) -> Option<()> {
    let spent = counter.fetch_add(more, Ordering::Relaxed);
    (spent.saturating_add(more) <= most).then_some(())
}

/// Tells `one` how many values `value` and all that it holds are, until that says to stop. As
/// deep as the value.
fn each_value(value: &dyn Val, one: &impl Fn(u64) -> Option<()>) -> Option<()> {
    if let Some(list) = value.downcast_ref::<CelList<'_>>() {
        one(1)?;
        let mut items = list.inner().iter();
        items.try_for_each(|item| each_value(item.as_ref(), one))
    } else if let Some(map) = value.downcast_ref::<OrderlessMap<'_>>() {
        one(1)?;
        let mut entries = map.iter();
        entries.try_for_each(|(key, item)| {
            each_value(key.inner(), one)?;
            each_value(item.as_ref(), one)
        })
    } else if let Some(text) = value.downcast_ref::<CelString<'_>>() {
        one(1 + length(text.inner().len() / TEXT_BYTES_PER_VALUE))
    } else {
        one(1)
    }
}

fn length(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn exceeds(most: u64, what: &str) -> ExecutionError {
    ExecutionError::function_error("comprehension", format!("more than {most} {what}"))
}

/// An instant.
pub(crate) fn timestamp(at: Timestamp) -> CelValue {
    let nanos = u32::try_from(at.subsec_nanosecond()).unwrap_or_default();
    chrono::DateTime::from_timestamp(at.as_second(), nanos)
        .map_or(CelValue::Null, |at| CelValue::Timestamp(at.fixed_offset()))
}

/// What is needed of a value. What breaks off earlier than what is read goes as it is, so that an
/// evaluation fails on it as it would on the whole.
fn needed(value: &Value, needs: &Needs) -> Result<Box<dyn Val>, String> {
    let Some(map) = value.as_object().filter(|_| !needs.whole) else {
        let whole = Box::try_from(to_cel(value)?);
        return whole.map_err(|error: ExecutionError| format!(": {error}"));
    };
    let mut converted = HashMap::with_capacity(needs.fields.len());
    for (key, item) in map {
        let one = needs.fields.get(key).map(|needs| needed(item, needs));
        let one = one.map_or_else(|| bounded(item).map(|()| None), |one| one.map(Some));
        if let Some(item) = one.map_err(|e| format!(".{key}{e}"))? {
            converted.insert(CelMapKey::from(key.clone()), item);
        }
    }
    Ok(Box::new(OrderlessMap::from(converted)))
}

/// Refuses what [`to_cel`] refuses.
fn bounded(value: &Value) -> Result<(), String> {
    match value {
        Value::Array(items) if items.len() > LIST_ITEMS_MAX => Err(too_long(items.len())),
        Value::Array(items) => (0..)
            .zip(items)
            .try_for_each(|(n, item)| bounded(item).map_err(|e| format!("[{n}]{e}"))),
        Value::Object(map) => map
            .iter()
            .try_for_each(|(key, item)| bounded(item).map_err(|e| format!(".{key}{e}"))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn too_long(length: usize) -> String {
    format!(": a list of {length} items exceeds {LIST_ITEMS_MAX}")
}

/// JSON → CEL. An integer becomes an int, not an unsigned one, so that one can calculate with it.
pub(crate) fn to_cel(value: &Value) -> Result<CelValue, String> {
    Ok(match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => CelValue::Int(int),
            (_, Some(uint), _) => CelValue::UInt(uint),
            (.., float) => CelValue::Float(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) if items.len() > LIST_ITEMS_MAX => return Err(too_long(items.len())),
        Value::Array(items) => {
            let items = items
                .iter()
                .enumerate()
                .map(|(n, item)| to_cel(item).map_err(|e| format!("[{n}]{e}")))
                .collect::<Result<Vec<_>, _>>()?;
            CelValue::List(Arc::new(items))
        }
        Value::Object(map) => {
            let map = map
                .iter()
                .map(|(key, item)| {
                    let item = to_cel(item).map_err(|e| format!(".{key}{e}"))?;
                    Ok((Key::from(key.clone()), item))
                })
                .collect::<Result<HashMap<_, _>, String>>()?;
            CelValue::Map(CelMap { map: Arc::new(map) })
        }
    })
}
