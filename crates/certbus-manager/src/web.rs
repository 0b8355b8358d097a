//! The face: pages for people and an API for programs. It asks the store and the log and shows what they say; what anything
//! means is core's. Private keys are not its business: it never sees one.

mod alerts;
mod api;
mod asker;
mod assets;
mod audit;
mod certificates;
mod chart;
mod connections;
mod dashboard;
mod endpoint;
mod endpoint_form;
mod endpoints;
mod fault;
mod log;
mod login;
mod managed;
mod many;
mod metrics;
mod page;
pub mod password;
mod people;
pub mod routes;
mod rows;
pub mod secret;
mod settings;
mod tasks;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Request, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use certbus_core::access::Role;
use certbus_store::audit::Actor;
use certbus_store::{Store, StoreError};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use tower_http::compression::CompressionLayer;
use tower_http::timeout::{RequestBodyTimeoutLayer, TimeoutBody, TimeoutLayer};

use crate::alerts::LocalAlerts;
use crate::clock;
use crate::manager::Manager;

/// The largest body that is read.
const LARGEST_BODY: usize = 64 * 1024;

/// But of an import: some 100,000 lines.
const LARGEST_IMPORT: usize = 16 * 1024 * 1024;

/// A client that sends nothing for so long, though something is to come, is sent away.
const DAWDLING: Duration = Duration::from_secs(10);

/// A request is read and its answer begun within this, or not at all.
const ANSWERED: Duration = Duration::from_secs(120);

/// What nobody needs twice: scripts, styles and pictures come from here alone, and no other page shows these in a frame.
const HEADERS: [(HeaderName, &str); 5] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "same-origin"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::CACHE_CONTROL, "no-store"),
];

/// What the pages are made from.
#[derive(Clone, Debug)]
pub struct Face(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    hub: log::Hub,
}

/// See [`Face`].
#[derive(Debug)]
pub struct Parts {
    /// The inventory.
    pub store: Store,
    /// Who writes to the log; None: managed certificates are shown nowhere.
    pub manager: Option<Arc<Manager>>,
    /// The site whose worker makes the polls that people ask for, where an endpoint has several.
    pub site: String,
    /// What this machine brings to tell people with.
    pub local_alerts: LocalAlerts,
    /// Proxies that say from where a request comes.
    pub proxies: Vec<std::net::IpAddr>,
    /// What people type to come here, without a slash at its end.
    pub url: String,
}

impl Parts {
    /// Whether people come over TLS, so that their cookies never go without.
    fn is_secure(&self) -> bool {
        self.url.starts_with("https://")
    }

    /// Of whose managed certificates this is.
    fn tenant(&self) -> Option<&str> {
        self.manager.as_ref().map(|manager| manager.tenant().name.as_str())
    }
}

impl std::ops::Deref for Face {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0.parts
    }
}

impl Face {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner { parts, hub: log::Hub::default() }))
    }

    /// Who tells the log to those who follow it.
    fn hub(&self) -> &log::Hub {
        &self.0.hub
    }

    /// Everything that is answered.
    pub fn router(&self) -> Router {
        let whole = |request: Request<TimeoutBody<Body>>| request.map(Body::new);
        let patience = ServiceBuilder::new()
            .layer(TimeoutLayer::with_status_code(StatusCode::REQUEST_TIMEOUT, ANSWERED))
            .layer(RequestBodyTimeoutLayer::new(DAWDLING))
            .map_request(whole);
        routes::router(self).layer(middleware::from_fn(with_headers)).layer(CompressionLayer::new()).layer(patience)
    }

    /// Answers until `stop`; over TLS if it is said how.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<rustls::ServerConfig>>,
        stop: impl Future<Output = ()> + Send,
    ) {
        connections::serve(listener, tls, self.router(), &self.proxies, stop).await;
    }
}

async fn with_headers(request: axum::extract::Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    for (name, value) in HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// A link by which the first admin chooses a password, as long as nobody can log in.
///
/// # Errors
/// [`StoreError`].
pub async fn first_login(store: &Store) -> Result<Option<String>, StoreError> {
    if store.people().await?.iter().any(|person| person.active) {
        return Ok(None);
    }
    let secret = secret::Secret::new();
    let actor = Actor { name: "certbus".into(), source: "serve".into() };
    store.invite("admin", Role::Admin, secret.hash(), &actor, clock::now()).await?;
    Ok(Some(format!("/welcome/{}", secret.text())))
}

/// That it runs.
async fn healthz() -> Response {
    "ok\n".into_response()
}

/// That it can do its work: the inventory answers.
async fn readyz(axum::extract::State(face): axum::extract::State<Face>) -> Result<Response, fault::Fault> {
    face.store.audit(None, 1).await?;
    Ok("ok\n".into_response())
}
