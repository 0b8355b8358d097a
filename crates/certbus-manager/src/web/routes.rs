//! Everything that is answered, in one table: what, to whom, by which function. The router is made of it and of nothing else,
//! so a request that is not in it is not answered, and none is answered without asking who asks.

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use certbus_core::access::Role;

use super::asker::{Asker, ask, peer};
use super::fault::Fault;
use super::{
    Face, LARGEST_BODY, LARGEST_IMPORT, alerts, api, assets, audit, certificates, dashboard, endpoint, endpoint_form,
    endpoints, healthz, log, login, managed, many, metrics, page, people, readyz, settings, tasks, tokens,
};

/// To whom something is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody.
    Open,
    /// Everybody on this machine; others with a token for it.
    Local,
    /// Whoever follows the log: a token for that, or a viewer.
    Certs,
    /// Whoever has at least this role.
    Role(Role),
    /// The same, and is a person: no token makes tokens or users.
    Person(Role),
}

/// A line of the table.
pub struct Route {
    /// GET, POST …
    pub method: Method,
    /// As it is matched.
    pub path: &'static str,
    /// To whom.
    pub access: Access,
    answer: MethodRouter<Face>,
}

pub(super) fn route<H, T>(method: Method, path: &'static str, access: Access, handler: H) -> Route
where
    H: Handler<T, Face>,
    T: 'static,
{
    let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
    Route { method, path, access, answer: on(filter, handler) }
}

/// The table.
pub fn table() -> Vec<Route> {
    const GET: Method = Method::GET;
    const POST: Method = Method::POST;
    const OPEN: Access = Access::Open;
    const VIEWER: Access = Access::Role(Role::Viewer);
    const OPERATOR: Access = Access::Role(Role::Operator);
    const ADMIN: Access = Access::Role(Role::Admin);
    const PERSON: Access = Access::Person(Role::Viewer);
    const ADMIN_IN_PERSON: Access = Access::Person(Role::Admin);
    let mut table = vec![
        route(GET, "/healthz", OPEN, healthz),
        route(GET, "/readyz", OPEN, readyz),
        route(GET, "/metrics", Access::Local, metrics::show),
        route(GET, "/assets/{version}/{file}", OPEN, assets::show),
        route(GET, "/favicon.ico", OPEN, assets::icon),
        route(GET, "/login", OPEN, login::form),
        route(POST, "/login", OPEN, login::login),
        route(GET, "/welcome/{secret}", OPEN, login::welcome),
        route(POST, "/welcome/{secret}", OPEN, login::accept),
        route(POST, "/logout", PERSON, login::logout),
        route(GET, "/", VIEWER, dashboard::show),
        route(GET, "/endpoints", VIEWER, endpoints::list),
        route(POST, "/endpoints", OPERATOR, endpoint_form::add),
        route(GET, "/endpoints/new", OPERATOR, endpoint_form::new),
        route(GET, "/endpoints/import", OPERATOR, many::import_form),
        route(POST, "/endpoints/import", OPERATOR, many::import),
        route(GET, "/endpoints/export", VIEWER, many::export),
        route(POST, "/endpoints/bulk", OPERATOR, many::bulk),
        route(GET, "/endpoints/{id}", VIEWER, endpoint::show),
        route(GET, "/endpoints/{id}/edit", OPERATOR, endpoint::edit_form),
        route(POST, "/endpoints/{id}/edit", OPERATOR, endpoint::edit),
        route(GET, "/endpoints/{id}/events", VIEWER, endpoint::events),
        route(POST, "/endpoints/{id}/poll", OPERATOR, endpoint::poll),
        route(POST, "/endpoints/{id}/pause", OPERATOR, endpoint::pause),
        route(POST, "/endpoints/{id}/remove", OPERATOR, endpoint::remove),
        route(GET, "/certificates/{fingerprint}", VIEWER, certificates::show),
        route(GET, "/certificates/{fingerprint}/pem", VIEWER, certificates::pem),
        route(GET, "/certificates/{fingerprint}/der", VIEWER, certificates::der),
        route(GET, "/managed", VIEWER, managed::list),
        route(POST, "/managed", OPERATOR, managed::create),
        route(GET, "/managed/new", OPERATOR, managed::new),
        route(GET, "/managed/{id}", VIEWER, managed::show),
        route(POST, "/managed/{id}/renew", OPERATOR, managed::renew),
        route(POST, "/managed/{id}/remove", OPERATOR, managed::remove),
        route(GET, "/tasks", VIEWER, tasks::list),
        route(POST, "/tasks/{id}/retry", OPERATOR, tasks::retry),
        route(GET, "/alerts", VIEWER, alerts::list),
        route(POST, "/alerts/mute", OPERATOR, alerts::mute),
        route(POST, "/alerts/unmute", OPERATOR, alerts::unmute),
        route(POST, "/alerts/test", OPERATOR, alerts::test),
        route(GET, "/audit", ADMIN, audit::list),
        route(GET, "/settings", ADMIN, settings::show),
        route(POST, "/settings", ADMIN_IN_PERSON, settings::change),
        route(GET, "/users", ADMIN, people::list),
        route(POST, "/users", ADMIN_IN_PERSON, people::invite),
        route(POST, "/users/{name}/role", ADMIN_IN_PERSON, people::set_role),
        route(POST, "/users/{name}/invite", ADMIN_IN_PERSON, people::invite_again),
        route(POST, "/users/{name}/remove", ADMIN_IN_PERSON, people::remove),
        route(GET, "/account", PERSON, people::account),
        route(POST, "/account", PERSON, people::passwd),
        route(GET, "/tokens", ADMIN, tokens::list),
        route(POST, "/tokens", ADMIN_IN_PERSON, tokens::new),
        route(POST, "/tokens/{name}/remove", ADMIN_IN_PERSON, tokens::remove),
    ];
    table.extend(api::table());
    table.extend(log::table());
    table
}

/// Bytes that are read of what is sent there.
fn largest(path: &str) -> usize {
    if path.ends_with("/endpoints/import") { LARGEST_IMPORT } else { LARGEST_BODY }
}

/// Whether a request is meant for this server: a page of another name that leads here is told nothing.
fn is_ours(face: &Face, host: &str) -> bool {
    let public = face.url.split("://").nth(1).unwrap_or_default();
    let name = |host: &str| match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default().to_owned(),
        None => host.split(':').next().unwrap_or_default().to_lowercase(),
    };
    let asked = name(host);
    asked == "localhost" || asked.parse::<std::net::IpAddr>().is_ok() || asked == name(public)
}

