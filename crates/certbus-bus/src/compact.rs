//! Snapshots of a stream, made by a manager and fetched by whoever starts: dead records left out, still sealed.

use certbus_core::batch::Batch;
use certbus_core::catalog::{Catalog, Place};
use certbus_core::chain::Chain;
use certbus_core::crash::{self, Step};
use certbus_core::event::Event;
use certbus_core::id::StreamKind;
use certbus_core::key::SigningKey;
use certbus_core::snapshot::{Manifest, PartWriter, SnapshotError};
use certbus_core::time::Timestamp;
use certbus_core::work::Work;

use crate::follow::{FollowError, load};
use crate::log::{EventLog, LogError, SnapshotStore};

/// Writes a snapshot of the stream at its head. None if another manager put one meanwhile.
///
/// # Errors
/// [`FollowError`]; the snapshot before stays.
pub async fn publish(
    log: &dyn EventLog,
    snapshots: &dyn SnapshotStore,
    start: Chain,
    writer: &SigningKey,
    now: Timestamp,
) -> Result<Option<Manifest>, FollowError> {
    let expected = snapshots.manifest().await?;
    let stream = start.stream();
    let (mut catalog, mut work, mut kept) = (Catalog::default(), Work::default(), Vec::<(Batch, Vec<Event>)>::new());
    let chain = load(log, snapshots, start, |batch, events| {
        for (place, event) in places(batch, events) {
            match stream {
                StreamKind::Certs => drop(catalog.apply(place, event)),
                StreamKind::Work => work.apply(place, batch.envelope().time, event),
            }
        }
        kept.push((batch.clone(), events.to_vec()));
    })
    .await?;
    let Some(log_id) = chain.log() else { return Ok(None) };
    let mut parts = PartWriter::default();
    for (batch, events) in &kept {
        let live: Vec<bool> = places(batch, events)
            .map(|(place, event)| match stream {
                StreamKind::Certs => catalog.is_live(place, event),
                StreamKind::Work => work.is_live(place, event),
            })
            .collect();
        parts.push(batch, |index| live.get(index).copied().unwrap_or(true));
    }
    let mut hashes = Vec::new();
    for part in parts.finish() {
        hashes.push(snapshots.put_part(part).await?);
        crash::at(Step::SnapshotPart);
    }
    crash::at(Step::SnapshotManifest);
    let manifest = Manifest {
        format: 1,
        log: log_id,
        stream,
        epoch: chain.epoch(),
        cursor: chain.cursor(),
        time: now,
        writer: writer.public(),
        parts: hashes.clone(),
    };
    let won = snapshots.put_manifest(expected, manifest.sign(writer), hashes).await?;
    crash::at(Step::SnapshotDone);
    Ok(won.then_some(manifest))
}

/// The snapshot that is there, its signature checked; whether its writer is admitted is checked on adoption.
///
/// # Errors
/// [`SnapshotError::BadPart`] if a part is gone even after the manifest was read anew.
pub async fn fetch(snapshots: &dyn SnapshotStore) -> Result<Option<(Manifest, Vec<Vec<u8>>)>, FollowError> {
    let mut missing = 0;
    for _ in 0..3 {
        let Some(text) = snapshots.manifest().await? else {
            return Ok(None);
        };
        let manifest = Manifest::parse(&text)?;
        let mut parts = Vec::with_capacity(manifest.parts.len());
        for hash in &manifest.parts {
            match snapshots.part(*hash).await? {
                Some(part) => parts.push(part),
                None => break,
            }
        }
        if parts.len() == manifest.parts.len() {
            return Ok(Some((manifest, parts)));
        }
        // A newer snapshot may have taken this one's parts away meanwhile: look again.
        missing = parts.len() + 1;
    }
    Err(SnapshotError::BadPart { number: missing }.into())
}

/// Forgets the batches that the newest snapshot stands for.
///
/// # Errors
/// [`LogError::Unavailable`].
pub async fn trim(log: &dyn EventLog, manifest: &Manifest) -> Result<(), LogError> {
    log.trim(manifest.cursor).await
}

/// The events of a batch with their places.
pub fn places<'a>(batch: &Batch, events: &'a [Event]) -> impl Iterator<Item = (Place, &'a Event)> {
    let seq = batch.cursor().seq;
    events.iter().zip(0_u32..).map(move |(event, index)| (Place { seq, index }, event))
}
