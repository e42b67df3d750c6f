//! What must hold: at each message that is stored, and once all has settled.

mod end;
mod step;

pub use end::{at_the_end, unsettled};
pub use step::{Steps, delivered, stored};
