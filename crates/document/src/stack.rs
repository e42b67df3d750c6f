//! A stack that no input within our bounds can exhaust.

use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
    thread,
};

use crate::diagnostic::Fault;

/// Reserved for the thread; only what is used takes memory.
const STACK_BYTES: usize = 128 * 1024 * 1024;

thread_local! {
    static IS_BIG: Cell<bool> = const { Cell::new(false) };
}

/// Runs `work` on a large stack and waits for it. A panic harms nothing but its own input.
/// Within `work` further calls take the stack that is there: whoever has much to parse makes one
/// thread for all of it.
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
    let broken = || Fault::new("the document breaks its parser", None);
    if IS_BIG.get() {
        // Nothing of the work outlives a panic: it is owned, and its result is not there.
        return catch_unwind(AssertUnwindSafe(work)).map_err(|_| broken());
    }
    let done = thread::scope(|scope| {
        thread::Builder::new()
            .name("kaizen-parse".to_owned())
            .stack_size(STACK_BYTES)
            .spawn_scoped(scope, || {
                IS_BIG.set(true);
                work()
            })
            .map(thread::ScopedJoinHandle::join)
    });
    match done {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(broken()),
        Err(error) => Err(Fault::new(format!("no thread to parse in: {error}"), None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_within_work_takes_the_stack_that_is_there() {
        let threads = on_big_stack(|| {
            let outer = thread::current().id();
            on_big_stack(|| thread::current().id() == outer)
        });
        assert!(threads.unwrap().unwrap());
    }

    #[test]
    #[allow(clippy::panic, reason = "that is what is tested")]
    fn panic_harms_its_own_input_alone() {
        let outcomes = on_big_stack(|| {
            let broken = on_big_stack(|| panic!("broken"));
            (broken.is_err(), on_big_stack(|| 1).is_ok())
        });
        assert_eq!(outcomes.unwrap(), (true, true));
        assert!(on_big_stack(|| panic!("broken")).is_err());
    }
}
