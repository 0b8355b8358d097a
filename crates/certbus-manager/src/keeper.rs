//! A manager that is left alone: whatever is due is issued, many at once, until it is told to stop. One slow order holds
//! nothing else up.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use certbus_core::agenda::first_choice;
use certbus_core::id::{CertificateId, Cursor, StreamKind};
use certbus_core::key::SigningKey;
use certbus_core::name::NameSet;
use certbus_core::plan::{self, Due};
use futures::StreamExt;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::clock;
use crate::issue::Outcome;
use crate::issuers::{Issuers, LocalSolvers};
use crate::manager::{ManageError, Manager};
use crate::round::AT_ONCE;
use crate::windows::Windows;

/// What is due is looked for at least this often.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// And at most this often, however busy the log is.
const LOOK_AT_MOST_EVERY: Duration = Duration::from_secs(1);

/// What is another manager's to begin with is left to it for this long.
const OTHERS_TURN: Duration = Duration::from_secs(45);

/// Orders under way when it is told to stop are given this long.
const ENDING: Duration = Duration::from_secs(15);

/// That it is at work is told this often.
const CHECK_IN_EVERY: Duration = Duration::from_secs(5 * 60);

/// A snapshot is written when this many batches came after the last one.
const SNAPSHOT_AFTER: u64 = 1000;

/// Keeps everything renewed.
#[derive(Debug)]
pub struct Keeper {
    manager: Arc<Manager>,
    local: LocalSolvers,
    windows: Windows,
    issuers: Option<Arc<Issuers>>,
    waiting: VecDeque<Due>,
    under_way: HashSet<CertificateId>,
    flights: JoinSet<Flight>,
    /// What was said last of why it cannot look, so that it is said once.
    said: Option<String>,
    checked_in: Option<Instant>,
    /// What is another manager's to begin with, and since when it is due.
    seen: HashMap<CertificateId, Instant>,
}

/// How an issuance of this keeper ended.
type Flight = (Due, Result<Outcome, ManageError>);

/// What one round did.
#[derive(Debug, Default)]
pub struct Round {
    /// How many were issued.
    pub issued: usize,
    /// Which were not, and why.
    pub failed: Vec<(CertificateId, ManageError)>,
}

impl fmt::Display for Round {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.issued, self.failed.len()) {
            (0, 0) => f.write_str("nothing was due"),
            (issued, 0) => write!(f, "{issued} issued"),
            (issued, failed) => write!(f, "{issued} issued, {failed} failed"),
        }
    }
}

impl Keeper {
    /// For `manager`, with what this machine brings.
    pub fn new(manager: Arc<Manager>, local: LocalSolvers, windows: Windows) -> Self {
        Self {
            manager,
            local,
            windows,
            issuers: None,
            waiting: VecDeque::new(),
            under_way: HashSet::new(),
            flights: JoinSet::new(),
            said: None,
            checked_in: None,
            seen: HashMap::new(),
        }
    }

    /// One round: everything that is due by now, to its end.
    ///
    /// # Errors
    /// [`ManageError`] if it cannot be found out what is due; failures of single certificates are in the answer.
    pub async fn round(&mut self) -> Result<Round, ManageError> {
        self.look(true).await?;
        let mut round = Round::default();
        if let Some(issuers) = self.issuers.clone() {
            let ended = |due: &Due, result: Result<Outcome, ManageError>| {
                tell(due, &result);
                match result {
                    Ok(_) => round.issued += 1,
                    Err(error) => round.failed.push((due.request.certificate, error)),
                }
            };
            self.manager.issue_all(std::mem::take(&mut self.waiting).into(), &issuers, ended).await;
        }
        self.keep_snapshot().await;
        self.check_in().await;
        Ok(round)
    }

    /// Until `stop`; orders under way are then given a little time.
    pub async fn run(mut self, stop: impl Future<Output = ()>) {
        let mut stop = std::pin::pin!(stop);
        let from = self.manager.view().await.map_or(Cursor::START, |view| view.works.cursor());
        let mut pages = self.manager.tenant().stream(StreamKind::Work).log.watch(from);
        let (mut looked, mut at) = (None::<Instant>, Instant::now());
        loop {
            tokio::select! {
                () = &mut stop => break,
                () = tokio::time::sleep_until(at) => {
                    tokio::select! {
                        () = &mut stop => break,
                        () = self.look_and_say() => {}
                    }
                    self.start();
                    looked = Some(Instant::now());
                    at = Instant::now() + LOOK_EVERY;
                }
                // What another wrote may have made something due.
                _ = pages.next() => {
                    at = at.min(looked.map_or_else(Instant::now, |looked| looked + LOOK_AT_MOST_EVERY));
                }
                Some(flight) = self.flights.join_next() => {
                    self.land(flight);
                    self.start();
                }
            }
        }
        self.waiting.clear();
        let landing = async { while self.flights.join_next().await.is_some() {} };
        if tokio::time::timeout(ENDING, landing).await.is_err() {
            tracing::warn!("stopped with orders under way: the next manager goes on with them");
        }
    }

