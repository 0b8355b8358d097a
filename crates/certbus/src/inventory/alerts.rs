//! What is wrong, what is muted and what became of messages, here or behind a server.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use certbus_core::time::{Span, Timestamp};
use certbus_manager::clock;
use certbus_store::alerts::{Mute, Shown};
use certbus_store::outbox::Logged;
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::Inventory;
use crate::cli::audit::actor;
use crate::remote::{Page, Server};

/// A test message that a server sends is waited for so long.
const TESTED_WITHIN: Duration = Duration::from_secs(60);

/// How often it is looked what became of it.
const LOOK_EVERY: Duration = Duration::from_millis(300);

impl Inventory {
    /// What is wrong, by key, after `after`.
    pub(crate) async fn problems(&self, after: &str, limit: i64) -> Result<Vec<Shown>> {
        match self {
            Self::Here { store, .. } => Ok(store.problems(after, limit, clock::now()).await?),
            Self::There(server) => {
                let after = Some(after.to_owned()).filter(|after| !after.is_empty());
                server.list("alerts", after, usize::try_from(limit).unwrap_or_default()).await
            }
        }
    }

    /// What is muted.
    pub(crate) async fn mutes(&self) -> Result<Vec<Mute>> {
        match self {
            Self::Here { store, .. } => Ok(store.mutes(clock::now()).await?),
            Self::There(server) => server.list("alerts/mutes", None, usize::MAX).await,
        }
    }

    /// Has nobody told of this.
    pub(crate) async fn mute(&self, subject: &str, span: Option<Span>) -> Result<()> {
        match self {
            Self::Here { store, .. } => {
                let now: Timestamp = clock::now();
                Ok(store.mute(subject, span.map(|span| now.plus(span.duration())), &actor(), now).await?)
            }
            Self::There(server) => {
                let body = json!({ "subject": subject, "for": span.map(|span| span.to_string()) });
                server.tell(Method::POST, "alerts/mutes", &body).await
            }
        }
    }

    /// Has people told again.
    pub(crate) async fn unmute(&self, subject: &str) -> Result<()> {
        match self {
            Self::Here { store, .. } => Ok(store.unmute(subject, &actor(), clock::now()).await?),
            Self::There(server) => server.act_on(Method::DELETE, "alerts/mutes", &[("subject", subject)]).await,
        }
    }

    /// Messages below number `before`, the newest first, and what became of each.
    pub(crate) async fn delivery_log(&self, before: Option<i64>, limit: i64) -> Result<Vec<Logged>> {
        match self {
            Self::Here { store, .. } => Ok(store.delivery_log(before, limit).await?.0),
            Self::There(server) => {
                // So many messages, each with all of its destinations.
                let (mut lines, mut after) = (Vec::new(), before.map(|before| before.to_string()));
                let mut left = usize::try_from(limit).unwrap_or_default();
                while left > 0 {
                    let some = left.min(500).to_string();
                    let mut query = vec![("limit", some.as_str())];
                    query.extend(after.as_deref().map(|after| ("after", after)));
                    let page: Page<Logged> = server.get("alerts/log", &query).await?;
                    let messages: BTreeSet<i64> = page.items.iter().map(|one| one.message).collect();
                    left = left.saturating_sub(messages.len().max(1));
                    lines.extend(page.items);
                    after = page.next;
                    if after.is_none() {
                        break;
                    }
                }
                Ok(lines)
            }
        }
    }
}

/// What became of a test message at each destination: its name, and why it did not arrive.
pub(crate) async fn test(server: &Server) -> Result<Vec<(String, Option<String>)>> {
    #[derive(Deserialize)]
    struct Asked {
        message: i64,
    }
    let Asked { message } = server.send(Method::POST, "alerts/test", &json!({})).await?;
    let (before, until) = ((message + 1).to_string(), Instant::now() + TESTED_WITHIN);
    loop {
        let log: Vec<Logged> = server.list("alerts/log", Some(before.clone()), 100).await?;
        let mine: Vec<Logged> = log.into_iter().filter(|one| one.message == message).collect();
        let tried = |one: &Logged| !one.destination.is_empty() && (one.ended_at.is_some() || one.attempts > 0);
        if !mine.is_empty() && mine.iter().all(tried) {
            let outcome = |one: Logged| (one.destination, (one.state != "delivered").then_some(one.why));
            return Ok(mine.into_iter().map(outcome).collect());
        }
        if Instant::now() >= until {
            bail!(
                "nothing is known of test message {message} after {} s; `certbus alert log` tells",
                TESTED_WITHIN.as_secs()
            );
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
