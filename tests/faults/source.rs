//! A source of somebody else, that answers what definitions ask outside, and does not always.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use async_nats::Client;
use futures::StreamExt as _;
use kaizen_proto::outside::{Failure, Response, response};
use kaizen_tests::account::asked;
use prost::Message as _;
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};

use crate::{
    chaos::{Aim, Tally, pause},
    random::Random,
};

/// Between two faults.
const PAUSE_MS: (u64, u64) = (3_000, 10_000);
/// How long one takes.
const FAILS_MS: (u64, u64) = (1_000, 10_000);

/// What it does when it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Answers,
    /// It fails for now.
    Fails,
    /// It says nothing.
    Silent,
}

/// The source, which answers until it is dropped.
#[derive(Debug)]
pub(crate) struct Source {
    way: watch::Sender<Way>,
    asked: Arc<AtomicU64>,
    answering: tokio::task::JoinHandle<()>,
}

impl Source {
    pub(crate) async fn start(client: Client) -> anyhow::Result<Self> {
        let (way, now) = watch::channel(Way::Answers);
        let asked = Arc::new(AtomicU64::new(0));
        let subject = format!("kaizen.resolver.{}", asked::SOURCE_TYPE);
        let mut questions = client.queue_subscribe(subject, "faults".into()).await?;
        let counted = asked.clone();
        let answering = tokio::spawn(async move {
            while let Some(question) = questions.next().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let answer = answer(*now.borrow());
                if let (Some(reply), Some(answer)) = (question.reply, answer) {
                    // Whoever asked asks again.
                    _ = client.publish(reply, answer.encode_to_vec().into()).await;
                }
            }
        });
        Ok(Self {
            way,
            asked,
            answering,
        })
    }

    /// Has it fail or say nothing every now and then, until the deadline. That counts where it was
    /// asked meanwhile.
    pub(crate) async fn harm(
        &self,
        aim: Aim,
        mut random: Random,
        deadline: Instant,
        tally: &Tally,
    ) {
        let mut ways = vec![("source_fails", Way::Fails), ("source_silent", Way::Silent)];
        ways.retain(|(kind, _)| aim.at(kind));
        while pause(aim.pause(&mut random, PAUSE_MS), deadline).await {
            let Some((kind, way)) = random.one_of(&ways) else {
                return;
            };
            let before = self.asked.load(Ordering::Relaxed);
            self.way.send_replace(way);
            sleep(random.millis(FAILS_MS.0, FAILS_MS.1)).await;
            self.way.send_replace(Way::Answers);
            let seen = self.asked.load(Ordering::Relaxed) > before;
            tally.count(kind, asked::SOURCE_TYPE, seen);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.answering.abort();
    }
}

fn answer(way: Way) -> Option<Response> {
    let result = match way {
        Way::Answers => response::Result::Value(format!("{:?}", asked::WORD).into_bytes()),
        Way::Fails => response::Result::Failure(Failure {
            message: "not now".to_owned(),
            transient: true,
        }),
        Way::Silent => return None,
    };
    Some(Response {
        result: Some(result),
    })
}
