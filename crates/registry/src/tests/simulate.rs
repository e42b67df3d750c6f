//! A mesh in the days to come.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use kaizen_proto::{
    id::DefinitionId,
    record::Clause,
    resolver::{ResolveItem, Snapshot, resolve_item::Trigger},
    stream,
};
use serde_json::{Value, json};

use super::at;
use crate::{
    Document, Followed, Input, Replay, StoredRevision, View, builtin_event_types, parse_documents,
    recall::Nothing,
    simulate::{
        Chosen, Crew, Recorded, RecordedError, Report, Scene, Simulation, Tally, Window, Workers,
        moved,
    },
};

const START: &str = "2026-11-22T10:00:00Z";
const RECORDED: &str = "activity.kaizen.metrics.recorded";

fn documents(yaml: &str) -> Vec<Document> {
    parse_documents("test.yaml", yaml).unwrap_or_else(|d| panic!("{d:?}"))
}

/// A registry with the built-in event types and these documents.
fn registry(yaml: &str) -> View {
    let mut view = View::default();
    let builtin = builtin_event_types().into_iter().map(Document::EventType);
    for document in builtin.chain(documents(yaml)) {
        let subject = kaizen_proto::subject::registry(document.kind(), document.name());
        let payload = document.to_json().to_string();
        let stored = StoredRevision {
            sequence: view.position() + 1,
            stored_at: at("2026-11-30T09:00:00Z"),
            subject: &subject,
            payload: payload.as_bytes(),
            more: false,
        };
        view.apply(stored).unwrap();
    }
    view
}

fn hours(hours: i64) -> SignedDuration {
    SignedDuration::from_hours(hours)
}

fn window(start: &str, length: SignedDuration) -> Window {
    let from = at(start);
    Window {
        from,
        to: from + length,
    }
}

fn scene(yaml: &str, window: Window) -> Scene {
    let chosen = Chosen::new(&registry(yaml), &[], &BTreeSet::new()).unwrap();
    Scene::new(&chosen, BTreeSet::new(), window).unwrap()
}

fn crew(count: u32, task_time: SignedDuration) -> Crew {
    Crew {
        default: Workers { count, task_time },
        queues: BTreeMap::new(),
    }
}

fn nobody(_: ResolveItem) -> Result<Snapshot, String> {
    Err("nobody answers".to_owned())
}

/// The report of slots and of recorded events, one a line.
fn simulated(yaml: &str, window: Window, crew: &Crew, events: &[Value]) -> Report {
    let scene = scene(yaml, window);
    let mut simulation = Simulation::new(&scene, crew, nobody).unwrap();
    if !events.is_empty() {
        for event in recorded(events).events(window, true) {
            simulation.event(&event.event());
        }
    }
    simulation.finish()
}

fn recorded(events: &[Value]) -> Recorded {
    let lines: Vec<_> = events.iter().map(Value::to_string).collect();
    Recorded::parse(lines.join("\n").into_bytes()).unwrap()
}

/// Metrics recorded so many minutes after the start.
fn metric(minute: i64, project: &str, quality: f64) -> Value {
    let time = at(START) + SignedDuration::from_mins(minute);
    json!({"id": format!("{project}-{minute}"), "type": "kaizen.metrics.recorded", "source": "s",
        "time": time.to_string(),
        "attributes": {"agent": "coach", "project": project, "quality": quality,
            "success": true, "time_s": 1.0}})
}

fn on_events(id: &str, clauses: &str) -> String {
    format!(
        "---\nkind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: event, event_type: kaizen.metrics.recorded}}\n\
         context_sources: [{{type: event-payload, bind_to: context.m}}]\n\
         rules:\n  - id: low\n    when: context.m.quality < 0.8\n    {clauses}\n    \
         tasks: [{{queue: q, title: \"low {{{{ context.m.quality }}}}\"}}]\n"
    )
}

