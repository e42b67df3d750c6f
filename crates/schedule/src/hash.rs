//! What is hashed from a name, such as a definition's id: the same for ever and on every machine.

use sha2::{Digest, Sha256};

/// Set apart from every other hash of the same id. A change here moves every `H` and every
/// jitter there is.
const CONTEXT: &str = "kaizen-schedule/1";

/// The first eight bytes, big endian, of SHA-256 over context, purpose and seed, one line each.
#[must_use]
pub fn hash(purpose: &str, seed: &str) -> u64 {
    let digest = Sha256::digest(format!("{CONTEXT}\n{purpose}\n{seed}"));
    digest
        .iter()
        .take(8)
        .fold(0, |hash, byte| hash << 8 | u64::from(*byte))
}

/// A number below `count` (0 if there is none), evenly spread.
#[must_use]
pub fn spread(hash: u64, count: u64) -> u64 {
    let product = u128::from(hash) * u128::from(count);
    u64::try_from(product >> 64).unwrap_or(0)
}

/// Mixes a number into a hash, so that neighbours end far apart: the finalizer of SplitMix64.
#[must_use]
pub fn mix(hash: u64, number: u64) -> u64 {
    let mut mixed = hash ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ mixed >> 31
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed elsewhere: `printf 'kaizen-schedule/1\nminute\nnightly' | sha256sum`.
    #[test]
    fn hash_is_the_documented_one() {
        assert_eq!(hash("minute", "nightly"), HASH);
    }

    const HASH: u64 = 0x6007_ef11_a509_e268;

    #[test]
    fn spread_reaches_every_number_below_its_count_and_no_other() {
        assert_eq!(spread(0, 60), 0);
        assert_eq!(spread(u64::MAX, 60), 59);
        assert_eq!(spread(u64::MAX / 2 + 1, 60), 30);
        assert_eq!(spread(u64::MAX, 0), 0);
    }
}
