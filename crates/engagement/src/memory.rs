//! What an agent keeps between its runs in a repo.

use kaizen_proto::id::AgentName;

/// The first text of `.kaizen/memory/<agent>.md`.
#[must_use]
pub fn memory_template(agent: &AgentName) -> String {
    format!(
        "# Memory of {agent}

## Purpose

What {agent} is here to improve in this repo, in one or two sentences.

## Learned

What held true over several runs, newest first, each with its date and the run that showed it.

## Open questions

What {agent} does not know yet, and what would settle it.
"
    )
}
