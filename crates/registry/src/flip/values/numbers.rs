//! Numbers around those that a condition compares with.

use serde_json::{Number, Value};

/// Digits behind the point that a value may have and still get one more.
const DECIMALS_MAX: usize = 8;

/// A number as JSON has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Num {
    Int(i128),
    Float(f64),
}

impl Num {
    pub(super) fn of(value: &Value) -> Option<Self> {
        let number = value.as_number()?;
        let int = number.as_i64().map(i128::from);
        let int = int.or_else(|| number.as_u64().map(i128::from));
        int.map(Self::Int)
            .or_else(|| number.as_f64().map(Self::Float))
    }

    pub(super) fn value(self) -> Option<Value> {
        match self {
            Self::Int(int) => i64::try_from(int)
                .map(Value::from)
                .or_else(|_| u64::try_from(int).map(Value::from))
                .ok(),
            Self::Float(float) => Number::from_f64(float).map(Value::Number),
        }
    }

    /// As a double; the nearest one.
    pub(super) fn float(self) -> Option<f64> {
        match self {
            Self::Int(_) => self.value()?.as_f64(),
            Self::Float(float) => Some(float),
        }
    }

    /// Sum, difference, product and quotient, where there are such.
    pub(super) fn calculated(self, other: Self) -> Vec<Self> {
        match (self, other) {
            (Self::Int(a), Self::Int(b)) => [
                a.checked_add(b),
                a.checked_sub(b),
                a.checked_mul(b),
                a.checked_div(b),
            ]
            .into_iter()
            .flatten()
            .map(Self::Int)
            .collect(),
            _ => {
                let (Some(a), Some(b)) = (self.float(), other.float()) else {
                    return Vec::new();
                };
                let all = [a + b, a - b, a * b, a / b].into_iter();
                all.filter(|n| n.is_finite()).map(Self::Float).collect()
            }
        }
    }

    /// The largest integer that is not above it.
    fn floor(self) -> Option<i128> {
        match self {
            Self::Int(int) => Some(int),
            // A double without a fraction is written as an integer.
            Self::Float(float) => format!("{:.0}", float.floor()).parse().ok(),
        }
    }
}

/// Values that lie in every range that `constants` part the numbers into: those that read well
/// and are near `now` first. Doubles first where `now` is one.
pub(super) fn around(constants: &[Num], now: Option<Num>) -> Vec<Value> {
    let floats: Vec<f64> = constants.iter().filter_map(|n| n.float()).collect();
    let plain: Vec<f64> = floats.iter().copied().flat_map(plain).collect();
    let ints: Vec<i128> = constants.iter().filter_map(|n| n.floor()).collect();
    let ints: Vec<i128> = ints
        .iter()
        .flat_map(|n| {
            [
                *n,
                n.saturating_sub(1),
                n.saturating_add(1),
                n.saturating_add(2),
            ]
        })
        .collect();
    let as_ints = nearest_first(ints.into_iter().map(Num::Int).collect(), now);
    let as_floats = nearest_first(plain.into_iter().map(Num::Float).collect(), now);
    let whole = constants.iter().all(|n| matches!(n, Num::Int(_)));
    let ints_first = match now {
        Some(Num::Int(_)) => true,
        Some(Num::Float(_)) => false,
        None => whole,
    };
    let (first, second) = if ints_first {
        (as_ints, as_floats)
    } else {
        (as_floats, as_ints)
    };
    let between = between(&floats);
    let beside = floats.iter().flat_map(|n| [n.next_down(), n.next_up()]);
    let rest = between.into_iter().chain(beside).map(Num::Float);
    let all = first.into_iter().chain(second).chain(rest);
    all.filter_map(Num::value).collect()
}

/// The number itself, and what lies beside it with one more digit behind the point.
fn plain(n: f64) -> [f64; 3] {
    let shown = n.to_string();
    let decimals = shown.split_once('.').map_or(0, |(_, digits)| digits.len());
    if decimals > DECIMALS_MAX {
        return [n, n.next_down(), n.next_up()];
    }
    let digits = if decimals == 0 { 0 } else { decimals + 1 };
    let step = format!("1e-{digits}").parse().unwrap_or(1.0);
    let rounded = |n: f64| format!("{n:.digits$}").parse().unwrap_or(n);
    [n, rounded(n - step), rounded(n + step)]
}

fn between(floats: &[f64]) -> Vec<f64> {
    let mut sorted = floats.to_vec();
    sorted.sort_by(f64::total_cmp);
    let pairs = sorted.iter().zip(sorted.iter().skip(1));
    pairs.map(|(low, high)| low / 2.0 + high / 2.0).collect()
}

fn nearest_first(mut values: Vec<Num>, now: Option<Num>) -> Vec<Num> {
    if let Some(now) = now.and_then(Num::float) {
        let far = |n: &Num| n.float().map_or(f64::INFINITY, |n| (n - now).abs());
        values.sort_by(|left, right| far(left).total_cmp(&far(right)));
    }
    values
}