fn on_slots(id: &str, cron: &str, more: &str) -> String {
    format!(
        "---\nkind: ActivityDefinition\nid: {id}\ntrigger: {{type: cron, cron: \"{cron}\"{more}}}\n\
         rules: [{{id: always, tasks: [{{queue: q, title: Do it}}]}}]\n"
    )
}

fn tally<'a>(report: &'a Report, id: &str) -> &'a Tally {
    let mut all = report.definitions.iter();
    all.find(|tally| tally.definition.as_str() == id).unwrap()
}

const KEY: &str = "key: \"{{ context.m.project }}\"";

#[test]
fn a_cooldown_suppresses_what_a_hand_count_says() {
    let yaml =
        on_events("calm", &format!("cooldown: {{{KEY}, for: 1h}}")) + &on_events("plain", "");
    // Of shop: ordered at 0, 60 and 130, quiet at 10, 59 and 61. Of web: ordered at 5.
    let events = [
        metric(0, "shop", 0.1),
        metric(5, "web", 0.1),
        metric(10, "shop", 0.1),
        metric(20, "shop", 0.9),
        metric(59, "shop", 0.1),
        metric(60, "shop", 0.1),
        metric(61, "shop", 0.1),
        metric(130, "shop", 0.1),
    ];
    let report = simulated(&yaml, window(START, hours(24)), &Crew::default(), &events);
    let calm = tally(&report, "calm");
    assert_eq!((calm.triggers, calm.tasks), (8, 4));
    assert_eq!(calm.suppressed, BTreeMap::from([(Clause::Cooldown, 3)]));
    assert_eq!(tally(&report, "plain").tasks, 7);
    assert_eq!(report.suppressed(), 3);
    assert_eq!((report.counts.events, report.counts.tasks), (8, 11));
}

#[test]
fn each_clause_is_counted_by_its_name() {
    let yaml = [
        on_events("row", "for: 3"),
        on_events("hold", "until: context.m.quality > 0.9"),
        on_events("limited", "rate_limit: {tasks: 2, per: 1h}"),
    ];
    let events: Vec<_> = (0..6).map(|n| metric(n, "shop", 0.1)).collect();
    let report = simulated(
        &yaml.concat(),
        window(START, hours(24)),
        &Crew::default(),
        &events,
    );
    for (id, clause, suppressed, tasks) in [
        ("row", Clause::For, 2, 4),
        ("hold", Clause::Until, 5, 1),
        // And one that stands for those held back, once the hour is over.
        ("limited", Clause::RateLimit, 4, 3),
    ] {
        let tally = tally(&report, id);
        assert_eq!(
            tally.suppressed,
            BTreeMap::from([(clause, suppressed)]),
            "{id}"
        );
        assert_eq!(tally.tasks, tasks, "{id}");
    }
}

#[test]
fn a_queue_with_more_work_than_its_workers_can_do_grows_and_one_with_less_does_not() {
    let yaml = on_slots("d", "*/10 * * * *", "");
    for (minutes, load, grows, needed) in [
        (12, 1_200, true, 2),
        (10, 1_000, false, 1),
        (8, 800, false, 1),
    ] {
        let crew = crew(1, SignedDuration::from_mins(minutes));
        let report = simulated(&yaml, window(START, hours(24 * 10)), &crew, &[]);
        let [queue] = report.queues.as_slice() else {
            panic!("{report:?}")
        };
        assert_eq!((queue.tasks, queue.load), (1_440, load));
        assert_eq!(
            (queue.grows, queue.workers_needed),
            (grows, needed),
            "{minutes}"
        );
        let waits = minutes > 10;
        assert_eq!(queue.waiting_at_end > 100, waits, "{queue:?}");
    }
}

