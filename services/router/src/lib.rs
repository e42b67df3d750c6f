//! Events and ticks in, tasks out.
