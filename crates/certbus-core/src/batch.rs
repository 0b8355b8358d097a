//! A batch: the unit that is appended. Lines of text: envelope, signature, then one line an event.
//!
//! ```text
//! {"format":1,"log":"…","stream":"certs","seq":7,"id":"…","previous":"…","time":"…","actor":"…","source":"…","writer":"…","events":["…"]}
//! <signature of the envelope line>
//! {"kind":"CertificateOffered","format":1,"critical":true,"data":{…}}
//! ```
//! The envelope names the SHA-256 of each event, so an event may be dropped (`-`) and the batch still verifies.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{DROPPED, Event, EventError};
use crate::id::{BatchId, Cursor, Hash, LogId, PublicKey, StreamKind};
use crate::key::{Domain, Signature, SigningKey};
use crate::time::Timestamp;

/// The largest encoded batch, in bytes: what every engine can store as one record.
pub const MAX_BATCH: usize = 256 * 1024;

/// The signed head of a batch, and with it the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// 1.
    pub format: u32,
    /// The log this batch belongs to.
    pub log: LogId,
    /// The stream.
    pub stream: StreamKind,
    /// 1, 2, 3 …
    pub seq: u64,
    /// Random; tells a writer whether an append of unknown outcome was stored.
    pub id: BatchId,
    /// The hash of the envelope before; [`Hash::ZERO`] for the first.
    pub previous: Hash,
    /// The writer's clock.
    pub time: Timestamp,
    /// Who wanted it: `manager:NAME`, `user:NAME`, `token:NAME`.
    pub actor: String,
    /// From where: `cli`, `serve`, an address.
    pub source: String,
    /// The Ed25519 key that signed.
    pub writer: PublicKey,
    /// The SHA-256 of each event's line.
    pub events: Vec<Hash>,
}

/// What a writer wants said, before it has a place.
#[derive(Clone, Debug)]
pub struct Draft {
    /// The log.
    pub log: LogId,
    /// The stream.
    pub stream: StreamKind,
    /// Random.
    pub id: BatchId,
    /// Now.
    pub time: Timestamp,
    /// Who wanted it.
    pub actor: String,
    /// From where.
    pub source: String,
    /// What is said.
    pub events: Vec<Event>,
}

/// A batch as engines store it: its place and its bytes. Structure is checked, signatures are not.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    envelope: Arc<Envelope>,
    hash: Hash,
    bytes: Arc<[u8]>,
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// Not the lines of a batch.
    #[error("not a batch: {0}")]
    Malformed(String),
    /// Written by a newer program.
    #[error("batch format {0}, which this program does not know: upgrade it")]
    NewerFormat(u32),
    /// A word of a closed set, or a sealing suite, of a newer program.
    #[error("{0}")]
    NewerWord(String),
    /// An event's line is not the one whose hash the envelope names.
    #[error("event {index} of batch {seq} is not the one that was signed")]
    EventAltered {
        /// The batch.
        seq: u64,
        /// Counted from 1.
        index: usize,
    },
    /// An event's line has the right hash, but is none.
    #[error(transparent)]
    Event(#[from] EventError),
}

impl Batch {
    /// Encodes and signs `draft` as the one after `expected`.
    pub fn sign(draft: Draft, expected: Cursor, writer: &SigningKey) -> Self {
        let lines: Vec<String> = draft.events.iter().map(Event::encode).collect();
        Self::sign_lines(draft, expected, writer, &lines)
    }

    /// As [`Batch::sign`], for event lines already encoded: how a copy keeps the ones it does not know.
    pub fn sign_lines(draft: Draft, expected: Cursor, writer: &SigningKey, lines: &[String]) -> Self {
        let envelope = Envelope {
            format: 1,
            log: draft.log,
            stream: draft.stream,
            seq: expected.seq + 1,
            id: draft.id,
            previous: expected.hash,
            time: draft.time,
            actor: draft.actor,
            source: draft.source,
            writer: writer.public(),
            events: lines.iter().map(|line| Hash::of(line.as_bytes())).collect(),
        };
        let head = serde_json::to_string(&envelope).unwrap_or_default();
        let signature = writer.sign(Domain::Batch, head.as_bytes());
        let mut text = format!("{head}\n{signature}\n");
        for line in lines {
            text.push_str(line);
            text.push('\n');
        }
        Self { hash: Hash::of(head.as_bytes()), envelope: Arc::new(envelope), bytes: text.into_bytes().into() }
    }

