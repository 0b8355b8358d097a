//! Events: what is said on the two streams. One line of JSON each; docs/EVENTS.md owns the compatibility table.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::id::{CertificateId, Fingerprint, Hash};
use crate::name::DnsName;
use crate::seal::{SealedKey, SealedText};
use crate::spec::{Challenge, KeyType};
use crate::statement::SignedStatement;
use crate::time::Timestamp;

/// Why a version was obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reason {
    /// The first of its timeline.
    New,
    /// Its renewal point was reached.
    Renewal,
    /// The one before must not be used any more.
    Replacement,
}

/// A CA issued a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateObtained {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The version: SHA-256 of the leaf's DER.
    pub version: Fingerprint,
    /// Why.
    pub reason: Reason,
    /// The names it covers.
    pub names: Vec<DnsName>,
    /// From the leaf.
    pub not_before: Timestamp,
    /// From the leaf.
    pub not_after: Timestamp,
    /// Leaf first, then intermediates, as the CA gave them.
    pub chain: String,
    /// SHA-256 of the leaf's SubjectPublicKeyInfo.
    pub spki: Hash,
    /// The private key, sealed to a ring.
    pub key: SealedKey,
}

/// Load balancers may serve a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateOffered {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The version.
    pub version: Fingerprint,
    /// Names of recipients; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Vec<String>>,
}

/// A managed certificate is renewed and served no more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRemoved {
    /// The managed certificate.
    pub certificate: CertificateId,
}

/// A version was revoked at its CA.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRevoked {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The version.
    pub version: Fingerprint,
    /// RFC 5280 section 5.3.1.
    pub reason: u8,
}

/// A manager wants a managed certificate to exist: what to order, now and at each renewal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRequested {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The names, sorted and without repeats.
    pub names: Vec<DnsName>,
    /// How control is shown.
    pub challenge: Challenge,
    /// The kind of key.
    pub key_type: KeyType,
    /// The CA's name in the issuing settings; absent: their default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// The CA's certificate profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<String>,
}

/// A manager is about to order. Saves work, decides nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuanceClaimed {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// 1, 2, 3 … since the version before.
    pub attempt: u32,
    /// The manager's name.
    pub by: String,
    /// When others may take it over.
    pub until: Timestamp,
}

/// An order exists at the CA. Appended before any challenge is set up, so that any manager can finish it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderPlaced {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The attempt it belongs to.
    pub attempt: u32,
    /// Why.
    pub reason: Reason,
    /// The CA's name in the issuing settings.
    pub ca: String,
    /// The CA's URL of the account.
    pub account: String,
    /// The CA's URL of the order.
    pub order: String,
    /// The names ordered.
    pub names: Vec<DnsName>,
    /// The signing request (DER, base64url): the only one this order is finalized with.
    pub csr: String,
    /// SHA-256 of the key's SubjectPublicKeyInfo.
    pub spki: Hash,
    /// The private key, sealed to a ring.
    pub key: SealedKey,
    /// What will have to be cleaned up: the issuing crate's own record.
    pub challenges: Vec<serde_json::Value>,
}

/// An order needs nobody any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderEnded {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The CA's URL of the order.
    pub order: String,
    /// The version it ended in; absent if in none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Fingerprint>,
}

/// `work`: whether an open order needs its challenges. It does from the time it is placed, until this says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChallengesChanged {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The CA's URL of the order.
    pub order: String,
    /// Whether they are needed.
    pub needed: bool,
}

/// `work`: one at a time changes a record (or another place) in which challenges of several orders are set up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordClaimed {
    /// The place: `dns-01:_acme-challenge.example.com`, `http-01:TOKEN`.
    pub record: String,
    /// Whose claim: the URL of the order that needs the change. Whoever goes on with that order goes on with the claim.
    pub by: String,
    /// How long it stands; a time that has passed gives it back.
    pub until: Timestamp,
}

/// The CA told when to renew (RFC 9773).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenewalWindowChanged {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The version the window is for.
    pub version: Fingerprint,
    /// The window.
    pub start: Timestamp,
    /// The window's end.
    pub end: Timestamp,
    /// A page for people, if the CA names one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub explanation: Option<String>,
}

