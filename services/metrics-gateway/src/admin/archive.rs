//! What the archive holds, as the registry judges it.

use kaizen_messaging::archive::Archived;
use kaizen_registry::Input;

pub(super) fn input<'a>(stream: &'a str, one: &'a Archived) -> Input<'a> {
    Input {
        stream,
        subject: &one.subject,
        sequence: one.sequence,
        stored_at: one.stored_at,
        hops: one.hops,
        payload: &one.payload,
    }
}
