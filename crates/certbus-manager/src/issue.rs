//! The flow from a request to a version on the log. Invariants 2 and 3: the order with its signing request and sealed
//! key is on `work` before any challenge is set up, and whoever finds it there finishes it.

mod failure;

use std::sync::Arc;
use std::time::Duration;

use certbus_acme::{
    Ca, CertificateKey, ChallengeHost, IssueError, Order, OrderRequest, OrderStatus, PlannedChallenge,
    ari_certificate_id,
};
use certbus_core::catalog::Version;
use certbus_core::crash::{self, Step};
use certbus_core::event::{
    CertificateObtained, CertificateOffered, CertificateRequested, Event, IssuanceClaimed, OrderEnded, OrderPlaced,
};
use certbus_core::id::{CertificateId, Hash, StreamKind};
use certbus_core::name::NameSet;
use certbus_core::plan::{self, Due};
use certbus_core::seal::{Purpose, SealedKey, seal};
use certbus_core::x509::ParsedChain;
use data_encoding::BASE64URL_NOPAD;

use crate::challenges::{OrderChallenges, planned};
use crate::clock;
use crate::issue::failure::is_spent;
use crate::issuers::Issuers;
use crate::issuing::wrong;
use crate::manager::{ManageError, Manager};
use crate::tenant::View;

/// How long a claim keeps other managers from starting the same work; while the work goes on, it is renewed at half of
/// that. It only saves work: two who go on with one order harm nothing (invariant 3).
const CLAIM: Duration = Duration::from_secs(60);

/// What a flow reports of itself while it runs, for people.
pub type Progress<'a> = &'a (dyn Fn(&str) + Send + Sync);

/// What was issued.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The managed certificate.
    pub certificate: CertificateId,
    /// The version.
    pub version: Hash,
    /// The names it covers.
    pub names: NameSet,
    /// When it expires.
    pub not_after: certbus_core::time::Timestamp,
    /// When it will be renewed.
    pub renewal: certbus_core::time::Timestamp,
}

/// What a claimed attempt goes on with: an order on the log, or none yet.
enum Start {
    Resume(Arc<OrderPlaced>),
    Order { replaces: Option<Arc<Version>> },
    Overtaken,
}

/// An order as the CA has it, and what an earlier process has left set up for it.
struct Open {
    order: Order,
    left: Vec<PlannedChallenge>,
}

/// What became of an order that was to be placed.
enum Placed {
    /// It is on the log, at this CA: this one, or one that another process placed meanwhile.
    Order(Arc<OrderPlaced>, Arc<Ca>, Box<Order>),
    /// Another process has issued meanwhile; this order and its key are dropped.
    Overtaken,
}

impl Manager {
    /// Issues a version of a managed certificate, whatever state an earlier attempt was left in.
    ///
    /// # Errors
    /// [`ManageError`]; the failure is on `work` with the time of the next attempt.
    pub async fn issue(&self, due: &Due, issuers: &Issuers, progress: Progress<'_>) -> Result<Outcome, ManageError> {
        let start = self.claim(due).await?;
        crash::at(Step::Claimed);
        let work = async {
            match start {
                Start::Resume(placed) => self.resume(due, issuers, placed, progress).await,
                Start::Order { replaces } => self.order(due, issuers, replaces, progress).await,
                Start::Overtaken => self.outcome(&due.request).await,
            }
        };
        let result = tokio::select! {
            result = work => result,
            never = self.hold_claim(due) => match never {},
        };
        let Err(error) = result else { return result };
        match self.fail(due, &error).await {
            // Somebody else has issued meanwhile: what went wrong here is of no account.
            Ok(true) => self.outcome(&due.request).await,
            Ok(false) => Err(error),
            Err(unkept) => {
                tracing::warn!(certificate = %due.request.certificate, "the failure could not be kept: {unkept}");
                // What went wrong first is what a person is told.
                Err(error)
            }
        }
    }

