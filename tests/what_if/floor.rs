//! One condition by the evaluator alone: no envelope, no rule, no task.

use std::time::Instant;

use anyhow::{anyhow, ensure};
use cel::{Context, Program};
use serde_json::Value;

use crate::load::{CHANGES, condition, event};

const EVALUATIONS: usize = 100_000;

/// Evaluations a second, the attributes of the event being converted for each.
pub(crate) fn evaluations() -> anyhow::Result<f64> {
    let condition = condition(CHANGES[0].before);
    let program = Program::compile(&condition).map_err(|error| anyhow!("{error}"))?;
    let event: Value = serde_json::from_str(&event(1))?;
    let context = serde_json::json!({"m": event["attributes"]});
    let started = Instant::now();
    let mut errors = 0;
    for _ in 0..EVALUATIONS {
        let mut variables = Context::default();
        let added = variables.add_variable("context", &context);
        added.map_err(|error| anyhow!("{error}"))?;
        errors += usize::from(program.execute(&variables).is_err());
    }
    ensure!(errors == 0, "{errors} evaluations failed");
    Ok(EVALUATIONS as f64 / started.elapsed().as_secs_f64())
}
