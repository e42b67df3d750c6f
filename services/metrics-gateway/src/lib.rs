//! The edge: checks events against the registry, stores them, hosts the admin API.
