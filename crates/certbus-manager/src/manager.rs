//! A manager at work on one tenant: the only place that appends. Several may run at once; the log decides.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certbus_acme::IssueError;
use certbus_bus::follow::FollowError;
use certbus_bus::log::AppendError;
use certbus_bus::write;
use certbus_core::authority::AuthorityError;
use certbus_core::batch::{Batch, Draft};
use certbus_core::crash::{self, Step};
use certbus_core::event::{ALIVE_EVERY, CertificateRemoved, CertificateRequested, ConfigUpdated, Event};
use certbus_core::id::{CertificateId, StreamKind};
use certbus_core::identity::Identity;
use certbus_core::key::SigningKey;
use certbus_core::name::{DnsName, NameSet};
use certbus_core::seal::{SealError, SealedText};
use certbus_core::snapshot::Manifest;
use certbus_core::time::Timestamp;
use certbus_core::x509::ChainPemError;
use tokio::sync::Mutex;

use crate::appender::{self, Appender, Scope};
use crate::clock;
use crate::issuing::{Issuing, SettingsError};
use crate::tenant::{Tenant, View};

/// How often a decision is taken again because somebody else was first.
pub(crate) const CONFLICTS: u32 = 50;

/// A manager.
#[derive(Debug)]
pub struct Manager {
    writer: Arc<Writer>,
    appender: Appender,
}

/// What reads the streams of a tenant and signs batches for them.
#[derive(Debug)]
pub(crate) struct Writer {
    tenant: Tenant,
    identity: Identity,
    source: String,
    view: Mutex<View>,
}

/// Why a manager's flow did not end well.
#[derive(Debug, thiserror::Error)]
pub enum ManageError {
    /// A stream could not be read.
    #[error(transparent)]
    Follow(#[from] FollowError),
    /// A batch could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The authority cannot say that.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// Something does not open or seal.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// The issuing settings.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The CA or a solver.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// A CA could not be connected to: the same answer for everybody who needs it.
    #[error(transparent)]
    Connect(Arc<ManageError>),
    /// No CA issued it.
    #[error("{}", every_ca(.0, ToString::to_string))]
    EveryCa(Vec<(String, ManageError)>),
    /// What the CA issued does not hold.
    #[error("what the CA issued is not what was ordered: {0}")]
    BadChain(#[from] ChainPemError),
    /// This identity is not admitted, or not any more.
    #[error(
        "the manager identity `{0}` may not write this log: it was never admitted or is retired; let the owner run \
         `certbus manager add`"
    )]
    NotAdmitted(String),
    /// Nobody could open what would be issued.
    #[error(
        "there is no recipient to seal a private key to (besides recovery): add one with `certbus recipient add NAME`"
    )]
    NoRecipient,
    /// No such managed certificate.
    #[error("there is no managed certificate {0}; `certbus cert ls` lists them")]
    UnknownCertificate(CertificateId),
    /// Another manager is at it.
    #[error("{id} is being issued by `{by}` until {until}")]
    Claimed {
        /// Which.
        id: CertificateId,
        /// Whose claim.
        by: String,
        /// How long it stands.
        until: Timestamp,
    },
    /// The CA has said, of another order, that it takes none of this account.
    #[error("{ca} takes no orders of this account before {until} (rateLimited); it is tried again by itself then")]
    Limited {
        /// Its name in the issuing settings.
        ca: String,
        /// Until then.
        until: Timestamp,
    },
    /// Somebody else changed the issuing settings.
    #[error("the issuing settings were changed by somebody else meanwhile; look at them and try again")]
    ChangedMeanwhile,
    /// A manager cannot carry its own retirement.
    #[error("this is the manager to be retired: let another one carry it (`--config` or `--data` of that one)")]
    RetiringOneself,
    /// Others were first too many times.
    #[error("the log moved on {CONFLICTS} times while this was being written; try again")]
    Busy,
    /// The work was cancelled inside this process.
    #[error("stopped while {0}")]
    Stopped(&'static str),
}

/// What each of several CAs said, in one line.
pub(crate) fn every_ca(errors: &[(String, ManageError)], words: impl Fn(&ManageError) -> String) -> String {
    errors.iter().map(|(ca, error)| format!("{ca}: {}", words(error))).collect::<Vec<_>>().join("; ")
}

