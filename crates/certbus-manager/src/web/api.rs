//! The API, version 1: what the pages show and do, for programs. Its description is at `/api/v1/openapi.json`.

mod alerts;
mod certificates;
mod endpoints;
mod input;
mod managed;
mod many;
mod page;
mod settings;
mod upkeep;

use axum::Json;
use axum::http::Method;
use certbus_core::access::Role;
use utoipa::openapi::path::Operation;
use utoipa::openapi::schema::{Schema, SchemaType, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{PathItem, RefOr};
use utoipa::{Modify, OpenApi, ToSchema};

use super::routes::{Access, Route, route};

/// A problem (RFC 9457).
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what `Fault` writes")]
pub(crate) struct Problem {
    /// Always `about:blank`: the title says what it is.
    r#type: String,
    /// In few words.
    title: String,
    /// The status of the response.
    status: u16,
    /// What exactly, and what would be right.
    detail: String,
    /// Each field that is wrong.
    errors: Vec<WrongField>,
}

/// A field that is wrong.
#[derive(Debug, ToSchema)]
#[expect(dead_code, reason = "it describes what `Fault` writes")]
pub(crate) struct WrongField {
    /// Which.
    field: String,
    /// What would be right.
    why: String,
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "CertBus",
        description = "Certificates: issued, distributed, observed. Times are RFC 3339 in UTC. Lists are read page by page: give \
                       `next` of one as `after` of the following. Errors are problem documents (RFC 9457)."
    ),
    paths(
        endpoints::list, endpoints::add, endpoints::show, endpoints::edit, endpoints::remove, endpoints::poll,
        endpoints::timeline, endpoints::changes, certificates::show, certificates::pem, certificates::der, managed::list, managed::create,
        managed::show, managed::renew, managed::remove, managed::story, upkeep::glance, upkeep::changes, upkeep::tasks,
        upkeep::retry, upkeep::audit, upkeep::users, upkeep::tokens, alerts::list, alerts::mutes, alerts::mute, alerts::unmute,
        alerts::log, alerts::test, settings::show, settings::change,
        upkeep::whoami, upkeep::expiries, many::import, many::export, many::bulk,
    ),
    components(schemas(Problem, WrongField, endpoints::StateWord)),
    modifiers(&Bearer),
    security(("token" = []))
)]
struct Description;

struct Bearer;

impl Modify for Bearer {
    fn modify(&self, description: &mut utoipa::openapi::OpenApi) {
        // Each is known by a word of its own: `endpoints_list`, `managed_list`.
        for operation in description.paths.paths.values_mut().flat_map(operations) {
            let tag = operation.tags.iter().flatten().next().cloned().unwrap_or_default();
            operation.operation_id = operation.operation_id.take().map(|name| format!("{tag}_{name}"));
        }
        let components = description.components.get_or_insert_default();
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        components.add_security_scheme("token", scheme);
        // A new endpoint is one that says its host.
        if let Some(RefOr::T(Schema::Object(one))) = components.schemas.get("EndpointIn") {
            let mut new = one.clone();
            new.required.push("host".into());
            if let Some(RefOr::T(Schema::Object(host))) = new.properties.get_mut("host") {
                host.schema_type = SchemaType::Type(Type::String);
            }
            components.schemas.insert("EndpointNew".into(), RefOr::T(Schema::Object(new)));
        }
    }
}

/// What is answered at a path.
fn operations(path: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, patch, .. } = path;
    [get, put, post, delete, patch].into_iter().flatten()
}

async fn openapi() -> Json<utoipa::openapi::OpenApi> {
    Json(Description::openapi())
}

