//! The event loop: moves bytes between sockets and conversations, and keeps their time. What is said, and which way comes
//! next, is decided elsewhere.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

use mio::Events;
use mio::event::Event;
use slab::Slab;

use super::connection::{self, Job, Probe};
use super::deadlines::Deadlines;
use super::feed::Targets;
use super::randoms::Randoms;
use super::turnstile::{Pace, Turnstile};
use super::{Options, Summary};
use crate::conversation::{Conversation, Topic, Way};
use crate::failure::{Failure, Phase};
use crate::found::Found;
use crate::full::FullLook;
use crate::observation::{Look, Observation};
use crate::offer::{Hello, Offer};
use crate::ways::{self, Learnt};

/// What is read by one call.
const READ_AT_ONCE: usize = 32 * 1024;
/// New connections between two looks at those in flight.
const START_AT_ONCE: usize = 256;
/// What all probes in flight may hold of incomplete messages: servers that send half and wait cannot fill the memory.
const MOST_HELD: usize = 8 * 1024 * 1024;
/// Connections on the full way at a time, those that are opening among them: each handshake by rustls holds some 20 KiB.
const FULL_AT_ONCE: usize = 1024;
/// How often it looks whether it is cancelled.
const LOOK_AROUND: Duration = Duration::from_millis(100);

pub(super) struct Engine<'a, S> {
    options: &'a Options,
    learnt: &'a mut Learnt,
    sink: S,
    targets: Targets,
    probes: Slab<Probe>,
    deadlines: Deadlines,
    turnstile: Turnstile,
    pace: Pace,
    /// Probes that go another way now.
    again: Vec<Job>,
    full: FullWays,
    randoms: Randoms,
    /// What each kind of hello offers, told once.
    offers: Vec<((Look, Hello, bool), Arc<Offer>)>,
    buffer: Box<[u8]>,
    out: Vec<u8>,
    held: usize,
    /// The system gave no more sockets; something must end first.
    crowded: bool,
    /// How long the sink kept everybody waiting.
    stood: Duration,
    summary: Summary,
}

/// The full way: how many are on it, and jobs that wait for a slot. They hold no connection: a server would not wait with
/// them.
#[derive(Default)]
struct FullWays {
    in_flight: usize,
    waiting: VecDeque<Job>,
}

/// What keeps the engine from beginning more.
#[derive(Clone, Copy, PartialEq)]
enum Held {
    /// Nothing: those in flight are looked at in between.
    Busy,
    /// Something must end first.
    Room,
    /// It is too soon.
    Pace(Duration),
    /// More are to come.
    Targets,
    /// Nothing is left, now or later.
    Over,
}

impl FullWays {
    fn has_slot(&self) -> bool {
        self.in_flight < FULL_AT_ONCE
    }
}

impl<'a, S: FnMut(Observation)> Engine<'a, S> {
    pub(super) fn new(targets: Targets, options: &'a Options, learnt: &'a mut Learnt, sink: S) -> Self {
        Self {
            options,
            learnt,
            sink,
            targets,
            probes: Slab::new(),
            deadlines: Deadlines::new(&options.timeouts),
            turnstile: Turnstile::new(options.limits.per_host, options.limits.per_network),
            pace: Pace::new(options.limits.rate),
            again: Vec::new(),
            full: FullWays::default(),
            randoms: Randoms::new(),
            offers: Vec::new(),
            buffer: vec![0; READ_AT_ONCE].into_boxed_slice(),
            out: Vec::with_capacity(1024),
            held: 0,
            crowded: false,
            stood: Duration::ZERO,
            summary: Summary::default(),
        }
    }