    async fn look_and_say(&mut self) {
        let outcome = match self.look(false).await {
            Ok(()) => {
                self.keep_snapshot().await;
                if self.checked_in.is_none_or(|at| at.elapsed() >= CHECK_IN_EVERY) {
                    self.check_in().await;
                }
                None
            }
            Err(error) => Some(error.to_string()),
        };
        match &outcome {
            Some(error) if self.said.as_ref() != Some(error) => tracing::error!("cannot look for what is due: {error}"),
            None if self.said.is_some() => tracing::info!("what is due can be seen again"),
            _ => {}
        }
        self.said = outcome;
    }

    /// Finds what is to be issued now and not under way here: `all`, or what is this manager's to begin with and what
    /// others have left.
    async fn look(&mut self, all: bool) -> Result<(), ManageError> {
        let settings = self.manager.settings().await?;
        let known = self.issuers.as_ref().is_some_and(|issuers| *issuers.settings() == settings);
        if !known {
            // Two sets of solvers would ask for the same port: the last flights with the old ones land first.
            if !self.flights.is_empty() {
                return Ok(());
            }
            self.issuers = Some(Arc::new(Issuers::new(settings, &self.local)?));
        }
        self.manager.say_alive().await?;
        if let Some(issuers) = self.issuers.clone() {
            self.manager.refresh_windows(&issuers, &mut self.windows).await?;
        }
        let Some(issuers) = &self.issuers else { return Ok(()) };
        let agenda = self.manager.agenda(issuers.settings(), clock::now()).await?;
        let under_way = |due: &Due| self.under_way.contains(&due.request.certificate);
        let view = self.manager.view().await?;
        for due in agenda.ready.iter().filter(|due| !under_way(due)) {
            let id = due.request.certificate;
            if plan::is_asked_for(&view.catalog, &view.work, id, clock::now()) {
                let why = view.work.window(id).and_then(|window| window.explanation.clone()).unwrap_or_default();
                tracing::error!(certificate = %id, why, "incident: the CA wants it replaced now");
            }
        }
        let me = self.manager.identity().sign.as_ref().map(SigningKey::public);
        let seen = &self.seen;
        let mine = |due: &Due| {
            let id = due.request.certificate;
            let waited = seen.get(&id).is_some_and(|since| since.elapsed() >= OTHERS_TURN);
            all || waited || first_choice(&view.certs, id) == me
        };
        let (free, others): (Vec<Due>, Vec<Due>) =
            agenda.ready.into_iter().filter(|due| !under_way(due)).partition(|due| mine(due));
        let now = Instant::now();
        let since = |due: &Due| {
            let id = due.request.certificate;
            (id, self.seen.get(&id).copied().unwrap_or(now))
        };
        let seen = others.iter().map(since).collect();
        drop(view);
        self.seen = seen;
        self.waiting = free.into();
        Ok(())
    }

    fn start(&mut self) {
        let Some(issuers) = &self.issuers else { return };
        while self.under_way.len() < AT_ONCE
            && let Some(due) = self.waiting.pop_front()
        {
            self.under_way.insert(due.request.certificate);
            let (manager, issuers) = (self.manager.clone(), issuers.clone());
            self.flights.spawn(async move {
                let result = manager.issue_in_turn(&due, &issuers).await;
                (due, result)
            });
        }
    }

    fn land(&mut self, flight: Result<Flight, tokio::task::JoinError>) {
        match flight {
            Ok((due, result)) => {
                self.under_way.remove(&due.request.certificate);
                tell(&due, &result);
            }
            Err(error) => {
                tracing::error!("an issuance ended by itself: {error}");
                // Which one is not said; all are looked at anew.
                self.under_way.clear();
            }
        }
    }

    async fn check_in(&mut self) {
        let Some(issuers) = &self.issuers else { return };
        // One that fails is not tried at each look either.
        self.checked_in = Some(Instant::now());
        match self.manager.check_in(issuers.settings()).await {
            Ok(problems) if problems.is_empty() => {}
            Ok(problems) => problems.iter().for_each(|problem| tracing::warn!("{problem}")),
            Err(error) => tracing::warn!("no check-in: {error}"),
        }
    }

    async fn keep_snapshot(&self) {
        let kept = async {
            if self.manager.batches_since_snapshot().await? >= SNAPSHOT_AFTER {
                self.manager.publish_snapshots().await?;
            }
            Ok::<_, ManageError>(())
        };
        if let Err(error) = kept.await {
            tracing::warn!("no snapshot was written: {error}");
        }
    }
}

fn tell(due: &Due, result: &Result<Outcome, ManageError>) {
    let (id, names) = (due.request.certificate, NameSet::new(&due.request.names));
    match result {
        Ok(outcome) => tracing::info!(certificate = %id, %names, version = %outcome.version, "issued"),
        Err(ManageError::Claimed { .. }) => tracing::debug!(certificate = %id, "another manager is at it"),
        Err(error) => tracing::warn!(certificate = %id, %names, attempt = due.attempt, "not issued: {error}"),
    }
}
