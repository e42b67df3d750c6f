//! NATS as this mesh uses it.
