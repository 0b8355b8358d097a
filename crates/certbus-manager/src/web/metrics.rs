//! Numbers for Prometheus. What can be of many is bounded: past a limit only the most urgent endpoints have lines of their own,
//! and what is paused has none.

use std::collections::HashSet;
use std::fmt::Write;

use axum::extract::{Query as Asked, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use certbus_store::{Query, State as Is};
use serde::Deserialize;

use super::fault::Fault;
use super::{Face, managed};
use crate::clock;

/// Endpoints with lines of their own, unless the request says otherwise.
const USUALLY: i64 = 1000;

/// And at most.
const MOST: i64 = 50_000;

#[derive(Debug, Deserialize)]
pub(super) struct Limit {
    endpoints: Option<i64>,
}

pub(super) async fn show(State(face): State<Face>, Asked(limit): Asked<Limit>) -> Result<Response, Fault> {
    let now = clock::now();
    let glance = face.store.glance(now).await?;
    let issued = managed::issued(&face, now).await?;
    let mut out = String::new();
    let mut number = |name: &str, kind: &str, help: &str, value: f64| {
        let _ = writeln!(out, "# HELP certbus_{name} {help}\n# TYPE certbus_{name} {kind}\ncertbus_{name} {value}");
    };
    number("endpoints", "gauge", "Endpoints that are registered.", glance.endpoints as f64);
    number("endpoints_active", "gauge", "Endpoints that are polled.", glance.active as f64);
    number(
        "endpoints_expired",
        "gauge",
        "Endpoints with a certificate out of time, counted to 1000.",
        glance.expired as f64,
    );
    number(
        "endpoints_overdue",
        "gauge",
        "Endpoints whose certificate should have been renewed, counted to 1000.",
        glance.overdue as f64,
    );
    number("endpoints_failing", "gauge", "Endpoints whose polls fail, counted to 1000.", glance.failing as f64);
    number(
        "endpoints_older_version",
        "gauge",
        "Endpoints that serve a version that was replaced, counted to 1000.",
        glance.older as f64,
    );
    number(
        "endpoints_another",
        "gauge",
        "Endpoints that serve another certificate than was issued, counted to 1000.",
        glance.another as f64,
    );
    number("polls_late", "gauge", "Polls that are late by more than two minutes, counted to 1000.", glance.late as f64);
    let lag = glance.behind_since.map_or(0.0, |since| now.since(since).as_secs_f64());
    number("poll_lag_seconds", "gauge", "How long the poll that is due longest is due, past two minutes.", lag);
    if let Some(at) = glance.polled_at {
        number("last_poll_timestamp_seconds", "gauge", "When a poll was last stored.", at.millis() as f64 / 1e3);
    }
    number("managed_certificates", "gauge", "Managed certificates.", issued.all as f64);
    number("renewals_failing", "gauge", "Managed certificates whose last attempt failed.", issued.failing as f64);
    number("renewals_7d", "gauge", "Renewals of the last seven days.", issued.renewed as f64);
    if let Some(at) = issued.next_renewal {
        number("next_renewal_timestamp_seconds", "gauge", "When the next renewal is due.", at.millis() as f64 / 1e3);
    }
    let wanted = usize::try_from(limit.endpoints.unwrap_or(USUALLY).clamp(0, MOST)).unwrap_or_default();
    let (mut expiry, mut overdue, mut failing) = (String::new(), String::new(), String::new());
    let mut told = HashSet::new();
    // Those that fail, of which some never showed a certificate; then those that expire first.
    for state in [Some(Is::Failing), None] {
        let mut query = Query { state, soonest: true, limit: 1000, ..Query::default() };
        while told.len() < wanted {
            query.limit = i64::try_from(wanted - told.len()).unwrap_or(1000).min(1000);
            let page = face.store.endpoints(&query, now).await?;
            for row in page.rows.iter().filter(|row| row.stored.endpoint.active) {
                if told.len() >= wanted || !told.insert(row.stored.id) {
                    continue;
                }
                let name = label(&row.stored.endpoint.name);
                let of = format!("{{endpoint=\"{name}\",id=\"{}\"}}", row.stored.id);
                for (text, metric, at) in [
                    (&mut expiry, "endpoint_not_after_timestamp_seconds", row.expires_at),
                    (&mut overdue, "endpoint_overdue_timestamp_seconds", row.overdue_at),
                ] {
                    if let Some(at) = at {
                        let at = at.millis() as f64 / 1e3;
                        let _ = writeln!(text, "certbus_{metric}{of} {at}");
                    }
                }
                let _ = writeln!(failing, "certbus_endpoint_failing{of} {}", u8::from(row.failing_since.is_some()));
            }
            match page.next {
                None => break,
                next => query.after = next,
            }
        }
    }
    out.push_str("# HELP certbus_endpoint_not_after_timestamp_seconds When the certificate that expires first ends; it stays when it has.\n# TYPE certbus_endpoint_not_after_timestamp_seconds gauge\n");
    out.push_str(&expiry);
    out.push_str("# HELP certbus_endpoint_overdue_timestamp_seconds When its certificate should have been renewed at the latest.\n# TYPE certbus_endpoint_overdue_timestamp_seconds gauge\n");
    out.push_str(&overdue);
    out.push_str("# HELP certbus_endpoint_failing Whether its polls fail.\n# TYPE certbus_endpoint_failing gauge\n");
    out.push_str(&failing);
    Ok(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], out).into_response())
}

/// A label's value, as the exposition format has it.
fn label(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}
