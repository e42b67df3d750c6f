//! Refusals with `google.rpc` details.

use std::fmt::Display;

use kaizen_messaging::{CommitError, Failure as _};
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

/// It cannot be done as things stand.
pub(super) fn precondition(reason: &str, message: impl Display) -> Status {
    status(Code::FailedPrecondition, reason, message.to_string())
}

/// There is no room for it now; later there will be.
pub(super) fn exhausted(reason: &str, message: impl Display) -> Status {
    status(Code::ResourceExhausted, reason, message.to_string())
}

/// The gateway ends; another one, or the next, goes on.
pub(super) fn stopping() -> Status {
    let message = "the gateway is stopping; ask again, and it goes on where it stopped";
    status(Code::Unavailable, "STOPPING", message)
}

const REVISION_CONFLICT: &str = "REVISION_CONFLICT";

/// A document does not stand at the revision that the change was made for.
pub(super) fn revision_conflict(message: impl Display) -> Status {
    status(Code::Aborted, REVISION_CONFLICT, message.to_string())
}

/// Whether it is a [`revision_conflict`].
pub(super) fn is_conflict(status: &Status) -> bool {
    let info = status.get_details_error_info();
    info.is_some_and(|info| info.reason == REVISION_CONFLICT)
}

/// Somebody else kept changing the same documents.
pub(super) fn contended() -> Status {
    let message = "others kept changing the same documents; try again";
    status(Code::Aborted, "CONTENDED", message)
}

/// NATS, or a service behind it, cannot do it now.
pub(super) fn unavailable(error: impl Into<anyhow::Error>) -> Status {
    status(
        Code::Unavailable,
        "UNAVAILABLE",
        format!("{:#}", error.into()),
    )
}

pub(super) fn commit(error: CommitError) -> Status {
    if error.kind().is_transient() {
        return unavailable(error);
    }
    let chain = format!("{:#}", anyhow::Error::new(error));
    status(Code::FailedPrecondition, "REFUSED", chain)
}