    async fn claim(&self, due: &Due) -> Result<Start, ManageError> {
        let id = due.request.certificate;
        let me = self.identity().name.clone();
        let (attempt, known, to_end) = (due.attempt, due.newest, due.order.clone());
        self.record_for(StreamKind::Work, id, move |view| {
            let now = clock::now();
            if view.certs.recipients().is_empty() {
                return Err(ManageError::NoRecipient);
            }
            if view.work.request(id).is_none() {
                return Err(ManageError::UnknownCertificate(id));
            }
            if let Some(claim) = view.work.claim(id, now).filter(|claim| claim.by != me) {
                return Err(ManageError::Claimed { id, by: claim.by.clone(), until: claim.until });
            }
            let newest = view.catalog.newest(id);
            let open = view.work.open_order(id).map(|open| &open.order);
            if newest.map(|version| version.fingerprint) != known || (to_end.is_some() && to_end.as_ref() != open) {
                return Ok((Vec::new(), Start::Overtaken));
            }
            let start = match view.work.open_order(id) {
                Some(order) => Start::Resume(order.clone()),
                None => Start::Order { replaces: newest.cloned() },
            };
            let (by, until) = (me.clone(), now.plus(CLAIM));
            Ok((vec![Event::IssuanceClaimed(IssuanceClaimed { certificate: id, attempt, by, until })], start))
        })
        .await
    }

    /// Renews the claim for as long as it is polled.
    async fn hold_claim(&self, due: &Due) -> std::convert::Infallible {
        let (id, attempt) = (due.request.certificate, due.attempt);
        loop {
            tokio::time::sleep(CLAIM / 2).await;
            let me = self.identity().name.clone();
            let held = self.record_for(StreamKind::Work, id, move |view| {
                let mine = view.work.claim(id, clock::now()).is_some_and(|claim| claim.by == me);
                let (by, until) = (me.clone(), clock::now().plus(CLAIM));
                let claim = Event::IssuanceClaimed(IssuanceClaimed { certificate: id, attempt, by, until });
                Ok((if mine { vec![claim] } else { Vec::new() }, ()))
            });
            if let Err(error) = held.await {
                tracing::debug!(certificate = %id, "the claim was not renewed: {error}");
            }
        }
    }

    /// Goes on with an order that an earlier attempt left on the log, at the CA and with the request of then.
    async fn resume(
        &self,
        due: &Due,
        issuers: &Issuers,
        placed: Arc<OrderPlaced>,
        progress: Progress<'_>,
    ) -> Result<Outcome, ManageError> {
        let id = placed.certificate;
        let obtained = version_of_order(&*self.view().await?, &placed);
        if let Some(version) = obtained {
            // It stopped after the last step but one: nothing is left to do but to say so.
            self.close(issuers, &placed, &planned(&placed), Some(version)).await?;
            let view = self.view().await?;
            let again = plan::due(&view.catalog, &view.work, &view.certs, &due.request, clock::now()).is_some();
            let replaces = view.catalog.newest(id).cloned();
            drop(view);
            return if again {
                self.order(due, issuers, replaces, progress).await
            } else {
                self.outcome(&due.request).await
            };
        }
        let Some(ca) = issuers.ca_of(&placed).await? else {
            // Whoever took that CA or account out of the settings has given the order up with it.
            tracing::warn!(certificate = %id, order = placed.order, "the order's CA or account is gone; ordering anew");
            self.close(issuers, &placed, &planned(&placed), None).await?;
            let replaces = self.view().await?.catalog.newest(id).cloned();
            return self.order(due, issuers, replaces, progress).await;
        };
        progress(&format!("resuming order {}", placed.order));
        match ca.resume(&placed.order, due.request.challenge).await {
            Ok(order) => {
                // What is set up anew is removed by who sets it up.
                let mut left = planned(&placed);
                left.retain(|one| !order.challenges.contains(one));
                self.finish(due, issuers, &ca, &placed, Open { order, left }, progress).await
            }
            Err(error) => {
                if is_spent(&error, 1) {
                    self.close(issuers, &placed, &planned(&placed), None).await?;
                }
                Err(error.into())
            }
        }
    }

