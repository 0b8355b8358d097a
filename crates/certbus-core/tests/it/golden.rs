//! Stored formats: a file of each record version is kept, and must read the same for ever.
//! `BLESS=1 cargo test -p certbus-core` writes files that are missing, never ones that are there.

use std::path::PathBuf;

use certbus_core::batch::Batch;
use certbus_core::chain::Chain;
use certbus_core::event::*;
use certbus_core::id::{CertificateId, Hash, RingId, StreamKind};
use certbus_core::seal::SealedText;
use certbus_core::spec::{Challenge, KeyType};
use certbus_core::statement::Said;
use certbus_core::testing::{World, identity};
use certbus_core::{identity::Role, name::DnsName, time::Timestamp};

fn stored(name: &str, make: impl FnOnce() -> Vec<u8>) -> Vec<u8> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if !path.exists() && std::env::var_os("BLESS").is_some() {
        std::fs::write(&path, make()).unwrap();
    }
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}; a golden file is never removed", path.display()))
}

/// Every kind of statement and event, on the stream where it belongs.
fn history(stream: StreamKind) -> Vec<u8> {
    let (mut world, first) = World::new(stream);
    let mut batches = vec![first];
    let late = identity(Role::Node, "late", 11);
    let second = identity(Role::Manager, "second", 5);
    let heir = identity(Role::Owner, "heir", 8);
    let certificate = CertificateId::from_bytes([1; 8]);
    let mut made = world.certificate(1, 1, &["*.example.com", "example.com"]);
    let Event::CertificateObtained(obtained) = made[0].clone() else { unreachable!() };
    let statements = world.say(|owner| {
        let one = RingId::from_bytes([1; 8]);
        owner.admit_writer("second", second.sign.as_ref().unwrap().public(), second.open.public()).unwrap();
        owner.add_recipient("late", late.open.public(), &[one]).unwrap();
        owner.remove_recipient("late", true, RingId::from_bytes([2; 8])).unwrap();
        owner.retire_writer("second").unwrap();
    });
    batches.push(world.append(statements));
    let log = world.chain.log().unwrap();
    let here = world.chain.cursor();
    let (old, new) = (world.owner.sign.as_ref().unwrap(), heir.sign.as_ref().unwrap());
    let mut chain = world.chain.clone();
    let restored = Said::LogRestored { epoch: 1, certs: here, work: here };
    let changed = Said::AuthorityChanged { authority: new.public(), recovery: heir.open.public(), compromised: false };
    let said = vec![
        Event::Statement(chain.state(restored, log, world.now, old, None).unwrap()),
        Event::Statement(chain.state(changed, log, world.now, old, Some(new)).unwrap()),
    ];
    batches.push(world.append(said));
    let version = obtained.version;
    let events = match stream {
        StreamKind::Certs => {
            made.push(Event::CertificateOffered(CertificateOffered {
                certificate,
                version,
                to: Some(vec!["canary".into()]),
            }));
            made.push(Event::CertificateRevoked(CertificateRevoked { certificate, version, reason: 1 }));
            made.push(Event::CertificateRemoved(CertificateRemoved { certificate }));
            made.push(Event::Alive);
            made
        }
        StreamKind::Work => vec![
            Event::CertificateRequested(CertificateRequested {
                certificate,
                names: vec![DnsName::parse("example.com").unwrap()],
                challenge: Challenge::Dns01,
                key_type: KeyType::P256,
                ca: Some("letsencrypt".into()),
                profile: Some("shortlived".into()),
            }),
            Event::IssuanceClaimed(IssuanceClaimed { certificate, attempt: 1, by: "first".into(), until: world.now }),
            Event::OrderPlaced(std::sync::Arc::new(OrderPlaced {
                certificate,
                attempt: 1,
                reason: Reason::New,
                ca: "letsencrypt".into(),
                account: "https://ca.example/acct/1".into(),
                order: "https://ca.example/order/1".into(),
                names: vec![DnsName::parse("example.com").unwrap()],
                csr: "AAAA".into(),
                spki: obtained.spki,
                key: obtained.key.clone(),
                challenges: vec![serde_json::json!({"name": "example.com"})],
            })),
            Event::RenewalWindowChanged(RenewalWindowChanged {
                certificate,
                version,
                start: world.now,
                end: world.now,
                explanation: None,
            }),
            Event::IssuanceFailed(IssuanceFailed {
                certificate,
                attempt: 1,
                problem: "urn:ietf:params:acme:error:dns: no such name".into(),
                retry_at: world.now,
                name: None,
            }),
            Event::OrderEnded(OrderEnded {
                certificate,
                order: "https://ca.example/order/1".into(),
                version: Some(version),
            }),
            Event::ConfigUpdated(ConfigUpdated {
                config: SealedText::seal("default", "[ca.internal]\n", &[world.manager.open.public()]).unwrap(),
            }),
        ],
    };
    batches.push(world.append(events));
    batches.iter().map(|b| String::from_utf8(b.bytes().to_vec()).unwrap()).collect::<Vec<_>>().join("\n").into_bytes()
}

fn read(stream: StreamKind, file: &str) -> (Chain, Vec<Event>) {
    let bytes = stored(file, || history(stream));
    let (world, _) = World::new(stream);
    let mut chain = Chain::new(stream, world.pins());
    let mut events = Vec::new();
    for batch in certbus_core::snapshot::batches_of(&bytes).unwrap() {
        assert_eq!(Batch::parse(batch.bytes().clone()).unwrap(), batch);
        events.extend(chain.accept(&batch).unwrap());
    }
    (chain, events)
}

