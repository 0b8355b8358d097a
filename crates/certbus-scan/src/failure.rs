//! Why a probe learnt no certificate: a closed set, so that programs can count and compare. No failure is a text alone.

use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Why there is no certificate. In JSON an object with the `kind` and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Failure {
    /// The name has no address, or nobody could be asked.
    #[error("dns: {why}")]
    Dns {
        /// What the resolver said.
        why: String,
    },
    /// Nothing listens there.
    #[error("refused: nothing listens there")]
    Refused,
    /// No way there.
    #[error("unreachable: {why}")]
    Unreachable {
        /// The system's words.
        why: String,
    },
    /// The deadline of a phase passed.
    #[error("timeout: no end to {phase} in time")]
    Timeout {
        /// Which deadline.
        phase: Phase,
    },
    /// It speaks, but not TLS.
    #[error("not TLS: {looks_like}")]
    NotTls {
        /// What it looks like, with the first bytes.
        looks_like: String,
    },
    /// A fatal alert (RFC 8446 section 6).
    #[error("alert {code} ({})", alert_name(*code))]
    Alert {
        /// Its number.
        code: u8,
        /// Its name in the registry.
        name: Cow<'static, str>,
    },
    /// The connection was reset.
    #[error("reset during {phase}")]
    Reset {
        /// When.
        phase: Phase,
    },
    /// The connection was closed without an alert.
    #[error("closed during {phase}")]
    Closed {
        /// When.
        phase: Phase,
    },
    /// A message breaks its format, or answers what was not asked.
    #[error("malformed {at}: {why}")]
    Malformed {
        /// In which part.
        at: Part,
        /// What is wrong.
        why: Cow<'static, str>,
    },
    /// More than any certificate needs.
    #[error("too large: {why}")]
    TooLarge {
        /// What, and the limit.
        why: Cow<'static, str>,
    },
    /// The server would not begin TLS in its protocol.
    #[error("STARTTLS refused: {said}")]
    Starttls {
        /// The server's words.
        said: String,
    },
    /// The method that was asked for cannot go on; another may.
    #[error("incompatible: {why}")]
    Incompatible {
        /// What is missing.
        why: Cow<'static, str>,
    },
    /// This machine could not: file descriptors, ports, memory.
    #[error("this machine: {why}")]
    Local {
        /// The system's words.
        why: String,
    },
}

/// A part of a probe with a deadline of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The TCP connection.
    Connect,
    /// The dialogue before TLS.
    Starttls,
    /// From the ClientHello to the proof.
    Handshake,
}

/// Where a message is malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// The record layer.
    Record,
    /// The order or framing of handshake messages.
    Handshake,
    /// ServerHello.
    ServerHello,
    /// Certificate.
    Certificate,
    /// ServerKeyExchange.
    ServerKeyExchange,
    /// CertificateVerify.
    CertificateVerify,
    /// The dialogue before TLS.
    Starttls,
}

impl Failure {
    pub(crate) fn malformed(at: Part, why: impl Into<Cow<'static, str>>) -> Self {
        Self::Malformed { at, why: why.into() }
    }

    pub(crate) fn alert(code: u8) -> Self {
        Self::Alert { code, name: alert_name(code).into() }
    }

    pub(crate) fn too_large(why: impl Into<Cow<'static, str>>) -> Self {
        Self::TooLarge { why: why.into() }
    }

    /// The word that stands as `kind` in JSON.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns",
            Self::Refused => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Timeout { .. } => "timeout",
            Self::NotTls { .. } => "not_tls",
            Self::Alert { .. } => "alert",
            Self::Reset { .. } => "reset",
            Self::Closed { .. } => "closed",
            Self::Malformed { .. } => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Starttls { .. } => "starttls",
            Self::Incompatible { .. } => "incompatible",
            Self::Local { .. } => "local",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Starttls => "starttls",
            Self::Handshake => "handshake",
        })
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Record => "record",
            Self::Handshake => "handshake",
            Self::ServerHello => "server hello",
            Self::Certificate => "certificate message",
            Self::ServerKeyExchange => "server key exchange",
            Self::CertificateVerify => "certificate verify",
            Self::Starttls => "dialogue before TLS",
        })
    }
}

/// The registry's name of an alert (IANA TLS Alerts).
fn alert_name(code: u8) -> &'static str {
    match code {
        0 => "close_notify",
        10 => "unexpected_message",
        20 => "bad_record_mac",
        22 => "record_overflow",
        40 => "handshake_failure",
        42 => "bad_certificate",
        43 => "unsupported_certificate",
        44 => "certificate_revoked",
        45 => "certificate_expired",
        46 => "certificate_unknown",
        47 => "illegal_parameter",
        48 => "unknown_ca",
        49 => "access_denied",
        50 => "decode_error",
        51 => "decrypt_error",
        70 => "protocol_version",
        71 => "insufficient_security",
        80 => "internal_error",
        86 => "inappropriate_fallback",
        90 => "user_canceled",
        109 => "missing_extension",
        110 => "unsupported_extension",
        112 => "unrecognized_name",
        113 => "bad_certificate_status_response",
        115 => "unknown_psk_identity",
        116 => "certificate_required",
        120 => "no_application_protocol",
        121 => "ech_required",
        _ => "unassigned",
    }
}