/// The table as a router; each line behind its gate.
pub(super) fn router(face: &Face) -> Router {
    let mut router = Router::new();
    for Route { path, access, answer, .. } in table() {
        let answer = answer.layer(DefaultBodyLimit::max(largest(path)));
        router = router.route(path, answer.layer(middleware::from_fn_with_state((face.clone(), access), gate)));
    }
    let nowhere = middleware::from_fn_with_state((face.clone(), Access::Open), gate);
    let missing = |request: Request| async move {
        Fault::missing(format!("there is no page {}; the list of all begins at /", request.uri().path()))
    };
    let refused = |request: Request| async move {
        let what = format!("{} is not answered here", request.method());
        Fault::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", what)
    };
    router
        .fallback_service(axum::routing::any(missing).layer(nowhere.clone()).with_state(face.clone()))
        .method_not_allowed_fallback(refused)
        .with_state(face.clone())
}

/// Asks who asks, lets through who may, and says why to who may not.
async fn gate(State((face, access)): State<(Face, Access)>, request: Request, next: Next) -> Response {
    let for_people = !request.uri().path().starts_with("/api/") && request.uri().path() != "/metrics";
    let from_htmx = request.headers().contains_key("hx-request");
    let (peer, headers) = (peer(&request), request.headers().clone());
    if !face.proxies.is_empty() && !face.proxies.contains(&peer.to_canonical()) && !peer.to_canonical().is_loopback() {
        let what = format!("this server is reached over its proxy: {}", face.url);
        return Fault::new(StatusCode::FORBIDDEN, "forbidden", what).problem();
    }
    if let Some(host) = headers.get("host").and_then(|host| host.to_str().ok()).filter(|host| !is_ours(&face, host)) {
        let what = format!("this server is not {host}: it is {}; web.public_url says otherwise", face.url);
        return Fault::new(StatusCode::MISDIRECTED_REQUEST, "misdirected request", what).problem();
    }
    let (asker, outcome) = match ask(&face, peer, &headers).await {
        Ok(asker) => (Some(asker.clone()), let_in(&face, access, asker, request, next, for_people).await),
        Err(error) => (None, Err(Fault::from(error))),
    };
    let response = outcome.unwrap_or_else(IntoResponse::into_response);
    match response.extensions().get::<Fault>() {
        Some(fault) if for_people => fault.headers(page::fault(asker, fault, from_htmx)),
        Some(fault) => fault.problem(),
        None => response,
    }
}

