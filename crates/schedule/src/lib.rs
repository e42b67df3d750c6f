//! When: cron text to slots, catch-up and the agenda of what is due.
