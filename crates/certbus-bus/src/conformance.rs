//! The suite that every engine passes before it ships. `conformance!(name, make)` makes one test of each behaviour.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    missing_docs,
    reason = "tests that other crates run: each function is a sentence of behaviour, and panics when it is untrue"
)]

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use certbus_core::batch::{Batch, Draft, MAX_BATCH};
use certbus_core::catalog::Catalog;
use certbus_core::chain::{Chain, ChainError};
use certbus_core::event::Event;
use certbus_core::id::{CertificateId, Cursor, Hash, StreamKind};
use certbus_core::identity::Role;
use certbus_core::statement::Said;
use certbus_core::testing::{World, identity};
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt, join_all};
use futures::stream::BoxStream;

use crate::compact::{places, publish, trim};
use crate::follow::{FollowError, catch_up, load, reload};
use crate::log::{AppendError, EventLog, LogError, Page, SnapshotStore};
use crate::write::append;

/// One empty stream on an engine, opened twice as two processes would.
pub struct Engine {
    pub log: Arc<dyn EventLog>,
    pub snapshots: Arc<dyn SnapshotStore>,
    pub other: Arc<dyn EventLog>,
    /// Dropped last: a folder, a server.
    pub keep: Box<dyn Any + Send>,
}

/// Makes a module `$name` with a test for each behaviour. `$make` is an async function that gives an [`Engine`].
#[macro_export]
macro_rules! conformance {
    ($name:ident, $make:path) => {
        $crate::conformance!(@each $name, $make,
            batches_come_back_whole_in_order_and_from_any_cursor
            of_sixteen_racing_writers_one_wins_each_round
            an_append_behind_or_ahead_of_the_head_is_refused
            an_append_of_unknown_outcome_is_resolved_by_its_batch_id
            a_batch_of_256_kib_fits_and_one_byte_more_does_not
            a_watch_pushes_and_resumes_without_gap_or_repeat
            a_trimmed_place_names_the_oldest_batch_that_is_kept
            the_rest_of_a_trimmed_log_is_copied_with_its_numbers_and_hashes
            a_manifest_is_put_by_compare_and_set_and_old_parts_go
            an_unknown_event_is_passed_over_and_a_critical_one_stops_the_reader
            a_forged_batch_stops_the_reader_until_it_is_cut_off
            an_event_taken_out_of_a_live_log_stops_the_reader
            a_rewritten_log_is_not_followed
            a_restored_older_copy_is_followed_only_when_the_authority_says_so
            a_snapshot_and_the_rest_fold_to_the_same_catalog
        );
    };
    (@each $name:ident, $make:path, $($test:ident)*) => {
        mod $name {
            $(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    $crate::conformance::$test($make().await, $make().await).await;
                }
            )*
        }
    };
}

async fn store(engine: &Engine, batches: &[Batch]) {
    for batch in batches {
        engine.log.append(batch.expected(), batch.clone()).await.unwrap();
    }
}

fn history(world: &mut World, count: u64) -> Vec<Batch> {
    (0..count)
        .map(|n| {
            let events = world.certificate((n % 4) as u8, n as u8 + 1, &["a.example.com"]);
            world.append(events)
        })
        .collect()
}

fn fold(catalog: &mut Catalog) -> impl FnMut(&Batch, &[Event]) + '_ {
    |batch, events| {
        for (place, event) in places(batch, events) {
            catalog.apply(place, event);
        }
    }
}

pub async fn batches_come_back_whole_in_order_and_from_any_cursor(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let mut batches = vec![first];
    batches.extend(history(&mut world, 9));
    assert!(engine.log.read(Cursor::START, 10).await.unwrap().batches.is_empty(), "empty at first");
    store(&engine, &batches).await;
    assert_eq!(engine.other.read(Cursor::START, 100).await.unwrap().batches, batches, "byte for byte");
    for at in 0..batches.len() {
        let page = engine.log.read(batches[at].cursor(), 3).await.unwrap();
        assert_eq!(page.batches, batches[at + 1..].iter().take(3).cloned().collect::<Vec<_>>());
    }
}

