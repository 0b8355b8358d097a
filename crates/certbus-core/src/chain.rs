//! How a reader checks a stream: batches in order and by admitted writers, statements without a gap, all under a pinned
//! authority. A bad batch changes nothing here; the reader stays where it was.

use serde::{Deserialize, Serialize};

use crate::batch::{Batch, BatchError};
use crate::event::Event;
use crate::id::{Cursor, Hash, LogId, PublicKey, RingId, StreamKind};
use crate::key::{Domain, SigningKey};
use crate::seal::{OpeningKey, Purpose, SealError, SealedFor, open};
use crate::statement::{Said, SignedStatement, Statement, StatementError};
use crate::time::Timestamp;

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

/// Why a batch is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Replayed, reordered, or with others missing in between.
    #[error("batch {got} does not follow {after}: it was replayed, reordered, or batches between are missing")]
    OutOfOrder {
        /// Where the reader is.
        after: Cursor,
        /// The batch's sequence number.
        got: u64,
    },
    /// The hash that the batch names as its predecessor's is another.
    #[error("batch {seq} names another predecessor than the one read: the log was rewritten or is another copy")]
    BrokenHash {
        /// The batch.
        seq: u64,
    },
    /// A batch of another log or stream.
    #[error("batch {seq} belongs to {found}, not to {wanted}")]
    Elsewhere {
        /// The batch.
        seq: u64,
        /// What it says.
        found: String,
        /// What is read.
        wanted: String,
    },
    /// The signature does not hold.
    #[error("batch {seq} has a forged or damaged signature")]
    BadSignature {
        /// The batch.
        seq: u64,
    },
    /// Signed by a key that was never admitted.
    #[error("batch {seq} is by {writer}, which was never admitted as a writer")]
    ForeignWriter {
        /// The batch.
        seq: u64,
        /// The key.
        writer: PublicKey,
    },
    /// Signed by a key after its retirement.
    #[error("batch {seq} is by the writer `{name}`, which was retired at batch {retired}")]
    RetiredWriter {
        /// The batch.
        seq: u64,
        /// Its name.
        name: String,
        /// The batch that retired it.
        retired: u64,
    },
    /// A statement that does not follow, or is not the authority's.
    #[error("statement {number} in batch {seq} is refused: {why}")]
    BadStatement {
        /// The batch.
        seq: u64,
        /// The statement.
        number: u64,
        /// Why.
        why: String,
    },
    /// The log begins with another log id or authority than the pinned one.
    #[error("the log is not the pinned one: {0}")]
    NotPinned(String),
    /// An event was taken out of a live stream. Only snapshots leave events out, under a signed manifest.
    #[error("batch {seq} lacks an event that was signed: somebody took it out")]
    EventTakenOut {
        /// The batch.
        seq: u64,
    },
    /// A critical event of a newer program.
    #[error("batch {seq} has a critical event `{kind}` (format {format}) that this program does not know: upgrade it")]
    UnknownCritical {
        /// The batch.
        seq: u64,
        /// The event's kind.
        kind: String,
        /// The event's format.
        format: u32,
    },
    /// A statement of a newer program.
    #[error("batch {seq} has {source}")]
    UnknownStatement {
        /// The batch.
        seq: u64,
        /// The kind.
        source: StatementError,
    },
    /// Not a batch.
    #[error("batch after {after} cannot be read: {source}")]
    Unreadable {
        /// Where the reader is.
        after: Cursor,
        /// What is wrong.
        source: BatchError,
    },
}

impl ChainError {
    /// Whether a newer program would read on: nothing is wrong with the log.
    pub fn wants_upgrade(&self) -> bool {
        matches!(
            self,
            Self::UnknownCritical { .. }
                | Self::UnknownStatement { .. }
                | Self::Unreadable { source: BatchError::NewerFormat(_) | BatchError::NewerWord(_), .. }
        )
    }
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

    /// Hears one statement, carried by batch `seq`. One that was heard before is passed over.
    ///
    /// # Errors
    /// [`ChainError::BadStatement`], [`ChainError::UnknownStatement`] or [`ChainError::NotPinned`].
    pub fn hear(&mut self, signed: &SignedStatement, seq: u64) -> Result<(), ChainError> {
        if self.statements.iter().any(|heard| heard.body == signed.body) {
            return Ok(());
        }
        let statement = signed.decode().map_err(|source| match source {
            StatementError::UnknownKind(_) => ChainError::UnknownStatement { seq, source },
            StatementError::Malformed(_) => self.bad(seq, 0, &source.to_string()),
        })?;
        let (number, bytes) = (statement.number, signed.body.as_bytes());
        if number != self.statements.len() as u64 + 1 {
            let why =
                format!("{} statements are known; some are missing, or this one stands twice", self.statements.len());
            return Err(self.bad(seq, number, &why));
        }
        if statement.previous != self.last_statement() {
            return Err(self.bad(seq, number, "it names another predecessor"));
        }
        let speaker = match (&statement.said, self.authority) {
            (Said::LogStarted { authority, .. }, None) => *authority,
            (_, Some(authority)) => authority,
            (_, None) => return Err(self.bad(seq, number, "no LogStarted before it")),
        };
        if !signed.signature.verifies(&speaker, Domain::Statement, bytes) {
            return Err(self.bad(seq, number, "it is not signed by the authority in force"));
        }
        if self.log().is_some_and(|log| log != statement.log) {
            return Err(self.bad(seq, number, "it belongs to another log"));
        }
        self.apply(&statement, signed, seq)?;
        self.statements.push(signed.clone());
        Ok(())
    }