/// Its lines of the table.
pub(super) fn table() -> Vec<Route> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const VIEWER: Access = Access::Role(Role::Viewer);
    const OPERATOR: Access = Access::Role(Role::Operator);
    const ADMIN: Access = Access::Role(Role::Admin);
    vec![
        route(GET, "/api/v1/openapi.json", Access::Open, openapi),
        route(GET, "/api/v1/glance", VIEWER, upkeep::glance),
        route(GET, "/api/v1/changes", VIEWER, upkeep::changes),
        route(GET, "/api/v1/endpoints", VIEWER, endpoints::list),
        route(POST, "/api/v1/endpoints", OPERATOR, endpoints::add),
        route(GET, "/api/v1/endpoints/{id}", VIEWER, endpoints::show),
        route(Method::PATCH, "/api/v1/endpoints/{id}", OPERATOR, endpoints::edit),
        route(Method::DELETE, "/api/v1/endpoints/{id}", OPERATOR, endpoints::remove),
        route(POST, "/api/v1/endpoints/{id}/poll", OPERATOR, endpoints::poll),
        route(GET, "/api/v1/endpoints/{id}/timeline", VIEWER, endpoints::timeline),
        route(GET, "/api/v1/endpoints/{id}/changes", VIEWER, endpoints::changes),
        route(GET, "/api/v1/certificates/{fingerprint}", VIEWER, certificates::show),
        route(GET, "/api/v1/certificates/{fingerprint}/pem", VIEWER, certificates::pem),
        route(GET, "/api/v1/certificates/{fingerprint}/der", VIEWER, certificates::der),
        route(GET, "/api/v1/managed", VIEWER, managed::list),
        route(POST, "/api/v1/managed", OPERATOR, managed::create),
        route(GET, "/api/v1/managed/{id}", VIEWER, managed::show),
        route(Method::DELETE, "/api/v1/managed/{id}", OPERATOR, managed::remove),
        route(POST, "/api/v1/managed/{id}/renew", OPERATOR, managed::renew),
        route(GET, "/api/v1/managed/{id}/story", VIEWER, managed::story),
        route(GET, "/api/v1/tasks", VIEWER, upkeep::tasks),
        route(POST, "/api/v1/tasks/{id}/retry", OPERATOR, upkeep::retry),
        route(GET, "/api/v1/audit", ADMIN, upkeep::audit),
        route(GET, "/api/v1/users", ADMIN, upkeep::users),
        route(GET, "/api/v1/tokens", ADMIN, upkeep::tokens),
        route(GET, "/api/v1/alerts", VIEWER, alerts::list),
        route(GET, "/api/v1/alerts/mutes", VIEWER, alerts::mutes),
        route(POST, "/api/v1/alerts/mutes", OPERATOR, alerts::mute),
        route(Method::DELETE, "/api/v1/alerts/mutes", OPERATOR, alerts::unmute),
        route(GET, "/api/v1/alerts/log", VIEWER, alerts::log),
        route(POST, "/api/v1/alerts/test", OPERATOR, alerts::test),
        route(GET, "/api/v1/settings", ADMIN, settings::show),
        route(Method::PUT, "/api/v1/settings", ADMIN, settings::change),
        route(GET, "/api/v1/whoami", VIEWER, upkeep::whoami),
        route(GET, "/api/v1/expiries", VIEWER, upkeep::expiries),
        route(POST, "/api/v1/endpoints/import", OPERATOR, many::import),
        route(GET, "/api/v1/endpoints/export", VIEWER, many::export),
        route(POST, "/api/v1/endpoints/bulk", OPERATOR, many::bulk),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn what_is_answered_is_described_and_nothing_else() {
        let described: BTreeSet<String> = Description::openapi()
            .paths
            .paths
            .iter()
            .flat_map(|(path, item)| {
                let methods = [
                    ("GET", &item.get),
                    ("POST", &item.post),
                    ("PUT", &item.put),
                    ("PATCH", &item.patch),
                    ("DELETE", &item.delete),
                ];
                let there = methods.into_iter().filter(|(_, operation)| operation.is_some());
                there.map(|(method, _)| format!("{method} {path}")).collect::<Vec<_>>()
            })
            .collect();
        let answered: BTreeSet<String> = table()
            .iter()
            .map(|route| format!("{} {}", route.method, route.path))
            .filter(|line| !line.ends_with("openapi.json"))
            .collect();
        assert_eq!(described, answered);
        let mut description = Description::openapi();
        let ids: Vec<_> =
            description.paths.paths.values_mut().flat_map(operations).map(|one| one.operation_id.clone()).collect();
        assert_eq!(ids.iter().collect::<BTreeSet<_>>().len(), ids.len(), "{ids:?}");
    }
}
