//! "Did you mean …": the known word that lies nearest to what somebody wrote.

/// The candidate nearest to `word`, where it is near enough to be a slip. Case does not count.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = word.chars().count();
    let slips_max = (letters / 3).max(2);
    // Measured first: the distance of long words costs the product of their lengths.
    let near = |candidate: &&str| candidate.chars().count().abs_diff(letters) <= slips_max;
    let word = word.to_lowercase();
    candidates
        .into_iter()
        .filter(near)
        .map(|candidate| {
            let slips = strsim::osa_distance(&word, &candidate.to_lowercase());
            (slips, candidate)
        })
        .filter(|(slips, candidate)| *slips <= slips_max && *slips < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// All candidates, the nearest first. Measures each of them, however long: bound them before.
pub fn by_distance<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut ranked: Vec<_> = candidates.into_iter().collect();
    ranked.sort_by_cached_key(|candidate| strsim::osa_distance(word, candidate));
    ranked
}

/// The nearest candidate as a hint.
pub fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|known| format!("did you mean `{known}`?"))
}

/// The nearest of `known` as a hint, or all of them: `known keys: cadence, cron`.
#[must_use]
pub fn suggest(word: &str, what: &str, known: &[&str]) -> String {
    did_you_mean(word, known.iter().copied())
        .unwrap_or_else(|| format!("known {what}: {}", known.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_word_and_nonsense_finds_none() {
        let known = ["kaizen.metrics.recorded", "kaizen.task.completed"];
        assert_eq!(nearest("kaizen.metric.recorded", known), Some(known[0]));
        assert_eq!(nearest("billing.invoice", known), None);
        assert_eq!(nearest("x", ["id"]), None);
        assert_eq!(nearest("wehn", ["when", "tasks"]), Some("when"));
        assert_eq!(nearest("CADENCE", ["cadence", "cron"]), Some("cadence"));
    }

    #[test]
    fn all_are_ranked_and_equals_keep_their_order() {
        let ranked = by_distance("rate", ["runs", "rates", "other", "rata"]);
        assert_eq!(ranked, ["rates", "rata", "runs", "other"]);
    }

    #[test]
    fn without_a_near_word_all_are_told() {
        let known = ["cadence", "cron"];
        assert_eq!(suggest("crn", "keys", &known), "did you mean `cron`?");
        assert_eq!(suggest("x", "keys", &known), "known keys: cadence, cron");
    }
}