#[test]
fn waits_and_depths_are_those_of_a_hand_calculation() {
    // Three tasks at once each hour; two workers, 25 minutes each: two begin at once, the third
    // after 25 minutes, and all are done after 50.
    let yaml = "kind: ActivityDefinition\nid: d\ntrigger: {type: cron, cron: \"0 * * * *\"}\n\
        rules: [{id: always, tasks: [{queue: q, title: a}, {queue: q, title: b}, {queue: q, title: c}]}]\n";
    let report = simulated(
        yaml,
        window(START, hours(24)),
        &crew(2, SignedDuration::from_mins(25)),
        &[],
    );
    let queue = &report.queues[0];
    assert_eq!((queue.tasks, queue.deepest), (72, 1));
    assert_eq!(queue.longest_wait, SignedDuration::from_mins(25));
    assert_eq!(queue.deepest_at, Some(at(START)));
    // 75 minutes of work in 120.
    assert_eq!((queue.load, queue.utilisation), (625, 625));
    assert_eq!((queue.waiting_at_end, queue.in_work_at_end), (0, 0));

    // One worker, 30 minutes each: half an hour more comes each hour than can be done.
    let report = simulated(
        yaml,
        window(START, hours(10)),
        &crew(1, SignedDuration::from_mins(30)),
        &[],
    );
    let queue = &report.queues[0];
    // Of thirty, the twentieth is in work until the end; the last would wait for the other 29.
    assert_eq!((queue.load, queue.utilisation), (1_500, 1_000));
    assert_eq!(
        queue.longest_wait,
        SignedDuration::from_mins(29 * 30 - 9 * 60)
    );
    assert_eq!((queue.waiting_at_end, queue.in_work_at_end), (10, 1));
    assert_eq!(queue.deepest, 30 - 19);
}

#[test]
fn tasks_that_are_open_hold_back_what_overlaps_with_them() {
    let skipping =
        on_slots("d", "*/10 * * * *", "").replace("{id: always,", "{id: always, overlap: skip,");
    let day = window(START, hours(24));
    // Closed just before the next slot.
    let report = simulated(&skipping, day, &crew(1, SignedDuration::from_mins(9)), &[]);
    assert_eq!(tally(&report, "d").tasks, 144);
    assert_eq!(report.suppressed(), 0);
    // Open for two more slots: each third one orders.
    let report = simulated(&skipping, day, &crew(1, SignedDuration::from_mins(25)), &[]);
    assert_eq!(tally(&report, "d").tasks, 48);
    assert_eq!(
        tally(&report, "d").suppressed,
        BTreeMap::from([(Clause::Overlap, 96)])
    );
    // What waits is ordered once the earlier one is closed: one after the other, without a pause
    // of more than the five seconds between two looks.
    let waiting = skipping.replace("skip", "buffer_one");
    let report = simulated(&waiting, day, &crew(1, SignedDuration::from_mins(25)), &[]);
    assert!((57..=58).contains(&tally(&report, "d").tasks), "{report:?}");
    assert_eq!(report.queues[0].longest_wait, SignedDuration::ZERO);
}

fn on_completed(id: &str, when: &str, queue: &str) -> String {
    format!(
        "---\nkind: ActivityDefinition\nid: {id}\n\
         trigger: {{type: event, event_type: kaizen.task.completed}}\n\
         context_sources: [{{type: event-payload, bind_to: context.t}}]\n\
         rules: [{{id: next, when: '{when}', tasks: [{{queue: {queue}, title: Next}}]}}]\n"
    )
}

#[test]
fn what_was_done_sets_off_what_comes_next() {
    let slots = on_slots("first", "0 * * * *", "");
    let next = on_completed("second", "context.t.definition == \"first\"", "r");
    let yaml = format!("{slots}{next}");
    let crew = crew(1, SignedDuration::from_mins(10));
    let report = simulated(&yaml, window(START, hours(24)), &crew, &[]);
    assert_eq!(tally(&report, "first").tasks, 24);
    // Told of the tasks of both, ten and twenty minutes after the hour.
    assert_eq!(tally(&report, "second").triggers, 48);
    assert_eq!(tally(&report, "second").tasks, 24);
    assert_eq!(report.counts.events, 48);
    // The last task of the window ends behind it.
    let report = simulated(
        &yaml,
        window(START, SignedDuration::from_mins(75)),
        &crew,
        &[],
    );
    assert_eq!(tally(&report, "first").tasks, 2);
    assert_eq!(tally(&report, "second").tasks, 2);
    assert_eq!(tally(&report, "second").triggers, 3);
}

