//! `certbus stream ls|show|tail`: what is on the log, as it stands there. Signatures are `verify`'s business.

use anyhow::{Result, bail};
use certbus_bus::EventLog;
use certbus_core::batch::Batch;
use certbus_core::id::{Cursor, StreamKind};
use certbus_core::snapshot::Manifest;
use certbus_manager::Stream;
use futures::StreamExt;
use serde_json::{Value, json};

use crate::cli::exit::Missing;
use crate::cli::output;
use crate::settings::Settings;
use crate::wire::{self, Engine};

/// Batches that are read at once.
const PAGE: usize = 1000;

/// A line for each stream of each tenant.
pub(super) async fn list(settings: &Settings, as_json: bool) -> Result<()> {
    let engine = Engine::open(&settings.log()?, false).await?;
    let mut rows = Vec::new();
    for name in engine.streams().await? {
        let Some((tenant, kind)) = name.split_once('/') else { continue };
        let stream = engine.stream(tenant, kind);
        let oldest = stream.log.oldest().await?;
        let (mut count, mut bytes, mut newest) = (0_u64, 0, None);
        each(&*stream.log, |batch| {
            count += 1;
            bytes += batch.bytes().len();
            newest = Some(batch);
        })
        .await?;
        let manifest = stream.snapshots.manifest().await?.map(|text| Manifest::parse(&text)).transpose()?;
        rows.push(json!({
            "stream": name, "first": oldest.map(|batch| batch.cursor().seq), "batches": count, "bytes": bytes,
            "head": newest.as_ref().map(Batch::cursor), "time": newest.as_ref().map(|batch| batch.envelope().time),
            "snapshot": manifest.map(|manifest| manifest.cursor.seq), "place": stream.log.place(),
        }));
    }
    let heading = ["stream", "first", "last", "batches", "bytes", "newest", "snapshot at"];
    output::listing(as_json, &heading, rows, |row| {
        let word = |path: &str| match row.pointer(path) {
            None | Some(Value::Null) => "–".to_owned(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        ["/stream", "/first", "/head/seq", "/batches", "/bytes", "/time", "/snapshot"].map(word).to_vec()
    });
    Ok(())
}

/// One batch: its envelope and its events. What is sealed stays sealed.
pub(super) async fn show(settings: &Settings, kind: StreamKind, seq: u64, as_json: bool) -> Result<()> {
    let stream = stream(settings, kind).await?;
    let mut found = None;
    each(&*stream.log, |batch| found = (batch.cursor().seq == seq).then_some(batch).or(found.take())).await?;
    let Some(batch) = found else {
        let place = stream.log.place();
        bail!(Missing::new(format!(
            "{place} has no batch {seq}; `certbus stream ls` says from where to where it goes"
        )));
    };
    if as_json {
        output::json(&told(&batch));
        return Ok(());
    }
    let envelope = batch.envelope();
    for (what, value) in [
        ("batch", format!("{} {}", envelope.seq, batch.cursor().hash)),
        ("after", envelope.previous.to_string()),
        ("written", format!("{} by {} ({})", envelope.time, envelope.actor, envelope.source)),
        ("key", envelope.writer.to_string()),
        ("signature", if batch.signature_holds() { "holds" } else { "does NOT hold" }.to_owned()),
        ("bytes", batch.bytes().len().to_string()),
    ] {
        output::line(format!("{what:<10} {}", output::plain(&value)));
    }
    for line in batch.event_lines()? {
        let event: Value = serde_json::from_str(line.text).unwrap_or_else(|_| line.text.into());
        output::line(output::plain(&serde_json::to_string_pretty(&event).unwrap_or_default()));
    }
    Ok(())
}

/// The newest batches, a line each; and those that come, if they are waited for.
pub(super) async fn tail(
    settings: &Settings,
    kind: StreamKind,
    count: usize,
    follow: bool,
    as_json: bool,
) -> Result<()> {
    let stream = stream(settings, kind).await?;
    let (mut last, mut place) = (std::collections::VecDeque::new(), Cursor::START);
    each(&*stream.log, |batch| {
        place = batch.cursor();
        last.push_back(batch);
        if last.len() > count {
            last.pop_front();
        }
    })
    .await?;
    let mut columns = output::Columns::new(&["batch", "written", "by", "from", "events"]);
    let mut print = |batches: Vec<Batch>| match as_json {
        true => batches.iter().for_each(|batch| output::json(&told(batch))),
        false => columns.print(batches.iter().map(row).collect()),
    };
    print(last.into());
    if !follow {
        return Ok(());
    }
    let mut watch = stream.log.watch(place);
    while let Some(page) = watch.next().await {
        match page {
            Ok(page) => print(page.batches),
            Err(error) => output::remark(format!("{error}; it is tried again")),
        }
        if output::nobody_reads() {
            break;
        }
    }
    Ok(())
}

async fn stream(settings: &Settings, kind: StreamKind) -> Result<Stream> {
    Ok(wire::tenant(settings, Vec::new(), false).await?.stream(kind).clone())
}

/// Every batch that is kept, from the oldest on.
pub(super) async fn each(log: &dyn EventLog, mut take: impl FnMut(Batch)) -> Result<()> {
    let Some(oldest) = log.oldest().await? else { return Ok(()) };
    let mut place = oldest.cursor();
    take(oldest);
    loop {
        let page = log.read(place, PAGE).await?;
        let Some(last) = page.batches.last() else { return Ok(()) };
        place = last.cursor();
        page.batches.into_iter().for_each(&mut take);
    }
}

fn kinds(batch: &Batch) -> Vec<String> {
    let kind = |line: &str| serde_json::from_str::<Value>(line).ok()?.get("kind")?.as_str().map(str::to_owned);
    let lines = batch.event_lines().unwrap_or_default();
    lines.iter().map(|line| kind(line.text).unwrap_or_else(|| line.text.chars().take(20).collect())).collect()
}

fn row(batch: &Batch) -> Vec<String> {
    let (envelope, mut events) = (batch.envelope(), Vec::<(String, usize)>::new());
    for kind in kinds(batch) {
        match events.last_mut() {
            Some((last, times)) if *last == kind => *times += 1,
            _ => events.push((kind, 1)),
        }
    }
    let events = events.into_iter().map(|(kind, times)| if times == 1 { kind } else { format!("{kind} ×{times}") });
    let events = events.collect::<Vec<_>>().join(", ");
    let words =
        [envelope.seq.to_string(), envelope.time.to_string(), envelope.actor.clone(), envelope.source.clone(), events];
    words.map(|word| output::plain(&word)).to_vec()
}

fn told(batch: &Batch) -> Value {
    json!({ "cursor": batch.cursor(), "envelope": batch.envelope(), "kinds": kinds(batch) })
}
