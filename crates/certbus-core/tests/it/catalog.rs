//! What the catalog says after a history, and what of it a snapshot keeps.

use certbus_core::catalog::{Catalog, Place, best};
use certbus_core::event::{CertificateOffered, CertificateRemoved, Event};
use certbus_core::id::{CertificateId, StreamKind};
use certbus_core::testing::World;
use proptest::prelude::*;

fn apply(catalog: &mut Catalog, seq: u64, events: &[Event]) {
    for (index, event) in events.iter().enumerate() {
        catalog.apply(Place { seq, index: index as u32 }, event);
    }
}

#[test]
fn a_version_is_current_once_offered_and_the_one_before_is_forgotten_then() {
    let (world, _) = World::new(StreamKind::Certs);
    let id = CertificateId::from_bytes([1; 8]);
    let (first, second) = (world.certificate(1, 1, &["a.example.com"]), world.certificate(1, 2, &["a.example.com"]));
    let mut catalog = Catalog::default();
    apply(&mut catalog, 2, &first[..1]);
    assert!(catalog.current(id, None).is_none(), "obtained is not offered");
    apply(&mut catalog, 3, &first[1..]);
    let old = catalog.current(id, Some("nodes")).unwrap().fingerprint;
    apply(&mut catalog, 4, &second[..1]);
    assert_eq!(catalog.current(id, Some("nodes")).unwrap().fingerprint, old);

    let Event::CertificateOffered(all) = &second[1] else { unreachable!() };
    let canary = CertificateOffered { to: Some(vec!["canary".into()]), ..all.clone() };
    apply(&mut catalog, 5, &[Event::CertificateOffered(canary)]);
    assert_eq!(catalog.current(id, Some("nodes")).unwrap().fingerprint, old);
    assert_eq!(catalog.current(id, Some("canary")).unwrap().fingerprint, all.version);

    apply(&mut catalog, 6, &second[1..]);
    assert_eq!(catalog.current(id, Some("nodes")).unwrap().fingerprint, all.version);
    assert_eq!(catalog.timeline(id).unwrap().len(), 1, "the old version is of no use any more");

    apply(&mut catalog, 7, &[Event::CertificateRemoved(CertificateRemoved { certificate: id })]);
    assert!(catalog.current(id, None).is_none());
}

#[test]
fn invariant_5_the_newest_valid_version_answers_and_the_newest_if_none_is_valid() {
    let (world, _) = World::new(StreamKind::Certs);
    let mut catalog = Catalog::default();
    apply(&mut catalog, 2, &world.certificate(1, 1, &["a.example.com"]));
    apply(&mut catalog, 3, &world.certificate(2, 1, &["a.example.com"]));
    let mut versions: Vec<_> =
        [1, 2].map(|n| (**catalog.newest(CertificateId::from_bytes([n; 8])).unwrap()).clone()).into();
    let now = world.now;
    assert_eq!(best(versions.iter(), now).unwrap().place.seq, 3);
    versions[1].not_after = now.minus(std::time::Duration::from_secs(1));
    assert_eq!(best(versions.iter(), now).unwrap().place.seq, 2, "the expired one gives way");
    versions[0].not_after = versions[1].not_after;
    assert_eq!(best(versions.iter(), now).unwrap().place.seq, 3, "validity never stops serving");
}

proptest! {
    /// Whatever the history, folding only what is live gives the same current versions as folding all of it.
    #[test]
    fn what_a_snapshot_keeps_folds_to_the_same_catalog(
        history in proptest::collection::vec((0_u8..4, 0_u8..5, any::<bool>()), 0..40)
    ) {
        let (world, _) = World::new(StreamKind::Certs);
        let mut log = Vec::new();
        for (step, (id, what, named)) in history.into_iter().enumerate() {
            let certificate = CertificateId::from_bytes([id; 8]);
            let made = world.certificate(id, step as u8 + 1, &["a.example.com"]);
            match what {
                0 => log.push(Event::CertificateRemoved(CertificateRemoved { certificate })),
                1 => log.push(made[0].clone()),
                _ => {
                    let Event::CertificateOffered(offer) = &made[1] else { unreachable!() };
                    let to = named.then(|| vec!["canary".to_owned()]);
                    log.push(made[0].clone());
                    log.push(Event::CertificateOffered(CertificateOffered { to, ..offer.clone() }));
                }
            }
        }
        let place = |at: usize| Place { seq: at as u64 + 1, index: 0 };
        let mut all = Catalog::default();
        for (at, event) in log.iter().enumerate() {
            all.apply(place(at), event);
        }
        let mut kept = Catalog::default();
        for (at, event) in log.iter().enumerate() {
            if all.is_live(place(at), event) {
                kept.apply(place(at), event);
            }
        }
        for id in 0..4 {
            let id = CertificateId::from_bytes([id; 8]);
            for recipient in [None, Some("nodes"), Some("canary")] {
                prop_assert_eq!(all.current(id, recipient), kept.current(id, recipient));
            }
            prop_assert_eq!(all.newest(id), kept.newest(id));
        }
    }
}
