//! Statements: what a tenant's authority says, signed on its own and chained, so that any admitted writer can carry it.

use serde::{Deserialize, Serialize};

use crate::id::{Cursor, Hash, LogId, PublicKey, RingId};
use crate::key::{Domain, Signature, SigningKey};
use crate::seal::{SealedBox, SealedFor};
use crate::time::Timestamp;

/// A statement as it stands on the log: exact signed text, and its signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedStatement {
    /// The JSON text of a [`Statement`]; the signature covers these very bytes.
    pub body: String,
    /// By the authority in force, in [`Domain::Statement`].
    pub signature: Signature,
    /// Only for [`Said::AuthorityChanged`]: by the new authority, in [`Domain::Acceptance`]. Without it a holder of a
    /// stolen old key could write a history of his own up to the change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceptance: Option<Signature>,
}

/// The decoded body of a statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The log it belongs to.
    pub log: LogId,
    /// 1, 2, 3 …, over both streams together.
    pub number: u64,
    /// The hash of the previous statement's body; [`Hash::ZERO`] for the first.
    pub previous: Hash,
    /// When it was said.
    pub time: Timestamp,
    /// What is said.
    #[serde(flatten)]
    pub said: Said,
}

/// What the authority can say. Every kind is critical: a reader that does not know one stops there, still serving.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "data")]
pub enum Said {
    /// Statement 1: this log is this tenant's, under this authority.
    LogStarted {
        /// The tenant.
        tenant: String,
        /// The authority's Ed25519 key.
        authority: PublicKey,
        /// The recovery identity's X25519 key: every ring is sealed to it too.
        recovery: PublicKey,
    },
    /// This key may write both streams from here on, and open the configuration.
    WriterAdmitted {
        /// For people.
        name: String,
        /// The Ed25519 key that signs batches.
        key: PublicKey,
        /// The X25519 key the configuration is sealed to.
        open: PublicKey,
    },
    /// This key may write no more.
    WriterRetired {
        /// The Ed25519 key.
        key: PublicKey,
    },
    /// Certificates are for this recipient too, who is given the private halves of these rings.
    RecipientAdded {
        /// For people, and for `CertificateOffered` to named recipients.
        name: String,
        /// The recipient's X25519 key.
        key: PublicKey,
        /// Rings' private halves, sealed to that key.
        rings: Vec<SealedRing>,
    },
    /// No ring started from here on is for this recipient.
    RecipientRemoved {
        /// The recipient's X25519 key.
        key: PublicKey,
        /// Whether what it could open must be taken for known to others.
        compromised: bool,
    },
    /// Keys are sealed to this ring from here on.
    RingStarted {
        /// The ring.
        ring: RingId,
        /// Its X25519 public half.
        public: PublicKey,
        /// Its private half, sealed to each recipient and to recovery.
        keys: Vec<SealedFor>,
    },
    /// From the next statement on another key speaks. Signed by the old one, accepted by the new one.
    AuthorityChanged {
        /// The new authority's Ed25519 key.
        authority: PublicKey,
        /// The new recovery identity's X25519 key.
        recovery: PublicKey,
        /// Whether what the old recovery identity could open must be taken for known to others.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        compromised: bool,
    },
    /// The log was restored from an older copy: readers that had seen more go on from these places.
    LogRestored {
        /// 1 for the first restore, then 2, 3 … (0 before any).
        epoch: u64,
        /// Where `certs` goes on from: the head of the copy that was restored.
        certs: Cursor,
        /// Where `work` goes on from.
        work: Cursor,
    },
}

/// A ring's private half, sealed to one recipient.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedRing {
    /// The ring.
    pub ring: RingId,
    /// Its private half.
    pub sealed: SealedBox,
}

impl Said {
    /// The word that stands in `kind`.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::LogStarted { .. } => "LogStarted",
            Self::WriterAdmitted { .. } => "WriterAdmitted",
            Self::WriterRetired { .. } => "WriterRetired",
            Self::RecipientAdded { .. } => "RecipientAdded",
            Self::RecipientRemoved { .. } => "RecipientRemoved",
            Self::RingStarted { .. } => "RingStarted",
            Self::AuthorityChanged { .. } => "AuthorityChanged",
            Self::LogRestored { .. } => "LogRestored",
        }
    }

    const KINDS: [&str; 8] = [
        "LogStarted",
        "WriterAdmitted",
        "WriterRetired",
        "RecipientAdded",
        "RecipientRemoved",
        "RingStarted",
        "AuthorityChanged",
        "LogRestored",
    ];
}

/// Why a statement's text is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// A kind of a newer program.
    #[error("a statement `{0}` that this program does not know: upgrade it")]
    UnknownKind(String),
    /// Not the JSON of a statement.
    #[error("a malformed statement: {0}")]
    Malformed(String),
}

impl SignedStatement {
    /// Signs a statement. Its place in the chain is the caller's to give: see [`crate::chain::Chain::next_statement`].
    pub fn sign(statement: &Statement, authority: &SigningKey) -> Self {
        let body = serde_json::to_string(statement).unwrap_or_default();
        let signature = authority.sign(Domain::Statement, body.as_bytes());
        Self { body, signature, acceptance: None }
    }

    /// Adds the new authority's acceptance of a change.
    #[must_use]
    pub fn accepted_by(mut self, new: &SigningKey) -> Self {
        self.acceptance = Some(new.sign(Domain::Acceptance, self.body.as_bytes()));
        self
    }

    /// The hash that the next statement names.
    pub fn hash(&self) -> Hash {
        Hash::of(self.body.as_bytes())
    }

    /// Decodes the body. Says nothing about its signature.
    ///
    /// # Errors
    /// [`StatementError`].
    pub fn decode(&self) -> Result<Statement, StatementError> {
        #[derive(Deserialize)]
        struct Kind {
            kind: String,
        }
        let malformed = |e: serde_json::Error| StatementError::Malformed(e.to_string());
        let Kind { kind } = serde_json::from_str(&self.body).map_err(malformed)?;
        if !Said::KINDS.contains(&kind.as_str()) {
            return Err(StatementError::UnknownKind(kind));
        }
        serde_json::from_str(&self.body).map_err(malformed)
    }
}