    /// Ends an order. What an earlier process left set up for it is removed first, except what another open order needs
    /// (invariant 3): an order that is ended is looked at no more.
    async fn close(
        &self,
        issuers: &Issuers,
        placed: &Arc<OrderPlaced>,
        left: &[PlannedChallenge],
        version: Option<Hash>,
    ) -> Result<(), ManageError> {
        let challenges = OrderChallenges { manager: self, solvers: issuers.solvers(), placed };
        if let Err(error) = challenges.clean_up(left).await {
            tracing::warn!(certificate = %placed.certificate, "challenges left behind: {error}");
        }
        self.end_order(placed, version).await
    }

    /// Removes what an open order of this certificate has set up: for one that is given up.
    ///
    /// # Errors
    /// [`ManageError::Follow`].
    pub async fn clean_up(&self, id: CertificateId, issuers: &Issuers) -> Result<(), ManageError> {
        let open = self.view().await?.work.open_order(id).cloned();
        if let Some(placed) = open {
            self.close(issuers, &placed, &planned(&placed), None).await?;
        }
        Ok(())
    }

    /// Orders anew: at the first CA that issues it.
    async fn order(
        &self,
        due: &Due,
        issuers: &Issuers,
        replaces: Option<Arc<Version>>,
        progress: Progress<'_>,
    ) -> Result<Outcome, ManageError> {
        let mut names = issuers.settings().ca_names(due.request.ca.as_deref())?.into_iter().peekable();
        let mut failed = Vec::new();
        while let Some(name) = names.next() {
            match self.order_from(&name, due, issuers, replaces.clone(), progress).await {
                // An order that is still open may yet become a certificate: it is not given up for another CA.
                Err(error)
                    if names.peek().is_some()
                        && error.is_the_cas()
                        && self.view().await?.work.open_order(due.request.certificate).is_none() =>
                {
                    tracing::warn!(certificate = %due.request.certificate, "{name} does not issue: {error}");
                    progress(&format!("{name} does not issue: {error}"));
                    failed.push((name, error));
                }
                Err(error) if failed.is_empty() => return Err(error),
                Err(error) => {
                    failed.push((name, error));
                    return Err(ManageError::EveryCa(failed));
                }
                Ok(outcome) => return Ok(outcome),
            }
        }
        Err(ManageError::EveryCa(failed))
    }

    async fn order_from(
        &self,
        name: &str,
        due: &Due,
        issuers: &Issuers,
        replaces: Option<Arc<Version>>,
        progress: Progress<'_>,
    ) -> Result<Outcome, ManageError> {
        let ca = issuers.ca(name).await?;
        if let Ca::Acme(acme) = &*ca {
            let unanswered = issuers.caa().check(acme, &due.request.names, due.request.challenge).await?;
            if !unanswered.is_empty() {
                tracing::warn!("nobody answered who may sign for {}; ordering nevertheless", unanswered.join(", "));
            }
        }
        match self.place_order(due, issuers, (name, ca), replaces, progress).await? {
            Placed::Order(placed, ca, order) => {
                self.finish(due, issuers, &ca, &placed, Open { order: *order, left: Vec::new() }, progress).await
            }
            Placed::Overtaken => {
                progress("another process has issued it meanwhile");
                self.outcome(&due.request).await
            }
        }
    }

