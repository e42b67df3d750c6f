//! What a failure is to whoever may try again: its kind, what becomes of it after so many
//! attempts, and how long the pause is between two.

use std::{error::Error, time::Duration};

use kaizen_proto::subject::DeadReason;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::connection::jittered;

/// The three kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureKind {
    /// The same may work later.
    Transient,
    /// The same fails for ever.
    Permanent,
    /// It might have worked later, but was tried as often as it may be.
    Exhausted,
}

impl FailureKind {
    /// Transient or permanent, by what somebody else says of it.
    #[must_use]
    pub fn of(transient: bool) -> Self {
        match transient {
            true => Self::Transient,
            false => Self::Permanent,
        }
    }

    /// Whether the same may be tried again.
    #[must_use]
    pub fn is_transient(self) -> bool {
        self == Self::Transient
    }

    /// What it is after so many attempts, of as many as there may be.
    #[must_use]
    pub fn after(self, attempts: i64, limit: u32) -> Self {
        match self {
            Self::Transient if attempts >= i64::from(limit) => Self::Exhausted,
            kind => kind,
        }
    }

    /// Why it is buried; `None` where it is tried again. Only what is `permanent` has a reason
    /// of its own.
    #[must_use]
    pub fn buried(self, permanent: DeadReason) -> Option<DeadReason> {
        match self {
            Self::Transient => None,
            Self::Permanent => Some(permanent),
            Self::Exhausted => Some(DeadReason::RetriesExhausted),
        }
    }
}

/// An error that says what kind of failure it is.
pub trait Failure: Error {
    /// Its kind.
    fn kind(&self) -> FailureKind;
}

/// Pauses that double up to the longest, each cut by up to a half at random.
#[derive(Debug, Clone, Copy)]
pub struct Backoff {
    /// After the first attempt.
    pub first: Duration,
    /// After many.
    pub longest: Duration,
}

impl Backoff {
    /// The pause after an attempt, counted from 1.
    #[must_use]
    pub fn after(self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(16);
        jittered(self.first.saturating_mul(1 << doublings).min(self.longest))
    }
}

/// Tries until it works or fails for good, `told` of each failure in between; `None` when
/// stopped before that.
///
/// # Errors
/// It fails for good.
pub async fn until_done<T, E: Failure, Attempt: Future<Output = Result<T, E>>>(
    backoff: Backoff,
    shutdown: &CancellationToken,
    mut attempt: impl FnMut() -> Attempt,
    mut told: impl FnMut(&E),
) -> Result<Option<T>, E> {
    let mut attempts = 0;
    loop {
        let Some(done) = shutdown.run_until_cancelled(attempt()).await else {
            return Ok(None);
        };
        match done {
            Ok(done) => return Ok(Some(done)),
            Err(error) if !error.kind().is_transient() => return Err(error),
            Err(error) => told(&error),
        }
        attempts += 1;
        let pause = sleep(backoff.after(attempts));
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return Ok(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[test]
    fn what_is_transient_is_exhausted_at_the_limit_and_nothing_else_is() {
        use FailureKind::{Exhausted, Permanent, Transient};
        assert_eq!(Transient.after(2, 3), Transient);
        assert_eq!(Transient.after(3, 3), Exhausted);
        assert_eq!(Permanent.after(3, 3), Permanent);
        let reason = DeadReason::ContextError;
        assert_eq!(Transient.buried(reason), None);
        assert_eq!(Permanent.buried(reason), Some(reason));
        let exhausted = Some(DeadReason::RetriesExhausted);
        assert_eq!(Exhausted.buried(reason), exhausted);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_are_never_less_than_half() {
        let backoff = Backoff {
            first: Duration::from_millis(100),
            longest: Duration::from_secs(4),
        };
        for attempt in 0..100_u32 {
            let whole = (100 * 2_u64.pow(attempt.saturating_sub(1).min(16))).min(4_000);
            let whole = Duration::from_millis(whole);
            let pause = backoff.after(attempt);
            assert!(pause <= whole && pause >= whole / 2, "{attempt}: {pause:?}");
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("failed")]
    struct Failed(FailureKind);

    impl Failure for Failed {
        fn kind(&self) -> FailureKind {
            self.0
        }
    }

    #[tokio::test]
    async fn tries_until_it_works_fails_for_good_or_is_stopped() {
        let backoff = Backoff {
            first: Duration::from_millis(1),
            longest: Duration::from_millis(1),
        };
        let shutdown = CancellationToken::new();
        let mut told = 0;
        let mut left = 3;
        let third = || {
            left -= 1;
            let done = (left == 0).then_some("done");
            ready(done.ok_or(Failed(FailureKind::Transient)))
        };
        let done = until_done(backoff, &shutdown, third, |_| told += 1).await;
        assert_eq!((done.unwrap(), told), (Some("done"), 2));
        let never = || ready(Err::<(), _>(Failed(FailureKind::Permanent)));
        assert!(until_done(backoff, &shutdown, never, |_| ()).await.is_err());
        let transient = || ready(Err::<(), _>(Failed(FailureKind::Transient)));
        let stopping = |_: &Failed| shutdown.cancel();
        let stopped = until_done(backoff, &shutdown, transient, stopping).await;
        assert_eq!(stopped.unwrap(), None);
    }
}
