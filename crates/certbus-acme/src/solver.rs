//! Showing control of a name: what is set up, seen, and removed again, for each kind of challenge (RFC 8555 section
//! 8). It knows no order: only responses, and how many in this process need each.

pub mod bucket;
pub mod dns01;
pub mod http01;
pub(crate) mod ledger;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use certbus_core::spec::Challenge;
use futures::future::{BoxFuture, try_join_all};

use crate::ca::PlannedChallenge;
use crate::solver::dns01::Dns01;
use crate::solver::http01::Http01;

/// The ways of this process to meet challenges. One value per process: it counts who needs what.
#[derive(Debug, Default)]
pub struct Solvers {
    /// For HTTP-01.
    pub http01: Option<Http01>,
    /// For DNS-01.
    pub dns01: Option<Dns01>,
}

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
        "the DNS server {server} refused to update {name} in zone {zone}: {answer}; check key, algorithm and the server's update policy"
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

/// Who sets challenges up for an order: the solvers of this process, or one who shares their places with others.
pub trait ChallengeHost: Send + Sync {
    /// Sets one response up.
    ///
    /// # Errors
    /// [`SolverError`] naming server, address, file or program.
    fn present<'a>(&'a self, planned: &'a PlannedChallenge) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Waits until the CA can see the responses.
    ///
    /// # Errors
    /// [`SolverError::NotPropagated`] naming the server that does not serve one.
    fn wait_until_visible<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>>;

    /// Removes responses, except those that another order needs. Removing what is not there is fine.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    fn clean_up<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>>;
}

impl ChallengeHost for Solvers {
    fn present<'a>(&'a self, planned: &'a PlannedChallenge) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(Self::present(self, planned))
    }

    fn wait_until_visible<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(Self::wait_until_visible(self, planned))
    }

    fn clean_up<'a>(&'a self, planned: &'a [PlannedChallenge]) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(Self::clean_up(self, planned))
    }
}

impl Solvers {
    /// Whether other processes may set responses up in the same place: all do but a listener of our own.
    pub fn is_shared(&self, planned: &PlannedChallenge) -> bool {
        planned.challenge == Challenge::Dns01 || !matches!(self.http01, Some(Http01::Listen(_)))
    }

    /// Sets one response up.
    ///
    /// # Errors
    /// [`SolverError`] naming server, address, file or program.
    pub async fn present(&self, planned: &PlannedChallenge) -> Result<(), SolverError> {
        match planned.challenge {
            Challenge::Http01 => self.http01()?.present(planned).await,
            Challenge::Dns01 => self.dns01()?.present(planned).await,
        }
    }

    /// Waits until the CA can see the responses.
    ///
    /// # Errors
    /// [`SolverError::NotPropagated`] naming the server that does not serve one.
    pub async fn wait_until_visible(&self, planned: &[PlannedChallenge]) -> Result<(), SolverError> {
        let by_dns = planned.iter().filter(|plan| plan.challenge == Challenge::Dns01);
        try_join_all(by_dns.map(async |plan| self.dns01()?.wait_until_visible(plan).await)).await?;
        Ok(())
    }

    /// Removes responses, except those that another order of this process needs. Removing what is not there is fine.
    ///
    /// # Errors
    /// The first failure, after all were tried.
    pub async fn clean_up(&self, planned: &[PlannedChallenge]) -> Result<(), SolverError> {
        let mut outcome = Ok(());
        for plan in planned {
            let removed = match plan.challenge {
                Challenge::Http01 => match self.http01() {
                    Ok(solver) => solver.remove(plan).await,
                    Err(error) => Err(error),
                },
                Challenge::Dns01 => match self.dns01() {
                    Ok(solver) => solver.remove(plan).await,
                    Err(error) => Err(error),
                },
            };
            outcome = outcome.and(removed);
        }
        outcome
    }

    fn http01(&self) -> Result<&Http01, SolverError> {
        self.http01.as_ref().ok_or(SolverError::NoSolver { challenge: Challenge::Http01 })
    }

    fn dns01(&self) -> Result<&Dns01, SolverError> {
        self.dns01.as_ref().ok_or(SolverError::NoSolver { challenge: Challenge::Dns01 })
    }
}
