//! A reader accepts what admitted writers wrote, in order, and refuses everything else without moving.

use certbus_core::authority::{AuthorityError, Ceremony};
use certbus_core::batch::Batch;
use certbus_core::chain::{Chain, ChainError, Pin};
use certbus_core::event::Event;
use certbus_core::id::{LogId, RingId, StreamKind};
use certbus_core::identity::Role;
use certbus_core::seal::SealError;
use certbus_core::statement::Said;
use certbus_core::testing::{World, identity};

fn refused(world: &World, batch: &Batch) -> ChainError {
    let mut chain = world.chain.clone();
    let error = chain.accept(batch).expect_err("refused");
    assert_eq!(chain, world.chain, "a refusal changes nothing");
    error
}

#[test]
fn a_replayed_reordered_or_missing_batch_is_refused() {
    let (mut world, first) = World::new(StreamKind::Certs);
    let second = world.append(vec![Event::Alive]);
    assert!(matches!(refused(&world, &first), ChainError::OutOfOrder { got: 1, .. }));
    assert!(matches!(refused(&world, &second), ChainError::OutOfOrder { got: 2, .. }));
    let before = world.chain.clone();
    world.append(vec![Event::Alive]);
    let fourth = world.append(vec![Event::Alive]);
    world.chain = before;
    assert!(matches!(refused(&world, &fourth), ChainError::OutOfOrder { got: 4, .. }));
}

#[test]
fn a_batch_with_another_predecessor_breaks_the_hash() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let fork = world.batch(vec![]);
    world.append(vec![Event::Alive]);
    let mut other = world.chain.clone();
    let after_fork = {
        let draft = world.draft(vec![]);
        Batch::sign(draft, fork.cursor(), world.manager.sign.as_ref().unwrap())
    };
    assert!(matches!(other.accept(&after_fork), Err(ChainError::BrokenHash { seq: 3 })));
}

#[test]
fn every_flipped_bit_of_a_batch_is_noticed() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let events = world.certificate(1, 1, &["a.example.com"]);
    let good = world.batch(events);
    for at in 0..good.bytes().len() {
        let mut bytes = good.bytes().to_vec();
        bytes[at] ^= 1;
        let accepted = Batch::parse(bytes).is_ok_and(|bent| world.chain.clone().accept(&bent).is_ok());
        assert!(!accepted, "byte {at}: {:?}", good.bytes()[at] as char);
    }
}

#[test]
fn a_foreign_and_a_retired_writer_are_refused_by_name() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let second = identity(Role::Manager, "second", 5);
    let key = second.sign.as_ref().unwrap();
    let foreign = Batch::sign(world.draft(vec![Event::Alive]), world.chain.cursor(), key);
    assert!(matches!(refused(&world, &foreign), ChainError::ForeignWriter { .. }));

    let admitted = world.say(|owner| owner.admit_writer("second", key.public(), second.open.public()).unwrap());
    world.append(admitted);
    let theirs = Batch::sign(world.draft(vec![Event::Alive]), world.chain.cursor(), key);
    world.chain.accept(&theirs).expect("admitted now");

    let retired = world.say(|owner| owner.retire_writer("second").unwrap());
    world.append(retired);
    let late = Batch::sign(world.draft(vec![Event::Alive]), world.chain.cursor(), key);
    let error = refused(&world, &late);
    assert!(matches!(&error, ChainError::RetiredWriter { name, retired: 4, .. } if name == "second"), "{error}");
}

#[test]
fn a_writer_cannot_admit_himself_nor_replay_his_admission() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let thief = identity(Role::Owner, "thief", 6);
    let forged = {
        let mut fake = world.chain.clone();
        let said = Said::WriterAdmitted {
            name: "thief".into(),
            key: thief.sign.as_ref().unwrap().public(),
            open: thief.open.public(),
        };
        fake.state(said, LogId::from_bytes([9; 16]), world.now, thief.sign.as_ref().unwrap(), None)
    };
    assert!(matches!(forged, Err(ChainError::BadStatement { .. })), "signed by another than the authority");
    assert!(matches!(Ceremony::resume(&world.chain, &thief, world.now), Err(AuthorityError::NotTheAuthority)));

    let second = identity(Role::Manager, "second", 5);
    let key = second.sign.as_ref().unwrap();
    let admitted = world.say(|o| o.admit_writer("second", key.public(), second.open.public()).unwrap());
    world.append(admitted.clone());
    let retired = world.say(|o| o.retire_writer("second").unwrap());
    world.append(retired);
    let replay = Batch::sign(world.draft(admitted), world.chain.cursor(), key);
    assert!(matches!(refused(&world, &replay), ChainError::RetiredWriter { .. }));
}

