//! `certbus stream copy` and `trim`: the whole log to another engine, with its numbers and hashes; and what a snapshot stands
//! for, forgotten.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use certbus_bus::EventLog;
use certbus_bus::follow::from_snapshot;
use certbus_core::chain::Chain;
use certbus_core::id::{Cursor, StreamKind};
use certbus_core::snapshot::Manifest;
use certbus_manager::{Stream, clock};

use super::look::each;
use crate::cli::exit::Mistake;
use crate::cli::output;
use crate::settings::{LogPlace, Settings};
use crate::wire::{self, Engine};

/// Copies every stream of every tenant from one URL to another. What was copied before is gone on from.
pub(super) async fn copy(settings: &Settings, from: &str, to: &str) -> Result<()> {
    let from = Engine::open(&named(from, settings)?, false).await?;
    let to = Engine::open(&named(to, settings)?, true).await?;
    let names = from.streams().await?;
    if names.is_empty() {
        bail!(Mistake::new("there is no stream to copy"));
    }
    for name in names {
        let Some((tenant, kind)) = name.split_once('/') else { continue };
        let (source, target) = (from.stream(tenant, kind), to.stream(tenant, kind));
        let (copied, head) = stream(&source, &target).await.with_context(|| format!("stream {name}"))?;
        output::done(format!("{name}: {copied} batches copied; both end at batch {}", head.seq));
    }
    output::line("stop every manager, run this again for what was written meanwhile, then set log.url everywhere");
    Ok(())
}

/// How many batches were missing, and where both end now.
async fn stream(from: &Stream, to: &Stream) -> Result<(u64, Cursor)> {
    let (mut copied, mut place) = (0, Cursor::START);
    each(&*to.log, |batch| place = batch.cursor()).await?;
    if place == Cursor::START {
        let Some(oldest) = from.log.oldest().await? else { return Ok((0, place)) };
        place = append(&*to.log, Cursor::START, oldest).await?;
        copied += 1;
    }
    loop {
        // That its last batch is one of the source's is what reading on from there says.
        let page = from.log.read(place, 1000).await.context("it has another log than the one to be copied")?;
        if page.batches.is_empty() {
            break;
        }
        for batch in page.batches {
            place = append(&*to.log, place, batch).await?;
            copied += 1;
        }
    }
    if let Some(text) = from.snapshots.manifest().await? {
        let manifest = Manifest::parse(&text)?;
        for hash in &manifest.parts {
            let part = from
                .snapshots
                .part(*hash)
                .await?
                .context("a part of the snapshot is gone: a newer one was written; run this again")?;
            to.snapshots.put_part(part).await?;
        }
        let before = to.snapshots.manifest().await?;
        if before.as_deref() != Some(&*text) && !to.snapshots.put_manifest(before, text, manifest.parts).await? {
            bail!("somebody else writes snapshots there");
        }
    }
    Ok((copied, place))
}

async fn append(log: &dyn EventLog, place: Cursor, batch: certbus_core::batch::Batch) -> Result<Cursor> {
    Ok(certbus_bus::write::append_batch(log, place, batch).await.context("somebody else writes there")?.cursor())
}

/// A log's URL, or `@FILE` that has it: it may hold a password, which a command line shows to others.
fn named(text: &str, settings: &Settings) -> Result<LogPlace> {
    let url = match text.strip_prefix('@') {
        Some(file) => std::fs::read_to_string(file).map(zeroize::Zeroizing::new).with_context(|| file.to_owned())?,
        None => zeroize::Zeroizing::new(text.to_owned()),
    };
    let place = LogPlace::parse(url.trim(), None, &settings.data).map_err(Mistake::new)?;
    if let LogPlace::Http { .. } = place {
        bail!(Mistake::new(
            "a CertBus server gives one stream to readers, and not the whole log; name the engine itself"
        ));
    }
    if let LogPlace::Sqlite(path) = &place {
        wire::make_folder(path.parent().unwrap_or(Path::new(".")))?;
    }
    Ok(place)
}

/// Forgets the batches that are older than `keep`, as far as a snapshot stands for them.
pub(super) async fn trim(settings: &Settings, keep: Duration, yes: bool) -> Result<()> {
    let manager = wire::manager(settings).await?;
    let before = clock::now().minus(keep);
    for kind in StreamKind::ALL {
        let stream = manager.tenant().stream(kind);
        let place = stream.log.place();
        // What is forgotten must be in a snapshot that every reader would take.
        let start = Chain::new(kind, manager.tenant().pins.clone());
        let Some((snapshot, _)) = from_snapshot(&*stream.snapshots, &start).await? else {
            bail!(Mistake::new(format!(
                "{place} has no snapshot that could stand for what is trimmed; `certbus stream snapshot` writes one"
            )));
        };
        let (mut through, mut count) = (Cursor::START, 0_u64);
        each(&*stream.log, |batch| {
            if batch.cursor().seq < snapshot.cursor().seq && batch.envelope().time < before {
                through = batch.cursor();
                count += 1;
            }
        })
        .await?;
        if count == 0 {
            output::line(format!(
                "{place}: nothing to trim; its snapshot stands for all up to batch {}",
                snapshot.cursor().seq
            ));
            continue;
        }
        let question = format!(
            "forget {count} batches of {place}, up to {}? The snapshot at batch {} stands for them.",
            through.seq,
            snapshot.cursor().seq
        );
        if !yes && output::ask(&question) != Some(true) {
            bail!(Mistake::new(format!("{question} Say --yes")));
        }
        stream.log.trim(through).await?;
        output::done(format!("{place}: {count} batches forgotten, up to {}", through.seq));
    }
    Ok(())
}
