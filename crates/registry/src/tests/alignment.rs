//! The example engagement keeps step with what `schedule init` writes into its repos.

use kaizen_engagement::{
    BootstrapCadence, CronDefinition, Discovery, RepoSchedule, align, bootstrap, discover,
    parse_roster,
};

use super::at;
use crate::{Definition, Document, parse_documents};

const ROSTER: &str =
    include_str!("../../../../examples/coulomb-loop/loops/kaizen-stack/roster.yaml");
const DEFINITIONS: [&str; 4] = [
    include_str!("../../../../examples/coulomb-loop/definitions/hourly-coach-orientation.yaml"),
    include_str!("../../../../examples/coulomb-loop/definitions/hourly-metrics-optimize.yaml"),
    include_str!("../../../../examples/coulomb-loop/definitions/hourly-optimization-review.yaml"),
    include_str!("../../../../examples/coulomb-loop/definitions/low-success-rate-review.yaml"),
];

fn definitions() -> Vec<CronDefinition> {
    let documents = DEFINITIONS.map(|yaml| parse_documents("example.yaml", yaml).unwrap());
    let definition = |document| match document {
        Document::Definition(spec) => Definition::new(spec).unwrap(),
        other => panic!("{other:?}"),
    };
    let definitions = documents.into_iter().flatten().map(definition);
    definitions.filter_map(|d| d.scheduled_runs()).collect()
}

fn discovered(definitions: &[CronDefinition]) -> Discovery {
    let agents = ["coach", "optimization"].map(|agent| agent.parse().unwrap());
    let preset = bootstrap(
        "coulomb-loop".parse().unwrap(),
        &agents,
        BootstrapCadence::Hourly,
    );
    let roster = parse_roster("roster.yaml", ROSTER).unwrap();
    let repos: Vec<_> = roster
        .repos
        .into_iter()
        .map(|repo| RepoSchedule {
            name: repo.name,
            path: "repo".to_owned(),
            schedule: Ok(preset.to_yaml()),
            git: None,
        })
        .collect();
    let mut params = definitions[0].discovers[0].clone();
    params.agents.clear();
    discover(&params, &repos, None)
}

#[test]
fn presets_match_the_definitions_of_the_example() {
    let definitions = definitions();
    assert_eq!(definitions.len(), 3, "the fourth is set off by events");
    let found = discovered(&definitions);
    assert_eq!((found.runs.len(), found.warnings.len()), (6, 0));
    let alignment = align(&definitions, &found.runs, at("2026-11-22T10:00:00Z"));
    assert!(alignment.is_aligned(), "{alignment:?}");
    assert_eq!(alignment.findings, []);
    let told: Vec<_> = alignment
        .pairs
        .iter()
        .map(|pair| {
            let definition = pair.definition.as_ref().unwrap().as_str();
            (pair.repo.as_str(), definition, pair.verdict.as_str())
        })
        .collect();
    let of_repo = |repo| {
        [
            (repo, "hourly-coach-orientation", "equal"),
            (repo, "hourly-metrics-optimize", "offset"),
            (repo, "hourly-optimization-review", "equal"),
        ]
    };
    assert_eq!(
        told,
        ["pilot-api", "pilot-web", "pilot-data"]
            .map(of_repo)
            .concat()
    );
}

#[test]
fn moved_definition_of_the_example_drifts() {
    let mut definitions = definitions();
    let runs = discovered(&definitions).runs;
    definitions.retain(|definition| definition.id.as_str() != "hourly-optimization-review");
    let alignment = align(&definitions, &runs, at("2026-11-22T10:00:00Z"));
    assert!(!alignment.is_aligned());
}