impl ManageError {
    /// How long who refused asks to wait. Of several CAs, the one that asks for the least counts.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Issue(error) => error.retry_after(),
            Self::Connect(error) => error.retry_after(),
            Self::EveryCa(errors) => {
                errors.iter().map(|(_, e)| e.retry_after()).min_by_key(|w| w.unwrap_or_default())?
            }
            _ => None,
        }
    }

    /// The name whose control could not be shown, if that was it.
    pub(crate) fn failed_name(&self) -> Option<&DnsName> {
        match self {
            Self::Issue(IssueError::ChallengeFailed { name, .. }) => Some(name),
            Self::EveryCa(errors) => errors.iter().find_map(|(_, error)| error.failed_name()),
            _ => None,
        }
    }

    /// Whether another CA may do better: not where this machine or the settings are at fault.
    pub(crate) fn is_the_cas(&self) -> bool {
        match self {
            Self::Issue(IssueError::Solver(_) | IssueError::Key(_)) => false,
            Self::Issue(_) | Self::BadChain(_) => true,
            Self::Connect(error) => error.is_the_cas(),
            _ => false,
        }
    }
}

impl Manager {
    /// Loads both streams and makes sure that this identity may write.
    ///
    /// # Errors
    /// [`ManageError::NotAdmitted`], [`ManageError::Follow`].
    pub async fn open(tenant: Tenant, identity: Identity, source: &str) -> Result<Self, ManageError> {
        let view = tenant.load().await?;
        let key = identity.sign.as_ref().map(SigningKey::public);
        if !view.certs.writers().any(|w| Some(w.key) == key) {
            return Err(ManageError::NotAdmitted(identity.name));
        }
        let writer = Arc::new(Writer { tenant, identity, source: source.to_owned(), view: Mutex::new(view) });
        let this = Self { appender: Appender::start(writer.clone()), writer };
        this.carry_statements().await?;
        Ok(this)
    }

    /// The tenant it works on.
    pub fn tenant(&self) -> &Tenant {
        &self.writer.tenant
    }

    /// Whose name its acts bear.
    pub(crate) fn identity(&self) -> &Identity {
        &self.writer.identity
    }