#[test]
fn tasks_that_order_each_other_end_at_the_limit_of_hops() {
    let slots = on_slots("first", "0 10 * * *", "");
    let loops = on_completed("again", "true", "r");
    let crew = crew(1, SignedDuration::from_mins(1));
    let report = simulated(
        &format!("{slots}{loops}"),
        window(START, hours(24)),
        &crew,
        &[],
    );
    // A task is a hop, and so is the event that tells of it.
    assert_eq!(tally(&report, "again").tasks, 8);
    assert_eq!(report.refused, 1);
    let why = report.refused_why.unwrap();
    assert!(why.contains("18 hops exceed 16"), "{why}");
}

#[test]
fn recorded_ends_of_tasks_are_passed_over() {
    let next = on_completed("second", "true", "r");
    let recorded = json!({"id": "t/1", "type": "kaizen.task.completed", "source": "s",
        "time": START, "attributes": {"definition": "first"}});
    let crew = Crew::default();
    let report = simulated(&next, window(START, hours(1)), &crew, &[recorded]);
    assert_eq!((report.counts.events, report.counts.tasks), (0, 0));
}

#[test]
fn days_on_which_clocks_change_have_23_and_25_hours() {
    let yaml = on_slots("local", "5 * * * *", ", timezone: Europe/Berlin")
        + &on_slots("fixed", "30 2 * * *", ", timezone: Europe/Berlin");
    for (start, hours_of_day) in [("2026-03-28T23:00:00Z", 23), ("2026-10-24T22:00:00Z", 25)] {
        let report = simulated(
            &yaml,
            window(start, hours(hours_of_day)),
            &Crew::default(),
            &[],
        );
        let expected = u64::try_from(hours_of_day).unwrap();
        assert_eq!(tally(&report, "local").tasks, expected, "{start}");
        assert_eq!(tally(&report, "fixed").tasks, 1, "{start}");
    }
}

#[test]
fn slots_keep_jitter_bounds_and_pauses() {
    let yaml = on_slots("late", "0 * * * *", ", jitter: 30m")
        + &on_slots(
            "bounded",
            "0 * * * *",
            ", start: \"2026-11-22T12:00:00Z\", end: \"2026-11-22T15:00:00Z\"",
        )
        + &on_slots("resting", "0 * * * *", "");
    let day = window(START, hours(24));
    let chosen = Chosen::new(&registry(&yaml), &[], &BTreeSet::new()).unwrap();
    let paused = BTreeSet::from(["resting".parse().unwrap()]);
    let scene = Scene::new(&chosen, paused, day).unwrap();
    let report = Simulation::new(&scene, &Crew::default(), nobody)
        .unwrap()
        .finish();
    assert_eq!(tally(&report, "late").tasks, 24);
    assert_eq!(tally(&report, "bounded").tasks, 3);
    assert_eq!(tally(&report, "resting").tasks, 0);
    assert!(tally(&report, "resting").paused);
    // It is not ticked on the hour, where the other one is.
    let busiest = report.busiest.iter();
    let minutes = busiest.map(|minute| minute.definitions.len());
    assert!(minutes.max() == Some(1), "{:?}", report.busiest);
}

