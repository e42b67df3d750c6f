//! Start, serve, stop: once for all services.
