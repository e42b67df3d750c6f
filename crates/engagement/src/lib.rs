//! Who: schedule.yml, roster, presets, discovery, metrics log and summary.