    /// From an order on the log to a version on the log.
    async fn finish(
        &self,
        due: &Due,
        issuers: &Issuers,
        ca: &Ca,
        placed: &Arc<OrderPlaced>,
        Open { order, left }: Open,
        progress: Progress<'_>,
    ) -> Result<Outcome, ManageError> {
        let csr = BASE64URL_NOPAD.decode(placed.csr.as_bytes()).unwrap_or_default();
        progress("proving control and finalizing");
        let challenges = OrderChallenges { manager: self, solvers: issuers.solvers(), placed };
        let issued = match ca.complete(order, &csr, &challenges, clock::now()).await {
            Ok(issued) => issued,
            Err(error) => {
                self.note_limit(&placed.ca, &error).await;
                let refused = matches!(&error, IssueError::Problem(problem) if problem.is_permanent());
                // Refused for good before it was finalized: the same request would be refused again.
                let unfinished = refused
                    && ca.resume(&placed.order, due.request.challenge).await.is_ok_and(|order| {
                        matches!(order.status, OrderStatus::Pending | OrderStatus::Ready | OrderStatus::Invalid)
                    });
                if unfinished || is_spent(&error, due.attempt.saturating_sub(placed.attempt) + 1) {
                    self.close(issuers, placed, &left, None).await?;
                }
                return Err(error.into());
            }
        };
        let chain = ParsedChain::parse(&issued.chain_pem)?;
        chain.check(placed.spki, &NameSet::new(&placed.names))?;
        let now = clock::now();
        if now < chain.not_before || now > chain.not_after {
            let (from, until) = (chain.not_before, chain.not_after);
            tracing::warn!(
                "{} was issued for {from} to {until}, and the clock here says {now}: look at it",
                chain.names
            );
        }
        crash::at(Step::Issued);
        self.publish(placed, &chain, issued.chain_pem.clone()).await?;
        crash::at(Step::Published);
        self.close(issuers, placed, &left, Some(chain.fingerprint)).await?;
        crash::at(Step::Ended);
        self.read_window(&due.request, ca, &issued.chain_pem, chain.fingerprint).await;
        self.outcome(&due.request).await
    }

    async fn outcome(&self, request: &CertificateRequested) -> Result<Outcome, ManageError> {
        let id = request.certificate;
        let view = self.view().await?;
        let version = view.catalog.newest(id).ok_or(ManageError::UnknownCertificate(id))?;
        Ok(Outcome {
            certificate: id,
            version: version.fingerprint,
            names: version.names.clone(),
            not_after: version.not_after,
            renewal: plan::renewal_point(version, view.work.window(id)),
        })
    }

    /// Orders, then writes the order with its signing request and sealed key: only then may anything be set up.
    async fn place_order(
        &self,
        due: &Due,
        issuers: &Issuers,
        (ca_name, ca): (&str, Arc<Ca>),
        replaces: Option<Arc<Version>>,
        progress: Progress<'_>,
    ) -> Result<Placed, ManageError> {
        let request = &due.request;
        let id = request.certificate;
        progress(&format!("ordering {} from {ca_name}", NameSet::new(&request.names)));
        let before = replaces.as_ref().map(|version| version.fingerprint);
        let replaces = match &replaces {
            None => None,
            Some(version) => {
                let view = self.view().await?;
                let obtained = self.tenant().obtained(&view, version).await?;
                obtained.and_then(|obtained| ari_certificate_id(&obtained.chain))
            }
        };
        let kind = request.key_type;
        // Keys, RSA ones above all, are made beside the executor, while the CA thinks.
        let key = tokio::task::spawn_blocking(move || CertificateKey::generate(kind));
        let wanted = OrderRequest {
            names: &request.names,
            challenge: request.challenge,
            profile: request.profile.as_deref(),
            replaces: replaces.as_deref(),
        };
        let order = match ca.new_order(&wanted).await {
            Ok(order) => order,
            Err(error) => {
                self.note_limit(ca_name, &error).await;
                return Err(error.into());
            }
        };
        let key = key.await.map_err(|_| ManageError::Stopped("making a key"))?.map_err(IssueError::Key)?;
        let spki = Hash::of(&key.spki_der());
        let csr = BASE64URL_NOPAD.encode(&key.csr(&request.names).map_err(IssueError::Key)?);
        let account = match &*ca {
            Ca::Internal(_) => String::new(),
            Ca::Acme(acme) => acme.account_url().to_owned(),
        };
        let tenant = self.tenant().name.clone();
        let (ca_name, url) = (ca_name.to_owned(), order.url.clone());
        let (names, attempt, reason) = (request.names.clone(), due.attempt, due.reason);
        let challenges: Vec<_> = order.challenges.iter().filter_map(|c| serde_json::to_value(c).ok()).collect();
        crash::at(Step::Ordered);
        let decide = move |view: &View| {
            if view.work.request(id).is_none() {
                return Err(ManageError::UnknownCertificate(id));
            }
            if view.catalog.newest(id).map(|version| version.fingerprint) != before {
                return Ok((Vec::new(), None));
            }
            // Another process placed one meanwhile, or the CA gave both the same: what is on the log counts, and this
            // key is dropped.
            if let Some(open) = view.work.open_order(id) {
                return Ok((Vec::new(), Some(open.clone())));
            }
            let ring = view.certs.current_ring().ok_or(ManageError::NoRecipient)?;
            let purpose = Purpose::CertificateKey { tenant: &tenant, ring: ring.id, certificate: id, spki };
            let sealed = seal(&ring.public, purpose, key.pkcs8_der())?;
            let placed = Arc::new(OrderPlaced {
                certificate: id,
                attempt,
                reason,
                ca: ca_name.clone(),
                account: account.clone(),
                order: url.clone(),
                names: names.clone(),
                csr: csr.clone(),
                spki,
                key: SealedKey { ring: ring.id, sealed },
                challenges: challenges.clone(),
            });
            Ok((vec![Event::OrderPlaced(placed.clone())], Some(placed)))
        };
        let Some(placed) = self.record_for(StreamKind::Work, id, decide).await? else {
            return Ok(Placed::Overtaken);
        };
        crash::at(Step::Placed);
        if placed.order == order.url {
            return Ok(Placed::Order(placed, ca, Box::new(order)));
        }
        // Another manager's may be at another CA.
        let gone = || wrong(format!("the order {} is of a CA or account that is gone", placed.order));
        let ca = issuers.ca_of(&placed).await?.ok_or_else(gone)?;
        let order = ca.resume(&placed.order, request.challenge).await?;
        Ok(Placed::Order(placed, ca, Box::new(order)))
    }

