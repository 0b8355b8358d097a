//! The inventory, here or behind a server: what both give is the same, so that commands print the same.

pub(crate) mod alerts;

use anyhow::Result;
use certbus_core::endpoint::Endpoint;
use certbus_core::time::Timestamp;
use certbus_manager::clock;
use certbus_manager::inventory::files::Line as Read;
use certbus_manager::inventory::import::{self, Tally};
use certbus_store::audit::Line;
use certbus_store::endpoints::Stored;
use certbus_store::people::Person;
use certbus_store::shown::{Changed, Stay};
use certbus_store::tasks::{Shown, TaskQueue};
use certbus_store::tokens::Token;
use certbus_store::{Listed, Page, Query, State, Store};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cli::audit::actor;
use crate::cli::exit::Missing;
use crate::remote::{self, Server};

/// Where endpoints, tasks, alerts, the trail, users and tokens are.
pub(crate) enum Inventory {
    /// In a database of this machine, which polls from `site`.
    Here { store: Store, site: String },
    /// Behind a server.
    There(Server),
}

/// What became of a bulk request.
#[derive(Deserialize)]
pub(crate) struct Done {
    #[serde(default)]
    added: Vec<i64>,
    /// When it was asked for, by the server's clock.
    pub(crate) at: Timestamp,
}

/// A line of a file that was read, as it stands there.
pub(crate) struct Given {
    /// Its number.
    pub(crate) number: u64,
    /// Its text.
    pub(crate) text: String,
    /// What it says.
    pub(crate) line: Read,
}

#[derive(Deserialize)]
struct Imported {
    #[serde(flatten)]
    tally: Tally,
    errors: Vec<WrongLine>,
}

#[derive(Deserialize)]
struct WrongLine {
    line: usize,
    why: String,
}

impl Inventory {
    /// From where is polled what does not say from where.
    pub(crate) fn site(&self) -> &str {
        match self {
            Self::Here { site, .. } => site,
            Self::There(server) => &server.who.site,
        }
    }

    /// As people are told where it is.
    pub(crate) fn place(&self) -> &str {
        match self {
            Self::Here { store, .. } => store.place(),
            Self::There(server) => server.url(),
        }
    }

    /// A page of the endpoints that are asked for.
    pub(crate) async fn endpoints(&self, query: &Query) -> Result<Page> {
        let server = match self {
            Self::Here { store, .. } => return Ok(store.endpoints(query, clock::now()).await?),
            Self::There(server) => server,
        };
        let limit = query.limit.clamp(1, 500).to_string();
        let mut asked = vec![("limit", limit.as_str())];
        if !query.search.is_empty() {
            asked.push(("q", &query.search));
        }
        let optional = [
            ("state", query.state.map(State::as_str)),
            ("tag", query.tag.as_deref()),
            ("owner", query.owner.as_deref()),
            ("site", query.site.as_deref()),
            ("after", query.after.as_deref()),
        ];
        asked.extend(optional.into_iter().filter_map(|(key, value)| Some((key, value?))));
        let remote::Page { items, next } = server.get("endpoints", &asked).await?;
        Ok(Page { rows: items, next })
    }

    /// One endpoint, as lists have it.
    pub(crate) async fn listed(&self, id: i64) -> Result<Option<Listed>> {
        match self {
            Self::Here { store, .. } => {
                let query = Query { id: Some(id), limit: 1, ..Query::default() };
                Ok(store.endpoints(&query, clock::now()).await?.rows.pop())
            }
            Self::There(server) => server.find(&format!("endpoints/{id}")).await,
        }
    }

    /// One endpoint.
    pub(crate) async fn endpoint(&self, id: i64) -> Result<Option<Stored>> {
        match self {
            Self::Here { store, .. } => Ok(store.endpoint(id).await?),
            Self::There(_) => Ok(self.listed(id).await?.map(|listed| listed.stored)),
        }
    }

    /// The endpoints that a person means; none is an error.
    pub(crate) async fn meant(&self, text: &str) -> Result<Vec<i64>> {
        match self {
            Self::Here { store, .. } => Ok(store.meant(text).await?),
            Self::There(server) => {
                let page: remote::Page<Listed> = server.get("endpoints", &[("meant", text)]).await?;
                Ok(page.items.into_iter().map(|listed| listed.stored.id).collect())
            }
        }
    }

    /// Watches endpoints, all or none.
    pub(crate) async fn add(&self, endpoints: &[Endpoint]) -> Result<Vec<i64>> {
        match self {
            Self::Here { store, .. } => Ok(store.add_endpoints(endpoints, &actor(), clock::now()).await?),
            Self::There(server) => {
                let all: Vec<Value> = endpoints.iter().map(spelt).collect();
                let done: Done = bulk(server, &json!({ "do": "add", "endpoints": all })).await?;
                Ok(done.added)
            }
        }
    }

    /// Changes what is said of an endpoint, as it was read.
    pub(crate) async fn edit(&self, was: &Stored, edited: &Endpoint) -> Result<()> {
        match self {
            Self::Here { store, .. } => Ok(store.edit_endpoint(was, edited, &actor(), clock::now()).await?),
            Self::There(server) => {
                let mut body = spelt(edited);
                if let Some(fields) = body.as_object_mut() {
                    fields.insert("revision".into(), json!(was.revision));
                }
                server.send::<Listed>(Method::PATCH, &format!("endpoints/{}", was.id), &body).await.map(drop)
            }
        }
    }

