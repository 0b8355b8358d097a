//! The one seam of issuing: a CA takes an order, completes it, says when to renew. It remembers nothing: the caller
//! writes an [`Order`]'s URL, signing request and challenges to a durable log between ordering and completing.

pub mod internal;

use std::fmt;
use std::time::Duration;

use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;
use certbus_core::time::Timestamp;
use serde::{Deserialize, Serialize};

use crate::account::AcmeCa;
use crate::ca::internal::InternalCa;
use crate::error::IssueError;
use crate::solver::ChallengeHost;

/// Who signs.
#[derive(Debug)]
pub enum Ca {
    /// Our own root, in this process.
    Internal(Box<InternalCa>),
    /// An account at an ACME CA.
    Acme(Box<AcmeCa>),
}

/// What is ordered.
#[derive(Debug, Clone, Copy)]
pub struct OrderRequest<'a> {
    /// The names the certificate is to carry.
    pub names: &'a [DnsName],
    /// How control of them is to be shown.
    pub challenge: Challenge,
    /// The CA's certificate profile.
    pub profile: Option<&'a str>,
    /// [`crate::ari_certificate_id`] of the certificate that this one replaces (RFC 9773 section 5). A courtesy: if
    /// the CA will not have it, the order is placed without.
    pub replaces: Option<&'a str>,
}

/// An order as the CA holds it (RFC 8555 section 7.1.3).
pub struct Order {
    /// Where any process finds it again: [`Ca::resume`].
    pub url: String,
    /// As last seen.
    pub status: OrderStatus,
    /// What must be set up. None for names whose authorization is still good.
    pub challenges: Vec<PlannedChallenge>,
    pub(crate) held: HeldOrder,
}

pub(crate) enum HeldOrder {
    /// The ordered names, where this process ordered.
    Internal(Option<Vec<DnsName>>),
    Acme(Box<instant_acme::Order>),
}

/// RFC 8555 section 7.1.6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderStatus {
    /// Challenges are to be met.
    Pending,
    /// The signing request may be sent.
    Ready,
    /// The CA is signing.
    Processing,
    /// The certificate can be fetched.
    Valid,
    /// Nothing will come of it.
    Invalid,
}

/// One response to set up, known before anything is set up, so that any process can remove it (RFC 8555 section 8).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PlannedChallenge {
    /// The name to be shown; without `*.`.
    pub name: DnsName,
    /// How.
    pub challenge: Challenge,
    /// The CA's token: the file name of HTTP-01.
    pub token: String,
    /// What HTTP-01 answers. Not a secret: it is served to anyone.
    pub key_authorization: String,
    /// The TXT value of DNS-01.
    pub dns_value: String,
}

/// A certificate as it was issued.
#[derive(Debug, Clone)]
pub struct Issued {
    /// Leaf first, in PEM, without the root.
    pub chain_pem: String,
}

/// When the CA wants a certificate renewed (RFC 9773 section 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewalWindow {
    /// From when.
    pub start: Timestamp,
    /// Until when.
    pub end: Timestamp,
    /// A page that says why.
    pub explanation_url: Option<String>,
    /// When to ask again.
    pub retry_after: Duration,
}

/// Why a certificate is revoked (RFC 5280 section 5.3.1): those that public CAs take from subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationReason {
    /// None is given.
    Unspecified,
    /// Someone else may have the private key.
    KeyCompromise,
    /// The names' owner changed its own name.
    AffiliationChanged,
    /// Another certificate took its place.
    Superseded,
    /// The names are no longer served.
    CessationOfOperation,
}

impl Ca {
    /// Places an order and reads all its authorizations, and nothing else.
    ///
    /// # Errors
    /// [`IssueError::Problem`] with the CA's words, [`IssueError::ChallengeNotOffered`], [`IssueError::Unreachable`].
    pub async fn new_order(&self, request: &OrderRequest<'_>) -> Result<Order, IssueError> {
        match self {
            Self::Internal(ca) => ca.new_order(request.names),
            Self::Acme(ca) => ca.new_order(request).await,
        }
    }

    /// Finds an order again, in whatever process. `challenge` is as it was ordered.
    ///
    /// # Errors
    /// [`IssueError::OrderNotFound`], else as [`Ca::new_order`].
    pub async fn resume(&self, url: &str, challenge: Challenge) -> Result<Order, IssueError> {
        match self {
            Self::Internal(_) if url.starts_with(internal::ORDER_PREFIX) => Ok(internal::order(url.to_owned())),
            Self::Internal(_) => Err(IssueError::OrderNotFound { url: url.to_owned() }),
            Self::Acme(ca) => ca.resume(url, challenge).await,
        }
    }

    /// Brings an order to its certificate, from whatever status it has: sets the challenges up, waits until they can
    /// be seen, tells the CA, sends the signing request, fetches the chain and checks it against the request. What
    /// was set up is removed again, also after a failure. Bounded in time; harmless to repeat with the same request.
    ///
    /// # Errors
    /// Any [`IssueError`]. After [`IssueError::OrderInvalid`], [`IssueError::ChallengeFailed`] and
    /// [`IssueError::OrderNotFound`] the order is spent; after the others it can be resumed.
    pub async fn complete(
        &self,
        order: Order,
        csr_der: &[u8],
        host: &dyn ChallengeHost,
        now: Timestamp,
    ) -> Result<Issued, IssueError> {
        match (self, order.held) {
            (Self::Internal(ca), HeldOrder::Internal(names)) => ca.issue(csr_der, names.as_deref(), now),
            (Self::Acme(ca), HeldOrder::Acme(held)) => ca.complete(*held, &order.challenges, csr_der, host).await,
            _ => Err(IssueError::OrderNotFound { url: order.url }),
        }
    }

    /// When the CA wants the certificate renewed. None where it does not say.
    ///
    /// # Errors
    /// [`IssueError::Problem`], [`IssueError::Unreachable`], [`IssueError::NotAcme`].
    pub async fn renewal_window(&self, chain_pem: &str) -> Result<Option<RenewalWindow>, IssueError> {
        match self {
            Self::Internal(_) => Ok(None),
            Self::Acme(ca) => ca.renewal_window(chain_pem).await,
        }
    }

    /// Revokes the chain's leaf (RFC 8555 section 7.6).
    ///
    /// # Errors
    /// [`IssueError::Unsupported`] for the internal CA, which publishes no revocations; else the CA's words.
    pub async fn revoke(&self, chain_pem: &str, reason: RevocationReason) -> Result<(), IssueError> {
        match self {
            Self::Internal(_) => Err(IssueError::Unsupported {
                what: "the internal CA publishes no revocations; replace the certificate and let it expire".into(),
            }),
            Self::Acme(ca) => ca.revoke(chain_pem, reason).await,
        }
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("url", &self.url)
            .field("status", &self.status)
            .field("challenges", &self.challenges)
            .finish_non_exhaustive()
    }
}