async fn let_in(
    face: &Face,
    access: Access,
    asker: Asker,
    request: Request,
    next: Next,
    for_people: bool,
) -> Result<Response, Fault> {
    // Without a manager's identity it shows no tenant's certificates, so a token of any may ask.
    if asker.tenant.as_deref().zip(face.tenant()).is_some_and(|(wanted, own)| wanted != own) {
        let what = format!("{} is of another tenant than this server", asker.name);
        return Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", what));
    }
    match access {
        Access::Open => {}
        // Behind a proxy everybody may look like this machine.
        Access::Local if asker.address.is_loopback() && face.proxies.is_empty() || asker.may_measure() => {}
        Access::Certs if asker.may_follow() => {}
        Access::Role(least) if asker.may(least) => {}
        Access::Person(least) if asker.may(least) && asker.csrf.is_some() => {}
        Access::Person(least) if asker.may(least) => {
            return Err(Fault::new(
                StatusCode::FORBIDDEN,
                "forbidden",
                "this is for people, who log in, and not for tokens",
            ));
        }
        Access::Local | Access::Certs if !asker.is_nobody() => {
            let scope = if access == Access::Certs { "certs" } else { "metrics" };
            let what = format!("this is for tokens of {scope}, and for viewers; {} is {}", asker.name, asker.is());
            return Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", what));
        }
        Access::Role(least) | Access::Person(least) if !asker.is_nobody() => {
            let what = format!("this is for the role {least}, and {} is {}", asker.name, asker.is());
            return Err(Fault::new(StatusCode::FORBIDDEN, "forbidden", what));
        }
        _ if for_people => return Ok(to_login(&request)),
        _ => {
            let what = "say who asks: `Authorization: Bearer TOKEN`; `certbus token new` makes one";
            return Err(Fault::new(StatusCode::UNAUTHORIZED, "unauthorized", what));
        }
    }
    let mut request = if request.method().is_safe() { request } else { meant(access, &asker, request).await? };
    request.extensions_mut().insert(asker);
    Ok(next.run(request).await)
}

/// A form is sent by a page of ours, and by one of the session whose cookie comes with it.
async fn meant(access: Access, asker: &Asker, request: Request) -> Result<Request, Fault> {
    let forged = |what: &str| {
        Fault::new(
            StatusCode::FORBIDDEN,
            "forbidden",
            format!("{what}; load the page again, and send the form from there"),
        )
    };
    let site = request.headers().get("sec-fetch-site").and_then(|value| value.to_str().ok());
    let by_program = request.headers().contains_key("authorization");
    if !by_program && site.is_some_and(|site| !matches!(site, "same-origin" | "none")) {
        return Err(forged("this form was sent by a page of another site"));
    }
    // What everybody may send is of no session.
    let Some(csrf) = asker.csrf.as_ref().filter(|_| access != Access::Open) else { return Ok(request) };
    if request.headers().get("x-csrf-token").is_some_and(|value| value.as_bytes() == csrf.as_bytes()) {
        return Ok(request);
    }
    let (parts, body) = request.into_parts();
    let most = largest(parts.uri.path());
    let body = to_bytes(body, most).await.map_err(|_| {
        let what = format!("the body is larger than {} KB", most / 1024);
        Fault::new(StatusCode::PAYLOAD_TOO_LARGE, "too large", what)
    })?;
    // Nobody but a page of this session knows it, so wherever it stands, one has sent this.
    if !has(&body, csrf.as_bytes()) {
        return Err(forged("this form is not of your session"));
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

fn has(body: &Bytes, word: &[u8]) -> bool {
    body.windows(word.len()).any(|window| window == word)
}

/// Where a person says who he is; then he goes on to where he wanted.
fn to_login(request: &Request) -> Response {
    if request.headers().contains_key("hx-request") {
        return ([("hx-redirect", "/login")], StatusCode::UNAUTHORIZED).into_response();
    }
    let wanted = request.uri().path_and_query().map_or("/", |path| path.as_str());
    if request.method() != Method::GET || wanted == "/" {
        return Redirect::to("/login").into_response();
    }
    Redirect::to(&format!("/login?{}", serde_urlencoded::to_string([("to", wanted)]).unwrap_or_default()))
        .into_response()
}
