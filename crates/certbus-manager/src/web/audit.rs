//! The audit trail: who changed what, when, from where.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::Response;
use certbus_store::audit::Line;
use serde::Deserialize;

use super::Face;
use super::asker::Asker;
use super::fault::Fault;
use super::page::{self, Frame, When, when};
use crate::clock;

/// Lines on a page.
const PAGE: i64 = 100;

#[derive(Template)]
#[template(path = "audit.html")]
struct AuditPage {
    frame: Frame,
    lines: Vec<(When, Line)>,
    next: Option<i64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Before {
    before: Option<i64>,
}

pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Query(Before { before }): Query<Before>,
) -> Result<Response, Fault> {
    let now = clock::now();
    let mut lines = face.store.audit(before, PAGE + 1).await?;
    let more = lines.len() as i64 > PAGE;
    lines.truncate(PAGE as usize);
    let next = lines.last().map(|line| line.id).filter(|_| more);
    let lines = lines.into_iter().map(|line| (when(line.at, now), line)).collect();
    page::rendered(&AuditPage { frame: Frame::new("Audit trail", "audit", &asker), lines, next })
}