#[test]
fn after_all_managers_are_lost_the_authority_lets_a_new_one_write() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let fresh = identity(Role::Manager, "fresh", 7);
    let key = fresh.sign.as_ref().unwrap();
    let statements = world.say(|owner| {
        owner.admit_writer("fresh", key.public(), fresh.open.public()).unwrap();
        owner.retire_writer("first").unwrap();
    });
    let batch = Batch::sign(world.draft(statements), world.chain.cursor(), key);
    world.chain.accept(&batch).expect("admitted in its own batch");
    let error = Ceremony::resume(&world.chain, &world.owner, world.now).unwrap().retire_writer("fresh").unwrap_err();
    assert!(matches!(error, AuthorityError::LastWriter(_)), "{error}");
}

#[test]
fn a_gap_in_the_statements_is_refused() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let two = world.say(|owner| {
        owner.start_ring(RingId::from_bytes([2; 8])).unwrap();
        owner.start_ring(RingId::from_bytes([3; 8])).unwrap();
    });
    let gap = world.batch(two[1..].to_vec());
    assert!(matches!(refused(&world, &gap), ChainError::BadStatement { number: 6, .. }));
    world.append(two);
}

#[test]
fn another_log_another_stream_and_an_unpinned_authority_are_refused() {
    let (world, first) = World::new(StreamKind::Certs);
    let (_, first_of_work) = World::new(StreamKind::Work);
    assert!(matches!(
        Chain::new(StreamKind::Certs, world.pins()).accept(&first_of_work),
        Err(ChainError::Elsewhere { .. })
    ));
    let pin = world.pins()[0];
    let other_log = Pin { log: LogId::from_bytes([8; 16]), ..pin };
    assert!(matches!(Chain::new(StreamKind::Certs, vec![other_log]).accept(&first), Err(ChainError::NotPinned(_))));
    let other_authority = Pin { authority: world.nodes.open.public(), ..pin };
    let mut chain = Chain::new(StreamKind::Certs, vec![other_authority]);
    chain.accept(&first).expect("it may change hands later");
    assert!(chain.check_anchored().is_err(), "but nothing is adopted before it did");
}

#[test]
fn a_change_of_authority_needs_both_keys_and_moves_the_anchor() {
    let (mut world, first) = World::new(StreamKind::Certs);
    let heir = identity(Role::Owner, "heir", 8);
    let log = LogId::from_bytes([9; 16]);
    let said = Said::AuthorityChanged {
        authority: heir.sign.as_ref().unwrap().public(),
        recovery: heir.open.public(),
        compromised: false,
    };
    let (old, new) = (world.owner.sign.as_ref().unwrap(), heir.sign.as_ref().unwrap());
    let alone = world.chain.clone().state(said.clone(), log, world.now, old, None);
    assert!(matches!(alone, Err(ChainError::BadStatement { .. })), "not accepted by the new key");
    let signed = world.chain.clone().state(said, log, world.now, old, Some(new)).unwrap();
    let second = world.append(vec![Event::Statement(signed)]);
    assert!(Ceremony::resume(&world.chain, &world.owner, world.now).is_err(), "the old key speaks no more");
    assert!(Ceremony::resume(&world.chain, &heir, world.now).is_ok());

    let pinned_to_heir = Pin { log, authority: new.public() };
    let mut chain = Chain::new(StreamKind::Certs, vec![pinned_to_heir]);
    chain.accept(&first).unwrap();
    assert!(chain.check_anchored().is_err());
    chain.accept(&second).unwrap();
    assert!(chain.check_anchored().is_ok());
}

