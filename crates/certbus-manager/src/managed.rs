//! Managed certificates as people see them: read from the log's view, by nobody asked. Programs far away read them back.

use std::borrow::Cow;

use certbus_core::event::CertificateRequested;
use certbus_core::id::{CertificateId, Fingerprint};
use certbus_core::plan;
use certbus_core::spec::{Challenge, KeyType};
use certbus_core::time::Timestamp;
use certbus_store::issued::ServedAt;
use serde::{Deserialize, Serialize};

use crate::clock;
use crate::manager::{ManageError, Manager};
use crate::story::Told;
use crate::tenant::View;

/// A managed certificate in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Managed {
    /// Which.
    pub id: CertificateId,
    /// For which names.
    pub names: Vec<String>,
    /// Its newest version.
    pub version: Option<Fingerprint>,
    /// Until when that is good.
    pub not_after: Option<Timestamp>,
    /// When it is renewed.
    pub renewal: Option<Timestamp>,
    /// `ok`, `requested`, `due`, `CA wants it replaced now`, `renewal failing`, `failing` or `expired`.
    pub state: Cow<'static, str>,
    /// What went wrong last.
    pub problem: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Since when that is so.
    #[serde(skip)]
    pub is_overdue: bool,
}

/// A managed certificate with its chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// What lists say of it.
    #[serde(flatten)]
    pub managed: Managed,
    /// How control of its names is shown.
    pub challenge: Challenge,
    /// The kind of its key.
    pub key_type: KeyType,
    /// Its newest version's chain, in PEM.
    pub chain: Option<String>,
    /// When the CA wants that renewed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
}

/// When a CA wants a version renewed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Window {
    /// From when on.
    pub start: Timestamp,
    /// Until when.
    pub end: Timestamp,
    /// A page for people, if the CA names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// A managed certificate's whole story.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// As it is now; None: it is managed no more.
    pub managed: Option<Managed>,
    /// What the log says, the oldest first.
    pub story: Vec<Told>,
    /// Where it is served.
    pub served: Vec<ServedAt>,
    /// What comes next.
    pub next: Option<String>,
}

impl Manager {
    /// A managed certificate with its chain.
    ///
    /// # Errors
    /// [`ManageError::UnknownCertificate`], [`ManageError::Follow`].
    pub async fn detail(&self, id: CertificateId) -> Result<Detail, ManageError> {
        let view = self.view().await?;
        let request = view.work.request(id).ok_or(ManageError::UnknownCertificate(id))?;
        let managed = Managed::of(&view, request, clock::now());
        let obtained = match view.catalog.newest(id) {
            Some(version) => self.tenant().obtained(&view, version).await?,
            None => None,
        };
        let window = view.work.window(id).filter(|window| Some(window.version) == managed.version);
        Ok(Detail {
            challenge: request.challenge,
            key_type: request.key_type,
            chain: obtained.map(|obtained| obtained.chain.clone()),
            window: window.map(|window| Window {
                start: window.start,
                end: window.end,
                explanation: window.explanation.clone(),
            }),
            managed,
        })
    }

    /// A managed certificate's whole story, with where it is served, as the inventory says it. Its story is empty if the log
    /// never heard of it.
    ///
    /// # Errors
    /// [`ManageError::Follow`], [`ManageError::Settings`].
    pub async fn explained(&self, id: CertificateId, served: Vec<ServedAt>) -> Result<Explained, ManageError> {
        let story = self.story(id).await?;
        let next = if story.is_empty() { None } else { self.next_step(id, &self.settings().await?).await? };
        let view = self.view().await?;
        let managed = view.work.request(id).map(|request| Managed::of(&view, request, clock::now()));
        Ok(Explained { managed, story, served, next })
    }
}

impl Managed {
    /// All of a view, by name.
    pub fn all(view: &View, now: Timestamp) -> Vec<Self> {
        let mut all: Vec<Self> = view.work.requests().into_iter().map(|request| Self::of(view, request, now)).collect();
        all.sort_by(|a, b| a.names.cmp(&b.names));
        all
    }

    /// One.
    pub fn of(view: &View, request: &CertificateRequested, now: Timestamp) -> Self {
        let id = request.certificate;
        let version = view.catalog.newest(id);
        let failure = view.work.failure(id);
        let due = plan::due(&view.catalog, &view.work, &view.certs, request, now);
        let asked = plan::is_asked_for(&view.catalog, &view.work, id, now);
        let state = match (version, failure, due) {
            (None, Some(_), _) => "failing",
            (None, None, _) => "requested",
            (Some(version), _, _) if version.not_after < now => "expired",
            (_, Some(_), _) => "renewal failing",
            (_, _, Some(_)) if asked => "CA wants it replaced now",
            (_, None, Some(_)) => "due",
            _ => "ok",
        };
        Self {
            id,
            names: request.names.iter().map(ToString::to_string).collect(),
            version: version.map(|version| version.fingerprint),
            not_after: version.map(|version| version.not_after),
            renewal: version.map(|version| plan::renewal_point(version, view.work.window(id))),
            state: state.into(),
            problem: failure.map(|failure| failure.problem.clone()),
            retry_at: failure.map(|failure| failure.retry_at),
            is_overdue: version.is_some_and(|version| plan::is_overdue(version, view.work.window(id), now)),
        }
    }

    /// Whether a person has to do something.
    pub fn needs_somebody(&self) -> bool {
        self.is_overdue || matches!(&*self.state, "failing" | "expired" | "renewal failing")
    }
}
