//! Who asks: a person with a session, a program with a token, or nobody in particular.

use std::net::{IpAddr, SocketAddr};

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, header};
use certbus_core::access::{Role, Scope};
use certbus_store::StoreError;
use certbus_store::audit::Actor;

use super::fault::source;
use super::{Face, secret};
use crate::clock;

/// The cookie of a session. Over TLS it has a prefix that keeps other hosts from setting it.
const COOKIE: &str = "certbus_session";

/// Who asks.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    /// Whose name stands in the trail.
    pub(crate) name: String,
    /// What he may; None: nothing that is not everybody's.
    pub(crate) role: Option<Role>,
    /// From where.
    pub(crate) address: IpAddr,
    /// What the forms of his session say; None: it is a program, or nobody.
    pub(crate) csrf: Option<String>,
    /// Whose managed certificates a token is for.
    pub(crate) tenant: Option<String>,
    /// Of a token.
    scope: Option<Scope>,
}

impl Asker {
    /// Somebody who has not said who he is.
    pub(crate) fn nobody(address: IpAddr) -> Self {
        Self { name: String::new(), role: None, address, csrf: None, tenant: None, scope: None }
    }

    /// Whether nobody has said who he is.
    pub(crate) fn is_nobody(&self) -> bool {
        self.name.is_empty()
    }

    pub(crate) fn may(&self, least: Role) -> bool {
        self.role.is_some_and(|role| role >= least)
    }

    /// Whether he may follow the log: who may look at all, and tokens for nothing else.
    pub(crate) fn may_follow(&self) -> bool {
        self.scope == Some(Scope::Certs) || self.may(Role::Viewer)
    }

    /// Whether he may read metrics, wherever he is.
    pub(crate) fn may_measure(&self) -> bool {
        self.scope == Some(Scope::Metrics) || self.may(Role::Viewer)
    }

    /// What he may, in words for one who may not what he wanted.
    pub(crate) fn is(&self) -> String {
        match (self.role, self.scope) {
            (Some(role), _) => role.to_string(),
            (None, Some(scope)) => format!("a token of {scope}"),
            (None, None) => "nobody".into(),
        }
    }

    /// As the trail has him.
    pub(crate) fn actor(&self) -> Actor {
        Actor { name: self.name.clone(), source: source(self.address) }
    }
}

/// Who is at the other end of the connection.
pub(crate) fn peer(request: &Request) -> IpAddr {
    let known = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|info| info.0.ip());
    known.unwrap_or(IpAddr::from([0, 0, 0, 0]))
}

/// Finds out who asks.
pub(crate) async fn ask(face: &Face, peer: IpAddr, headers: &HeaderMap) -> Result<Asker, StoreError> {
    let address = origin(face, peer, headers);
    let nobody = Asker::nobody(address);
    if let Some(token) = bearer(headers) {
        let Some(token) = face.store.token(secret::hash(token), clock::now()).await? else { return Ok(nobody) };
        let (name, role) = (format!("token {}", token.name), token.scope.role());
        return Ok(Asker { name, role, tenant: Some(token.tenant), scope: Some(token.scope), ..nobody });
    }
    let Some(cookie) = cookie(headers, name(face)) else { return Ok(nobody) };
    let Some(session) = face.store.session(secret::hash(cookie), clock::now()).await? else { return Ok(nobody) };
    Ok(Asker { name: session.person, role: Some(session.role), csrf: Some(session.csrf), ..nobody })
}

/// From where a request comes: what the last proxy says that is not ours.
fn origin(face: &Face, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
    let mut from = peer.to_canonical();
    let said = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let mut hops: Vec<&str> = said.flat_map(|value| value.split(',')).collect();
    while face.proxies.contains(&from) {
        let Some(hop) = hops.pop() else { break };
        // With its port, as some proxies say it.
        let read = hop.trim().parse::<IpAddr>().or_else(|_| hop.trim().parse::<SocketAddr>().map(|place| place.ip()));
        // What cannot be read came from nobody that is known; what stands before it anybody may have written.
        let Ok(read) = read else { return IpAddr::from([0, 0, 0, 0]) };
        from = read.to_canonical();
    }
    from
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn name(face: &Face) -> &'static str {
    if face.is_secure() { "__Host-certbus_session" } else { COOKIE }
}

/// What a cookie says.
pub(crate) fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';'))
        .filter_map(|one| one.trim().split_once('='))
        .find(|(key, _)| *key == name)
        .map(|(_, value)| value)
}

/// The secret of the session that a request is of.
pub(crate) fn session<'a>(face: &Face, headers: &'a HeaderMap) -> Option<&'a str> {
    cookie(headers, name(face))
}

/// The header that begins a session; an empty secret ends it.
pub(crate) fn set_cookie(face: &Face, secret: &str) -> String {
    let secure = if face.is_secure() { "; Secure" } else { "" };
    let age = if secret.is_empty() { 0 } else { certbus_core::access::SESSION_LASTS.as_secs() };
    format!("{}={secret}; Path=/; HttpOnly; SameSite=Lax; Max-Age={age}{secure}", name(face))
}