    /// Reads on to both heads and shows what is known.
    ///
    /// # Errors
    /// [`ManageError::Follow`].
    pub async fn view(&self) -> Result<tokio::sync::MutexGuard<'_, View>, ManageError> {
        self.writer.view().await
    }

    /// As [`Manager::record`], for a decision that reads and says things about one managed certificate only (beside
    /// what the owner says): it shares its batch with those about others that come at the same time.
    ///
    /// # Errors
    /// As [`Manager::record`].
    pub(crate) async fn record_for<T: Send + 'static>(
        &self,
        kind: StreamKind,
        certificate: CertificateId,
        decide: impl FnMut(&View) -> Result<(Vec<Event>, T), ManageError> + Send + 'static,
    ) -> Result<T, ManageError> {
        self.record_about(kind, Scope::Certificate(certificate), decide).await
    }

    /// As [`Manager::record_for`], about whatever is in scope.
    ///
    /// # Errors
    /// As [`Manager::record`].
    pub(crate) async fn record_about<T: Send + 'static>(
        &self,
        kind: StreamKind,
        scope: Scope,
        decide: impl FnMut(&View) -> Result<(Vec<Event>, T), ManageError> + Send + 'static,
    ) -> Result<T, ManageError> {
        self.appender.record(kind, scope, decide).await
    }

    /// Decides and appends, again and again until nobody was in between. `decide` sees a view at the head; what it
    /// returns beside the events is handed on.
    ///
    /// # Errors
    /// What `decide` says; [`ManageError::Append`]; [`ManageError::Busy`].
    pub async fn record<T>(
        &self,
        kind: StreamKind,
        mut decide: impl FnMut(&View) -> Result<(Vec<Event>, T), ManageError>,
    ) -> Result<T, ManageError> {
        for _ in 0..CONFLICTS {
            let mut view = self.view().await?;
            let (events, value) = decide(&view)?;
            if events.is_empty() {
                return Ok(value);
            }
            match self.writer.append(&mut view, kind, events).await {
                Err(ManageError::Append(AppendError::Conflict { .. })) => {
                    drop(view);
                    appender::step_back().await;
                }
                other => return other.map(|()| value),
            }
        }
        Err(ManageError::Busy)
    }

    /// Carries statements that only one of the streams has to the other.
    pub(crate) async fn carry_statements(&self) -> Result<(), ManageError> {
        for kind in StreamKind::ALL {
            self.record(kind, |view| {
                let missing = view.missing_statements().filter(|(lacking, _)| *lacking == kind);
                let events = missing.map(|(_, rest)| rest.into_iter().map(Event::Statement).collect());
                Ok((events.unwrap_or_default(), ()))
            })
            .await?;
        }
        Ok(())
    }

    /// The managed certificate for exactly these names: the one that is there, or a new one. True if it is new.
    ///
    /// # Errors
    /// [`ManageError`].
    pub async fn request(&self, wanted: &CertificateRequested) -> Result<(CertificateId, bool), ManageError> {
        let names = NameSet::new(&wanted.names);
        self.record(StreamKind::Work, |view| match view.work.requested_for(&names) {
            Some(existing) => Ok((Vec::new(), (existing.certificate, false))),
            None => Ok((vec![Event::CertificateRequested(wanted.clone())], (wanted.certificate, true))),
        })
        .await
    }

    /// As [`Manager::request`] for many, in as few batches as hold them.
    ///
    /// # Errors
    /// [`ManageError`].
    pub async fn request_all(&self, wanted: Vec<CertificateRequested>) -> Result<Vec<CertificateId>, ManageError> {
        let mut ids = Vec::with_capacity(wanted.len());
        let mut rest = wanted.as_slice();
        while !rest.is_empty() {
            let mut size = 0;
            let fits = |one: &&CertificateRequested| {
                size += appender::size_of(&Event::CertificateRequested((*one).clone()));
                size <= appender::EVENTS_OF_A_BATCH
            };
            let (some, later) = rest.split_at(rest.iter().take_while(fits).count().max(1));
            rest = later;
            let more = self.record(StreamKind::Work, |view| {
                let (mut events, mut ids) = (Vec::new(), Vec::new());
                let mut new: HashMap<NameSet, CertificateId> = HashMap::new();
                let known: HashMap<NameSet, CertificateId> =
                    view.work.requests().into_iter().map(|r| (NameSet::new(&r.names), r.certificate)).collect();
                for one in some {
                    let names = NameSet::new(&one.names);
                    let id = known.get(&names).or_else(|| new.get(&names)).copied();
                    ids.push(id.unwrap_or_else(|| {
                        events.push(Event::CertificateRequested(one.clone()));
                        new.insert(names, one.certificate);
                        one.certificate
                    }));
                }
                Ok((events, ids))
            });
            ids.extend(more.await?);
        }
        Ok(ids)
    }

    /// Ends a managed certificate: it is renewed no more, and load balancers stop serving it. `work` is told first, so
    /// that who publishes at the same time sees it.
    ///
    /// # Errors
    /// [`ManageError::UnknownCertificate`].
    pub async fn remove(&self, id: CertificateId) -> Result<(), ManageError> {
        let said = move |there: bool| {
            let removed = Event::CertificateRemoved(CertificateRemoved { certificate: id });
            (if there { vec![removed] } else { Vec::new() }, there)
        };
        let wanted = move |view: &View| Ok(said(view.work.request(id).is_some()));
        let wanted = self.record_for(StreamKind::Work, id, wanted).await?;
        let served = move |view: &View| Ok(said(view.catalog.timeline(id).is_some()));
        let served = self.record_for(StreamKind::Certs, id, served).await?;
        if wanted || served { Ok(()) } else { Err(ManageError::UnknownCertificate(id)) }
    }

    /// The issuing settings: those on the log, or the empty ones before the first.
    ///
    /// # Errors
    /// [`ManageError::Seal`] if this identity was not among those they were sealed to; [`ManageError::Settings`].
    pub async fn settings(&self) -> Result<Issuing, ManageError> {
        self.settings_of(&*self.view().await?)
    }

    fn settings_of(&self, view: &View) -> Result<Issuing, ManageError> {
        let Some(config) = view.work.config() else {
            return Ok(Issuing::default());
        };
        let text = config.config.open(&self.tenant().name, &self.identity().open)?;
        Ok(Issuing::parse(&text)?)
    }

    /// Seals new issuing settings to every manager and to recovery, in place of `before`.
    ///
    /// # Errors
    /// [`ManageError::ChangedMeanwhile`] if the settings are not `before` any more.
    pub async fn set_settings(&self, before: &Issuing, after: &Issuing) -> Result<(), ManageError> {
        let text = after.to_toml();
        self.record(StreamKind::Work, |view| {
            if self.settings_of(view)? != *before {
                return Err(ManageError::ChangedMeanwhile);
            }
            Ok((vec![self.sealed(view, &text)?], ()))
        })
        .await
    }

    /// Seals issuing settings that this manager could not open.
    pub(crate) async fn seal_settings(&self, text: &str) -> Result<(), ManageError> {
        self.record(StreamKind::Work, |view| Ok((vec![self.sealed(view, text)?], ()))).await
    }

    fn sealed(&self, view: &View, text: &str) -> Result<Event, ManageError> {
        let holders: Vec<_> = view.works.writers().map(|w| w.open).chain(view.works.recovery()).collect();
        let config = SealedText::seal(&self.tenant().name, text, &holders)?;
        Ok(Event::ConfigUpdated(ConfigUpdated { config }))
    }

    /// Says `Alive` on `certs` if nobody has written there for [`ALIVE_EVERY`].
    ///
    /// # Errors
    /// [`ManageError`].
    pub async fn say_alive(&self) -> Result<bool, ManageError> {
        self.record(StreamKind::Certs, |view| {
            let quiet = view.certs.last_time().plus(ALIVE_EVERY) < clock::now();
            Ok((if quiet { vec![Event::Alive] } else { Vec::new() }, quiet))
        })
        .await
    }

    /// How many batches of `certs` or `work`, whichever has more, came after its newest snapshot.
    ///
    /// # Errors
    /// [`ManageError::Follow`].
    pub async fn batches_since_snapshot(&self) -> Result<u64, ManageError> {
        let heads = {
            let view = self.view().await?;
            StreamKind::ALL.map(|kind| (kind, view.chain(kind).cursor().seq))
        };
        let mut most = 0;
        for (kind, head) in heads {
            let manifest = self.tenant().stream(kind).snapshots.manifest().await.map_err(FollowError::Log)?;
            let through = manifest.and_then(|text| Manifest::parse(&text).ok()).map_or(0, |m| m.cursor.seq);
            most = most.max(head.saturating_sub(through));
        }
        Ok(most)
    }

    /// Writes snapshots of both streams, for whoever starts next.
    ///
    /// # Errors
    /// [`ManageError`].
    pub async fn publish_snapshots(&self) -> Result<(), ManageError> {
        let not_admitted = || ManageError::NotAdmitted(self.identity().name.clone());
        let key = self.identity().sign.as_ref().ok_or_else(not_admitted)?;
        for kind in StreamKind::ALL {
            let stream = self.tenant().stream(kind);
            let start = certbus_core::chain::Chain::new(kind, self.tenant().pins.clone());
            certbus_bus::compact::publish(&*stream.log, &*stream.snapshots, start, key, clock::now()).await?;
        }
        Ok(())
    }
}