#[test]
fn silences_joins_and_held_back_tasks_come_when_they_are_due() {
    let yaml = "kind: ActivityDefinition\nid: silent\n\
        trigger: {type: silence, event_type: kaizen.metrics.recorded, key: '{{ event.attributes.project }}', for: 3h, keys: [shop]}\n\
        rules: [{id: r, tasks: [{queue: q, title: gone}]}]\n---\n\
        kind: ActivityDefinition\nid: ticking\ntrigger: {type: cron, cron: \"30 * * * *\"}\n\
        rules: [{id: r, tasks: [{queue: p, title: tick}]}]\n";
    let events = [metric(0, "shop", 0.9), metric(10 * 60, "shop", 0.9)];
    let report = simulated(yaml, window(START, hours(24)), &Crew::default(), &events);
    let silent = tally(&report, "silent");
    // Three hours after each event, whether or not another one comes behind it.
    assert_eq!((silent.tasks, silent.triggers), (2, 4));
    let day = report.days[&"2026-11-22".parse().unwrap()];
    assert_eq!((day.ticks, day.events, day.tasks), (14, 2, 16));
}

#[test]
fn the_busiest_minutes_say_who_was_set_off() {
    let yaml = on_slots("a", "0 * * * *", "") + &on_slots("b", "0 12 * * *", "");
    let report = simulated(
        &yaml,
        window(START, hours(24)),
        &Crew::default(),
        &[metric(200, "shop", 0.1)],
    );
    assert_eq!(report.busiest.len(), 5);
    let busiest = &report.busiest[0];
    assert_eq!(busiest.at, at("2026-11-22T12:00:00Z"));
    assert_eq!((busiest.counts.ticks, busiest.counts.tasks), (2, 2));
    let set_off: Vec<_> = busiest
        .definitions
        .keys()
        .map(DefinitionId::as_str)
        .collect();
    assert_eq!(set_off, ["a", "b"]);
    // Of those alike, the earliest.
    assert_eq!(report.busiest[1].at, at(START));
}

fn run(repo: &str, agent: &str, cron: &str) -> Value {
    json!({"repo": repo, "path": repo, "agent": agent, "cadence": "daily", "cron": cron, "engagement": "loop"})
}

/// Answers discovery with two runs, and counts how often it was asked.
fn discovery(asked: &mut usize) -> impl FnMut(ResolveItem) -> Result<Snapshot, String> {
    move |item| {
        *asked += 1;
        let params: Value = serde_json::from_slice(&item.sources[0].params).unwrap();
        assert!(params.get("due").is_none(), "{params}");
        let json =
            json!({"runs": [run("api", "coach", "15 * * * *"), run("web", "coach", "45 * * * *")]});
        Ok(Snapshot {
            json: json.to_string().into_bytes(),
            warnings: vec!["repo data: no schedule".to_owned()],
            ..Snapshot::default()
        })
    }
}

fn orienting(id: &str, cron: &str, params: &str) -> String {
    format!(
        "---\nkind: ActivityDefinition\nid: {id}\ntrigger: {{type: cron, cron: \"{cron}\"}}\n\
         context_sources: [{{type: discover_kaizen_scheduled_repos, bind_to: context.runs, params: {params}}}]\n\
         rules: [{{id: r, for_each: context.runs, as: run, tasks: [{{queue: q, title: \"{{{{ run.repo }}}}\"}}]}}]\n"
    )
}

#[test]
fn discovery_is_asked_once_and_runs_are_due_by_their_own_crons() {
    let yaml = orienting("all", "15 * * * *", "{engagement_slug: loop}")
        + &orienting("due", "15 * * * *", "{engagement_slug: loop, due: true}");
    let scene = scene(&yaml, window(START, hours(24)));
    let mut asked = 0;
    let mut simulation = Simulation::new(&scene, &Crew::default(), discovery(&mut asked)).unwrap();
    let (runs, events) = simulation.make_up(1);
    assert_eq!((runs, events.count()), (2, 48));
    let report = simulation.finish();
    assert_eq!(tally(&report, "all").tasks, 48);
    assert_eq!(tally(&report, "due").tasks, 24);
    let held: Vec<_> = report.held["discover_kaizen_scheduled_repos"]
        .iter()
        .map(DefinitionId::as_str)
        .collect();
    assert_eq!(held, ["all", "due"]);
    assert_eq!(report.warnings, ["repo data: no schedule"]);
    assert_eq!(asked, 1);
}

