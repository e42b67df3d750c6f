//! Names of the headers that the mesh reads and writes.

/// Deduplication id of a publish to EVENTS: the event's trigger id.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// Compare-and-set: the last sequence expected on the subject or filter.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE: &str = "Nats-Expected-Last-Subject-Sequence";
/// The filter that the expected sequence speaks of, where it is not the message's own subject.
pub const EXPECTED_LAST_SUBJECT_SEQUENCE_SUBJECT: &str =
    "Nats-Expected-Last-Subject-Sequence-Subject";
/// How long a message lives, in whole seconds, or `never`.
pub const TTL: &str = "Nats-TTL";
/// `sub`: the message replaces every earlier one on its subject.
pub const ROLLUP: &str = "Nats-Rollup";
/// Atomic batch: its id, 64 characters at most.
pub const BATCH_ID: &str = "Nats-Batch-Id";
/// Atomic batch: position of the message, from 1.
pub const BATCH_SEQUENCE: &str = "Nats-Batch-Sequence";
/// Atomic batch: `1` on the last message.
pub const BATCH_COMMIT: &str = "Nats-Batch-Commit";

/// W3C trace context.
pub const TRACEPARENT: &str = "traceparent";
/// W3C trace state.
pub const TRACESTATE: &str = "tracestate";

/// Definition that a message belongs to.
pub const DEFINITION: &str = "Kaizen-Definition";
/// Revision that decided.
pub const REVISION: &str = "Kaizen-Revision";
/// Activation that a message belongs to.
pub const ACTIVATION: &str = "Kaizen-Activation";
/// Nominal slot of a tick, RFC 3339.
pub const SLOT: &str = "Kaizen-Slot";
/// How many tasks and events lie between this and the first trigger.
pub const HOPS: &str = "Kaizen-Hops";
/// Who stored a revision, or asked for a task to be tried again, as they said themselves.
pub const BY: &str = "Kaizen-By";
/// How a revision came about, where it was not applied from a file.
pub const NOTE: &str = "Kaizen-Note";
/// Why a message died, in one token.
pub const REASON: &str = "Kaizen-Reason";
/// The error with its causes, for people.
pub const ERROR: &str = "Kaizen-Error";
/// How often it was tried.
pub const ATTEMPT: &str = "Kaizen-Attempt";
/// When the original of a dead letter was stored, RFC 3339.
pub const FIRST_AT: &str = "Kaizen-First-At";
/// When a dead letter died last, RFC 3339; absent where that is when it was stored.
pub const DIED_AT: &str = "Kaizen-Died-At";
/// What became of a dead letter: `redriven` or `discarded`; absent while it is open.
pub const SETTLED: &str = "Kaizen-Settled";
/// Sequence of the redrive that failed with this dead letter.
pub const REDRIVE: &str = "Kaizen-Redrive";
/// Sequences that a dead letter had before it was marked, or died again: the latest ones.
pub const WAS: &str = "Kaizen-Was";
/// Type of the source that a dead letter waits for.
pub const SOURCE_TYPE: &str = "Kaizen-Source-Type";
/// Sequence of a dead letter's original in its stream.
pub const ORIG_SEQUENCE: &str = "Kaizen-Orig-Sequence";
/// Subject that a dead letter came from.
pub const ORIG_SUBJECT: &str = "Kaizen-Orig-Subject";
/// Prefix of a dead letter's original headers. Never republished bare: an original
/// `Nats-Expected-…` or `Nats-TTL` would act again.
pub const ORIG_PREFIX: &str = "Kaizen-Orig-Header-";
/// The original header block of a dead letter in base64, where it could not be decoded.
pub const ORIG_BLOCK: &str = "Kaizen-Orig-Block";
/// Why a dead letter lacks its original headers.
pub const ORIG_LEFT_OUT: &str = "Kaizen-Orig-Left-Out";
/// How long whoever asks waits for the answer, in milliseconds.
pub const TIMEOUT_MS: &str = "Kaizen-Timeout-Ms";