    fn apply(&mut self, statement: &Statement, signed: &SignedStatement, seq: u64) -> Result<(), ChainError> {
        let (number, log) = (statement.number, statement.log);
        match &statement.said {
            Said::LogStarted { tenant, authority, recovery } => {
                if number != 1 {
                    return Err(self.bad(seq, number, "a log starts once"));
                }
                if !self.pins.iter().any(|pin| pin.log == log) {
                    let pinned: Vec<String> = self.pins.iter().map(|pin| pin.log.to_string()).collect();
                    return Err(ChainError::NotPinned(format!(
                        "it is log {log}, and the identity was made for log {}",
                        pinned.join(" or ")
                    )));
                }
                self.tenant.clone_from(tenant);
                self.anchor(log, *authority, *recovery);
            }
            Said::WriterAdmitted { name, key, open } => {
                if self.writers().any(|w| w.key == *key || w.name == *name) {
                    return Err(self.bad(seq, number, "that writer or name is admitted already"));
                }
                let (name, key, open) = (name.clone(), *key, *open);
                self.writers.push(Writer { name, key, open, admitted: seq, retired: None });
            }
            Said::WriterRetired { key } => {
                let Some(writer) = self.writers.iter_mut().find(|w| w.key == *key && w.retired.is_none()) else {
                    return Err(self.bad(seq, number, "that writer is not admitted"));
                };
                writer.retired = Some(seq);
            }
            Said::RecipientAdded { name, key, rings } => {
                if self.recipients.iter().any(|r| r.key == *key || r.name == *name) {
                    return Err(self.bad(seq, number, "that recipient or name is there already"));
                }
                self.recipients.push(Recipient { name: name.clone(), key: *key, added: statement.time });
                for given in rings {
                    let Some(ring) = self.rings.iter_mut().find(|r| r.id == given.ring) else {
                        return Err(self.bad(seq, number, "it gives a ring that was never started"));
                    };
                    ring.keys.retain(|held| held.to != *key);
                    ring.keys.push(SealedFor { to: *key, sealed: given.sealed.clone() });
                }
            }
            Said::RecipientRemoved { key, compromised } => {
                if !self.recipients.iter().any(|r| r.key == *key) {
                    return Err(self.bad(seq, number, "that recipient is not there"));
                }
                self.recipients.retain(|r| r.key != *key);
                if *compromised {
                    let opened = self.rings.iter().filter(|ring| ring.keys.iter().any(|held| held.to == *key));
                    self.compromised.extend(opened.map(|ring| ring.id));
                }
            }
            Said::RingStarted { ring, public, keys } => {
                if self.rings.iter().any(|r| r.id == *ring) {
                    return Err(self.bad(seq, number, "that ring was started before"));
                }
                self.rings.push(Ring { id: *ring, public: *public, keys: keys.clone() });
            }
            Said::AuthorityChanged { authority, recovery, compromised } => {
                let accepted = signed
                    .acceptance
                    .is_some_and(|a| a.verifies(authority, Domain::Acceptance, signed.body.as_bytes()));
                if !accepted {
                    return Err(self.bad(seq, number, "the new authority did not accept the change"));
                }
                if let Some(old) = self.recovery.filter(|_| *compromised) {
                    let opened = self.rings.iter().filter(|ring| ring.keys.iter().any(|held| held.to == old));
                    self.compromised.extend(opened.map(|ring| ring.id));
                }
                self.anchor(log, *authority, *recovery);
            }
            Said::LogRestored { epoch, certs, work } => {
                let from = if self.stream == StreamKind::Certs { certs } else { work };
                if *epoch != self.epoch + 1 {
                    return Err(self.bad(seq, number, "its epoch does not follow"));
                }
                if from.seq >= seq || (from.seq == self.cursor.seq && *from != self.cursor) {
                    return Err(self.bad(seq, number, "it goes on from another place than the one read"));
                }
                self.epoch = *epoch;
            }
        }
        Ok(())
    }

    fn anchor(&mut self, log: LogId, authority: PublicKey, recovery: PublicKey) {
        self.log = Some(log);
        self.anchored |= self.pins.contains(&Pin { log, authority });
        self.authority = Some(authority);
        self.recovery = Some(recovery);
    }

    fn bad(&self, seq: u64, number: u64, why: &str) -> ChainError {
        ChainError::BadStatement { seq, number, why: why.to_owned() }
    }

    /// Prepares the next statement, signs it, and hears it, as if batch `seq` carried it.
    ///
    /// # Errors
    /// What [`Chain::hear`] would say of it: so nothing that readers refuse is ever written.
    pub fn state(
        &mut self,
        said: Said,
        log: LogId,
        now: Timestamp,
        authority: &SigningKey,
        new_authority: Option<&SigningKey>,
    ) -> Result<SignedStatement, ChainError> {
        let number = self.statements.len() as u64 + 1;
        let statement = Statement { log, number, previous: self.last_statement(), time: now, said };
        let mut signed = SignedStatement::sign(&statement, authority);
        if let Some(new) = new_authority {
            signed = signed.accepted_by(new);
        }
        self.hear(&signed, self.cursor.seq + 1)?;
        Ok(signed)
    }

    fn last_statement(&self) -> Hash {
        self.statements.last().map_or(Hash::ZERO, SignedStatement::hash)
    }

    /// Whether a pinned authority has vouched for this history. Nothing may be adopted from it before.
    ///
    /// # Errors
    /// [`ChainError::NotPinned`].
    pub fn check_anchored(&self) -> Result<(), ChainError> {
        if self.anchored {
            return Ok(());
        }
        Err(ChainError::NotPinned(match self.authority {
            Some(authority) => format!("its authority is {authority}, which the identity does not trust"),
            None => "it is empty".into(),
        }))
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