#[test]
fn the_first_format_of_certs_reads_as_it_did() {
    let (chain, events) = read(StreamKind::Certs, "certs.1.log");
    let kinds: Vec<&str> = events.iter().filter(|e| !matches!(e, Event::Statement(_))).map(Event::kind).collect();
    assert_eq!(
        kinds,
        [
            "CertificateObtained",
            "CertificateOffered",
            "CertificateOffered",
            "CertificateRevoked",
            "CertificateRemoved",
            "Alive"
        ]
    );
    assert_eq!((chain.epoch(), chain.statements().len()), (1, 11));
    let said: Vec<&str> = chain.statements().iter().map(|s| s.decode().unwrap().said.kind()).collect();
    for kind in [
        "LogStarted",
        "WriterAdmitted",
        "WriterRetired",
        "RecipientAdded",
        "RecipientRemoved",
        "RingStarted",
        "AuthorityChanged",
        "LogRestored",
    ] {
        assert!(said.contains(&kind), "{kind} is in the golden file");
    }
    let Some(Event::CertificateObtained(obtained)) = events.iter().find(|e| e.kind() == "CertificateObtained") else {
        panic!("obtained")
    };
    assert_eq!(obtained.not_before, Timestamp::parse("2026-09-21T14:13:21Z").unwrap());
    assert_eq!(obtained.spki, Hash::of(&[1, 1]));
    let nodes = identity(Role::Node, "nodes", 3);
    let ring = chain.open_ring(obtained.key.ring, &nodes.open).unwrap();
    let purpose = certbus_core::seal::Purpose::CertificateKey {
        tenant: "default",
        ring: obtained.key.ring,
        certificate: obtained.certificate,
        spki: obtained.spki,
    };
    assert_eq!(certbus_core::seal::open(&ring, purpose, &obtained.key.sealed).unwrap().as_slice(), b"private");
}

#[test]
fn the_first_format_of_work_reads_as_it_did() {
    let (_, events) = read(StreamKind::Work, "work.1.log");
    let kinds: Vec<&str> = events.iter().filter(|e| !matches!(e, Event::Statement(_))).map(Event::kind).collect();
    assert_eq!(
        kinds,
        [
            "CertificateRequested",
            "IssuanceClaimed",
            "OrderPlaced",
            "RenewalWindowChanged",
            "IssuanceFailed",
            "OrderEnded",
            "ConfigUpdated"
        ]
    );
    let Some(Event::ConfigUpdated(config)) = events.last() else { panic!("config") };
    let manager = identity(Role::Manager, "first", 2);
    assert_eq!(config.config.open("default", &manager.open).unwrap().as_str(), "[ca.internal]\n");
}

/// What came to `work` after its first file was made.
fn later_work() -> Vec<u8> {
    let (mut world, first) = World::new(StreamKind::Work);
    let certificate = CertificateId::from_bytes([1; 8]);
    let second = world.append(vec![
        Event::ChallengesChanged(ChallengesChanged {
            certificate,
            order: "https://ca.example/order/1".into(),
            needed: false,
        }),
        Event::RecordClaimed(RecordClaimed {
            record: "dns-01:_acme-challenge.example.com".into(),
            by: "https://ca.example/order/1".into(),
            until: world.now,
        }),
        Event::IssuanceFailed(IssuanceFailed {
            certificate,
            attempt: 1,
            problem: "urn:ietf:params:acme:error:dns: no such name".into(),
            retry_at: world.now,
            name: Some(DnsName::parse("example.com").unwrap()),
        }),
    ]);
    text_of(&[first, second])
}

/// And after its second.
fn latest_work() -> Vec<u8> {
    let (mut world, first) = World::new(StreamKind::Work);
    let limited = AccountLimited { ca: "letsencrypt".into(), until: world.now };
    let second = world.append(vec![Event::AccountLimited(limited)]);
    text_of(&[first, second])
}

fn text_of(batches: &[Batch]) -> Vec<u8> {
    let texts = batches.iter().map(|batch| String::from_utf8(batch.bytes().to_vec()).unwrap());
    texts.collect::<Vec<_>>().join("\n").into_bytes()
}

#[test]
fn what_came_to_work_later_reads_as_it_did_and_is_written_as_it_was() {
    let files = [
        ("work.2.log", stored("work.2.log", later_work), &["ChallengesChanged", "RecordClaimed", "IssuanceFailed"][..]),
        ("work.3.log", stored("work.3.log", latest_work), &["AccountLimited"]),
    ];
    for (file, bytes, wanted) in files {
        let text = String::from_utf8(bytes.clone()).unwrap();
        let mut kinds = Vec::new();
        for batch in certbus_core::snapshot::batches_of(&bytes).unwrap() {
            for event in batch.events().unwrap() {
                assert!(text.contains(&event.encode()), "{} is encoded as it was", event.kind());
                kinds.push(event.kind().to_owned());
            }
        }
        kinds.retain(|kind| kind != "Statement");
        assert_eq!(kinds, wanted, "{file}");
    }
}

#[test]
fn what_is_written_today_is_what_the_golden_file_holds() {
    for (stream, file) in [(StreamKind::Certs, "certs.1.log"), (StreamKind::Work, "work.1.log")] {
        let (_, events) = read(stream, file);
        let bytes = stored(file, || history(stream));
        let text = String::from_utf8(bytes).unwrap();
        for event in events {
            assert!(text.contains(&event.encode()), "{} is encoded as it was", event.kind());
        }
    }
}

#[test]
fn an_old_reader_ignores_fields_that_are_added() {
    let (world, _) = World::new(StreamKind::Certs);
    let line = world.certificate(1, 1, &["a.example.com"])[0].encode();
    let newer = line.replacen("\"data\":{", "\"data\":{\"added_later\":{\"x\":[1,2]},", 1);
    assert_ne!(line, newer);
    assert_eq!(Event::decode(&newer).unwrap(), Event::decode(&line).unwrap());
}
