//! Tells people what is wrong: looks every few seconds, writes the messages that are due, and delivers what waits. What is
//! due is core's decision, and the store keeps it; here it is sent.

mod exec;
mod payload;
pub mod settings;
mod smtp;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use certbus_core::alert::retry::retry_at;
use certbus_core::alert::{Kind, Problem};
use certbus_core::event::CertificateRequested;
use certbus_core::plan;
use certbus_core::time::Timestamp;
use certbus_store::alerts::Watch;
use certbus_store::audit::Actor;
use certbus_store::outbox::Delivery;
use certbus_store::{Store, StoreError};

use crate::clock;
use crate::manager::{ManageError, Manager};
use crate::tenant::View;
use settings::{AlertSettings, Webhook};

/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_secs(10);

/// How long it keeps its roles without saying so again: longer than an attempt takes.
const ROLE_LASTS: Duration = Duration::from_secs(45);

/// An attempt takes no longer: a destination that hangs is tried again.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

/// What this machine brings: a program (never from the log).
#[derive(Clone, Debug, Default)]
pub struct LocalAlerts {
    /// The program that is run for each message.
    pub exec: Option<PathBuf>,
}

/// A destination did not take a message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Undelivered {
    why: String,
    /// The destination is well, and does not want this message.
    is_refused: bool,
}

/// Where a message goes.
enum Destination {
    Smtp(Box<settings::Smtp>),
    Webhook(Box<Webhook>),
    Exec(PathBuf),
}

/// Tells about one tenant.
#[derive(Clone)]
pub struct Alerts {
    manager: Arc<Manager>,
    local: LocalAlerts,
    store: Store,
    /// The name of this process among all that share the store.
    process: String,
}

impl Alerts {
    /// For a manager's tenant.
    pub fn new(manager: Arc<Manager>, local: LocalAlerts, store: Store, process: String) -> Self {
        Self { manager, local, store, process }
    }

    /// Again and again, until `stop`.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let work = async {
            let (mut said, mut known) = (None, Known::default());
            loop {
                let outcome = self.round(&mut known).await.err().map(|error| error.to_string());
                if let Some(error) = outcome.as_ref().filter(|error| said.as_ref() != Some(*error)) {
                    tracing::error!("nobody is told what is wrong: {error}");
                }
                said = outcome;
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        tokio::select! {
            () = work => {}
            () = stop => {}
        }
        for role in self.roles() {
            let _ = self.store.leave_role(&role, &self.process).await;
        }
    }

    /// Looks once, and tries once what waits. For cron.
    ///
    /// # Errors
    /// [`ManageError`] or [`StoreError`], in words.
    pub async fn once(self) -> Result<(), String> {
        let done = self.round(&mut Known::default()).await;
        for role in self.roles() {
            let _ = self.store.leave_role(&role, &self.process).await;
        }
        done.map_err(|error| error.to_string())
    }

    fn roles(&self) -> [String; 2] {
        ["alerts".to_owned(), format!("alerts/{}", self.manager.tenant().name)]
    }

    async fn take(&self, role: &str) -> Result<bool, StoreError> {
        let now = clock::now();
        self.store.take_role(role, &self.process, now, now.plus(ROLE_LASTS)).await
    }

    async fn round(&self, known: &mut Known) -> Result<(), AlertError> {
        let [endpoints, own] = self.roles();
        if !self.take(&own).await? {
            known.watching = None;
            return Ok(());
        }
        let now = clock::now();
        known.watching = match self.take(&endpoints).await? {
            true => Some(known.watching.unwrap_or(now)),
            false => None,
        };
        let tenant = self.manager.tenant().name.clone();
        let (managed, unread) = match self.read(&tenant, now).await {
            Ok((settings, managed)) => {
                known.settings = settings;
                (Some(managed), None)
            }
            Err(error) => (None, Some(error)),
        };
        let settings = &known.settings;
        let destinations = destinations(settings, &self.local);
        let names = destinations.iter().map(|(name, _)| name.clone()).collect();
        let watch = Watch { tenant: tenant.clone(), managed, endpoints_since: known.watching, destinations: names };
        self.store.judge(&watch, now).await?;
        let ways = destinations.iter().map(|(name, destination)| self.empty(&own, &tenant, name, destination));
        for done in futures::future::join_all(ways).await {
            done?;
        }
        unread.map_or(Ok(()), |error| Err(error.into()))
    }

    /// What the log says: the settings, and what is wrong with managed certificates.
    async fn read(&self, tenant: &str, now: Timestamp) -> Result<(AlertSettings, Vec<Problem>), ManageError> {
        let settings = self.manager.settings().await?.alerts.unwrap_or_default();
        Ok((settings, wrong(&*self.manager.view().await?, tenant, now)))
    }

