//! The list of endpoints: searched, filtered, page by page.

use askama::Template;
use axum::Extension;
use axum::extract::{Query as Asked, State};
use axum::http::HeaderMap;
use axum::response::Response;
use certbus_store::{Query, State as Is};
use serde::{Deserialize, Serialize};

use super::Face;
use super::asker::Asker;
use super::fault::Fault;
use super::page::{self, Frame};
use super::rows::Row;
use crate::clock;

/// Endpoints on a page.
const PAGE: i64 = 50;

/// What a list is narrowed to, as its address says it.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(super) struct Filter {
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) q: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) state: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) tag: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) owner: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) site: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) sort: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) after: String,
}

/// What was written, if anything was.
pub(super) fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Filter {
    pub(super) fn tag(&self) -> Option<String> {
        some(&self.tag)
    }
    pub(super) fn owner(&self) -> Option<String> {
        some(&self.owner)
    }
    pub(super) fn site(&self) -> Option<String> {
        some(&self.site)
    }

    /// Whether it leaves anything out by tag, owner or site.
    pub(super) fn is_narrow(&self) -> bool {
        [&self.tag, &self.owner, &self.site].iter().any(|word| !word.is_empty())
    }

    pub(super) fn is(&self, field: &str, value: &str) -> bool {
        let own = match field {
            "tag" => &self.tag,
            "owner" => &self.owner,
            "site" => &self.site,
            "sort" => &self.sort,
            _ => &self.state,
        };
        own == value
    }

    pub(super) fn query(&self) -> Result<Query, Fault> {
        let state = some(&self.state).map(|text| text.parse::<Is>()).transpose().map_err(Fault::bad)?;
        Ok(Query {
            search: self.q.clone(),
            state,
            tag: self.tag(),
            owner: self.owner(),
            site: self.site(),
            soonest: self.sort == "expiry",
            after: some(&self.after),
            limit: PAGE,
            ..Query::default()
        })
    }

    /// The address of the page that begins there.
    fn at(&self, after: &str) -> String {
        let asked = Self { after: after.to_owned(), ..self.clone() };
        format!("/endpoints?{}", serde_urlencoded::to_string(asked).unwrap_or_default())
    }
}

#[derive(Template)]
#[template(path = "endpoints.html")]
struct ListPage {
    frame: Frame,
    filter: Filter,
    rows: Vec<Row>,
    next: Option<String>,
    states: [Is; 10],
}

pub(super) async fn list(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Asked(filter): Asked<Filter>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let now = clock::now();
    let page = face.store.endpoints(&filter.query()?, now).await?;
    let frame = Frame::new("Endpoints", "endpoints", &asker).said(&headers);
    let next = page.next.map(|after| filter.at(&after));
    let rows = page.rows.iter().map(|row| Row::of(row, now)).collect();
    let page = ListPage { frame, filter, rows, next, states: Is::ALL };
    page::show(&page, &page.frame)
}