#[test]
fn what_nobody_answers_is_unknown_and_says_why() {
    let yaml = orienting("lost", "15 * * * *", "{engagement_slug: loop}")
        + &on_slots("d", "0 * * * *", "");
    let report = simulated(&yaml, window(START, hours(24)), &Crew::default(), &[]);
    let lost = tally(&report, "lost");
    assert_eq!((lost.unknown, lost.tasks), (24, 0));
    assert_eq!(lost.unknown_why.as_deref(), Some("nobody answers"));
    assert_eq!(tally(&report, "d").tasks, 24);
    // An optional source is left out instead.
    let optional = yaml.replace(
        "params: {engagement_slug: loop}}",
        "params: {engagement_slug: loop}, optional: true}",
    );
    let report = simulated(&optional, window(START, hours(24)), &Crew::default(), &[]);
    assert_eq!(
        (
            tally(&report, "lost").unknown,
            tally(&report, "lost").errors
        ),
        (0, 0)
    );
}

#[test]
fn an_outside_source_sees_the_trigger_that_comes_first() {
    let yaml = "kind: ActivityDefinition\nid: d\ntrigger: {type: cron, cron: \"15 * * * *\"}\n\
        context_sources: [{type: shop-stock, bind_to: context.stock}]\n\
        rules: [{id: r, when: context.stock.left < 3, tasks: [{queue: q, title: refill}]}]\n";
    let scene = scene(yaml, window(START, hours(24)));
    let mut slots = Vec::new();
    let simulation = Simulation::new(&scene, &Crew::default(), |item: ResolveItem| {
        let Some(Trigger::Slot(slot)) = item.trigger else {
            panic!("{item:?}")
        };
        slots.push(slot);
        Ok(Snapshot {
            json: br#"{"stock": {"left": 2}}"#.to_vec(),
            ..Snapshot::default()
        })
    });
    let report = simulation.unwrap().finish();
    assert_eq!(tally(&report, "d").tasks, 24);
    assert_eq!(slots, ["2026-11-22T10:15:00Z"]);
}

/// All that a report says, as text.
fn told(yaml: &str, seed: u64) -> String {
    let scene = scene(yaml, window(START, hours(24 * 7)));
    let mut asked = 0;
    let mut simulation = Simulation::new(&scene, &Crew::default(), discovery(&mut asked)).unwrap();
    let (_, events) = simulation.make_up(seed);
    for event in events {
        simulation.event(&event.event());
    }
    format!("{:?}", simulation.finish())
}

#[test]
fn the_same_seed_gives_the_same_report_and_another_seed_another_one() {
    let review = on_events("calm", &format!("cooldown: {{{KEY}, for: 2h}}"));
    let yaml = review + &orienting("all", "15 * * * *", "{engagement_slug: loop}");
    let one = told(&yaml, 1);
    assert_eq!(one, told(&yaml, 1));
    assert_ne!(one, told(&yaml, 2));
}

