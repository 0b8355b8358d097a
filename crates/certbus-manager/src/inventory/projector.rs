//! Brings the inventory in line with the log: what was obtained, offered and removed. It verifies every batch, as every
//! reader does, and may be run by several processes at once.

use std::collections::BTreeSet;
use std::time::Duration;

use certbus_bus::follow::{FollowError, catch_up, load};
use certbus_bus::log::LogError;
use certbus_core::batch::Batch;
use certbus_core::catalog::{Place, Version};
use certbus_core::chain::Chain;
use certbus_core::event::{Event, Reason};
use certbus_core::id::{CertificateId, Cursor, StreamKind};
use certbus_core::plan;
use certbus_core::x509::ParsedChain;
use certbus_store::issued::Told;
use certbus_store::{Store, StoreError};

use crate::clock;
use crate::tenant::Tenant;

/// What is applied in one transaction.
const AT_ONCE: usize = 500;

/// How often the log is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Reads one tenant's log for the inventory.
pub struct Projector {
    tenant: Tenant,
    store: Store,
    /// Where the verified reading stands. None: from the begin.
    chain: Option<Chain>,
}

/// Why the inventory does not go on.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The log.
    #[error(transparent)]
    Log(#[from] FollowError),
    /// The inventory.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a batch says, and where it ends.
type Said = (Cursor, Vec<Told>);

impl Projector {
    /// For a tenant's log and an inventory.
    pub fn new(tenant: Tenant, store: Store) -> Self {
        Self { tenant, store, chain: None }
    }

    /// Reads on to the head of the log. Returns how many things it said.
    ///
    /// # Errors
    /// [`ProjectError`]; what was applied before stays.
    pub async fn catch_up(&mut self) -> Result<usize, ProjectError> {
        let stream = self.tenant.stream(StreamKind::Certs);
        let mut said: Vec<Said> = Vec::new();
        let keep = |batch: &Batch, events: &[Event]| said.push((batch.cursor(), told(batch, events)));
        let chain = match self.chain.take() {
            Some(mut chain) => match catch_up(&*stream.log, &mut chain, keep).await {
                Ok(()) => chain,
                // Restored or trimmed past this place: read anew below, the next time.
                Err(FollowError::Log(LogError::NotHere { .. } | LogError::Trimmed { .. })) => return Ok(0),
                Err(error) => return Err(error.into()),
            },
            None => {
                let start = Chain::new(StreamKind::Certs, self.tenant.pins.clone());
                load(&*stream.log, &*stream.snapshots, start, keep).await?
            }
        };
        let name = self.tenant.name.as_str();
        let mut from = self.store.projected(name).await?;
        if from != Cursor::START && stream.log.read(from, 1).await.is_err_and(|error| is_lost(&error)) {
            tracing::warn!(
                tenant = name,
                "the log has not the place that the inventory knows: what was issued is read anew"
            );
            self.store.project_anew(name, &managed(&said)).await?;
            from = Cursor::START;
        }
        let mut count = 0;
        let mut news: Vec<Told> = Vec::new();
        said.retain(|(cursor, _)| cursor.seq > from.seq);
        let mut said = said.into_iter().peekable();
        while let Some((cursor, told)) = said.next() {
            count += told.len();
            news.extend(told);
            let last = said.peek().is_none();
            if news.len() < AT_ONCE && !last {
                continue;
            }
            let to = if last { chain.cursor() } else { cursor };
            if !self.store.project(name, from, to, &news, clock::now()).await? {
                // Another process is at it; it goes on from there, and so does this one the next time.
                return Ok(count);
            }
            (from, news) = (to, Vec::new());
        }
        self.chain = Some(chain);
        Ok(count)
    }

    /// Again and again, until it is dropped.
    pub async fn run(mut self) {
        let mut said = None;
        loop {
            let outcome = self.catch_up().await.map_err(|error| error.to_string()).err();
            if let Some(error) = outcome.as_ref().filter(|error| said.as_ref() != Some(*error)) {
                tracing::error!("the inventory does not learn what is issued: {error}");
            }
            said = outcome;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}

/// The managed certificates that all of this comes to.
fn managed(said: &[Said]) -> BTreeSet<CertificateId> {
    let mut managed = BTreeSet::new();
    for told in said.iter().flat_map(|(_, told)| told) {
        match told {
            Told::Obtained { id, .. } => drop(managed.insert(*id)),
            Told::Removed { id } => drop(managed.remove(id)),
            Told::Offered { .. } => {}
        }
    }
    managed
}

fn is_lost(error: &LogError) -> bool {
    matches!(error, LogError::NotHere { .. } | LogError::Trimmed { .. })
}

fn told(batch: &Batch, events: &[Event]) -> Vec<Told> {
    let (seq, at) = (batch.cursor().seq, batch.envelope().time);
    let spot = |index: usize| i64::try_from(seq << 16 | index as u64).unwrap_or(i64::MAX);
    let one = |(index, event): (usize, &Event)| match event {
        Event::CertificateObtained(obtained) => Some(Told::Obtained {
            id: obtained.certificate,
            names: obtained.names.clone(),
            leaf: ParsedChain::parse(&obtained.chain).ok()?.certificates.first()?.to_vec(),
            place: spot(index),
            overdue_at: plan::overdue_from(&Version::new(obtained, Place { seq, index: index as u32 }), None),
            reason: match obtained.reason {
                Reason::New => "new",
                Reason::Renewal => "renewal",
                Reason::Replacement => "replacement",
            }
            .to_owned(),
            at,
        }),
        // Offered to some is not what all have to serve.
        Event::CertificateOffered(offered) if offered.to.is_none() => {
            Some(Told::Offered { id: offered.certificate, version: offered.version, place: spot(index), at })
        }
        Event::CertificateRemoved(removed) => Some(Told::Removed { id: removed.certificate }),
        _ => None,
    };
    events.iter().enumerate().filter_map(one).collect()
}
