//! How a reader checks a stream: batches in order and by admitted writers, statements without a gap, all under a pinned
//! authority. A bad batch changes nothing here; the reader stays where it was.

mod error;
mod statements;

use serde::{Deserialize, Serialize};

use crate::batch::Batch;
use crate::event::Event;
use crate::id::{Cursor, LogId, PublicKey, RingId, StreamKind};
use crate::seal::{OpeningKey, Purpose, SealError, SealedFor, open};
use crate::statement::{Said, SignedStatement};
use crate::time::Timestamp;

pub use crate::chain::error::ChainError;

/// What an identity file or the local settings trust: there is no trust on first use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The log.
    pub log: LogId,
    /// Its authority, at the start or after a change.
    pub authority: PublicKey,
}

/// Who may write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// For people.
    pub name: String,
    /// The Ed25519 key that signs batches.
    pub key: PublicKey,
    /// The X25519 key the configuration is sealed to.
    pub open: PublicKey,
    /// The batch that admitted it.
    pub admitted: u64,
    /// The batch that retired it.
    pub retired: Option<u64>,
}

/// Who certificates are sealed to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// For people.
    pub name: String,
    /// Its X25519 key.
    pub key: PublicKey,
    /// When it was added.
    pub added: Timestamp,
}

/// A sealing key pair of the tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ring {
    /// Its id.
    pub id: RingId,
    /// The public half: what keys are sealed to.
    pub public: PublicKey,
    /// The private half, sealed to each of its readers.
    pub keys: Vec<SealedFor>,
}

/// Everything a reader must know to check the next batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    stream: StreamKind,
    pins: Vec<Pin>,
    cursor: Cursor,
    anchored: bool,
    log: Option<LogId>,
    tenant: String,
    authority: Option<PublicKey>,
    recovery: Option<PublicKey>,
    epoch: u64,
    statements: Vec<SignedStatement>,
    writers: Vec<Writer>,
    recipients: Vec<Recipient>,
    rings: Vec<Ring>,
    compromised: Vec<RingId>,
    last_time: Timestamp,
}

impl Chain {
    /// At the start of a stream, trusting one of `pins`.
    pub fn new(stream: StreamKind, pins: Vec<Pin>) -> Self {
        Self {
            stream,
            pins,
            cursor: Cursor::START,
            anchored: false,
            log: None,
            tenant: String::new(),
            authority: None,
            recovery: None,
            epoch: 0,
            statements: Vec::new(),
            writers: Vec::new(),
            recipients: Vec::new(),
            rings: Vec::new(),
            compromised: Vec::new(),
            last_time: Timestamp::default(),
        }
    }

    /// Accepts the next batch and returns its events, or refuses it and stays where it was. A critical event that this
    /// program does not know is a refusal; other unknown ones come back as [`Event::Unknown`].
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn accept(&mut self, batch: &Batch) -> Result<Vec<Event>, ChainError> {
        let envelope = batch.envelope();
        if envelope.seq != self.cursor.seq + 1 {
            return Err(ChainError::OutOfOrder { after: self.cursor, got: envelope.seq });
        }
        if envelope.previous != self.cursor.hash {
            return Err(ChainError::BrokenHash { seq: envelope.seq });
        }
        if batch.lacks_events() {
            return Err(ChainError::EventTakenOut { seq: envelope.seq });
        }
        self.admit(batch)
    }

    /// Accepts a batch that was kept in a snapshot: others between may be missing, statements may not.
    ///
    /// # Errors
    /// [`ChainError`].
    pub fn accept_kept(&mut self, batch: &Batch) -> Result<Vec<Event>, ChainError> {
        if batch.envelope().seq <= self.cursor.seq {
            return Err(ChainError::OutOfOrder { after: self.cursor, got: batch.envelope().seq });
        }
        self.admit(batch)
    }

    /// Trusts other pins from here on: those of today's settings, not those of the day a snapshot was written.
    pub fn repin(&mut self, pins: Vec<Pin>) {
        let spoken: Vec<Pin> = self
            .statements
            .iter()
            .filter_map(|signed| signed.decode().ok())
            .filter_map(|statement| match statement.said {
                Said::LogStarted { authority, .. } | Said::AuthorityChanged { authority, .. } => {
                    Some(Pin { log: statement.log, authority })
                }
                _ => None,
            })
            .collect();
        self.anchored = spoken.iter().any(|pin| pins.contains(pin));
        self.pins = pins;
    }

    /// Ends a snapshot: the next batch must follow `cursor`.
    pub fn settle_at(&mut self, cursor: Cursor) {
        self.cursor = cursor;
    }