/// As production would have it: what a replay of the same messages concludes.
#[test]
fn an_archive_simulated_over_its_own_span_orders_what_a_replay_of_it_orders() {
    let yaml = [
        on_events("plain", ""),
        on_events("calm", &format!("cooldown: {{{KEY}, for: 1h}}")),
        on_events("row", "for: 2"),
        on_events("limited", "rate_limit: {tasks: 1, per: 2h}"),
    ]
    .concat();
    let events: Vec<_> = (0..200)
        .map(|n| {
            metric(
                n * 7,
                ["shop", "web", "api"][usize::try_from(n % 3).unwrap()],
                f64::from(i32::try_from(n * 37 % 100).unwrap()) / 100.0,
            )
        })
        .collect();
    let day = window(START, hours(24));
    let report = simulated(&yaml, day, &Crew::default(), &events);

    let builtin = builtin_event_types().into_iter().map(Document::EventType);
    let all: Vec<_> = builtin.chain(documents(&yaml)).collect();
    let view = View::of(all.iter(), day.from).unwrap();
    let mut replay = Replay::new(&view);
    let mut followed = Vec::new();
    for (event, sequence) in events.iter().zip(1..) {
        let payload = event.to_string();
        let input = Input {
            stream: stream::EVENTS,
            subject: RECORDED,
            sequence,
            stored_at: event["time"].as_str().unwrap().parse().unwrap(),
            hops: 0,
            payload: payload.as_bytes(),
        };
        let taken = replay.take(&input, &mut Nothing);
        followed.extend(taken.due);
        followed.extend(taken.set_off.unwrap());
    }
    for reader in kaizen_proto::subject::Reader::ALL {
        followed.extend(replay.idle(reader, day.to, &mut Nothing));
    }
    let mut tasks: BTreeMap<String, u64> = BTreeMap::new();
    for one in followed {
        let Followed::Concluded(concluded) = one.followed else {
            continue;
        };
        let count = concluded.decision.unwrap().tasks.len();
        *tasks
            .entry(one.revision.value.id().to_string())
            .or_default() += u64::try_from(count).unwrap();
    }
    for tally in &report.definitions {
        assert_eq!(
            tally.tasks,
            tasks[tally.definition.as_str()],
            "{}",
            tally.definition
        );
        assert!(tally.tasks > 5, "{tally:?}");
    }
}

#[test]
fn recorded_events_begin_at_the_start_and_are_repeated_by_whole_days() {
    let events = [
        metric(0, "shop", 0.1),
        metric(90, "shop", 0.2),
        metric(25 * 60, "web", 0.3),
    ];
    let file = recorded(&events);
    let days = window("2027-01-05T06:00:00Z", hours(24 * 5));
    let published: Vec<_> = file.events(days, false).collect();
    let told: Vec<_> = published
        .iter()
        .map(|one| (one.at.to_string(), one.lap))
        .collect();
    let expected = [
        ("2027-01-05T06:00:00Z", 0),
        ("2027-01-05T07:30:00Z", 0),
        ("2027-01-06T07:00:00Z", 0),
        ("2027-01-07T06:00:00Z", 1),
        ("2027-01-07T07:30:00Z", 1),
        ("2027-01-08T07:00:00Z", 1),
        ("2027-01-09T06:00:00Z", 2),
        ("2027-01-09T07:30:00Z", 2),
    ];
    assert_eq!(told, expected.map(|(at, lap)| (at.to_owned(), lap)));
    assert_eq!(file.events(days, true).count(), 3);

    let payload =
        |n: usize| -> Value { serde_json::from_slice(published[n].event().payload).unwrap() };
    assert_eq!(payload(0)["id"], "shop-0");
    assert_eq!(payload(0)["time"], "2027-01-05T06:00:00Z");
    assert_eq!(payload(3)["id"], "shop-0~2");
    assert_eq!(payload(3)["time"], "2027-01-07T06:00:00Z");
    assert_eq!(payload(3)["attributes"], events[0]["attributes"]);
}

#[test]
fn moving_an_event_keeps_every_digit_and_what_is_no_envelope() {
    let event = br#"{"specversion":"1.0","id":"1","type":"a.b","source":"s","time":"2026-11-22T10:00:00Z","data":{"x":0.1000000000000000055511}}"#;
    let text = String::from_utf8(moved(event, hours(1), 0)).unwrap();
    assert!(text.contains("0.1000000000000000055511"), "{text}");
    assert!(
        text.contains("\"2026-11-22T11:00:00Z\"") && text.contains("\"id\":\"1\""),
        "{text}"
    );
    for garbage in [&b"{"[..], b"[1]", b""] {
        assert_eq!(moved(garbage, hours(1), 3), garbage);
    }
    assert_eq!(moved(event, SignedDuration::ZERO, 0), event);
}

