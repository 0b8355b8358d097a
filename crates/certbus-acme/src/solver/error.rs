//! What can go wrong in showing control of a name, with what would be right. No secret is ever in it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use certbus_core::spec::Challenge;

/// Why a challenge could not be set up, seen or removed.
#[derive(Debug, thiserror::Error)]
pub enum SolverError {
    /// Nothing is configured for this kind.
    #[error("no way to meet {challenge} is configured; set one up in the issuing settings, or order by another kind")]
    NoSolver {
        /// The kind.
        challenge: Challenge,
    },
    /// The HTTP-01 listener could not be started.
    #[error("cannot listen on {address} for http-01: {cause}; {hint}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The system's words.
        cause: std::io::Error,
        /// What would be right.
        hint: &'static str,
    },
    /// A file of HTTP-01 could not be written or removed.
    #[error("cannot write {} for http-01: {cause}; name a folder that the web server serves and this user can write", path.display())]
    Webroot {
        /// The file.
        path: PathBuf,
        /// The system's words.
        cause: std::io::Error,
    },
    /// An object of HTTP-01 could not be written or removed.
    #[error("cannot {action} {key} in the S3 bucket {bucket} for http-01: {cause}; {hint}")]
    Bucket {
        /// `write` or `remove`.
        action: &'static str,
        /// The bucket.
        bucket: String,
        /// The object's key.
        key: String,
        /// What the service answered.
        cause: String,
        /// What would be right.
        hint: &'static str,
        /// Whether only a person can mend it.
        permanent: bool,
    },
    /// A DNS server refused a dynamic update (RFC 2136 section 2.2).
    #[error(
        "the DNS server {server} refused to update {name} in zone {zone}: {answer}; check key, algorithm, the server's update policy and this machine's clock"
    )]
    UpdateRefused {
        /// The server.
        server: String,
        /// The zone.
        zone: String,
        /// The record's name.
        name: String,
        /// The response code or what else came.
        answer: String,
    },
    /// A DNS server did not answer.
    #[error("the DNS server {server} does not answer: {cause}; check its address and that it can be reached")]
    ServerUnreachable {
        /// The server.
        server: String,
        /// What happened.
        cause: String,
    },
    /// No zone for a name could be found at a server.
    #[error(
        "the DNS server {server} has no zone for {name} (it answers {answer}); name the zone, or ask another server"
    )]
    NoZone {
        /// The server.
        server: String,
        /// The name.
        name: String,
        /// What it answered.
        answer: String,
    },
    /// A DNS provider's API refused, or did not answer.
    #[error("{provider} did not change {name} in zone {zone}: {said}; {next}")]
    Provider {
        /// Its word.
        provider: &'static str,
        /// The zone.
        zone: String,
        /// The record's name.
        name: String,
        /// Its words.
        said: Box<str>,
        /// What would be right.
        next: &'static str,
        /// Whether only a person can mend it.
        permanent: bool,
    },
    /// The user's own service refused, or did not answer.
    #[error("the dns-01 service {endpoint}{action} did not do it for {name}: {why}")]
    HttpReq {
        /// Where it is.
        endpoint: String,
        /// `present` or `cleanup`.
        action: &'static str,
        /// The record's name.
        name: String,
        /// What it said.
        why: String,
        /// Whether only a person can mend it.
        permanent: bool,
    },
    /// The settings of a solver cannot be used.
    #[error("{what}")]
    Settings {
        /// What is wrong and what would be right.
        what: String,
    },
    /// The user's program failed.
    #[error("the dns-01 hook `{program} {action}` for {name} failed: {why}")]
    Hook {
        /// The program.
        program: String,
        /// `present` or `cleanup`.
        action: &'static str,
        /// The record's name.
        name: String,
        /// Its status and last words.
        why: String,
    },
    /// Who shares the place with others could not have it to himself.
    #[error("cannot claim {record} among the managers: {why}")]
    Claim {
        /// The place.
        record: String,
        /// Why not.
        why: String,
    },
    /// A nameserver does not serve a record that was set.
    #[error("the nameserver {server} does not serve the TXT record of {name} after {} s (it answers {saw}); see whether the zone reaches it, or allow more time", waited.as_secs())]
    NotPropagated {
        /// The server.
        server: String,
        /// The record's name.
        name: String,
        /// What it answered last.
        saw: String,
        /// How long it was given.
        waited: Duration,
    },
}

impl SolverError {
    /// Whether only a person can mend it.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NoSolver { .. } | Self::Settings { .. } | Self::UpdateRefused { .. } | Self::NoZone { .. } => true,
            Self::Bucket { permanent, .. } | Self::Provider { permanent, .. } | Self::HttpReq { permanent, .. } => {
                *permanent
            }
            _ => false,
        }
    }
}
