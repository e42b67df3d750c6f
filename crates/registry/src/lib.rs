//! What: definitions, event types, matching, conditions and the decision.
