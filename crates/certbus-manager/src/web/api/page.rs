//! Pages of lists: what is on one, and where the next begins. A place is that of the last item, so nothing is missed or told
//! twice when others come or go.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::web::fault::Fault;

/// Items on a page, unless the request says otherwise.
const USUALLY: i64 = 50;

/// And at most.
const MOST: i64 = 500;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    pub(super) items: Vec<T>,
    /// Where the next page begins: its `after`; left out on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

impl<T> Page<T> {
    /// Of rows of which one more than `limit` was asked for; `place` is where a row stands.
    pub(super) fn of<R: Into<T>, P: ToString>(mut rows: Vec<R>, limit: i64, place: impl Fn(&R) -> P) -> Self {
        let limit = usize::try_from(limit).unwrap_or_default();
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|last| place(last).to_string());
        Self { items: rows.into_iter().map(Into::into).collect(), next }
    }
}

/// Which page.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paged {
    /// `next` of the page before.
    after: Option<String>,
    #[param(minimum = 1, maximum = 500)]
    limit: Option<i64>,
}

impl Paged {
    /// The place after which it begins, as text.
    pub(super) fn after(&self) -> Option<&str> {
        self.after.as_deref()
    }

    /// The place after which it begins, where that is a number.
    pub(super) fn number(&self) -> Result<Option<i64>, Fault> {
        let read = |text: &str| text.parse().map_err(|_| Fault::missing(format!("there is no page `{text}`")));
        self.after().map(read).transpose()
    }

    /// Items on it.
    pub(super) fn limit(&self) -> Result<i64, Fault> {
        limit(self.limit)
    }

    /// Of rows that are all at hand, in the order of their places.
    pub(super) fn cut<R: Into<T>, T>(&self, rows: Vec<R>, place: impl Fn(&R) -> String) -> Result<Page<T>, Fault> {
        let limit = self.limit()?;
        let follows = |row: &R| self.after().is_none_or(|after| place(row).as_str() > after);
        let rows = rows.into_iter().filter(follows).take(usize::try_from(limit + 1).unwrap_or_default()).collect();
        Ok(Page::of(rows, limit, place))
    }
}

/// Items on a page, as they were asked for.
pub(super) fn limit(wanted: Option<i64>) -> Result<i64, Fault> {
    match wanted.unwrap_or(USUALLY) {
        limit @ 1..=MOST => Ok(limit),
        other => Err(Fault::bad(format!("limit is {other}; write 1 to {MOST}"))),
    }
}
