//! The contract of the mesh as one crate: every subject, stream, consumer and header name,
//! the ids, the event envelope, the records that the streams hold, and the protobuf types.
//!
//! Architecture invariant: nobody else formats a subject or spells a header. This crate does
//! no I/O; with default features it has no gRPC in it, so that the pure crates may use it.

pub mod envelope;
pub mod header;
pub mod id;
pub mod record;
pub mod stream;
pub mod subject;

/// Admin API `kaizen.admin.v1` (gRPC).
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unused_qualifications,
    reason = "generated"
)]
#[allow(
    clippy::unwrap_used,
    clippy::as_conversions,
    clippy::allow_attributes_without_reason,
    reason = "generated"
)]
pub mod admin {
    include!(concat!(env!("OUT_DIR"), "/kaizen.admin.v1.rs"));
}

/// Request-reply of the gateway, `kaizen.gateway.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unused_qualifications,
    reason = "generated"
)]
pub mod gateway {
    include!(concat!(env!("OUT_DIR"), "/kaizen.gateway.v1.rs"));
}

/// What resolvers of other people answer, `kaizen.outside.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unused_qualifications,
    reason = "generated"
)]
pub mod outside {
    include!(concat!(env!("OUT_DIR"), "/kaizen.outside.v1.rs"));
}

/// Request-reply of the resolver, `kaizen.resolver.v1`.
#[allow(
    missing_docs,
    clippy::all,
    clippy::pedantic,
    unused_qualifications,
    reason = "generated"
)]
pub mod resolver {
    include!(concat!(env!("OUT_DIR"), "/kaizen.resolver.v1.rs"));
}

/// Encoded `FileDescriptorSet` of all .proto files, for gRPC reflection.
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Protobuf timestamp of an instant.
#[must_use]
pub fn pb_timestamp(at: jiff::Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    }
}

/// Instant of a protobuf timestamp; `None` outside jiff's range.
#[must_use]
pub fn from_pb_timestamp(at: &prost_types::Timestamp) -> Option<jiff::Timestamp> {
    jiff::Timestamp::new(at.seconds, at.nanos).ok()
}
