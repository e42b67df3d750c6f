//! "Did you mean …": the known word that lies nearest to what somebody wrote.

/// The candidate nearest to `word`, where it is near enough to be a slip.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let slips_max = (word.chars().count() / 3).max(2);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), candidate))
        .filter(|(slips, candidate)| *slips <= slips_max && *slips < candidate.chars().count())
        .min()
        .map(|(_, candidate)| candidate)
}

/// The nearest candidate as a hint.
pub(crate) fn did_you_mean<'a>(
    word: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    nearest(word, candidates).map(|known| format!("did you mean `{known}`?"))
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
    }
}