#[test]
fn an_unknown_critical_event_stops_the_reader_and_another_does_not() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let line = |critical: bool| {
        vec![format!(r#"{{"kind":"FromTheFuture","format":3,"critical":{critical},"data":{{"x":1}}}}"#)]
    };
    let key = identity(Role::Manager, "first", 2);
    let key = key.sign.as_ref().unwrap();
    let critical = Batch::sign_lines(world.draft(vec![]), world.chain.cursor(), key, &line(true));
    let error = refused(&world, &critical);
    assert!(error.wants_upgrade() && error.to_string().contains("upgrade"), "{error}");

    let harmless = Batch::sign_lines(world.draft(vec![]), world.chain.cursor(), key, &line(false));
    let events = world.chain.accept(&harmless).unwrap();
    assert!(matches!(&events[..], [Event::Unknown(u)] if u.kind == "FromTheFuture" && !u.critical));
}

#[test]
fn an_event_may_be_left_out_of_a_snapshot_but_not_of_a_live_log_and_never_be_changed() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let events = world.certificate(1, 1, &["a.example.com"]);
    let batch = world.batch(events);
    let dropped = Batch::parse(batch.keeping(|index| index == 1).bytes().clone()).unwrap();
    assert_eq!(dropped.cursor(), batch.cursor());
    let events = world.chain.clone().accept_kept(&dropped).unwrap();
    assert!(matches!(&events[..], [Event::Dropped, Event::CertificateOffered(_)]));
    assert!(matches!(refused(&world, &dropped), ChainError::EventTakenOut { seq: 2 }));

    let text = String::from_utf8(batch.bytes().to_vec()).unwrap().replace("a.example.com", "b.example.com");
    let swapped = Batch::parse(text.into_bytes()).unwrap();
    assert!(matches!(refused(&world, &swapped), ChainError::Unreadable { .. }));
}

#[test]
fn a_ring_opens_for_its_recipients_and_recovery_and_a_removed_one_is_left_out_of_the_next() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let (one, two) = (RingId::from_bytes([1; 8]), RingId::from_bytes([2; 8]));
    let late = identity(Role::Node, "late", 11);
    let stranger = identity(Role::Node, "stranger", 12);
    assert!(world.chain.open_ring(one, &world.nodes.open).is_ok());
    assert!(world.chain.open_ring(one, &world.owner.open).is_ok(), "recovery");
    assert!(matches!(world.chain.open_ring(one, &stranger.open), Err(SealError::DoesNotOpen { .. })));
    assert!(world.chain.open_ring(one, &world.manager.open).is_err(), "a manager opens no certificate");

    let added = world.say(|owner| owner.add_recipient("late", late.open.public(), &[one]).unwrap());
    world.append(added);
    assert!(world.chain.open_ring(one, &late.open).is_ok(), "given what live certificates use");

    let removed = world.say(|owner| owner.remove_recipient("nodes", true, two).unwrap());
    world.append(removed);
    assert!(world.chain.open_ring(two, &late.open).is_ok());
    assert!(world.chain.open_ring(two, &world.nodes.open).is_err());
    assert!(world.chain.is_compromised(one) && !world.chain.is_compromised(two));
}

#[test]
fn a_restore_names_the_place_it_goes_on_from() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let here = world.chain.cursor();
    let log = LogId::from_bytes([9; 16]);
    let old = world.owner.sign.as_ref().unwrap();
    let mut elsewhere = here;
    elsewhere.hash = certbus_core::id::Hash::of(b"x");
    let wrong = Said::LogRestored { epoch: 1, certs: elsewhere, work: here };
    assert!(world.chain.clone().state(wrong, log, world.now, old, None).is_err());
    let right = Said::LogRestored { epoch: 1, certs: here, work: here };
    let signed = world.chain.clone().state(right, log, world.now, old, None).unwrap();
    world.append(vec![Event::Statement(signed)]);
    assert_eq!(world.chain.epoch(), 1);
}

#[test]
fn other_pins_decide_anew_whom_to_trust() {
    let (world, _) = World::new(StreamKind::Certs);
    let mut chain = world.chain.clone();
    let pin = world.pins()[0];
    chain.repin(vec![Pin { authority: world.nodes.open.public(), ..pin }]);
    assert!(chain.check_anchored().is_err(), "an authority that the settings dropped is trusted no more");
    chain.repin(vec![pin]);
    assert!(chain.check_anchored().is_ok());
}

#[test]
fn a_sealing_suite_of_a_newer_program_asks_for_an_upgrade() {
    let (mut world, _) = World::new(StreamKind::Certs);
    let line = world.certificate(1, 1, &["a.example.com"])[0].encode().replace("hpke-0020", "hpke-0099");
    let key = identity(Role::Manager, "first", 2);
    let newer = Batch::sign_lines(world.draft(vec![]), world.chain.cursor(), key.sign.as_ref().unwrap(), &[line]);
    let error = refused(&world, &newer);
    assert!(error.wants_upgrade(), "{error}");
}