impl Writer {
    pub(crate) async fn view(&self) -> Result<tokio::sync::MutexGuard<'_, View>, ManageError> {
        let asked = Instant::now();
        let mut view = self.view.lock().await;
        // Who waited while another read need not read again: that reading began after he asked.
        if view.read_at.is_none_or(|begun| begun < asked) {
            let begun = Instant::now();
            // A reading that fails or is given up in between has read one stream and not the other: nobody may rely on it.
            view.read_at = None;
            self.tenant.refresh(&mut view).await?;
            view.read_at = Some(begun);
        }
        Ok(view)
    }

    pub(crate) async fn append(
        &self,
        view: &mut View,
        kind: StreamKind,
        events: Vec<Event>,
    ) -> Result<(), ManageError> {
        let not_admitted = || ManageError::NotAdmitted(self.identity.name.clone());
        let key = self.identity.sign.as_ref().ok_or_else(not_admitted)?;
        let chain = view.chain(kind);
        let draft = Draft {
            log: chain.log().or(view.certs.log()).ok_or_else(not_admitted)?,
            stream: kind,
            id: clock::batch_id(),
            time: clock::now(),
            actor: format!("manager:{}", self.identity.name),
            source: self.source.clone(),
            events,
        };
        let batch = Batch::sign(draft, chain.cursor(), key);
        // What readers would refuse is never written: it would halt them all.
        let mut after = chain.clone();
        let events = after.accept(&batch).map_err(FollowError::Chain)?;
        crash::at(Step::Appending);
        let batch = write::append_batch(&*self.tenant.stream(kind).log, chain.cursor(), batch).await?;
        crash::at(Step::Appended);
        view.take_in(after, &batch, &events);
        Ok(())
    }
}
