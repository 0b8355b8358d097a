//! Placing an ACME order and finding it again, with all its authorizations read and its challenges planned (RFC 8555
//! sections 7.4 and 7.5). It sets nothing up: that is `complete`'s, after the plan is on a log.

mod complete;
mod pace;

use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;
use instant_acme::{AuthorizationStatus, ChallengeHandle, ChallengeType, Identifier, NewOrder};

use crate::account::AcmeCa;
use crate::ca::{HeldOrder, Order, OrderRequest, OrderStatus, PlannedChallenge};
use crate::error::{IssueError, Problem, from_acme};
use crate::nonce::with_nonce;
use crate::renewal::certificate_id;

pub(crate) use pace::Pace;

impl AcmeCa {
    pub(crate) async fn new_order(&self, request: &OrderRequest<'_>) -> Result<Order, IssueError> {
        let identifiers: Vec<Identifier> =
            request.names.iter().map(|name| Identifier::Dns(name.as_str().to_owned())).collect();
        let plain = || {
            let order = NewOrder::new(&identifiers);
            match request.profile {
                Some(profile) => order.profile(profile),
                None => order,
            }
        };
        let replaces = request.replaces.filter(|_| self.directory().renewal_windows).and_then(certificate_id);
        let placed = match replaces {
            Some(replaces) => {
                let order = plain().replaces(replaces);
                match with_nonce!(self.account.new_order(&order)) {
                    Err(error) if is_about_replacing(&error) => with_nonce!(self.account.new_order(&plain())),
                    placed => placed,
                }
            }
            None => with_nonce!(self.account.new_order(&plain())),
        };
        let order = placed.map_err(|error| from_acme(self.directory_url(), error))?;
        self.read(order, request.challenge).await
    }

    pub(crate) async fn resume(&self, url: &str, challenge: Challenge) -> Result<Order, IssueError> {
        let order = with_nonce!(self.account.order(url.to_owned())).map_err(|error| match from_acme(url, error) {
            IssueError::Problem(Problem { status: Some(404 | 410), .. })
            | IssueError::NotAcme { status: Some(404 | 410), .. } => IssueError::OrderNotFound { url: url.to_owned() },
            other => other,
        })?;
        self.read(order, challenge).await
    }

    /// Reads all authorizations and plans what those that are pending need.
    async fn read(&self, mut order: instant_acme::Order, wanted: Challenge) -> Result<Order, IssueError> {
        let url = order.url().to_owned();
        with_nonce!(read_authorizations(&mut order)).map_err(|error| from_acme(&url, error))?;
        let mut challenges = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization.map_err(|error| from_acme(&url, error))?;
            if authorization.status != AuthorizationStatus::Pending {
                continue;
            }
            let name = dns_name(&url, authorization.identifier().identifier)?;
            let offered = authorization.challenges.iter().map(|c| word(&c.r#type)).collect::<Vec<_>>().join(", ");
            let Some(handle) = authorization.challenge(kind(wanted)) else {
                return Err(IssueError::ChallengeNotOffered { name, wanted, offered });
            };
            challenges.push(plan(&url, name, wanted, &handle)?);
        }
        let status = order.state().status.into();
        Ok(Order { url, status, challenges, held: HeldOrder::Acme(Box::new(order)) })
    }
}

/// Fetches what is not fetched yet; may be repeated.
pub(crate) async fn read_authorizations(order: &mut instant_acme::Order) -> Result<(), instant_acme::Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        authorization?;
    }
    Ok(())
}

fn plan(
    url: &str,
    name: DnsName,
    challenge: Challenge,
    handle: &ChallengeHandle<'_>,
) -> Result<PlannedChallenge, IssueError> {
    let token = handle.token.clone();
    // It becomes a file name: nothing but base64url may pass (RFC 8555 section 8.3).
    if token.is_empty() || !token.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') {
        return Err(IssueError::NotAcme {
            url: url.to_owned(),
            status: None,
            what: format!("the challenge token {token:?}"),
        });
    }
    let answer = handle.key_authorization();
    let (key_authorization, dns_value) = (answer.as_str().to_owned(), answer.dns_value());
    Ok(PlannedChallenge { name, challenge, token, key_authorization, dns_value })
}

pub(crate) fn dns_name(url: &str, identifier: &Identifier) -> Result<DnsName, IssueError> {
    let refuse = |what: String| IssueError::NotAcme { url: url.to_owned(), status: None, what };
    match identifier {
        Identifier::Dns(name) => DnsName::parse(name).map_err(|error| refuse(error.to_string())),
        other => Err(refuse(format!("an authorization for {other:?}"))),
    }
}

/// Whether the same order without `replaces` may do better: always, unless the CA has had enough or cannot be reached.
fn is_about_replacing(error: &instant_acme::Error) -> bool {
    match error {
        instant_acme::Error::Other(other) => match other.downcast_ref::<IssueError>() {
            Some(IssueError::Problem(problem)) => problem.kind != "rateLimited",
            Some(_) => false,
            // The library found `replaces` not repeated in the answer.
            None => true,
        },
        _ => false,
    }
}

pub(crate) fn kind(challenge: Challenge) -> ChallengeType {
    match challenge {
        Challenge::Dns01 => ChallengeType::Dns01,
        Challenge::Http01 => ChallengeType::Http01,
    }
}

fn word(kind: &ChallengeType) -> &str {
    match kind {
        ChallengeType::Http01 => "http-01",
        ChallengeType::Dns01 => "dns-01",
        ChallengeType::TlsAlpn01 => "tls-alpn-01",
        ChallengeType::Unknown(word) => word,
        _ => "another kind",
    }
}

impl From<instant_acme::OrderStatus> for OrderStatus {
    fn from(status: instant_acme::OrderStatus) -> Self {
        match status {
            instant_acme::OrderStatus::Pending => Self::Pending,
            instant_acme::OrderStatus::Ready => Self::Ready,
            instant_acme::OrderStatus::Processing => Self::Processing,
            instant_acme::OrderStatus::Valid => Self::Valid,
            instant_acme::OrderStatus::Invalid => Self::Invalid,
        }
    }
}
