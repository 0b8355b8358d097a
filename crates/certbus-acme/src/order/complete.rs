//! From a placed order to its certificate, from whatever status it is found in (RFC 8555 section 7.4). It makes no
//! key and no signing request: an order may be finalized by another process with the same ones.

use std::time::{Duration, Instant};

use certbus_core::crash::{self, Step};
use certbus_core::spec::Challenge;
use instant_acme::{AuthorizationStatus, ChallengeStatus, RetryPolicy};

use crate::account::AcmeCa;
use crate::ca::{Issued, OrderStatus, PlannedChallenge};
use crate::chain;
use crate::error::{IssueError, Problem, from_acme};
use crate::key::read_csr;
use crate::nonce::{is_bad_nonce, with_nonce};
use crate::order::{dns_name, kind, read_authorizations};
use crate::solver::ChallengeHost;

/// All of an order's completion, propagation included.
const COMPLETE_WITHIN: Duration = Duration::from_secs(300);

/// Quick at first: most CAs are done within a second. Both follow Retry-After, and are short: another process may have
/// brought the order further than to where the library waits for.
const QUICK: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_millis(30)).backoff(1.6).timeout(Duration::from_millis(1500));
const PATIENT: RetryPolicy =
    RetryPolicy::new().initial_delay(Duration::from_secs(1)).backoff(1.5).timeout(Duration::from_secs(5));

impl AcmeCa {
    pub(crate) async fn complete(
        &self,
        mut order: instant_acme::Order,
        planned: &[PlannedChallenge],
        csr_der: &[u8],
        host: &dyn ChallengeHost,
    ) -> Result<Issued, IssueError> {
        let request = read_csr(csr_der)?;
        let mut set_up = Vec::new();
        let driven = self.drive(&mut order, planned, csr_der, host, &mut set_up);
        let outcome = tokio::time::timeout(COMPLETE_WITHIN, driven).await;
        crash::at(Step::CleaningUp);
        if let Err(error) = host.clean_up(&set_up).await {
            // The certificate matters more; the caller has the plan on its log and can clean up again.
            tracing::warn!(order = order.url(), %error, "a challenge could not be removed");
        }
        crash::at(Step::CleanedUp);
        let chain_pem = outcome.map_err(|_| IssueError::Timeout {
            what: format!("completing the order {}", order.url()),
            after: COMPLETE_WITHIN,
        })??;
        chain::check(&chain_pem, &request)?;
        Ok(Issued { chain_pem })
    }

    async fn drive(
        &self,
        order: &mut instant_acme::Order,
        planned: &[PlannedChallenge],
        csr_der: &[u8],
        host: &dyn ChallengeHost,
        set_up: &mut Vec<PlannedChallenge>,
    ) -> Result<String, IssueError> {
        let url = order.url().to_owned();
        let (mut told, mut finalized, mut polls) = (false, false, 0_u32);
        let mut since = Instant::now();
        loop {
            let pace = if polls < 2 { &QUICK } else { &PATIENT };
            let step = match order.state().status.into() {
                OrderStatus::Pending => {
                    if told {
                        if polls == 0 {
                            tokio::time::sleep(self.validated.first()).await;
                        }
                        polls += 1;
                        order.poll_ready(pace).await.map(|_| ())
                    } else {
                        if set_up.is_empty() {
                            for challenge in planned {
                                crash::at(Step::SettingUp);
                                set_up.push(challenge.clone());
                                host.present(challenge).await?;
                                crash::at(Step::SetUp);
                            }
                            host.wait_until_visible(planned).await?;
                            crash::at(Step::Visible);
                        }
                        let telling = tell(order, planned).await;
                        crash::at(Step::Told);
                        since = Instant::now();
                        told = telling.is_ok() || self.is_told(&url, planned).await;
                        if told { Ok(()) } else { telling }
                    }
                }
                OrderStatus::Ready if !finalized => {
                    if told {
                        self.validated.took(since.elapsed());
                    }
                    crash::at(Step::Finalizing);
                    let sent = with_nonce!(order.finalize_csr(csr_der));
                    crash::at(Step::Finalized);
                    (finalized, polls, since) = (sent.is_ok(), 0, Instant::now());
                    sent
                }
                OrderStatus::Ready | OrderStatus::Processing => {
                    // One that was found like this was finalized who knows when.
                    if finalized && polls == 0 {
                        tokio::time::sleep(self.signed.first()).await;
                    }
                    polls += 1;
                    match order.poll_certificate(pace).await {
                        Ok(chain) => {
                            if finalized {
                                self.signed.took(since.elapsed());
                            }
                            return Ok(chain);
                        }
                        Err(error) => Err(error),
                    }
                }
                OrderStatus::Valid => {
                    if finalized {
                        self.signed.took(since.elapsed());
                    }
                    let chain = with_nonce!(order.certificate()).map_err(|error| from_acme(&url, error))?;
                    return chain.ok_or_else(|| IssueError::NotAcme {
                        url,
                        status: None,
                        what: "a valid order without certificate".into(),
                    });
                }
                OrderStatus::Invalid => return Err(self.why_invalid(&url).await),
            };
            if let Err(error) = step {
                self.overcome(order, error).await?;
            }
        }
    }

