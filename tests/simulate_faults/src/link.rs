//! How messages travel between a process and the broker: a moment late at best, and now and then
//! lost, doubled, or far too late.

use std::{cell::RefCell, rc::Rc};

use crate::{
    coverage::Seen,
    plan::{MessageFault, Messages, Plan, Weather},
    random::Random,
    world::{MS, Micros, Process, Sim, World},
};

/// Decides what happens to each message.
#[derive(Debug)]
pub struct Link {
    seed: u64,
    messages: Messages,
    weather: Weather,
    quiet_from: Micros,
    /// What happened to which message of which process.
    pub happened: Vec<((usize, u64), MessageFault)>,
}

/// What happens to one message and its answer.
#[derive(Debug, Clone, Copy)]
struct Fate {
    out: Micros,
    back: Micros,
    fault: Option<MessageFault>,
}

impl Link {
    /// As the plan has it.
    #[must_use]
    pub fn new(plan: &Plan) -> Self {
        Self {
            seed: plan.seed,
            messages: plan.messages.clone(),
            weather: plan.weather,
            quiet_from: plan.quiet_from,
            happened: Vec::new(),
        }
    }

    fn fate(&mut self, process: usize, number: u64, now: Micros) -> Fate {
        let place = u64::try_from(process).unwrap_or(0);
        let mut random = Random::of(&[self.seed, 1, place, number]);
        let (out, back) = (random.between(50, 400), random.between(50, 400));
        let drawn = match &self.messages {
            Messages::ByWeather => self.weather.draw(&mut random),
            Messages::These(faults) => faults.get(&(process, number)).copied(),
        };
        let fault = drawn.filter(|_| now < self.quiet_from);
        if let Some(fault) = fault {
            self.happened.push(((process, number), fault));
        }
        Fate { out, back, fault }
    }
}

fn fate(process: &Process) -> Fate {
    let sim = &process.sim;
    let number = sim.send(process.id);
    let fate = sim.link.borrow_mut().fate(process.id, number, sim.now());
    if let Some(fault) = fate.fault {
        process.tell(|| format!("message {number} of its own: {fault}"));
        sim.saw(match fault {
            MessageFault::RequestLost => Seen::RequestLost,
            MessageFault::AnswerLost => Seen::AnswerLost,
            MessageFault::Doubled(_) => Seen::Doubled,
            MessageFault::RequestLate(_) => Seen::RequestLate,
            MessageFault::AnswerLate(_) => Seen::AnswerLate,
        });
    }
    fate
}

/// Where an answer goes.
pub struct Reply<T> {
    slot: Rc<RefCell<Option<T>>>,
    process: Process,
    /// How long it takes; `None` where it is lost.
    back: Option<Micros>,
}

impl<T: 'static> Reply<T> {
    /// Answers.
    pub fn send(self, sim: &World, answer: T) {
        let Some(back) = self.back else { return };
        let (slot, process) = (self.slot, self.process);
        sim.at(sim.now() + back, move |sim| {
            slot.borrow_mut().get_or_insert(answer);
            process.wake_at(sim.now());
        });
    }
}

/// Asks the broker, or another process; `None` where no answer has come in time.
pub async fn request<T: 'static>(
    process: &Process,
    patience: Micros,
    asked: impl Fn(&Sim, Reply<T>) + 'static,
) -> Option<T> {
    let fate = fate(process);
    let slot = Rc::new(RefCell::new(None));
    let asked = Rc::new(asked);
    let sim = process.sim.clone();
    for out in fate.copies() {
        let (asked, process, slot) = (asked.clone(), process.clone(), slot.clone());
        let back = fate.back();
        sim.at(sim.now() + out, move |sim| {
            asked(
                sim,
                Reply {
                    slot,
                    process,
                    back,
                },
            );
        });
    }
    let found = || slot.borrow_mut().take();
    process.wait(sim.now() + patience, found).await
}

/// Sends something that nobody answers.
pub fn post(process: &Process, arrives: impl Fn(&Sim) + 'static) {
    let fate = fate(process);
    let arrives = Rc::new(arrives);
    let sim = &process.sim;
    for out in fate.copies() {
        let arrives = arrives.clone();
        sim.at(sim.now() + out, move |sim| arrives(sim));
    }
}

/// Whether a message among several of one batch gets lost.
pub fn gets_lost(process: &Process) -> bool {
    matches!(fate(process).fault, Some(MessageFault::RequestLost))
}

impl Fate {
    /// After how long it arrives, once for each copy of it.
    fn copies(&self) -> Vec<Micros> {
        match self.fault {
            Some(MessageFault::RequestLost) => Vec::new(),
            Some(MessageFault::RequestLate(by)) => vec![self.out + by],
            Some(MessageFault::Doubled(by)) => vec![self.out, self.out + by],
            _ => vec![self.out],
        }
    }

    fn back(&self) -> Option<Micros> {
        match self.fault {
            Some(MessageFault::AnswerLost) => None,
            Some(MessageFault::AnswerLate(by)) => Some(self.back + by),
            _ => Some(self.back),
        }
    }
}

impl Weather {
    fn draw(&self, random: &mut Random) -> Option<MessageFault> {
        let drawn = random.below(10_000);
        let late = |random: &mut Random| {
            // Most are late by less than anybody's patience, some by more.
            let most = if random.happens(3_000) { 9_000 } else { 600 };
            random.between(20, most) * MS
        };
        let mut upto = 0;
        let mut is = |rate: u64| {
            upto += rate;
            drawn < upto
        };
        if is(self.request_lost) {
            Some(MessageFault::RequestLost)
        } else if is(self.answer_lost) {
            Some(MessageFault::AnswerLost)
        } else if is(self.doubled) {
            Some(MessageFault::Doubled(random.between(0, 300) * MS))
        } else if is(self.request_late) {
            Some(MessageFault::RequestLate(late(random)))
        } else if is(self.answer_late) {
            Some(MessageFault::AnswerLate(late(random)))
        } else {
            None
        }
    }
}