/// An attempt ended without a certificate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuanceFailed {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The attempt.
    pub attempt: u32,
    /// The CA's or the solver's own words.
    pub problem: String,
    /// When to try again.
    pub retry_at: Timestamp,
    /// The name whose control could not be shown, if that was it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<DnsName>,
}

/// A CA takes no orders of the account for a while (`rateLimited`, RFC 8555 section 6.6).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountLimited {
    /// The CA's name in the issuing settings.
    pub ca: String,
    /// Until then.
    pub until: Timestamp,
}

/// The issuing settings changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigUpdated {
    /// TOML, sealed to the managers and to recovery.
    pub config: SealedText,
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each variant carries the type of its own name, documented there")]
pub enum Event {
    Statement(SignedStatement),
    CertificateObtained(Arc<CertificateObtained>),
    CertificateOffered(CertificateOffered),
    CertificateRemoved(CertificateRemoved),
    CertificateRevoked(CertificateRevoked),
    Alive,
    CertificateRequested(CertificateRequested),
    IssuanceClaimed(IssuanceClaimed),
    OrderPlaced(Arc<OrderPlaced>),
    OrderEnded(OrderEnded),
    ChallengesChanged(ChallengesChanged),
    RecordClaimed(RecordClaimed),
    RenewalWindowChanged(RenewalWindowChanged),
    IssuanceFailed(IssuanceFailed),
    AccountLimited(AccountLimited),
    ConfigUpdated(ConfigUpdated),
    /// A kind or format of a newer program. Kept as it is; a critical one stops the reader.
    Unknown(UnknownEvent),
    /// Dropped by a compaction: only its hash is left.
    Dropped,
}

/// An event this program does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownEvent {
    /// Its kind.
    pub kind: String,
    /// The format of that kind.
    pub format: u32,
    /// Whether a reader that does not know it must stop.
    pub critical: bool,
}

/// A line that is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a malformed event{}: {cause}", kind.as_ref().map(|k| format!(" `{k}`")).unwrap_or_default())]
pub struct EventError {
    kind: Option<String>,
    cause: String,
}

impl EventError {
    /// Whether the event has a sealing suite or a word of a closed set that only a newer program can have written.
    pub fn is_newer(&self) -> bool {
        self.cause.contains("upgrade it") || self.cause.contains("unknown variant")
    }
}

/// What stands in place of an event that was dropped.
pub const DROPPED: &str = "-";

/// The format that this program writes for each kind it knows.
const FORMAT: u32 = 1;

/// A manager's round writes [`Event::Alive`] if `certs` has been quiet for this long.
pub const ALIVE_EVERY: Duration = Duration::from_secs(12 * 3600);

#[derive(Deserialize)]
struct LineIn<'a> {
    kind: String,
    format: u32,
    critical: bool,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct LineOut<'a, T> {
    kind: &'a str,
    format: u32,
    critical: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a T>,
}

impl Event {
    /// Its kind, as it stands on the log.
    pub fn kind(&self) -> &str {
        match self {
            Self::Statement(_) => "Statement",
            Self::CertificateObtained(_) => "CertificateObtained",
            Self::CertificateOffered(_) => "CertificateOffered",
            Self::CertificateRemoved(_) => "CertificateRemoved",
            Self::CertificateRevoked(_) => "CertificateRevoked",
            Self::Alive => "Alive",
            Self::CertificateRequested(_) => "CertificateRequested",
            Self::IssuanceClaimed(_) => "IssuanceClaimed",
            Self::OrderPlaced(_) => "OrderPlaced",
            Self::OrderEnded(_) => "OrderEnded",
            Self::ChallengesChanged(_) => "ChallengesChanged",
            Self::RecordClaimed(_) => "RecordClaimed",
            Self::RenewalWindowChanged(_) => "RenewalWindowChanged",
            Self::IssuanceFailed(_) => "IssuanceFailed",
            Self::AccountLimited(_) => "AccountLimited",
            Self::ConfigUpdated(_) => "ConfigUpdated",
            Self::Unknown(unknown) => &unknown.kind,
            Self::Dropped => DROPPED,
        }
    }

