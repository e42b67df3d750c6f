//! Emits each cron slot once.
