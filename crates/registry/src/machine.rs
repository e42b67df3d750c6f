//! The evaluator: the variables of an activation in CEL's own form, and one bounded run.

use std::{
    collections::{BTreeSet, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use cel::{
    Context, ExecutionError, FunctionContext, IdedExpr, Value as CelValue,
    common::{
        types::{CelBool, CelList, CelMap as OrderlessMap},
        value::{CowVal, Val},
    },
    objects::{Key, Map as CelMap},
};
use jiff::Timestamp;
use serde_json::Value;

use crate::{parsing, scope::Variables};

/// Longest list anywhere in what a condition sees.
pub(crate) const LIST_ITEMS_MAX: usize = 10_000;
/// Most steps that the comprehensions of one evaluation take together.
pub(crate) const STEPS_MAX: u64 = 100_000;

/// Why an evaluation gave nothing.
pub(crate) enum Failure {
    Cel(Box<ExecutionError>),
    Told(String),
}

/// The variables of one activation in CEL's own form, made once and shared by its rules.
pub(crate) struct Machine {
    root: Context<'static, 'static>,
    steps: Arc<AtomicU64>,
}

impl Machine {
    /// Converts the variables that `reads` names. Fails on a list that is too long.
    pub(crate) fn new(variables: &Variables<'_>, reads: &BTreeSet<&str>) -> Result<Self, String> {
        let mut machine = Self::empty()?;
        let root = &mut machine.root;
        for (name, value) in variables
            .all()
            .filter(|(name, _)| *name != "now" && reads.contains(name))
        {
            root.add_variable_from_value(name, to_cel(value).map_err(|e| format!("{name}{e}"))?);
        }
        root.add_variable_from_value("now", timestamp(variables.facts.now_at));
        Ok(machine)
    }

    /// Without variables.
    fn empty() -> Result<Self, String> {
        let mut root = Context::with_env(parsing::environment());
        let steps = Arc::new(AtomicU64::new(0));
        for (name, function) in [
            (parsing::STEP, counted(&steps, step)),
            (parsing::ORDERED, counted(&steps, ordered)),
        ] {
            root.add_function(name, function)
                .map_err(|error| error.to_string())?;
        }
        Ok(Self { root, steps })
    }

    /// Evaluates `tree`, which takes at most [`STEPS_MAX`] steps.
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
        self.steps.store(0, Ordering::Relaxed);
        // An evaluator that panics harms this rule alone.
        match catch_unwind(AssertUnwindSafe(|| CelValue::resolve(tree, scope))) {
            Ok(value) => value.map_err(|error| Failure::Cel(Box::new(error))),
            Err(_) => Err(Failure::Told(
                "the condition breaks the evaluator".to_owned(),
            )),
        }
    }
}

#[cfg(test)]
impl Machine {
    /// What `tree` gives, be it a bool or not, with `variables` of any type: production has what
    /// JSON gives and takes a bool alone.
    pub(crate) fn evaluate(
        tree: &IdedExpr,
        variables: impl IntoIterator<Item = (String, CelValue)>,
    ) -> Result<CelValue, Failure> {
        let mut machine = Self::empty().map_err(Failure::Told)?;
        for (name, value) in variables {
            machine.root.add_variable_from_value(name, value);
        }
        machine.value(tree, &machine.root.new_inner_scope())
    }
}

/// A function in the evaluator's form: it borrows its argument where it gives it back.
type Function = Box<
    dyn for<'a, 'v> Fn(&mut FunctionContext<'a, 'v>) -> Result<CowVal<'a, 'v>, ExecutionError>
        + Send
        + Sync,
>;

/// A function of one argument that counts its steps.
fn counted(
    steps: &Arc<AtomicU64>,
    function: for<'a, 'v> fn(&AtomicU64, CowVal<'a, 'v>) -> Result<CowVal<'a, 'v>, ExecutionError>,
) -> Function {
    let steps = Arc::clone(steps);
    Box::new(move |context| {
        let argument = context.args.pop();
        let argument = argument.ok_or_else(ExecutionError::missing_argument_or_target)?;
        function(&steps, argument)
    })
}

/// Whether a comprehension goes on.
fn step<'a, 'v>(
    steps: &AtomicU64,
    go_on: CowVal<'a, 'v>,
) -> Result<CowVal<'a, 'v>, ExecutionError> {
    count(steps, 1)?;
    match go_on.downcast_ref::<CelBool>() {
        Some(_) => Ok(go_on),
        None => Err(ExecutionError::UnexpectedType {
            got: go_on.get_type().name().to_owned(),
            want: "bool".to_owned(),
        }),
    }
}

/// The keys of a map in order: the evaluator's own order differs between two maps that are equal,
/// and so would what two replicas decide. Anything else as it is.
fn ordered<'a, 'v>(
    steps: &AtomicU64,
    range: CowVal<'a, 'v>,
) -> Result<CowVal<'a, 'v>, ExecutionError> {
    let Some(map) = range.downcast_ref::<OrderlessMap<'_>>() else {
        return Ok(range);
    };
    count(steps, u64::try_from(map.len()).unwrap_or(u64::MAX))?;
    let mut keys: Vec<_> = map.keys().collect();
    keys.sort();
    let keys: Vec<Box<dyn Val>> = keys
        .into_iter()
        .map(|key| key.clone().into_static().inner().clone_as_boxed())
        .collect();
    Ok(CowVal::owned(CelList::from(keys)))
}

fn count(steps: &AtomicU64, more: u64) -> Result<(), ExecutionError> {
    if steps
        .fetch_add(more, Ordering::Relaxed)
        .saturating_add(more)
        > STEPS_MAX
    {
        return Err(ExecutionError::function_error(
            "comprehension",
            format!("more than {STEPS_MAX} steps"),
        ));
    }
    Ok(())
}

fn timestamp(at: Timestamp) -> CelValue {
    let nanos = u32::try_from(at.subsec_nanosecond()).unwrap_or_default();
    chrono::DateTime::from_timestamp(at.as_second(), nanos)
        .map_or(CelValue::Null, |at| CelValue::Timestamp(at.fixed_offset()))
}

/// JSON → CEL. An integer becomes an int, not an unsigned one, so that one can calculate with it.
fn to_cel(value: &Value) -> Result<CelValue, String> {
    Ok(match value {
        Value::Null => CelValue::Null,
        Value::Bool(value) => CelValue::Bool(*value),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(int), ..) => CelValue::Int(int),
            (_, Some(uint), _) => CelValue::UInt(uint),
            (.., float) => CelValue::Float(float.unwrap_or(f64::NAN)),
        },
        Value::String(text) => CelValue::String(Arc::new(text.clone())),
        Value::Array(items) if items.len() > LIST_ITEMS_MAX => {
            let length = items.len();
            return Err(format!(
                ": a list of {length} items exceeds {LIST_ITEMS_MAX}"
            ));
        }
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
