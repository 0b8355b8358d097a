//! The form of an endpoint: what was typed, what is wrong with it, and one that is registered by it.

use std::collections::BTreeMap;

use askama::Template;
use axum::Extension;
use axum::extract::{Form, State};
use axum::response::Response;
use certbus_core::endpoint::{Endpoint, FieldError, Word, Written};
use certbus_store::StoreError;
use serde::Deserialize;

use super::Face;
use super::asker::Asker;
use super::endpoints::some;
use super::fault::Fault;
use super::page::{self, Frame};
use crate::clock;

/// What was typed into the form of an endpoint, and what is wrong with it.
#[derive(Template)]
#[template(path = "endpoint_form.html")]
pub(super) struct FormPage {
    pub(super) frame: Frame,
    /// Where it is sent.
    pub(super) action: String,
    pub(super) back: String,
    pub(super) typed: Typed,
    pub(super) errors: BTreeMap<&'static str, String>,
    pub(super) other: Option<String>,
}

impl FormPage {
    /// Each with its word, what was typed, and what may be.
    fn fields(&self) -> [(&'static str, &'static str, &str, &'static str); 9] {
        [
            (
                "host",
                "Host",
                &self.typed.host,
                "A name with all its addresses, or one address: www.example.com, smtp://mail.example.com, 10.2.0.7",
            ),
            ("port", "Port", &self.typed.port, "443, or the usual one of the protocol"),
            ("name", "Name", &self.typed.name, "What you call it; else host and port"),
            ("tags", "Tags", &self.typed.tags, "Words to group by, separated by commas"),
            ("owner", "Owner", &self.typed.owner, "Who is to be told"),
            ("sni", "SNI", &self.typed.sni, "The name in the ClientHello, if it is not the host"),
            (
                "starttls",
                "STARTTLS",
                &self.typed.starttls,
                "smtp, lmtp, imap, pop3, ftp, ldap, postgres, mysql, xmpp, xmpp-server, nntp, sieve; guessed from the port",
            ),
            ("sites", "Sites", &self.typed.sites, "From where it is polled, separated by commas"),
            (
                "interval",
                "Interval",
                &self.typed.interval,
                "How often, such as 10m; else every hour, closer where it matters",
            ),
        ]
    }

    fn error(&self, field: &str) -> Option<&String> {
        self.errors.get(field)
    }
}

/// The fields of an endpoint's form.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Typed {
    #[serde(default)]
    pub(super) host: String,
    #[serde(default)]
    pub(super) port: String,
    #[serde(default)]
    pub(super) sni: String,
    #[serde(default)]
    pub(super) starttls: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) tags: String,
    #[serde(default)]
    pub(super) owner: String,
    #[serde(default)]
    pub(super) sites: String,
    #[serde(default)]
    pub(super) interval: String,
    #[serde(default)]
    pub(super) paused: String,
    /// Which edit it follows.
    #[serde(default)]
    pub(super) revision: i64,
}

impl Typed {
    /// What was written for a new one: what was left empty was not.
    fn new_one(&self) -> Written {
        Written {
            host: Some(self.host.clone()),
            port: some(&self.port),
            sni: some(&self.sni),
            starttls: some(&self.starttls),
            name: some(&self.name),
            tags: some(&self.tags),
            owner: some(&self.owner),
            sites: some(&self.sites),
            interval: some(&self.interval),
            active: (!self.paused.is_empty()).then(|| "no".into()),
        }
    }

    /// What was written for one that is there: what was left empty is to be empty.
    pub(super) fn edit(&self) -> Written {
        let said = |text: &String| Some(text.clone());
        Written {
            host: said(&self.host),
            port: said(&self.port),
            sni: said(&self.sni),
            starttls: said(&self.starttls),
            name: said(&self.name),
            tags: said(&self.tags),
            owner: said(&self.owner),
            sites: said(&self.sites),
            interval: said(&self.interval),
            active: Some(if self.paused.is_empty() { "yes" } else { "no" }.into()),
        }
    }

    pub(super) fn of(endpoint: &Endpoint, revision: i64) -> Self {
        let words = |set: &std::collections::BTreeSet<Word>| {
            set.iter().map(|word| word.as_str()).collect::<Vec<_>>().join(", ")
        };
        Self {
            host: endpoint.key.host.to_string(),
            port: endpoint.key.port.to_string(),
            sni: endpoint.key.sni.as_ref().map(ToString::to_string).unwrap_or_default(),
            starttls: endpoint.key.starttls.map(|one| one.to_string()).unwrap_or_default(),
            name: endpoint.name.clone(),
            tags: words(&endpoint.tags),
            owner: endpoint.owner.clone(),
            sites: words(&endpoint.sites),
            interval: endpoint.interval.map(|one| one.to_string()).unwrap_or_default(),
            paused: if endpoint.active { String::new() } else { "yes".into() },
            revision,
        }
    }
}

pub(super) async fn new(Extension(asker): Extension<Asker>) -> Result<Response, Fault> {
    page::rendered(&form(&asker, Typed::default(), Vec::new(), None))
}

fn form(asker: &Asker, typed: Typed, errors: Vec<FieldError>, other: Option<String>) -> FormPage {
    FormPage {
        frame: Frame::new("Watch an endpoint", "endpoints", asker),
        action: "/endpoints".into(),
        back: "/endpoints".into(),
        typed,
        errors: by_field(errors),
        other,
    }
}

pub(super) fn by_field(errors: Vec<FieldError>) -> BTreeMap<&'static str, String> {
    errors.into_iter().map(|error| (error.field, error.why)).collect()
}

pub(super) async fn add(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Form(typed): Form<Typed>,
) -> Result<Response, Fault> {
    let endpoint = match Endpoint::parse(&with_site(typed.new_one(), &face.site)) {
        Ok(endpoint) => endpoint,
        Err(errors) => return page::refused(&form(&asker, typed, errors, None)),
    };
    let now = clock::now();
    match face.store.add_endpoints(std::slice::from_ref(&endpoint), &asker.actor(), now).await {
        Ok(ids) => {
            let id = ids.first().copied().unwrap_or_default();
            page::go(
                &format!("/endpoints/{id}"),
                &format!("{} is watched. Its first poll is under way.", endpoint.name),
            )
        }
        Err(error @ StoreError::Duplicate { .. }) => {
            page::refused(&form(&asker, typed, Vec::new(), Some(error.to_string())))
        }
        Err(error) => Err(error.into()),
    }
}

/// Polled from this site, if nobody says from where.
pub(super) fn with_site(written: Written, site: &str) -> Written {
    Written { sites: written.sites.or_else(|| Some(site.to_owned())), ..written }
}
