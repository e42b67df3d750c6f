//! End-to-end: a real nats-server, the real services, the real CLI.
