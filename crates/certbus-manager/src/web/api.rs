//! The API, version 1: what the pages show and do, for programs. Its description is at `/api/v1/openapi.json`.

use super::routes::Route;

/// Its lines of the table.
pub(super) fn table() -> Vec<Route> {
    Vec::new()
}