    /// Reads stored bytes.
    ///
    /// # Errors
    /// [`BatchError::Malformed`] or [`BatchError::NewerFormat`].
    pub fn parse(bytes: impl Into<Arc<[u8]>>) -> Result<Self, BatchError> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let bytes = bytes.into();
        let head = lines(&bytes)?.next().unwrap_or_default();
        let malformed = |e: serde_json::Error| BatchError::Malformed(format!("its envelope: {e}"));
        let Format { format } = serde_json::from_str(head).map_err(malformed)?;
        if format != 1 {
            return Err(BatchError::NewerFormat(format));
        }
        let envelope: Envelope = serde_json::from_str(head).map_err(malformed)?;
        let hash = Hash::of(head.as_bytes());
        let count = lines(&bytes)?.count();
        if count != envelope.events.len() + 2 {
            return Err(BatchError::Malformed(format!(
                "{} events named, {} lines found",
                envelope.events.len(),
                count.saturating_sub(2)
            )));
        }
        Ok(Self { envelope: Arc::new(envelope), hash, bytes })
    }

    /// The signed head.
    pub fn envelope(&self) -> &Envelope {
        &self.envelope
    }

    /// The place after this batch.
    pub fn cursor(&self) -> Cursor {
        Cursor { seq: self.envelope.seq, hash: self.hash }
    }

    /// The place this batch was written for.
    pub fn expected(&self) -> Cursor {
        Cursor { seq: self.envelope.seq.saturating_sub(1), hash: self.envelope.previous }
    }

    /// The stored bytes.
    pub fn bytes(&self) -> &Arc<[u8]> {
        &self.bytes
    }

    /// Whether the envelope's signature is its writer's. Whether that writer may write is the chain's to say.
    pub fn signature_holds(&self) -> bool {
        let mut parts = lines(&self.bytes).into_iter().flatten();
        let head = parts.next().unwrap_or_default();
        let signature = parts.next().and_then(Signature::parse);
        signature.is_some_and(|s| s.verifies(&self.envelope.writer, Domain::Batch, head.as_bytes()))
    }

    /// The event lines, each with its place in [`Batch::bytes`], checked against the hashes that were signed.
    ///
    /// # Errors
    /// [`BatchError::EventAltered`].
    pub fn event_lines(&self) -> Result<Vec<EventLine<'_>>, BatchError> {
        let mut offset = 0;
        let mut found = Vec::with_capacity(self.envelope.events.len());
        for (number, text) in lines(&self.bytes)?.enumerate() {
            let at = offset;
            offset += text.len() + 1;
            let Some(index) = number.checked_sub(2) else { continue };
            let named = self.envelope.events.get(index);
            if text != DROPPED && named != Some(&Hash::of(text.as_bytes())) {
                return Err(BatchError::EventAltered { seq: self.envelope.seq, index: index + 1 });
            }
            found.push(EventLine { text, offset: at });
        }
        Ok(found)
    }

    /// Whether an event's line is left out.
    pub fn lacks_events(&self) -> bool {
        lines(&self.bytes).into_iter().flatten().skip(2).any(|line| line == DROPPED)
    }

    /// The events, decoded and checked against the hashes that were signed.
    ///
    /// # Errors
    /// [`BatchError`].
    pub fn events(&self) -> Result<Vec<Event>, BatchError> {
        let decode = |line: &EventLine<'_>| match Event::decode(line.text) {
            // What was signed and is JSON, but has a word that is not known here, is of a newer program.
            Err(error) if error.is_newer() => Err(BatchError::NewerWord(error.to_string())),
            other => Ok(other?),
        };
        self.event_lines()?.iter().map(decode).collect()
    }

    /// The same batch with only the events kept that `keep` says, by index from 0. Its hash stays.
    #[must_use]
    pub fn keeping(&self, mut keep: impl FnMut(usize) -> bool) -> Self {
        let mut text = String::with_capacity(self.bytes.len());
        for (number, line) in lines(&self.bytes).into_iter().flatten().enumerate() {
            text.push_str(if number < 2 || keep(number - 2) { line } else { DROPPED });
            text.push('\n');
        }
        Self { envelope: self.envelope.clone(), hash: self.hash, bytes: text.into_bytes().into() }
    }
}

/// One event's line in a batch.
#[derive(Clone, Copy, Debug)]
pub struct EventLine<'a> {
    /// The text, without its line break.
    pub text: &'a str,
    /// Where it begins in the batch's bytes.
    pub offset: usize,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} {}, {} bytes)", self.envelope.stream, self.cursor(), self.bytes.len())
    }
}

fn lines(bytes: &[u8]) -> Result<impl Iterator<Item = &str>, BatchError> {
    let text = std::str::from_utf8(bytes).map_err(|_| BatchError::Malformed("it is not UTF-8".into()))?;
    let text = text.strip_suffix('\n').ok_or_else(|| BatchError::Malformed("it is cut off".into()))?;
    Ok(text.split('\n'))
}