    /// Sends one destination what waits for it, in order, up to the first that it does not take.
    async fn empty(&self, role: &str, tenant: &str, name: &str, destination: &Destination) -> Result<(), StoreError> {
        while self.take(role).await?
            && let Some(delivery) = self.store.next_delivery(tenant, name, clock::now()).await?
        {
            let outcome = destination.send(&delivery).await;
            let now = clock::now();
            match outcome {
                Ok(remark) => drop(self.store.delivered(&delivery, &remark, now).await?),
                Err(Undelivered { why, is_refused }) => {
                    let retry = retry_at(delivery.attempt, is_refused, delivery.body.at, now);
                    if retry.is_none() || delivery.attempt == 1 {
                        let then = if retry.is_some() { "tried again" } else { "given up" };
                        tracing::warn!(
                            destination = name,
                            message = delivery.message,
                            "an alert is not delivered, {then}: {why}"
                        );
                    }
                    self.store.undelivered(&delivery, &why, retry, now).await?;
                    if retry.is_some() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// What a process knows from its last look.
#[derive(Default)]
struct Known {
    /// Since when it looks after endpoints.
    watching: Option<Timestamp>,
    /// While the log cannot be read, messages go where they went.
    settings: AlertSettings,
}

/// Why nobody is told.
#[derive(Debug, thiserror::Error)]
enum AlertError {
    #[error(transparent)]
    Log(#[from] ManageError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The names of where messages go, as the delivery log has them: `smtp`, `webhook/NAME`, `exec`.
pub fn destination_names(settings: &AlertSettings, local: &LocalAlerts) -> Vec<String> {
    destinations(settings, local).into_iter().map(|(name, _)| name).collect()
}

/// Sends a test message to each destination of `only` now, or to all; the log shows it. Returns how each ended.
///
/// # Errors
/// [`StoreError`].
pub async fn test(
    store: &Store,
    tenant: &str,
    (settings, local): (&AlertSettings, &LocalAlerts),
    only: Option<&str>,
    actor: &Actor,
) -> Result<Vec<(String, Result<(), Undelivered>)>, StoreError> {
    let mut outcomes = Vec::new();
    for (name, destination) in destinations(settings, local) {
        if only.is_some_and(|only| only != name) {
            continue;
        }
        let delivery = store.test_now(tenant, &name, actor, clock::now()).await?;
        let outcome = destination.send(&delivery).await;
        let why = outcome.as_ref().err().map(|error| error.why.as_str());
        store.tested(&delivery, why, clock::now()).await?;
        outcomes.push((name, outcome.map(drop)));
    }
    Ok(outcomes)
}

fn destinations(settings: &AlertSettings, local: &LocalAlerts) -> Vec<(String, Destination)> {
    let smtp = settings.smtp.iter().map(|smtp| ("smtp".to_owned(), Destination::Smtp(Box::new(smtp.clone()))));
    let webhook = |one: &Webhook| (format!("webhook/{}", one.name), Destination::Webhook(Box::new(one.clone())));
    let exec = local.exec.iter().map(|program| ("exec".to_owned(), Destination::Exec(program.clone())));
    smtp.chain(settings.webhook.iter().map(webhook)).chain(exec).collect()
}

impl Destination {
    /// One attempt, bounded in time. What is remarkable is returned.
    async fn send(&self, delivery: &Delivery) -> Result<String, Undelivered> {
        let attempt = async {
            match self {
                Self::Smtp(smtp) => smtp::send(smtp, delivery).await,
                Self::Webhook(webhook) => webhook::send(webhook, delivery, clock::now()).await.map(|()| String::new()),
                Self::Exec(program) => exec::run(program, delivery, ANSWER_WITHIN).await.map(|()| String::new()),
            }
        };
        match tokio::time::timeout(ANSWER_WITHIN * 2, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => Err(Undelivered::away(format!("no answer within {} s", ANSWER_WITHIN.as_secs() * 2))),
        }
    }
}

impl Undelivered {
    /// The destination is not well.
    fn away(why: impl Into<String>) -> Self {
        Self { why: why.into(), is_refused: false }
    }
}

/// What is wrong with a tenant's managed certificates.
fn wrong(view: &View, tenant: &str, now: Timestamp) -> Vec<Problem> {
    let mut found = Vec::new();
    for request in view.work.requests() {
        let id = request.certificate;
        if let Some(failure) = view.work.failure(id) {
            let words =
                format!("{} (attempt {}); tried again after {}", failure.problem, failure.attempt, failure.retry_at);
            found.push(problem(tenant, request, Kind::RenewalFailing, words, now));
        }
        let Some(version) = view.catalog.newest(id) else { continue };
        let window = view.work.window(id).filter(|window| window.version == version.fingerprint);
        let from = plan::overdue_from(version, window);
        if plan::is_overdue(version, window, now) {
            let words = format!("it should have been renewed by {from}; it expires at {}", version.not_after);
            found.push(problem(tenant, request, Kind::RenewalOverdue, words, from));
        }
    }
    found
}

fn problem(tenant: &str, request: &CertificateRequested, kind: Kind, words: String, since: Timestamp) -> Problem {
    let mut names = request.names.iter().map(ToString::to_string);
    let first = names.next().unwrap_or_default();
    let name = match names.count() {
        0 => first,
        more => format!("{first} and {more} more"),
    };
    let key = format!("managed/{tenant}/{}/{kind}", request.certificate);
    Problem { key, kind, name, owner: String::new(), words, since }
}
