//! Refusals with `google.rpc` details.

use std::fmt::Display;

use kaizen_messaging::{CommitError, follow::FollowError, read::ReadError};
use kaizen_registry::Diagnostic;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

const DOMAIN: &str = "kaizen-mesh";

fn status(code: Code, reason: &str, message: impl Into<String>) -> Status {
    let details = ErrorDetails::with_error_info(reason, DOMAIN, []);
    Status::with_error_details(code, message, details)
}

/// A document that is not valid: each field with its place.
pub(super) fn invalid_documents(diagnostics: &[Diagnostic]) -> Status {
    let mut details = ErrorDetails::with_error_info("INVALID_DOCUMENT", DOMAIN, []);
    for diagnostic in diagnostics {
        let Diagnostic {
            file,
            line,
            column,
            path,
            message,
            hint,
        } = diagnostic;
        let description = match hint {
            Some(hint) => format!("{message}; {hint}"),
            None => message.clone(),
        };
        details.add_bad_request_violation(format!("{file}:{line}:{column} {path}"), description);
    }
    let message = match diagnostics {
        [one] => format!("refused, nothing is stored: {one}"),
        many => format!("refused, nothing is stored: {} errors", many.len()),
    };
    Status::with_error_details(Code::InvalidArgument, message, details)
}

/// An argument that is not valid.
pub(super) fn invalid(field: &str, error: impl Display) -> Status {
    let mut details = ErrorDetails::with_error_info("INVALID_ARGUMENT", DOMAIN, []);
    details.add_bad_request_violation(field, error.to_string());
    Status::with_error_details(Code::InvalidArgument, format!("{field}: {error}"), details)
}

pub(super) fn not_found(what: impl Display) -> Status {
    status(Code::NotFound, "NOT_FOUND", what.to_string())
}

/// Somebody else kept changing the same documents.
pub(super) fn contended() -> Status {
    let message = "others kept changing the same documents; try again";
    status(Code::Aborted, "CONTENDED", message)
}

/// NATS cannot do it now.
pub(super) fn unavailable(error: &(dyn std::error::Error + 'static)) -> Status {
    let chain: Vec<String> = std::iter::successors(Some(error), |e| e.source())
        .map(ToString::to_string)
        .collect();
    status(Code::Unavailable, "UNAVAILABLE", chain.join(": "))
}

pub(super) fn read(error: ReadError) -> Status {
    unavailable(&error)
}

pub(super) fn follow(error: FollowError) -> Status {
    unavailable(&error)
}

pub(super) fn commit(error: CommitError) -> Status {
    match &error {
        CommitError::Unavailable { .. } => unavailable(&error),
        CommitError::Refused { .. } | CommitError::TooMany { .. } => {
            let chain = format!("{:#}", anyhow::Error::new(error));
            status(Code::FailedPrecondition, "REFUSED", chain)
        }
    }
}
