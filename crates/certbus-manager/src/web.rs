//! The face: pages for people and an API for programs. It asks the store and the log and shows what they say; what anything
//! means is core's. Private keys are not its business: it never sees one.

mod alerts;
mod api;
mod asker;
mod assets;
mod audit;
mod certificates;
mod chart;
mod dashboard;
mod endpoint;
mod endpoints;
mod fault;
mod login;
mod managed;
mod metrics;
mod page;
pub mod password;
mod people;
pub mod routes;
pub mod secret;
mod settings;
mod tasks;
mod tokens;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use certbus_core::access::Role;
use certbus_store::audit::Actor;
use certbus_store::{Store, StoreError};
use tokio::net::TcpListener;
use tower_http::compression::CompressionLayer;

use crate::alerts::LocalAlerts;
use crate::clock;
use crate::manager::Manager;

/// The largest body that is read.
const LARGEST_BODY: usize = 64 * 1024;

/// But of an import: some 100,000 lines.
const LARGEST_IMPORT: usize = 16 * 1024 * 1024;

/// Requests that are under way when it is told to stop are given this long.
const ENDING: Duration = Duration::from_secs(5);

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
pub struct Face(Arc<Parts>);

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
    /// Whether people come over TLS, so that their cookies never go without.
    pub secure: bool,
    /// Proxies that say from where a request comes.
    pub proxies: Vec<std::net::IpAddr>,
    /// What people type to come here, without a slash at its end.
    pub url: String,
}

impl Parts {
    /// Of whose managed certificates this is.
    fn tenant(&self) -> Option<&str> {
        self.manager.as_ref().map(|manager| manager.tenant().name.as_str())
    }
}

impl std::ops::Deref for Face {
    type Target = Parts;
    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Face {
    /// From its parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// Everything that is answered.
    pub fn router(&self) -> Router {
        routes::router(self).layer(middleware::from_fn(with_headers)).layer(CompressionLayer::new())
    }

    /// Answers until `stop`.
    ///
    /// # Errors
    /// If the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let service = self.router().into_make_service_with_connect_info::<SocketAddr>();
        let (told, mut ended) = tokio::sync::watch::channel(false);
        let stop = async move {
            stop.await;
            let _ = told.send(true);
        };
        let serving = axum::serve(listener, service).with_graceful_shutdown(stop);
        let too_long = async {
            let _ = ended.wait_for(|ended| *ended).await;
            tokio::time::sleep(ENDING).await;
        };
        tokio::select! {
            ended = serving => ended,
            () = too_long => Ok(()),
        }
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