pub async fn of_sixteen_racing_writers_one_wins_each_round(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    store(&engine, &[first]).await;
    for round in 0..5 {
        let expected = world.chain.cursor();
        let rivals: Vec<Batch> = (0..16).map(|_| world.batch(vec![Event::Alive])).collect();
        let outcomes = join_all(rivals.iter().enumerate().map(|(n, batch)| {
            let log = if n % 2 == 0 { engine.log.clone() } else { engine.other.clone() };
            let batch = batch.clone();
            tokio::spawn(async move { log.append(expected, batch).await })
        }))
        .await;
        let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
        let winners: Vec<_> = outcomes.iter().filter_map(|o| o.as_ref().ok()).collect();
        assert_eq!(winners.len(), 1, "round {round}: {outcomes:?}");
        let head = *winners[0];
        for lost in outcomes.iter().filter_map(|o| o.as_ref().err()) {
            assert_eq!(*lost, AppendError::Conflict { head });
        }
        let stored = engine.log.read(expected, 100).await.unwrap().batches;
        assert_eq!(stored.len(), 1);
        world.chain.accept(&stored[0]).unwrap();
    }
}

pub async fn an_append_behind_or_ahead_of_the_head_is_refused(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let second = world.append(vec![Event::Alive]);
    let ahead = engine.log.append(second.expected(), second.clone()).await;
    assert_eq!(ahead, Err(AppendError::Conflict { head: Cursor::START }), "ahead of an empty log");
    store(&engine, &[first.clone(), second.clone()]).await;
    let head = second.cursor();
    let third = world.append(vec![Event::Alive]);
    let fourth = world.append(vec![Event::Alive]);
    let behind = engine.log.append(second.expected(), second.clone()).await;
    assert_eq!(behind, Err(AppendError::Conflict { head }));
    let ahead = engine.log.append(fourth.expected(), fourth).await;
    assert_eq!(ahead, Err(AppendError::Conflict { head }));
    let other_hash = Cursor { seq: 2, hash: Hash::of(b"another") };
    assert_eq!(engine.log.append(other_hash, third.clone()).await, Err(AppendError::Conflict { head }));
    assert_eq!(engine.log.append(third.expected(), third.clone()).await, Ok(third.cursor()));
}

pub async fn an_append_of_unknown_outcome_is_resolved_by_its_batch_id(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    store(&engine, &[first]).await;
    let key = identity(Role::Manager, "first", 2);
    let key = key.sign.as_ref().unwrap();
    let draft = |world: &mut World| -> Draft { world.draft(vec![Event::Alive]) };
    for stored in [true, false] {
        let expected = world.chain.cursor();
        let log = LostAnswer { inner: engine.log.clone(), stored, once: AtomicBool::new(true) };
        let batch = append(&log, expected, draft(&mut world), key).await.unwrap();
        let page = engine.log.read(expected, 10).await.unwrap();
        assert_eq!(page.batches, vec![batch.clone()], "there once, whether the lost answer was yes or no");
        world.chain.accept(&batch).unwrap();
    }
    // Unknown, and meanwhile another was first.
    let expected = world.chain.cursor();
    let rival = world.append(vec![Event::Alive]);
    store(&engine, std::slice::from_ref(&rival)).await;
    let log = LostAnswer { inner: engine.log.clone(), stored: false, once: AtomicBool::new(true) };
    let lost = append(&log, expected, draft(&mut world), key).await;
    assert_eq!(lost.unwrap_err(), AppendError::Conflict { head: rival.cursor() });
}

