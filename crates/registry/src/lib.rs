//! What: definitions, event types, engagements, and the decision.
//!
//! [`document`] turns YAML into checked documents, [`view`] holds every revision of them as the
//! registry stream tells it, [`admission`] judges an envelope, [`binding`] builds the context of
//! an activation from its trigger, and [`decision`] evaluates the rules. [`input`] judges what a
//! stream has stored, and [`replay`] follows an archive as the router has followed it.
//!
//! Architecture invariant: everything here is a function of its arguments. There is no clock, no
//! I/O and no randomness, so a decision can be recomputed later from trigger, revision and
//! snapshot, and comes out the same on every replica.

pub mod admission;
pub mod backtest;
pub mod binding;
pub mod builtin;
pub mod changes;
mod clause;
mod conclusion;
mod condition;
mod cron;
pub mod cursor;
pub mod decision;
pub mod definition;
pub mod document;
pub mod event_type;
pub mod filter;
mod flip;
mod index;
pub mod input;
mod json;
pub mod life;
pub mod lint;
mod machine;
pub mod memory;
mod needs;
mod parsing;
pub mod recall;
pub mod references;
pub mod replay;
mod rule;
mod ruled_out;
pub mod schema;
mod scope;
mod seen;
mod set_off;
pub mod simulate;
pub mod source;
pub mod task;
mod template;
pub mod trigger;
pub mod verify;
pub mod view;
pub mod wire;
mod words;

pub use admission::{Refusal, admit};
pub use binding::{
    BindError, bind_direct, bind_inline, bind_without_outside, insert, leave_out, not_bound,
};
pub use builtin::builtin_event_types;
pub use changes::changes;
pub use clause::ClausesSpec;
pub use conclusion::{JoinSpec, JoinedSpec, Length, SilenceSpec, Watched};
pub use cursor::{
    CursorRefusal, cursor_for, pause_cursor, removal_cursor, reset_cursor, resume_cursor,
};
pub use decision::{Decision, TASKS_AT_ONCE_MAX, TASKS_BYTES_MAX, TASKS_MAX, decide};
pub use definition::{Definition, DefinitionSpec, Lane, TriggerSpec};
pub use document::{Document, EngagementSpec, ScheduleSpec, parse_documents, warnings};
pub use event_type::{EventTypeSpec, Mode, RegisteredType, Violation};
pub use filter::{Filter, Miss};
pub use flip::{Flip, ItemFlips, RuleWhyNot, WhyNot, why_not};
pub use input::{Input, Refused, SetOff};
pub use memory::{Advance, Concluded, Lacks, Memory, Outside};
pub use recall::{Recall, Records};
pub use references::{DocumentKey, references};
pub use replay::{Followed, Replay, Replayed, Taken, concluded};
pub use rule::RuleSpec;
pub use ruled_out::{RuledOut, ruled_out};
pub use set_off::{NotSetOff, concerned, set_off};
pub use source::ContextSource;
pub use task::{Draft, TaskSpec};
pub use trigger::Trigger;
pub use view::{ReadRevision, Revision, StoredRevision, View, ViewError};
pub use wire::{resolve_item, wire_source};

pub use kaizen_document::{Diagnostic, FILE_BYTES_MAX, nearest};

#[cfg(test)]
mod tests;
