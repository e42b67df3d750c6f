//! From civil time to instants: where clocks are changed, and what is left out.
//!
//! A zone is a row of segments of constant offset. Within one, a civil match is a slot by
//! subtraction, and order is kept. What differs by policy happens where two segments meet:
//!
//! - Clocks go forward: the civil times between have no instant. `shift` gives the first
//!   second after the change one slot for all matches in the gap.
//! - Clocks go back: the civil times between have two. `first` leaves the second ones out,
//!   `last` the first ones.

use std::collections::BTreeMap;

use crate::{
    civil::DAY,
    every::Every,
    exclude::{Active, Exclusions},
    expr::CronExpr,
    schedule::{Gap, Overlap},
    zone::{Segment, Zone},
};

/// No offset is larger: a civil time and its instant in UTC lie no further apart, in seconds.
const OFFSET_MAX: i64 = 26 * 3600;

/// What is repeated.
#[derive(Debug, Clone)]
pub(crate) enum Pattern {
    Cron(CronExpr),
    Every(Every),
}

/// The slots of a schedule without its bounds. In seconds since 1970 in UTC.
#[derive(Debug, Clone)]
pub(crate) struct Timeline {
    pub(crate) pattern: Pattern,
    pub(crate) zone: Zone,
    pub(crate) gap: Gap,
    pub(crate) overlap: Overlap,
    pub(crate) exclusions: Exclusions,
}

/// First or last free time by what concerns the day and where in it the search begins. Most
/// days are alike, so a search over a century costs little more than one over a year.
type Seen = BTreeMap<(Active, i64), Option<i64>>;

impl Timeline {
    /// First slot of `from..=to`.
    pub(crate) fn first(&self, from: i64, to: i64) -> Option<i64> {
        let slot = match &self.pattern {
            Pattern::Cron(expr) => self.first_of_cron(expr, from, to),
            Pattern::Every(every) => self.first_of_every(*every, from, to),
        };
        slot.filter(|slot| *slot <= to)
    }

    /// Last slot of `from..=to`.
    pub(crate) fn last(&self, from: i64, to: i64) -> Option<i64> {
        let slot = match &self.pattern {
            Pattern::Cron(expr) => self.last_of_cron(expr, from, to),
            Pattern::Every(every) => self.last_of_every(*every, from, to),
        };
        slot.filter(|slot| *slot >= from)
    }

    fn first_of_cron(&self, expr: &CronExpr, from: i64, to: i64) -> Option<i64> {
        let mut at = from;
        while at <= to {
            let segment = self.zone.segment(at);
            if let Some(slot) = self.first_in(&segment, expr, at) {
                return Some(slot);
            }
            // Rare matches: over the segments that can hold none.
            let civil = self.match_from(expr, segment.end.saturating_sub(OFFSET_MAX))?;
            at = segment.end.max(civil - OFFSET_MAX);
        }
        None
    }

    fn last_of_cron(&self, expr: &CronExpr, from: i64, to: i64) -> Option<i64> {
        let mut at = to;
        while at >= from {
            let segment = self.zone.segment(at);
            if let Some(slot) = self.last_in(&segment, expr, at) {
                return Some(slot);
            }
            let end = segment.start.saturating_sub(1);
            let civil = self.match_to(expr, end.saturating_add(OFFSET_MAX))?;
            at = end.min(civil + OFFSET_MAX);
        }
        None
    }

    fn first_in(&self, segment: &Segment, expr: &CronExpr, at: i64) -> Option<i64> {
        if at == segment.start && self.takes_shifted(segment, expr) {
            return Some(at);
        }
        let (from, end) = self.civil_range(segment);
        let civil = self.match_from(expr, from.max(at + segment.offset))?;
        (civil < end).then(|| civil - segment.offset)
    }

    fn last_in(&self, segment: &Segment, expr: &CronExpr, at: i64) -> Option<i64> {
        let (from, end) = self.civil_range(segment);
        let civil = self.match_to(expr, (end - 1).min(at + segment.offset));
        match civil.filter(|civil| *civil >= from) {
            Some(civil) => Some(civil - segment.offset),
            None => self.takes_shifted(segment, expr).then_some(segment.start),
        }
    }

    /// The civil times whose slots lie in a segment: first, and first after it.
    fn civil_range(&self, segment: &Segment) -> (i64, i64) {
        let Segment {
            start,
            end,
            offset,
            before,
            after,
        } = *segment;
        let from = match self.overlap {
            Overlap::First => before.max(offset),
            Overlap::Last | Overlap::Both => offset,
        };
        let until = match self.overlap {
            Overlap::Last => after.min(offset),
            Overlap::First | Overlap::Both => offset,
        };
        (start.saturating_add(from), end.saturating_add(until))
    }