pub async fn a_batch_of_256_kib_fits_and_one_byte_more_does_not(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    store(&engine, &[first]).await;
    let key = identity(Role::Manager, "first", 2);
    let of_size = |world: &mut World, size: usize| {
        let draft = world.draft(vec![]);
        let line =
            |pad: usize| vec![format!(r#"{{"kind":"Pad","format":1,"critical":false,"data":"{}"}}"#, "x".repeat(pad))];
        let sign = |lines: &[String]| {
            Batch::sign_lines(draft.clone(), world.chain.cursor(), key.sign.as_ref().unwrap(), lines)
        };
        let bare = sign(&line(0)).bytes().len();
        sign(&line(size - bare))
    };
    let over = of_size(&mut world, MAX_BATCH + 1);
    let refused = engine.log.append(over.expected(), over).await;
    assert_eq!(refused, Err(AppendError::TooLarge { size: MAX_BATCH + 1 }));
    let full = of_size(&mut world, MAX_BATCH);
    assert_eq!(full.bytes().len(), MAX_BATCH);
    store(&engine, std::slice::from_ref(&full)).await;
    assert_eq!(engine.log.read(full.expected(), 1).await.unwrap().batches, vec![full]);
}

pub async fn a_watch_pushes_and_resumes_without_gap_or_repeat(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    store(&engine, std::slice::from_ref(&first)).await;
    let mut seen = vec![first.clone()];
    let mut sent = vec![first];
    for _ in 0..3 {
        // A reader that was away: what was appended meanwhile comes first, then what is pushed.
        sent.extend(history(&mut world, 2));
        store(&engine, &sent[sent.len() - 2..]).await;
        let mut watch = engine.other.watch(seen.last().unwrap().cursor());
        collect(&mut watch, &mut seen, sent.len()).await;
        for batch in history(&mut world, 3) {
            store(&engine, std::slice::from_ref(&batch)).await;
            sent.push(batch);
            collect(&mut watch, &mut seen, sent.len()).await;
        }
    }
    assert_eq!(seen, sent);
}

async fn collect(watch: &mut BoxStream<'static, Result<Page, LogError>>, seen: &mut Vec<Batch>, count: usize) {
    while seen.len() < count {
        let page = tokio::time::timeout(Duration::from_secs(5), watch.next()).await;
        let page = page.unwrap_or_else(|_| panic!("pushed within 5 s")).unwrap().unwrap();
        assert!(!page.batches.is_empty(), "never an empty page");
        seen.extend(page.batches);
    }
}

pub async fn a_trimmed_place_names_the_oldest_batch_that_is_kept(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let mut batches = vec![first];
    batches.extend(history(&mut world, 5));
    store(&engine, &batches).await;
    engine.log.trim(batches[2].cursor()).await.unwrap();
    assert_eq!(engine.log.read(Cursor::START, 9).await.unwrap_err(), LogError::Trimmed { first: 4 });
    assert_eq!(engine.log.read(batches[1].cursor(), 9).await.unwrap_err(), LogError::Trimmed { first: 4 });
    assert_eq!(engine.log.read(batches[2].cursor(), 9).await.unwrap().batches, batches[3..]);
    engine.log.trim(batches[5].cursor()).await.unwrap();
    assert_eq!(engine.log.read(batches[4].cursor(), 9).await.unwrap().batches, batches[5..], "the last stays");
    let next = world.append(vec![Event::Alive]);
    store(&engine, std::slice::from_ref(&next)).await;
}

pub async fn the_rest_of_a_trimmed_log_is_copied_with_its_numbers_and_hashes(engine: Engine, copy: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let mut batches = vec![first];
    batches.extend(history(&mut world, 5));
    assert_eq!(engine.log.oldest().await.unwrap(), None);
    store(&engine, &batches).await;
    assert_eq!(engine.log.oldest().await.unwrap().as_ref(), batches.first());
    engine.log.trim(batches[2].cursor()).await.unwrap();
    let oldest = engine.log.oldest().await.unwrap().unwrap();
    assert_eq!(oldest, batches[3]);
    let ahead = copy.log.append(oldest.expected(), oldest.clone()).await;
    assert_eq!(ahead, Err(AppendError::Conflict { head: Cursor::START }), "the place before it is not there");
    assert_eq!(copy.log.append(Cursor::START, oldest.clone()).await, Ok(oldest.cursor()));
    let twice = copy.log.append(Cursor::START, batches[4].clone()).await;
    assert_eq!(twice, Err(AppendError::Conflict { head: oldest.cursor() }), "it has a first");
    store(&copy, &batches[4..]).await;
    assert_eq!(copy.other.read(oldest.expected(), 9).await.unwrap().batches, batches[3..]);
    assert_eq!(copy.other.read(Cursor::START, 9).await.unwrap_err(), LogError::Trimmed { first: 4 });
    let next = world.append(vec![Event::Alive]);
    store(&copy, std::slice::from_ref(&next)).await;
}

pub async fn a_manifest_is_put_by_compare_and_set_and_old_parts_go(engine: Engine, _: Engine) {
    let store = &engine.snapshots;
    assert_eq!(store.manifest().await.unwrap(), None);
    let a = store.put_part(b"a".to_vec()).await.unwrap();
    let b = store.put_part(b"b".to_vec()).await.unwrap();
    assert_eq!(store.put_part(b"a".to_vec()).await.unwrap(), a, "twice is harmless");
    assert_eq!(a, Hash::of(b"a"));
    assert!(store.put_manifest(None, "one".into(), vec![a, b]).await.unwrap());
    assert!(!store.put_manifest(None, "two".into(), vec![]).await.unwrap(), "another was put meanwhile");
    assert_eq!(store.part(a).await.unwrap(), Some(b"a".to_vec()));
    assert!(store.put_manifest(Some("one".into()), "two".into(), vec![b]).await.unwrap());
    assert_eq!(store.manifest().await.unwrap(), Some("two".into()));
    assert_eq!(store.part(a).await.unwrap(), None);
    assert_eq!(store.part(b).await.unwrap(), Some(b"b".to_vec()));
}

pub async fn an_unknown_event_is_passed_over_and_a_critical_one_stops_the_reader(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let mut chain = Chain::new(StreamKind::Certs, world.pins());
    let key = identity(Role::Manager, "first", 2);
    let line = |critical: bool, world: &mut World| {
        let line = format!(r#"{{"kind":"Later","format":1,"critical":{critical}}}"#);
        let draft = world.draft(vec![]);
        Batch::sign_lines(draft, world.chain.cursor(), key.sign.as_ref().unwrap(), &[line])
    };
    let harmless = line(false, &mut world);
    world.chain.accept(&harmless).unwrap();
    let critical = line(true, &mut world);
    store(&engine, &[first, harmless.clone(), critical]).await;
    let error = catch_up(&*engine.log, &mut chain, |_, _| {}).await.unwrap_err();
    assert!(error.wants_upgrade(), "{error}");
    assert_eq!(chain.cursor(), harmless.cursor(), "stays before it");
}

pub async fn a_forged_batch_stops_the_reader_until_it_is_cut_off(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let mut chain = Chain::new(StreamKind::Certs, world.pins());
    let thief = identity(Role::Manager, "thief", 66);
    let forged = Batch::sign(world.draft(vec![Event::Alive]), world.chain.cursor(), thief.sign.as_ref().unwrap());
    store(&engine, &[first.clone(), forged]).await;
    let error = catch_up(&*engine.log, &mut chain, |_, _| {}).await.unwrap_err();
    assert!(matches!(error, FollowError::Chain(ChainError::ForeignWriter { seq: 2, .. })), "{error}");
    assert_eq!(chain.cursor(), first.cursor());
    engine.log.cut(chain.cursor()).await.unwrap();
    let good = world.append(vec![Event::Alive]);
    store(&engine, std::slice::from_ref(&good)).await;
    catch_up(&*engine.log, &mut chain, |_, _| {}).await.unwrap();
    assert_eq!(chain.cursor(), good.cursor());
}

pub async fn an_event_taken_out_of_a_live_log_stops_the_reader(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let events = world.certificate(1, 1, &["a.example.com"]);
    let batch = world.append(events);
    let dropped = batch.keeping(|index| index == 1);
    assert_eq!(dropped.cursor(), batch.cursor(), "its hash and signature stay: snapshots leave events out like this");
    store(&engine, &[first.clone(), dropped]).await;
    let mut chain = Chain::new(StreamKind::Certs, world.pins());
    let error = catch_up(&*engine.log, &mut chain, |_, _| {}).await.unwrap_err();
    assert!(matches!(error, FollowError::Chain(ChainError::EventTakenOut { seq: 2 })), "{error}");
    assert_eq!(chain.cursor(), first.cursor());
}

pub async fn a_rewritten_log_is_not_followed(engine: Engine, rewritten: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let mut known = world.chain.clone();
    let fork = world.batch(vec![]);
    let seen = world.append(vec![Event::Alive]);
    known.accept(&seen).unwrap();
    store(&engine, &[first.clone(), seen]).await;
    store(&rewritten, &[first, fork]).await;
    let lost = rewritten.log.read(known.cursor(), 9).await.unwrap_err();
    assert!(matches!(lost, LogError::NotHere { .. }), "{lost}");
    let refused = reload(&*rewritten.log, &*rewritten.snapshots, &known, &lost, |_, _| {}).await;
    assert!(matches!(refused, Err(FollowError::OlderCopy { .. })), "{refused:?}");
}

pub async fn a_restored_older_copy_is_followed_only_when_the_authority_says_so(engine: Engine, copy: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let mut batches = vec![first];
    batches.extend(history(&mut world, 4));
    store(&engine, &batches).await;
    let known = world.chain.clone();

    // The copy ends two batches earlier.
    store(&copy, &batches[..3]).await;
    let mut at_copy = Chain::new(StreamKind::Certs, world.pins());
    catch_up(&*copy.log, &mut at_copy, |_, _| {}).await.unwrap();
    let lost = copy.log.read(known.cursor(), 9).await.unwrap_err();
    assert!(matches!(lost, LogError::NotHere { head: 3, .. }), "{lost}");
    let refused = reload(&*copy.log, &*copy.snapshots, &known, &lost, |_, _| {}).await;
    assert!(matches!(refused, Err(FollowError::OlderCopy { .. })), "{refused:?}");

    // Written on without a word of the authority: longer than what the reader knows, and still not followed.
    world.chain = at_copy;
    for batch in history(&mut world, 1) {
        store(&copy, &[batch]).await;
    }
    let here = world.chain.cursor();
    let said = Said::LogRestored { epoch: 1, certs: here, work: here };
    let log = world.chain.log().unwrap();
    let signed = world.chain.clone().state(said, log, world.now, world.owner.sign.as_ref().unwrap(), None).unwrap();
    let restored = world.append(vec![Event::Statement(signed)]);
    let refused = reload(&*copy.log, &*copy.snapshots, &known, &lost, |_, _| {}).await;
    assert!(refused.is_err());
    store(&copy, std::slice::from_ref(&restored)).await;
    let chain = reload(&*copy.log, &*copy.snapshots, &known, &lost, |_, _| {}).await.unwrap();
    assert_eq!((chain.epoch(), chain.cursor()), (1, restored.cursor()));
}

pub async fn a_snapshot_and_the_rest_fold_to_the_same_catalog(engine: Engine, _: Engine) {
    let (mut world, first) = World::new(StreamKind::Certs);
    let mut batches = vec![first];
    batches.extend(history(&mut world, 40));
    store(&engine, &batches).await;
    let key = identity(Role::Manager, "first", 2);
    let key = key.sign.as_ref().unwrap();
    let start = || Chain::new(StreamKind::Certs, world.pins());
    let manifest = publish(&*engine.log, &*engine.snapshots, start(), key, world.now).await.unwrap().unwrap();
    trim(&*engine.log, &manifest).await.unwrap();
    let reader = start();
    let more = history(&mut world, 3);
    store(&engine, &more).await;

    let (mut whole, mut short) = (Catalog::default(), Catalog::default());
    let mut chain = Chain::new(StreamKind::Certs, world.pins());
    for batch in batches.iter().chain(&more) {
        let events = chain.accept(batch).unwrap();
        fold(&mut whole)(batch, &events);
    }
    let loaded = load(&*engine.log, &*engine.snapshots, reader, fold(&mut short)).await.unwrap();
    assert_eq!(loaded.cursor(), chain.cursor());
    assert_eq!(loaded.statements(), chain.statements());
    for id in 0..4 {
        let id = CertificateId::from_bytes([id; 8]);
        assert_eq!(whole.current(id, None), short.current(id, None));
    }

    // One who was away for longer than is kept goes on from the snapshot, and none below his own place.
    let mut away = Chain::new(StreamKind::Certs, world.pins());
    away.accept(&batches[0]).unwrap();
    let lost = engine.log.read(away.cursor(), 1).await.unwrap_err();
    let back = reload(&*engine.log, &*engine.snapshots, &away, &lost, |_, _| {}).await.unwrap();
    assert_eq!(back.cursor(), chain.cursor());
    // A snapshot that does not hold: no reader takes anything of it, and says so.
    let good = engine.snapshots.manifest().await.unwrap();
    let bent = good.clone().map(|text| text.replacen("\"epoch\":0", "\"epoch\":7", 1)).unwrap();
    assert!(engine.snapshots.put_manifest(good.clone(), bent.clone(), manifest.parts.clone()).await.unwrap());
    let mut seen = 0;
    let start = Chain::new(StreamKind::Certs, world.pins());
    let refused = load(&*engine.log, &*engine.snapshots, start, |_, _| seen += 1).await;
    assert!(matches!(refused, Err(FollowError::Snapshot(_))), "{refused:?}");
    assert_eq!(seen, 0);
    assert!(engine.snapshots.put_manifest(Some(bent), good.unwrap(), manifest.parts.clone()).await.unwrap());
    // A second snapshot on top of the first.
    let start = Chain::new(StreamKind::Certs, world.pins());
    let second = publish(&*engine.log, &*engine.snapshots, start, key, world.now).await.unwrap().unwrap();
    assert_eq!(second.cursor, chain.cursor());
}

/// An engine whose next append loses its answer, after storing the batch or before.
#[derive(Debug)]
struct LostAnswer {
    inner: Arc<dyn EventLog>,
    stored: bool,
    once: AtomicBool,
}

impl EventLog for LostAnswer {
    fn read(&self, after: Cursor, limit: usize) -> BoxFuture<'_, Result<Page, LogError>> {
        self.inner.read(after, limit)
    }

    fn append(&self, expected: Cursor, batch: Batch) -> BoxFuture<'_, Result<Cursor, AppendError>> {
        async move {
            if !self.once.swap(false, Ordering::SeqCst) {
                return self.inner.append(expected, batch).await;
            }
            if self.stored {
                self.inner.append(expected, batch).await?;
            }
            Err(AppendError::Unknown { cause: "connection reset by peer".into() })
        }
        .boxed()
    }

    fn watch(&self, after: Cursor) -> BoxStream<'static, Result<Page, LogError>> {
        self.inner.watch(after)
    }

    fn trim(&self, through: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.trim(through)
    }

    fn cut(&self, after: Cursor) -> BoxFuture<'_, Result<(), LogError>> {
        self.inner.cut(after)
    }

    fn oldest(&self) -> BoxFuture<'_, Result<Option<Batch>, LogError>> {
        self.inner.oldest()
    }

    fn place(&self) -> String {
        self.inner.place()
    }
}
