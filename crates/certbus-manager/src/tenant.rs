//! A tenant's two streams, and what is known after reading both.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use certbus_bus::follow::{FollowError, PAGE, accept, load};
use certbus_bus::log::{EventLog, LogError, SnapshotStore};
use certbus_bus::{compact, compact::places};
use certbus_core::batch::Batch;
use certbus_core::catalog::{Catalog, Version};
use certbus_core::chain::{Chain, Pin};
use certbus_core::event::{CertificateObtained, Event};
use certbus_core::id::{Cursor, StreamKind};
use certbus_core::snapshot::batches_of;
use certbus_core::statement::SignedStatement;
use certbus_core::work::Work;

/// One stream and its snapshots.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The batches.
    pub log: Arc<dyn EventLog>,
    /// Their snapshots.
    pub snapshots: Arc<dyn SnapshotStore>,
}

/// In this order the streams are read. A version is on `certs` before its order is ended on `work`: who has read the end of
/// an order then reads its version too, and does not order again what is there (invariant 3).
const IN_ORDER: [StreamKind; 2] = [StreamKind::Work, StreamKind::Certs];

/// A tenant: where its streams are, and which authority is trusted.
#[derive(Clone, Debug)]
pub struct Tenant {
    /// Its name.
    pub name: String,
    /// What load balancers read.
    pub certs: Stream,
    /// What managers read.
    pub work: Stream,
    /// Who is trusted.
    pub pins: Vec<Pin>,
}

/// Both streams, folded.
#[derive(Debug)]
pub struct View {
    /// The reader of `certs`.
    pub certs: Chain,
    /// The reader of `work`.
    pub works: Chain,
    /// What `certs` says.
    pub catalog: Catalog,
    /// What `work` says.
    pub work: Work,
    /// The place before each batch that obtained something: chains and keys are read when they are needed.
    before: HashMap<u64, Cursor>,
    /// When the last reading of both streams to their heads was begun.
    pub(crate) read_at: Option<Instant>,
}

impl Tenant {
    /// One of the streams.
    pub fn stream(&self, kind: StreamKind) -> &Stream {
        match kind {
            StreamKind::Certs => &self.certs,
            StreamKind::Work => &self.work,
        }
    }

    /// Reads both streams to their heads, from their snapshots where there are any.
    ///
    /// # Errors
    /// [`FollowError`].
    pub async fn load(&self) -> Result<View, FollowError> {
        let mut view = View {
            certs: Chain::new(StreamKind::Certs, self.pins.clone()),
            works: Chain::new(StreamKind::Work, self.pins.clone()),
            catalog: Catalog::default(),
            work: Work::default(),
            before: HashMap::new(),
            read_at: None,
        };
        for kind in IN_ORDER {
            let stream = self.stream(kind);
            let start = view.chain(kind).clone();
            let chain =
                load(&*stream.log, &*stream.snapshots, start, |batch, events| view.fold(kind, batch, events)).await?;
            *view.chain_mut(kind) = chain;
        }
        Ok(view)
    }

    /// Reads on to both heads.
    ///
    /// # Errors
    /// [`FollowError`]; what was read before it is in the view.
    pub async fn refresh(&self, view: &mut View) -> Result<(), FollowError> {
        for kind in IN_ORDER {
            loop {
                let page = match self.stream(kind).log.read(view.chain(kind).cursor(), PAGE).await {
                    Err(LogError::Trimmed { .. }) => return self.load().await.map(|fresh| *view = fresh),
                    page => page?,
                };
                if page.batches.is_empty() {
                    break;
                }
                // Place and content move together: a caller that stops waiting leaves the view whole.
                for batch in &page.batches {
                    view.accept(kind, batch)?;
                }
            }
        }
        Ok(())
    }

    /// The event of a version, with its chain and sealed key.
    ///
    /// # Errors
    /// [`FollowError`] if the log cannot be read.
    pub async fn obtained(
        &self,
        view: &View,
        version: &Version,
    ) -> Result<Option<Arc<CertificateObtained>>, FollowError> {
        let place = version.place;
        let pick = |batch: &Batch| match batch.events().ok()?.into_iter().nth(place.index as usize) {
            Some(Event::CertificateObtained(obtained)) => Some(obtained),
            _ => None,
        };
        let before = view.before.get(&place.seq).copied().unwrap_or(Cursor::START);
        match self.certs.log.read(before, 1).await {
            Ok(page) => Ok(page.batches.first().filter(|b| b.cursor().seq == place.seq).and_then(pick)),
            Err(LogError::Trimmed { .. } | LogError::NotHere { .. }) => {
                let Some((_, parts)) = compact::fetch(&*self.certs.snapshots).await? else {
                    return Ok(None);
                };
                let batches = parts.iter().flat_map(|part| batches_of(part).unwrap_or_default());
                Ok(batches.into_iter().find(|b| b.cursor().seq == place.seq).as_ref().and_then(pick))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl View {
    /// The reader of a stream.
    pub fn chain(&self, kind: StreamKind) -> &Chain {
        match kind {
            StreamKind::Certs => &self.certs,
            StreamKind::Work => &self.works,
        }
    }

    fn chain_mut(&mut self, kind: StreamKind) -> &mut Chain {
        match kind {
            StreamKind::Certs => &mut self.certs,
            StreamKind::Work => &mut self.works,
        }
    }

    /// Takes in the next batch of a stream.
    ///
    /// # Errors
    /// [`FollowError::Chain`] if it does not follow.
    pub fn accept(&mut self, kind: StreamKind, batch: &Batch) -> Result<(), FollowError> {
        let events = accept(self.chain_mut(kind), batch)?;
        self.fold(kind, batch, &events);
        Ok(())
    }

    /// As [`View::accept`], of a batch that was checked already: `chain` stands after it.
    pub(crate) fn take_in(&mut self, chain: Chain, batch: &Batch, events: &[Event]) {
        let kind = chain.stream();
        *self.chain_mut(kind) = chain;
        self.fold(kind, batch, events);
    }

    fn fold(&mut self, kind: StreamKind, batch: &Batch, events: &[Event]) {
        for (place, event) in places(batch, events) {
            match kind {
                StreamKind::Certs => {
                    if let Event::CertificateObtained(_) = event {
                        self.before.insert(place.seq, batch.expected());
                    }
                    self.catalog.apply(place, event);
                }
                StreamKind::Work => self.work.apply(place, batch.envelope().time, event),
            }
        }
    }

    /// Statements that one stream carries and the other lacks: a writer that stopped in between left them.
    pub fn missing_statements(&self) -> Option<(StreamKind, Vec<SignedStatement>)> {
        let (certs, work) = (self.certs.statements(), self.works.statements());
        let (kind, rest) = if certs.len() > work.len() {
            (StreamKind::Work, certs.get(work.len()..))
        } else {
            (StreamKind::Certs, work.get(certs.len()..))
        };
        rest.filter(|rest| !rest.is_empty()).map(|rest| (kind, rest.to_vec()))
    }
}