    /// The line that goes to the log, without its line break.
    pub fn encode(&self) -> String {
        match self {
            Self::Statement(data) => line("Statement", true, Some(data)),
            Self::CertificateObtained(data) => line("CertificateObtained", true, Some(data)),
            Self::CertificateOffered(data) => line("CertificateOffered", true, Some(data)),
            Self::CertificateRemoved(data) => line("CertificateRemoved", true, Some(data)),
            Self::CertificateRevoked(data) => line("CertificateRevoked", false, Some(data)),
            Self::Alive => line::<()>("Alive", false, None),
            Self::CertificateRequested(data) => line("CertificateRequested", true, Some(data)),
            Self::IssuanceClaimed(data) => line("IssuanceClaimed", true, Some(data)),
            Self::OrderPlaced(data) => line("OrderPlaced", true, Some(data)),
            Self::OrderEnded(data) => line("OrderEnded", true, Some(data)),
            Self::ChallengesChanged(data) => line("ChallengesChanged", false, Some(data)),
            Self::RecordClaimed(data) => line("RecordClaimed", false, Some(data)),
            Self::AccountLimited(data) => line("AccountLimited", false, Some(data)),
            Self::RenewalWindowChanged(data) => line("RenewalWindowChanged", false, Some(data)),
            Self::IssuanceFailed(data) => line("IssuanceFailed", false, Some(data)),
            Self::ConfigUpdated(data) => line("ConfigUpdated", true, Some(data)),
            Self::Unknown(_) | Self::Dropped => DROPPED.to_owned(),
        }
    }

    /// Reads one line of a batch. Fields it does not know are ignored: they may be added without a new format.
    ///
    /// # Errors
    /// [`EventError`] for what is no event, or lacks a field of its kind.
    pub fn decode(line: &str) -> Result<Self, EventError> {
        if line == DROPPED {
            return Ok(Self::Dropped);
        }
        let head: LineIn<'_> =
            serde_json::from_str(line).map_err(|e| EventError { kind: None, cause: e.to_string() })?;
        let LineIn { kind, format, critical, data } = head;
        let data = data.map_or("null", RawValue::get);
        if format != FORMAT {
            return Ok(Self::Unknown(UnknownEvent { kind, format, critical }));
        }
        Ok(match kind.as_str() {
            "Statement" => Self::Statement(payload(&kind, data)?),
            "CertificateObtained" => Self::CertificateObtained(Arc::new(payload(&kind, data)?)),
            "CertificateOffered" => Self::CertificateOffered(payload(&kind, data)?),
            "CertificateRemoved" => Self::CertificateRemoved(payload(&kind, data)?),
            "CertificateRevoked" => Self::CertificateRevoked(payload(&kind, data)?),
            "Alive" => Self::Alive,
            "CertificateRequested" => Self::CertificateRequested(payload(&kind, data)?),
            "IssuanceClaimed" => Self::IssuanceClaimed(payload(&kind, data)?),
            "OrderPlaced" => Self::OrderPlaced(Arc::new(payload(&kind, data)?)),
            "OrderEnded" => Self::OrderEnded(payload(&kind, data)?),
            "ChallengesChanged" => Self::ChallengesChanged(payload(&kind, data)?),
            "RecordClaimed" => Self::RecordClaimed(payload(&kind, data)?),
            "RenewalWindowChanged" => Self::RenewalWindowChanged(payload(&kind, data)?),
            "IssuanceFailed" => Self::IssuanceFailed(payload(&kind, data)?),
            "AccountLimited" => Self::AccountLimited(payload(&kind, data)?),
            "ConfigUpdated" => Self::ConfigUpdated(payload(&kind, data)?),
            _ => Self::Unknown(UnknownEvent { kind, format, critical }),
        })
    }
}

fn payload<T: DeserializeOwned>(kind: &str, data: &str) -> Result<T, EventError> {
    serde_json::from_str(data).map_err(|e| EventError { kind: Some(kind.to_owned()), cause: e.to_string() })
}

fn line<T: Serialize>(kind: &str, critical: bool, data: Option<&T>) -> String {
    serde_json::to_string(&LineOut { kind, format: FORMAT, critical, data }).unwrap_or_default()
}