    /// Watches endpoints no longer.
    pub(crate) async fn remove(&self, ids: &[i64]) -> Result<()> {
        match self {
            Self::Here { store, .. } => store.remove_endpoints(ids, &actor(), clock::now()).await.map(drop)?,
            Self::There(server) => bulk(server, &json!({ "do": "remove", "ids": ids })).await.map(drop)?,
        }
        Ok(())
    }

    /// All that an endpoint's nodes served, at most `limit` of each kind.
    pub(crate) async fn timeline(&self, id: i64, limit: i64) -> Result<Vec<Stay>> {
        match self {
            Self::Here { store, .. } => Ok(store.timeline(id, limit).await?),
            Self::There(server) => {
                server.get(&format!("endpoints/{id}/timeline"), &[("limit", &limit.to_string())]).await
            }
        }
    }

    /// What changed at an endpoint, the newest first.
    pub(crate) async fn changes(&self, id: i64, limit: i64) -> Result<Vec<Changed>> {
        match self {
            Self::Here { store, .. } => Ok(store.changes(Some(id), None, limit).await?),
            Self::There(server) => {
                let most = usize::try_from(limit).unwrap_or_default();
                server.list(&format!("endpoints/{id}/changes"), None, most).await
            }
        }
    }

    /// Stores lines of a file, each whole; `heading` is what its first line said of them. Lines that a server refuses are
    /// returned with why.
    pub(crate) async fn import(&self, heading: Option<&str>, lines: Vec<Given>) -> Result<(Tally, Vec<(u64, String)>)> {
        match self {
            Self::Here { store, site } => {
                let lines = lines.into_iter().map(|given| given.line).collect();
                Ok((import::store(store, site, lines, &actor(), clock::now()).await?, Vec::new()))
            }
            Self::There(_) if lines.is_empty() => Ok((Tally::default(), Vec::new())),
            Self::There(server) => {
                let mut text = String::new();
                heading.into_iter().chain(lines.iter().map(|given| given.text.as_str())).for_each(|line| {
                    text.push_str(line);
                    text.push('\n');
                });
                let done: Imported = server.send_lines("endpoints/import", text).await?;
                let before = usize::from(heading.is_some()) + 1;
                let number = |line: usize| lines.get(line.saturating_sub(before)).map_or(0, |given| given.number);
                let wrong = done.errors.into_iter().map(|error| (number(error.line), error.why)).collect();
                Ok((done.tally, wrong))
            }
        }
    }

    /// Tasks, those that were given up first.
    pub(crate) async fn tasks(&self, limit: usize) -> Result<Vec<Shown>> {
        match self {
            Self::Here { store, .. } => Ok(store.list(clock::now(), None, limit).await?),
            Self::There(_) if limit == 0 => Ok(Vec::new()),
            Self::There(server) => server.list("tasks", None, limit).await,
        }
    }

    /// Has a task tried again. False: no task of this number was given up.
    pub(crate) async fn retry(&self, id: i64) -> Result<bool> {
        match self {
            Self::Here { store, .. } => {
                if !store.revive(id, clock::now()).await? {
                    return Ok(false);
                }
                store.note(&actor(), clock::now(), ["task retry", &id.to_string(), ""]).await?;
                Ok(true)
            }
            Self::There(server) => match server.act(Method::POST, &format!("tasks/{id}/retry")).await {
                Err(error) if error.is::<Missing>() => Ok(false),
                done => done.map(|()| true),
            },
        }
    }

    /// The newest lines of the trail below number `before`.
    pub(crate) async fn audit(&self, before: Option<i64>, limit: i64) -> Result<Vec<Line>> {
        match self {
            Self::Here { store, .. } => Ok(store.audit(before, limit).await?),
            Self::There(server) => {
                let most = usize::try_from(limit).unwrap_or_default();
                server.list("audit", before.map(|before| before.to_string()), most).await
            }
        }
    }

    /// Users.
    pub(crate) async fn people(&self) -> Result<Vec<Person>> {
        match self {
            Self::Here { store, .. } => Ok(store.people().await?),
            Self::There(server) => server.list("users", None, usize::MAX).await,
        }
    }

    /// Tokens.
    pub(crate) async fn tokens(&self) -> Result<Vec<Token>> {
        match self {
            Self::Here { store, .. } => Ok(store.tokens().await?),
            Self::There(server) => server.list("tokens", None, usize::MAX).await,
        }
    }
}

/// Has endpoints polled by whoever polls them.
pub(crate) async fn ask_for_polls(server: &Server, ids: &[i64]) -> Result<Done> {
    bulk(server, &json!({ "do": "poll", "ids": ids })).await
}

async fn bulk(server: &Server, what: &Value) -> Result<Done> {
    server.send(Method::POST, "endpoints/bulk", what).await
}

/// An endpoint as the API reads it: every field is said, so none is guessed.
fn spelt(endpoint: &Endpoint) -> Value {
    let Endpoint { name, key, tags, owner, sites, active, interval } = endpoint;
    json!({
        "host": key.host.to_string(),
        "port": key.port,
        "sni": key.sni.as_ref().map_or_else(String::new, ToString::to_string),
        "starttls": key.starttls.map_or_else(|| "none".to_owned(), |word| word.to_string()),
        "name": name,
        "tags": tags,
        "owner": owner,
        "sites": sites,
        "active": active,
        "interval": interval.map_or_else(String::new, |interval| interval.to_string()),
    })
}
