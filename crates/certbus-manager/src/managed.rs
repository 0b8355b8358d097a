//! Managed certificates as people see them: read from the log's view, by nobody asked.

use certbus_core::event::CertificateRequested;
use certbus_core::id::{CertificateId, Fingerprint};
use certbus_core::plan;
use certbus_core::time::Timestamp;
use serde::Serialize;

use crate::tenant::View;

/// A managed certificate in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
    pub state: &'static str,
    /// What went wrong last.
    pub problem: Option<String>,
    /// When it is tried again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Since when that is so.
    #[serde(skip)]
    pub is_overdue: bool,
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
            state,
            problem: failure.map(|failure| failure.problem.clone()),
            retry_at: failure.map(|failure| failure.retry_at),
            is_overdue: version.is_some_and(|version| plan::is_overdue(version, view.work.window(id), now)),
        }
    }

    /// Whether a person has to do something.
    pub fn needs_somebody(&self) -> bool {
        self.is_overdue || matches!(self.state, "failing" | "expired" | "renewal failing")
    }
}
