//! A snapshot is adopted whole and verified, or not at all.

use certbus_core::catalog::{Catalog, Place};
use certbus_core::event::Event;
use certbus_core::id::{Cursor, Hash, StreamKind};
use certbus_core::identity::Role;
use certbus_core::snapshot::{Manifest, PartWriter, SnapshotError, adopt};
use certbus_core::testing::{World, identity};

struct Made {
    world: World,
    manifest: Manifest,
    parts: Vec<Vec<u8>>,
}

fn make() -> Made {
    let (mut world, first) = World::new(StreamKind::Certs);
    let mut batches = vec![first];
    for version in 1..=3 {
        let events = world.certificate(1, version, &["a.example.com"]);
        batches.push(world.append(events));
        batches.push(world.append(vec![Event::Alive]));
    }
    let mut catalog = Catalog::default();
    let each = |batch: &certbus_core::batch::Batch| batch.events().unwrap().into_iter().enumerate().collect::<Vec<_>>();
    for batch in &batches {
        for (index, event) in each(batch) {
            catalog.apply(Place { seq: batch.cursor().seq, index: index as u32 }, &event);
        }
    }
    let mut writer = PartWriter::default();
    for batch in &batches {
        let events = each(batch);
        writer.push(batch, |index| {
            catalog.is_live(Place { seq: batch.cursor().seq, index: index as u32 }, &events[index].1)
        });
    }
    let parts = writer.finish();
    let manifest = Manifest {
        format: 1,
        log: world.chain.log().unwrap(),
        stream: StreamKind::Certs,
        epoch: 0,
        cursor: world.chain.cursor(),
        time: world.now,
        writer: world.manager.sign.as_ref().unwrap().public(),
        parts: parts.iter().map(|p| Hash::of(p)).collect(),
    };
    Made { world, manifest, parts }
}

fn adopt_it(made: &Made, own: (u64, Cursor)) -> Result<(certbus_core::chain::Chain, usize), SnapshotError> {
    let mut seen = 0;
    let chain = adopt(&made.manifest, &made.parts, made.world.pins(), own, |_, events| {
        seen += events.iter().filter(|e| matches!(e, Event::CertificateObtained(_))).count();
    })?;
    Ok((chain, seen))
}

#[test]
fn a_snapshot_keeps_what_is_live_and_the_next_batch_follows_its_cursor() {
    let mut made = make();
    let (mut chain, seen) = adopt_it(&made, (0, Cursor::START)).unwrap();
    assert_eq!(seen, 1, "of three versions one is live");
    let next = made.world.append(vec![Event::Alive]);
    chain.accept(&next).expect("goes on");
    assert_eq!(chain.cursor(), next.cursor());
}

#[test]
fn a_signed_manifest_survives_its_text_and_a_bent_one_does_not() {
    let made = make();
    let text = made.manifest.sign(made.world.manager.sign.as_ref().unwrap());
    assert_eq!(Manifest::parse(&text).unwrap(), made.manifest);
    let bent = text.replacen("\"epoch\":0", "\"epoch\":1", 1);
    assert!(matches!(Manifest::parse(&bent), Err(SnapshotError::BadSignature)));
    assert!(Manifest::parse(&text[..text.len() / 2]).is_err());
}

#[test]
fn an_older_snapshot_an_altered_part_and_a_strangers_manifest_are_refused() {
    let mut made = make();
    let mut newer = made.manifest.cursor;
    newer.seq += 1;
    assert!(matches!(adopt_it(&made, (0, newer)), Err(SnapshotError::Older { .. })));
    assert!(matches!(adopt_it(&made, (1, Cursor::START)), Err(SnapshotError::Older { .. })));

    let stranger = identity(Role::Manager, "stranger", 77);
    let own = made.manifest.writer;
    made.manifest.writer = stranger.sign.as_ref().unwrap().public();
    assert!(matches!(adopt_it(&made, (0, Cursor::START)), Err(SnapshotError::BadSignature)));
    made.manifest.writer = own;

    let last = made.parts[0].len() - 10;
    made.parts[0][last] ^= 1;
    assert!(matches!(adopt_it(&made, (0, Cursor::START)), Err(SnapshotError::BadPart { number: 1 })));
}