    pub(super) fn run(mut self, cancel: &AtomicBool) -> io::Result<Summary> {
        let mut events = Events::with_capacity(1024);
        while !cancel.load(Ordering::Relaxed) {
            let held = self.start_until_asleep();
            if held == Held::Over && self.probes.is_empty() {
                break;
            }
            match self.targets.poll.poll(&mut events, Some(self.wait_for(held))) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => self.targets.is_awake(),
            }
            for event in &events {
                self.ready(event);
            }
            self.expire();
        }
        self.summary.unfinished = (self.probes.len() + self.again.len() + self.full.waiting.len()) as u64;
        Ok(self.summary)
    }

    /// Now, without the time that the sink took.
    fn now(&self) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.stood).unwrap_or(now)
    }

    fn wait_for(&self, held: Held) -> Duration {
        let now = self.now();
        let wait = match held {
            Held::Busy => Duration::ZERO,
            Held::Pace(wait) => wait,
            Held::Room | Held::Targets | Held::Over => LOOK_AROUND,
        };
        let deadline = self.deadlines.next().map(|deadline| deadline.saturating_duration_since(now));
        wait.min(LOOK_AROUND).min(deadline.unwrap_or(LOOK_AROUND))
    }

    /// As [`Self::start_some`]; where all that came is begun, what comes later ends the sleep that follows.
    fn start_until_asleep(&mut self) -> Held {
        match self.start_some() {
            Held::Targets => {
                self.targets.falls_asleep();
                self.start_some()
            }
            held => held,
        }
    }

    /// Begins what may be begun now, and says what holds back the rest.
    fn start_some(&mut self) -> Held {
        for _ in 0..START_AT_ONCE {
            if self.crowded || self.probes.len() >= self.options.limits.in_flight {
                return Held::Room;
            }
            let now = self.now();
            let wait = self.pace.wait(now);
            if !wait.is_zero() {
                return Held::Pace(wait);
            }
            match self.next_job() {
                Ok(job) => {
                    self.pace.step(now);
                    self.connect(job);
                }
                Err(held) => return held,
            }
        }
        Held::Busy
    }

    /// What is begun next: what waited for the full way, what goes another way, or what is new.
    fn next_job(&mut self) -> Result<Job, Held> {
        loop {
            if self.full.has_slot()
                && let Some(job) = self.full.waiting.pop_front()
            {
                return Ok(job);
            }
            let job = match self.again.pop() {
                Some(job) => job,
                // Those that wait hold memory too.
                None if self.probes.len() + self.full.waiting.len() >= self.options.limits.in_flight => {
                    return Err(Held::Room);
                }
                None => self.next_target()?,
            };
            if job.way != Way::Full || self.full.has_slot() {
                return Ok(job);
            }
            self.full.waiting.push_back(job);
        }
    }

    /// The next target that no limit holds back.
    fn next_target(&mut self) -> Result<Job, Held> {
        loop {
            let target = match self.turnstile.called() {
                Some(target) => target,
                None if self.turnstile.is_full() => return Err(Held::Room),
                None => match self.targets.take() {
                    Ok(target) => target,
                    Err(TryRecvError::Empty) => return Err(Held::Targets),
                    Err(TryRecvError::Disconnected) if self.turnstile.is_waited_at() => return Err(Held::Room),
                    Err(TryRecvError::Disconnected) => return Err(Held::Over),
                },
            };
            if let Some(target) = self.turnstile.enter(target) {
                let Options { method, proof, .. } = *self.options;
                let learnt = self.learnt.of(SocketAddr::new(target.address, target.port));
                let way = ways::first(method, proof, target.hello, learnt);
                return Ok(Job::new(target, way));
            }
        }
    }

    fn connect(&mut self, mut job: Job) {
        let entry = self.probes.vacant_entry();
        match connection::open(&job, self.targets.poll.registry(), entry.key()) {
            Ok((stream, token)) => {
                let now = Instant::now();
                let now = now.checked_sub(self.stood).unwrap_or(now);
                job.connecting(now);
                self.full.in_flight += usize::from(job.way == Way::Full);
                let turn = self.deadlines.set(Phase::Connect, token, now);
                entry.insert(Probe::new(stream, token, turn, job));
                self.summary.peak = self.summary.peak.max(self.probes.len());
            }
            // Sockets or ports have run out: wait until one is free.
            Err(error) if connection::is_crowded(&error) && !self.probes.is_empty() => {
                self.crowded = true;
                self.again.push(job);
            }
            Err(error) => {
                let failure = connection::failure(&error, Phase::Connect);
                self.settle(job, Err(failure));
            }
        }
    }

    /// Something happened to a connection.
    fn ready(&mut self, event: &Event) {
        let Some(key) = connection::key(event.token(), &self.probes) else { return };
        let Some(probe) = self.probes.get_mut(key) else { return };
        let mut closing = event.is_read_closed() || event.is_error();
        if probe.conversation.is_none() {
            if event.is_error()
                && let Ok(Some(error)) = probe.stream.take_error()
            {
                let failure = connection::failure(&error, Phase::Connect);
                return self.end(key, Err(failure));
            }
            if !event.is_writable() {
                return;
            }
            closing |= !self.connected(key);
        } else if event.is_writable() {
            closing |= !self.write(key);
        }
        if event.is_readable() || closing {
            self.read(key, closing);
        }
    }

    /// The connection stands: the conversation begins. False as [`Engine::write`].
    fn connected(&mut self, key: usize) -> bool {
        let now = self.now();
        let Some(probe) = self.probes.get_mut(key) else { return true };
        probe.job.connected(now);
        let started = match self.randoms.next() {
            Ok(random) => Conversation::start(&topic(&probe.job, self.options), random, &mut self.out),
            Err(error) => Err(Failure::Local { why: format!("no random numbers: {error}") }),
        };
        match started {
            Ok(conversation) => {
                probe.conversation = Some(conversation);
                probe.job.phase_begins(now);
                probe.turn = self.deadlines.set(probe.phase(), probe.token, now);
                self.write(key)
            }
            Err(failure) => {
                self.end(key, Err(failure));
                true
            }
        }
    }

    /// Sends what is to be sent: what is in `out`, after what could not be sent before. False: the connection is broken,
    /// and what the server sent before it broke, which may say why, is still to be read.
    fn write(&mut self, key: usize) -> bool {
        let Some(probe) = self.probes.get_mut(key) else {
            self.out.clear();
            return true;
        };
        let unsent = !probe.unsent.is_empty();
        if unsent {
            probe.unsent.append(&mut self.out);
        }
        let bytes = if unsent { &mut probe.unsent } else { &mut self.out };
        let mut stands = true;
        while stands && !bytes.is_empty() {
            match probe.stream.write(bytes) {
                Ok(count) => drop(bytes.drain(..count)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => stands = error.kind() == io::ErrorKind::Interrupted,
            }
        }
        if !unsent && !self.out.is_empty() {
            probe.unsent = std::mem::take(&mut self.out);
        }
        self.out.clear();
        stands
    }

    /// Reads what is there. `closing`: the server will send no more.
    fn read(&mut self, key: usize, mut closing: bool) {
        loop {
            let Some(probe) = self.probes.get_mut(key) else { return };
            let Some(conversation) = probe.conversation.as_mut() else { return };
            let count = match probe.stream.read(&mut self.buffer) {
                Ok(0) => {
                    let failure = Failure::Closed { phase: probe.phase() };
                    return self.end(key, Err(failure));
                }
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    let failure = connection::failure(&error, probe.phase());
                    return self.end(key, Err(failure));
                }
            };
            let before = conversation.phase();
            let input = self.buffer.get_mut(..count).unwrap_or_default();
            match conversation.read(&topic(&probe.job, self.options), input, &mut self.out) {
                Ok(Some(found)) => {
                    self.out.clear();
                    return self.end(key, Ok(found));
                }
                Ok(None) => {}
                Err(failure) => {
                    self.out.clear();
                    return self.end(key, Err(failure));
                }
            }
            let (after, held) = (conversation.phase(), conversation.held());
            self.held = self.held - probe.held + held;
            probe.held = held;
            if before != after {
                self.next_phase(key);
            }
            if !self.out.is_empty() {
                closing |= !self.write(key);
            }
            if self.held > MOST_HELD {
                self.make_room();
            }
            // A read that did not fill the buffer emptied the socket: what comes later makes a new event.
            if count < READ_AT_ONCE && !closing {
                return;
            }
        }
    }

    fn next_phase(&mut self, key: usize) {
        let now = self.now();
        if let Some(probe) = self.probes.get_mut(key) {
            probe.job.starttls_done(now);
            probe.turn = self.deadlines.set(Phase::Handshake, probe.token, now);
        }
    }

    /// Ends the probes that hold the most, until a quarter of the room is free.
    fn make_room(&mut self) {
        let mut holders: Vec<(usize, usize)> = self.probes.iter().map(|(key, probe)| (probe.held, key)).collect();
        holders.sort_unstable_by(|a, b| b.cmp(a));
        for (held, key) in holders {
            if self.held <= MOST_HELD / 4 * 3 {
                break;
            }
            let why = format!("{held} bytes of it were waited on while memory was short");
            self.end(key, Err(Failure::too_large(why)));
        }
    }

    fn expire(&mut self) {
        let now = self.now();
        while let Some((token, turn)) = self.deadlines.passed(now) {
            let Some(key) = connection::key(token, &self.probes) else { continue };
            let Some(probe) = self.probes.get(key).filter(|probe| probe.turn == turn) else { continue };
            let failure = Failure::Timeout { phase: probe.phase() };
            self.end(key, Err(failure));
        }
        let probes = &self.probes;
        self.deadlines.prune(probes.len(), |token, turn| {
            connection::key(token, probes).and_then(|key| probes.get(key)).is_some_and(|probe| probe.turn == turn)
        });
    }

    /// A connection is done with. Closing it sends a reset: nothing is owed.
    fn end(&mut self, key: usize, result: Result<Found, Failure>) {
        let Some(mut probe) = self.probes.try_remove(key) else { return };
        self.crowded = false;
        self.held -= probe.held;
        probe.job.phase_ends(self.now(), probe.conversation.as_ref().map(Conversation::phase));
        self.full.in_flight -= usize::from(probe.job.way == Way::Full);
        let result = result.or_else(|failure| {
            let why = format!("the handshake was not finished: {failure}");
            let presented = probe.conversation.as_mut().and_then(|conversation| conversation.presented(&why));
            presented.ok_or(failure)
        });
        drop(probe.stream);
        self.settle(probe.job, result);
    }

    /// Goes another way, or tells the result.
    fn settle(&mut self, mut job: Job, result: Result<Found, Failure>) {
        let result = match result {
            Ok(found) => {
                if !job.tried.is_empty() {
                    self.learnt.learn(job.server(), job.way);
                }
                Ok(job.with_shortfall(found, self.options.proof))
            }
            Err(failure) => {
                let way = ways::next(self.options.method, &job.tried_with_this(), job.target.hello, &failure);
                if let Some(way) = way {
                    job.goes(way, failure);
                    return self.again.push(job);
                }
                Err(job.telling(failure))
            }
        };
        match &result {
            Ok(_) => self.summary.found += 1,
            Err(_) => self.summary.failed += 1,
        }
        self.turnstile.leave(job.target.address);
        let offer = self.offer(&job);
        let observation = job.observation(result, offer);
        let before = Instant::now();
        (self.sink)(observation);
        self.stood += before.elapsed();
    }

    fn offer(&mut self, job: &Job) -> Arc<Offer> {
        let topic = topic(job, self.options);
        let key = (job.look(), job.way.hello(job.target.hello), topic.offers_http());
        if let Some((_, offer)) = self.offers.iter().find(|(known, _)| *known == key) {
            return offer.clone();
        }
        let (look, hello, http) = key;
        let offer = Arc::new(match look {
            Look::Quick => hello.described(),
            Look::Full => FullLook::described(&hello, http),
        });
        self.offers.push((key, offer.clone()));
        offer
    }
}

fn topic<'a>(job: &'a Job, options: &Options) -> Topic<'a> {
    Topic {
        host: &job.target.host,
        address: job.target.address,
        port: job.target.port,
        server_name: job.target.server_name.as_ref(),
        starttls: job.target.starttls,
        hello: job.target.hello,
        way: job.way,
        proof: options.proof,
    }
}