    /// Writes what was obtained, once, and offers it to all.
    async fn publish(&self, placed: &Arc<OrderPlaced>, chain: &ParsedChain, pem: String) -> Result<(), ManageError> {
        let id = placed.certificate;
        let obtained = Arc::new(CertificateObtained {
            certificate: id,
            version: chain.fingerprint,
            reason: placed.reason,
            names: chain.names.names(),
            not_before: chain.not_before,
            not_after: chain.not_after,
            chain: pem,
            spki: chain.spki,
            key: placed.key.clone(),
        });
        let (placed, version) = (placed.clone(), chain.fingerprint);
        self.record_for(StreamKind::Certs, id, move |view| {
            if view.work.request(id).is_none() {
                return Err(ManageError::UnknownCertificate(id));
            }
            // One order has one key: whoever finished it first has written its version.
            if version_of_order(view, &placed).is_some() {
                return Ok((Vec::new(), ()));
            }
            let offered = CertificateOffered { certificate: id, version, to: None };
            Ok((vec![Event::CertificateObtained(obtained.clone()), Event::CertificateOffered(offered)], ()))
        })
        .await?;
        // The two streams move apart: it may have been removed while this was written.
        if self.view().await?.work.request(id).is_none() {
            self.remove(id).await?;
            return Err(ManageError::UnknownCertificate(id));
        }
        Ok(())
    }

    async fn end_order(&self, placed: &OrderPlaced, version: Option<Hash>) -> Result<(), ManageError> {
        let (certificate, order) = (placed.certificate, placed.order.clone());
        self.record_for(StreamKind::Work, certificate, move |view| {
            let open = view.work.open_order(certificate).is_some_and(|open| open.order == order);
            let ended = OrderEnded { certificate, order: order.clone(), version };
            Ok((if open { vec![Event::OrderEnded(ended)] } else { Vec::new() }, ()))
        })
        .await
    }
}

/// A renewal that a person asks for: due now, whatever the clock says.
///
/// # Errors
/// [`ManageError::UnknownCertificate`].
pub fn on_demand(view: &View, id: CertificateId) -> Result<Due, ManageError> {
    let request = view.work.request(id).ok_or(ManageError::UnknownCertificate(id))?;
    Ok(plan::on_demand(&view.catalog, &view.work, &view.certs, request, clock::now()))
}

/// The version that an order ended in, if it is on `certs`: it has the order's key.
fn version_of_order(view: &View, placed: &OrderPlaced) -> Option<Hash> {
    let timeline = view.catalog.timeline(placed.certificate)?;
    timeline.iter().find(|known| known.version.spki == placed.spki).map(|known| known.version.fingerprint)
}