    /// Whether a segment begins with a slot for what matches in the gap before it.
    fn takes_shifted(&self, segment: &Segment, expr: &CronExpr) -> bool {
        if self.gap == Gap::Skip || segment.before >= segment.offset {
            return false;
        }
        let gap_end = segment.start + segment.offset;
        let in_gap = self.match_from(expr, segment.start + segment.before);
        in_gap.is_some_and(|civil| civil < gap_end) && !self.exclusions.has(gap_end)
    }

    /// First civil match at `from` or after that is not left out.
    fn match_from(&self, expr: &CronExpr, from: i64) -> Option<i64> {
        let mut civil = expr.calendar().at_or_after(from)?;
        if self.exclusions.is_empty() {
            return Some(civil);
        }
        let mut seen = Seen::new();
        loop {
            let (day, second) = (civil.div_euclid(DAY), civil.rem_euclid(DAY));
            let active = self.exclusions.on(day);
            let free = seen
                .entry((active, second))
                .or_insert_with(|| self.exclusions.first_free(active, expr.values(), second));
            match free {
                Some(free) => return Some(day * DAY + *free),
                None => civil = expr.calendar().at_or_after((day + 1) * DAY)?,
            }
        }
    }

    /// Last civil match at `to` or before that is not left out.
    fn match_to(&self, expr: &CronExpr, to: i64) -> Option<i64> {
        let mut civil = expr.calendar().at_or_before(to)?;
        if self.exclusions.is_empty() {
            return Some(civil);
        }
        let mut seen = Seen::new();
        loop {
            let (day, second) = (civil.div_euclid(DAY), civil.rem_euclid(DAY));
            let active = self.exclusions.on(day);
            let free = seen
                .entry((active, second))
                .or_insert_with(|| self.exclusions.last_free(active, expr.values(), second));
            match free {
                Some(free) => return Some(day * DAY + *free),
                None => civil = expr.calendar().at_or_before(day * DAY - 1)?,
            }
        }
    }

    fn first_of_every(&self, every: Every, from: i64, to: i64) -> Option<i64> {
        let mut at = every.at_or_after(from);
        if self.exclusions.is_empty() {
            return Some(at);
        }
        let mut seen = Seen::new();
        while at <= to {
            let stretch = self.stretch(at);
            let free = seen
                .entry((stretch.active, stretch.second))
                .or_insert_with(|| self.first_free_step(&stretch, every.period));
            let slot = free.map(|free| at + (free - stretch.second));
            match slot.filter(|slot| *slot < stretch.end) {
                Some(slot) => return Some(slot),
                None => at = every.at_or_after(stretch.end),
            }
        }
        None
    }

    fn last_of_every(&self, every: Every, from: i64, to: i64) -> Option<i64> {
        let mut at = every.at_or_before(to);
        if self.exclusions.is_empty() {
            return Some(at);
        }
        let mut seen = Seen::new();
        while at >= from {
            let stretch = self.stretch(at);
            let free = seen
                .entry((stretch.active, stretch.second))
                .or_insert_with(|| self.last_free_step(&stretch, every.period));
            let slot = free.map(|free| at - (stretch.second - free));
            match slot.filter(|slot| *slot >= stretch.start) {
                Some(slot) => return Some(slot),
                None => at = every.at_or_before(stretch.start - 1),
            }
        }
        None
    }

    fn stretch(&self, at: i64) -> Stretch {
        let segment = self.zone.segment(at);
        let civil = at + segment.offset;
        let (day, second) = (civil.div_euclid(DAY), civil.rem_euclid(DAY));
        Stretch {
            active: self.exclusions.on(day),
            second,
            start: segment.start.max(at - second),
            end: segment.end.min(at - second + DAY),
        }
    }

    fn first_free_step(&self, from: &Stretch, period: i64) -> Option<i64> {
        let mut seconds = std::iter::successors(Some(from.second), |second| Some(second + period))
            .take_while(|second| *second < DAY);
        seconds.find(|second| !self.exclusions.has_time(from.active, *second))
    }

    fn last_free_step(&self, to: &Stretch, period: i64) -> Option<i64> {
        let mut seconds = std::iter::successors(Some(to.second), |second| Some(second - period))
            .take_while(|second| *second >= 0);
        seconds.find(|second| !self.exclusions.has_time(to.active, *second))
    }
}

/// The part of a civil day around an instant in which the clock is not changed.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    /// What is left out on that day.
    active: Active,
    /// The instant on the clock, as second of the day.
    second: i64,
    /// The part's first second.
    start: i64,
    /// First second after it.
    end: i64,
}
