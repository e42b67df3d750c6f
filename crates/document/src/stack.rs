//! A stack that no input within our bounds can exhaust.

use std::thread;

use crate::diagnostic::Fault;

/// Reserved for the thread; only what is used takes memory.
const STACK_BYTES: usize = 128 * 1024 * 1024;

/// Runs `work` on a large stack and waits for it. A panic harms nothing but its own input.
///
/// Parsers recurse, and a stack overflow aborts the process. Their input is bounded before they
/// see it, and they run here, where the bounds are known to suffice even with unoptimised frames.
///
/// # Errors
/// The work panicked, or there is no thread to be had.
#[allow(
    clippy::disallowed_methods,
    reason = "the thread lends its stack; the caller waits for it, so nothing runs aside"
)]
pub fn on_big_stack<T: Send>(work: impl FnOnce() -> T + Send) -> Result<T, Fault> {
    let done = thread::scope(|scope| {
        thread::Builder::new()
            .name("kaizen-parse".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, work)
            .map(thread::ScopedJoinHandle::join)
    });
    match done {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(Fault::new("the document breaks its parser", None)),
        Err(error) => Err(Fault::new(format!("no thread to parse in: {error}"), None)),
    }
}