#[test]
fn a_broken_file_of_events_names_the_line() {
    let good = metric(0, "shop", 0.1).to_string();
    let parse = |text: String| Recorded::parse(text.into_bytes()).unwrap_err();
    let line = |text: String| match parse(text) {
        RecordedError::Line { line, message } => (line, message),
        other => panic!("{other:?}"),
    };
    let (number, message) = line(format!("{good}\n\n{{\"id\": 1}}\n"));
    assert_eq!(number, 3);
    assert!(message.starts_with("not an event envelope"), "{message}");
    let (number, message) = line(format!(
        "{good}\n{}",
        good.replace("\"time\"", "\"subject\"")
    ));
    assert_eq!(number, 2);
    assert!(message.contains("subject"), "{message}");
    let timeless = r#"{"id":"1","type":"a.b","source":"s"}"#;
    let (number, message) = line(timeless.to_owned());
    assert_eq!(number, 1);
    assert!(message.contains("no `time`"), "{message}");
    assert_eq!(parse("\n \n".to_owned()), RecordedError::Empty);
}

#[test]
fn events_that_no_type_lets_in_are_counted() {
    let mut event = metric(0, "shop", 0.1);
    event["type"] = json!("shop.unknown");
    let report = simulated(
        &on_events("plain", ""),
        window(START, hours(24)),
        &Crew::default(),
        &[event],
    );
    assert_eq!(
        (report.counts.events, report.refused, report.counts.tasks),
        (1, 1, 0)
    );
    assert!(report.refused_why.unwrap().contains("shop.unknown"));
}

#[test]
fn what_is_given_replaces_and_joins_what_stands() {
    let view = registry(&(on_events("a", "") + &on_events("b", "")));
    let chosen = |yaml: &str, only: &[&str]| {
        let only = only.iter().map(|id| id.parse().unwrap()).collect();
        Chosen::new(&view, &documents(yaml), &only)
    };
    let given = on_events("a", "for: 2") + &on_events("b", "") + &on_events("c", "");
    let day = window(START, hours(24));
    let scene = Scene::new(&chosen(&given, &[]).unwrap(), BTreeSet::new(), day).unwrap();
    let report = Simulation::new(&scene, &Crew::default(), nobody)
        .unwrap()
        .finish();
    let told: Vec<_> = report
        .definitions
        .iter()
        .map(|one| (one.definition.as_str(), one.given))
        .collect();
    assert_eq!(told, [("a", true), ("b", false), ("c", true)]);

    let disabled = on_events("a", "").replace("id: a\n", "id: a\nenabled: false\n");
    let error = |yaml: &str, only: &[&str]| chosen(yaml, only).unwrap_err();
    assert!(error(&disabled, &["a"]).contains("definition a is disabled"));
    assert!(error(&given, &["aa"]).contains("there is no definition aa"));
    let scene = Scene::new(&chosen(&disabled, &[]).unwrap(), BTreeSet::new(), day).unwrap();
    let mut crew = Crew::default();
    crew.queues.insert("p".parse().unwrap(), Workers::default());
    let error = Simulation::new(&scene, &crew, nobody).err().unwrap();
    assert!(error.starts_with("no task goes to a queue p"), "{error}");
}

#[test]
fn an_event_that_was_resent_counts_once() {
    let event = metric(0, "shop", 0.1);
    let mut again = event.clone();
    again["time"] = json!("2026-11-22T10:01:00Z");
    let report = simulated(
        &on_events("plain", ""),
        window(START, hours(24)),
        &Crew::default(),
        &[event, again],
    );
    assert_eq!(
        (report.counts.events, tally(&report, "plain").tasks),
        (2, 1)
    );
}
