//! The deadlines of all probes in flight. Of one phase all last equally long, so they end in the order in which they were
//! set: a queue for each phase, and no heap.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use mio::Token;

use super::Timeouts;
use crate::failure::Phase;

pub(super) struct Deadlines {
    queues: [Queue; 3],
    turn: u32,
}

struct Queue {
    lasts: Duration,
    set: VecDeque<(Instant, Token, u32)>,
}

impl Deadlines {
    pub(super) fn new(timeouts: &Timeouts) -> Self {
        let queue = |lasts| Queue { lasts, set: VecDeque::new() };
        Self { queues: [queue(timeouts.connect), queue(timeouts.starttls), queue(timeouts.handshake)], turn: 0 }
    }

    /// Sets the deadline of a phase that begins now. What it returns names it: a probe keeps the one that counts.
    pub(super) fn set(&mut self, phase: Phase, token: Token, now: Instant) -> u32 {
        self.turn = self.turn.wrapping_add(1);
        let [connect, starttls, handshake] = &mut self.queues;
        let queue = match phase {
            Phase::Connect => connect,
            Phase::Starttls => starttls,
            Phase::Handshake => handshake,
        };
        queue.set.push_back((now + queue.lasts, token, self.turn));
        self.turn
    }

    /// The next one, whether it still counts or not.
    pub(super) fn next(&self) -> Option<Instant> {
        self.queues.iter().filter_map(|queue| queue.set.front().map(|(at, ..)| *at)).min()
    }

    /// Takes one that has passed.
    pub(super) fn passed(&mut self, now: Instant) -> Option<(Token, u32)> {
        let passed = |queue: &&mut Queue| queue.set.front().is_some_and(|(at, ..)| *at <= now);
        let queue = self.queues.iter_mut().find(passed)?;
        queue.set.pop_front().map(|(_, token, turn)| (token, turn))
    }

    /// Drops those that no longer count, once they are most of all.
    pub(super) fn prune(&mut self, in_flight: usize, counts: impl Fn(Token, u32) -> bool) {
        for queue in &mut self.queues {
            if queue.set.len() > 4 * in_flight + 4096 {
                queue.set.retain(|(_, token, turn)| counts(*token, *turn));
            }
        }
    }
}
