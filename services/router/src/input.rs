//! One message of EVENTS or TICKS, read.

use async_nats::jetstream::Message;
use kaizen_messaging::{hops, instant, trace};
use kaizen_proto::stream;
use kaizen_registry::{Input, Refused, SetOff, View};
use tracing::{Span, info_span};

use crate::effect::Original;

/// One delivery.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) original: Original,
    pub(crate) stream: &'static str,
    pub(crate) sequence: u64,
    pub(crate) stored_at: jiff::Timestamp,
    hops: u32,
}

impl Delivery {
    /// `None` for a message that no stream has stored.
    pub(crate) fn read(message: &Message) -> Option<Self> {
        let info = message.info().ok()?;
        Some(Self {
            original: Original::from(message),
            stream: if info.stream == stream::TICKS {
                stream::TICKS
            } else {
                stream::EVENTS
            },
            sequence: info.stream_sequence,
            stored_at: instant(info.published),
            hops: hops(message.headers.as_ref()),
        })
    }

    /// What a letter of it keeps.
    pub(crate) fn original_of(&self, set_off: &SetOff) -> Original {
        Original {
            redrive: if set_off.redriven { self.sequence } else { 0 },
            ..self.original.clone()
        }
    }

    /// What it sets off, as the registry stood when it was stored; `None` where it is no trigger.
    /// Every lane asks this, so all of them agree.
    ///
    /// # Errors
    /// It is not let in.
    pub(crate) fn judge(&self, view: &View) -> Result<Option<SetOff>, Refused> {
        let input = Input {
            stream: self.stream,
            subject: &self.original.subject,
            sequence: self.sequence,
            stored_at: self.stored_at,
            hops: self.hops,
            payload: &self.original.payload,
        };
        input.judge(view)
    }
}

/// What follows from a message, as part of the trace that led to it.
pub(crate) fn route(message: &Message) -> Span {
    let span = info_span!("route", otel.kind = "consumer", subject = %message.subject);
    trace::continue_from(&span, message.headers.as_ref());
    span
}