    fn admit(&mut self, batch: &Batch) -> Result<Vec<Event>, ChainError> {
        let (envelope, seq) = (batch.envelope(), batch.envelope().seq);
        let unreadable = |source| ChainError::Unreadable { after: self.cursor, source };
        if envelope.stream != self.stream {
            return Err(self.elsewhere(seq, envelope.stream.to_string(), self.stream.to_string()));
        }
        let events = batch.events().map_err(unreadable)?;
        // Statements take effect before the signature is checked: so a log's first batch, and the first batch after all
        // managers were lost, can be by the writer whom the authority admits in it.
        let mut after = events.iter().any(|e| matches!(e, Event::Statement(_))).then(|| self.clone());
        for event in &events {
            if let (Event::Statement(signed), Some(after)) = (event, after.as_mut()) {
                after.hear(signed, seq)?;
            }
        }
        let judge = after.as_ref().unwrap_or(self);
        if let Some(log) = judge.log()
            && log != envelope.log
        {
            return Err(self.elsewhere(seq, format!("log {}", envelope.log), format!("log {log}")));
        }
        judge.check_writer(batch)?;
        if let Some(Event::Unknown(unknown)) = events.iter().find(|e| matches!(e, Event::Unknown(u) if u.critical)) {
            return Err(ChainError::UnknownCritical { seq, kind: unknown.kind.clone(), format: unknown.format });
        }
        if let Some(after) = after {
            *self = after;
        }
        self.cursor = batch.cursor();
        self.last_time = self.last_time.max(envelope.time);
        Ok(events)
    }

    fn elsewhere(&self, seq: u64, found: String, wanted: String) -> ChainError {
        ChainError::Elsewhere { seq, found, wanted }
    }

    fn check_writer(&self, batch: &Batch) -> Result<(), ChainError> {
        let (seq, key) = (batch.envelope().seq, batch.envelope().writer);
        let Some(writer) = self.writers.iter().rev().find(|w| w.key == key) else {
            return Err(ChainError::ForeignWriter { seq, writer: key });
        };
        if let Some(retired) = writer.retired.filter(|retired| *retired <= seq) {
            return Err(ChainError::RetiredWriter { seq, name: writer.name.clone(), retired });
        }
        if batch.signature_holds() { Ok(()) } else { Err(ChainError::BadSignature { seq }) }
    }

    /// Where the reader is.
    pub fn cursor(&self) -> Cursor {
        self.cursor
    }

    /// The stream it reads.
    pub fn stream(&self) -> StreamKind {
        self.stream
    }

    /// The pins it was made with.
    pub fn pins(&self) -> &[Pin] {
        &self.pins
    }

    /// The log's id, once `LogStarted` was heard.
    pub fn log(&self) -> Option<LogId> {
        self.log
    }

    /// The tenant that `LogStarted` named.
    pub fn tenant(&self) -> &str {
        &self.tenant
    }

    /// 0, and one more with each `LogRestored`.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// The authority in force.
    pub fn authority(&self) -> Option<PublicKey> {
        self.authority
    }

    /// The recovery identity's public key.
    pub fn recovery(&self) -> Option<PublicKey> {
        self.recovery
    }

    /// The latest time that a batch's envelope named.
    pub fn last_time(&self) -> Timestamp {
        self.last_time
    }

    /// All statements heard, in order.
    pub fn statements(&self) -> &[SignedStatement] {
        &self.statements
    }

    /// The writers that may write now.
    pub fn writers(&self) -> impl Iterator<Item = &Writer> {
        self.writers.iter().filter(|w| w.retired.is_none())
    }

    /// Every writer that ever was.
    pub fn all_writers(&self) -> &[Writer] {
        &self.writers
    }

    /// The recipients of now.
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// The ring to seal to.
    pub fn current_ring(&self) -> Option<&Ring> {
        self.rings.last()
    }

    /// All rings, oldest first.
    pub fn rings(&self) -> &[Ring] {
        &self.rings
    }

    /// Whether a removed recipient, said to be compromised, could open what is sealed to this ring.
    pub fn is_compromised(&self, ring: RingId) -> bool {
        self.compromised.contains(&ring)
    }

    /// Opens a ring's private half.
    ///
    /// # Errors
    /// [`SealError::DoesNotOpen`] if the ring is unknown, or was never sealed to `with`.
    pub fn open_ring(&self, ring: RingId, with: &OpeningKey) -> Result<OpeningKey, SealError> {
        let refuse = || SealError::DoesNotOpen { what: format!("ring {ring}") };
        let found = self.rings.iter().find(|r| r.id == ring).ok_or_else(refuse)?;
        let held = found.keys.iter().find(|k| k.to == with.public()).ok_or_else(refuse)?;
        let secret = open(with, Purpose::Ring { tenant: &self.tenant, ring }, &held.sealed)?;
        let key = OpeningKey::from_secret(&secret)?;
        if key.public() == found.public { Ok(key) } else { Err(refuse()) }
    }
}