    /// After a step that failed: waits and refreshes where going on makes sense, else says what is wrong.
    async fn overcome(&self, order: &mut instant_acme::Order, error: instant_acme::Error) -> Result<(), IssueError> {
        let url = order.url().to_owned();
        let fatal = match error {
            instant_acme::Error::Timeout(Some(until)) => {
                tokio::time::sleep_until(until.into()).await;
                None
            }
            instant_acme::Error::Timeout(None) => None,
            error if is_bad_nonce(&error) => None,
            error => match from_acme(&url, error) {
                // Someone else may have finalized it, or the CA is not as far as it said.
                IssueError::Problem(problem) if problem.kind == "orderNotReady" => {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    None
                }
                other => Some(other),
            },
        };
        let refreshed = with_nonce!(async { order.refresh().await.map(|_| ()) });
        match (fatal, refreshed) {
            // The loop will say why.
            (Some(_), Ok(())) if OrderStatus::from(order.state().status) == OrderStatus::Invalid => Ok(()),
            (Some(error), _) => Err(error),
            (None, refreshed) => refreshed.map_err(|error| from_acme(&url, error)),
        }
    }

    /// Whether another process, which goes on with the same order, has told the CA meanwhile.
    async fn is_told(&self, url: &str, planned: &[PlannedChallenge]) -> bool {
        let Ok(mut order) = with_nonce!(self.account.order(url.to_owned())) else { return false };
        if with_nonce!(read_authorizations(&mut order)).is_err() {
            return false;
        }
        let mut authorizations = order.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            let waits = |offered: &instant_acme::Challenge| {
                offered.status == ChallengeStatus::Pending && planned.iter().any(|plan| plan.token == offered.token)
            };
            if authorization.status == AuthorizationStatus::Pending && authorization.challenges.iter().any(waits) {
                return false;
            }
        }
        true
    }

    /// Finds the challenge that failed, and else the order's own problem.
    async fn why_invalid(&self, url: &str) -> IssueError {
        let spent = |why: String| IssueError::OrderInvalid { url: url.to_owned(), why };
        let mut order = match with_nonce!(self.account.order(url.to_owned())) {
            Ok(order) => order,
            Err(error) => return spent(from_acme(url, error).to_string()),
        };
        if let Err(error) = with_nonce!(read_authorizations(&mut order)) {
            return spent(from_acme(url, error).to_string());
        }
        let mut authorizations = order.authorizations();
        while let Some(Ok(authorization)) = authorizations.next().await {
            let Ok(name) = dns_name(url, authorization.identifier().identifier) else {
                continue;
            };
            for challenge in [Challenge::Dns01, Challenge::Http01] {
                let tried = authorization.challenges.iter().find(|offered| offered.r#type == kind(challenge));
                if let Some(problem) = tried.and_then(|tried| tried.error.clone()) {
                    return IssueError::ChallengeFailed { name, challenge, problem: problem.into() };
                }
            }
        }
        spent(match &order.state().error {
            Some(problem) => Problem::from(problem.clone()).to_string(),
            None => "the CA does not say why".into(),
        })
    }
}

/// Tells the CA that the planned challenges can be looked at.
async fn tell(order: &mut instant_acme::Order, planned: &[PlannedChallenge]) -> Result<(), instant_acme::Error> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let is_planned = |offered: &&instant_acme::Challenge| {
            planned.iter().any(|plan| plan.token == offered.token && kind(plan.challenge) == offered.r#type)
        };
        let Some(offered) = authorization.challenges.iter().find(is_planned).map(|offered| offered.r#type.clone())
        else {
            continue;
        };
        if let Some(mut challenge) = authorization.challenge(offered)
            && challenge.status == ChallengeStatus::Pending
        {
            with_nonce!(challenge.set_ready())?;
        }
    }
    Ok(())
}
