//! A small world for tests: an owner, a manager and nodes with fixed keys, and the batches they write. Not for use.
#![expect(clippy::expect_used, reason = "test support: a failure here is a failed test")]

use std::sync::Arc;

use crate::authority::Ceremony;
use crate::batch::{Batch, Draft};
use crate::chain::{Chain, Pin};
use crate::event::{CertificateObtained, CertificateOffered, Event, Reason};
use crate::id::{BatchId, CertificateId, Hash, LogId, RingId, StreamKind};
use crate::identity::{Identity, Role};
use crate::key::SigningKey;
use crate::name::DnsName;
use crate::seal::{OpeningKey, Purpose, SealedKey, seal};
use crate::statement::SignedStatement;
use crate::time::Timestamp;

/// Identities and a stream at its head.
#[derive(Debug)]
pub struct World {
    /// The owner.
    pub owner: Identity,
    /// The first manager.
    pub manager: Identity,
    /// The first recipient.
    pub nodes: Identity,
    /// A reader of the stream, at the last batch made.
    pub chain: Chain,
    /// The clock: each batch is a second later.
    pub now: Timestamp,
    drawn: u64,
}

/// An identity with a seed of its own.
pub fn identity(role: Role, name: &str, seed: u8) -> Identity {
    let open = OpeningKey::from_secret(&[seed; 32]).expect("32 bytes");
    let sign = (role != Role::Node).then(|| SigningKey::from_seed([seed; 32]).expect("32 bytes"));
    Identity { role, tenant: "default".into(), name: name.into(), pin: None, sign, open }
}

impl World {
    /// A world whose log has its first batch, which is returned too.
    pub fn new(stream: StreamKind) -> (Self, Batch) {
        let log = LogId::from_bytes([9; 16]);
        let owner = identity(Role::Owner, "owner", 1);
        let manager = identity(Role::Manager, "first", 2);
        let nodes = identity(Role::Node, "nodes", 3);
        let now = Timestamp::from_millis(1_790_000_000_000);
        let mut ceremony = Ceremony::found("default", log, &owner, now).expect("a log");
        let key = manager.sign.as_ref().expect("a manager signs").public();
        ceremony.admit_writer("first", key, manager.open.public()).expect("admitted");
        ceremony.add_recipient("nodes", nodes.open.public(), &[]).expect("added");
        ceremony.start_ring(RingId::from_bytes([1; 8])).expect("started");
        let statements = ceremony.finish();
        let pin = Pin { log, authority: owner.sign.as_ref().expect("an owner signs").public() };
        let chain = Chain::new(stream, vec![pin]);
        let mut world = Self { owner, manager, nodes, chain, now, drawn: 0 };
        let first = world.append(statements.into_iter().map(Event::Statement).collect());
        (world, first)
    }

    /// Who trusts this log.
    pub fn pins(&self) -> Vec<Pin> {
        self.chain.pins().to_vec()
    }

    /// A draft of `events`, with a batch id of its own.
    pub fn draft(&mut self, events: Vec<Event>) -> Draft {
        self.drawn += 1;
        self.now = self.now.plus(std::time::Duration::from_secs(1));
        let mut id = [0; 16];
        id[..8].copy_from_slice(&self.drawn.to_be_bytes());
        Draft {
            log: LogId::from_bytes([9; 16]),
            stream: self.chain.stream(),
            id: BatchId::from_bytes(id),
            time: self.now,
            actor: "manager:first".into(),
            source: "test".into(),
            events,
        }
    }

    /// The next batch by the first manager, not yet accepted.
    pub fn batch(&mut self, events: Vec<Event>) -> Batch {
        let draft = self.draft(events);
        Batch::sign(draft, self.chain.cursor(), self.manager.sign.as_ref().expect("a manager signs"))
    }

    /// The next batch by the first manager, accepted by this world's reader.
    pub fn append(&mut self, events: Vec<Event>) -> Batch {
        let batch = self.batch(events);
        self.chain.accept(&batch).expect("accepted");
        batch
    }

    /// What the owner says, as events. Not yet on the stream.
    pub fn say(&self, what: impl FnOnce(&mut Ceremony<'_>)) -> Vec<Event> {
        let mut ceremony = Ceremony::resume(&self.chain, &self.owner, self.now).expect("the owner");
        what(&mut ceremony);
        ceremony.finish().into_iter().map(|s: SignedStatement| Event::Statement(s)).collect()
    }

    /// An obtained and an offered event with a made-up chain, sealed to the current ring.
    pub fn certificate(&self, id: u8, version: u8, names: &[&str]) -> Vec<Event> {
        let certificate = CertificateId::from_bytes([id; 8]);
        let ring = self.chain.current_ring().expect("a ring");
        let spki = Hash::of(&[id, version]);
        let purpose = Purpose::CertificateKey { tenant: "default", ring: ring.id, certificate, spki };
        let obtained = CertificateObtained {
            certificate,
            version: Hash::of(&[id, version, 0]),
            reason: if version == 1 { Reason::New } else { Reason::Renewal },
            names: names.iter().map(|n| DnsName::parse(n).expect("a name")).collect(),
            not_before: self.now,
            not_after: self.now.plus(std::time::Duration::from_secs(90 * 86400)),
            chain: "-----BEGIN CERTIFICATE-----\n".into(),
            spki,
            key: SealedKey { ring: ring.id, sealed: seal(&ring.public, purpose, b"private").expect("sealed") },
        };
        let offered = CertificateOffered { certificate, version: obtained.version, to: None };
        vec![Event::CertificateObtained(Arc::new(obtained)), Event::CertificateOffered(offered)]
    }
}
