//! The record layer and the framing of handshake messages (RFC 8446 section 5.1), one byte at a time if it must be. What
//! comes whole is read where it lies; only what is incomplete is copied. It decides nothing about messages.

use crate::failure::{Failure, Part, Phase};

/// A handshake message, or all that a server sends before its proof, may not be larger: rustls has the same limit.
pub(crate) const LARGEST_MESSAGE: usize = 0xffff;
/// No more than this is read from a server before its certificate.
const LARGEST_FLIGHT: usize = 2 * LARGEST_MESSAGE;
/// Of one record (RFC 5246 section 6.2.3).
const LARGEST_RECORD: usize = 16_384 + 2048;

const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// What takes records apart.
pub(crate) trait Receive {
    /// Opens an encrypted record in place, and gives its content type and the length of its content. Only TLS 1.3 has any
    /// here.
    fn open(&mut self, header: [u8; 5], record: &mut [u8]) -> Result<(u8, usize), Failure>;
    /// Takes a handshake message with its header. True: enough has been seen.
    fn message(&mut self, message: &[u8]) -> Result<bool, Failure>;
    /// Whether what comes now must be encrypted.
    fn is_sealed(&self) -> bool;
}

/// What was read and is not complete.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// An incomplete record.
    partial: Vec<u8>,
    /// An incomplete handshake message.
    message: Vec<u8>,
    /// Bytes read so far.
    total: usize,
}

impl Records {
    /// Takes what was read. True: `receive` has seen enough.
    pub(crate) fn read(&mut self, input: &mut [u8], receive: &mut impl Receive) -> Result<bool, Failure> {
        self.total += input.len();
        let mut partial = std::mem::take(&mut self.partial);
        let whole = partial.is_empty();
        partial.extend_from_slice(if whole { &[] } else { input });
        let bytes = if whole { input } else { partial.as_mut_slice() };
        let length = bytes.len();
        let mut rest = bytes;
        while let Some((header, length)) = header(rest)? {
            if rest.len() < 5 + length {
                break;
            }
            let (record, after) = rest.split_at_mut_checked(5 + length).unwrap_or_default();
            if self.record(header, record.get_mut(5..).unwrap_or_default(), receive)? {
                return Ok(true);
            }
            rest = after;
        }
        if self.total > LARGEST_FLIGHT {
            return Err(Failure::too_large("over 128 KiB, and no certificate among them"));
        }
        let consumed = length - rest.len();
        let left = whole.then(|| rest.to_vec());
        self.partial = left.unwrap_or_else(|| without_front(partial, consumed));
        Ok(false)
    }

    /// Bytes of memory held.
    pub(crate) fn held(&self) -> usize {
        self.partial.capacity() + self.message.capacity()
    }

    fn record(&mut self, header: [u8; 5], content: &mut [u8], receive: &mut impl Receive) -> Result<bool, Failure> {
        let (kind, content) = match header {
            [APPLICATION_DATA, ..] => {
                let (kind, length) = receive.open(header, content)?;
                (kind, content.get(..length).unwrap_or_default())
            }
            [kind, ..] => (kind, &*content),
        };
        match (kind, content) {
            (HANDSHAKE, _) => self.handshake(content, header[0] == APPLICATION_DATA, receive),
            // close_notify ends the connection whatever its level.
            (ALERT, [_, 0]) => Err(Failure::Closed { phase: Phase::Handshake }),
            (ALERT, [2, code]) => Err(Failure::alert(*code)),
            (ALERT, [1, _]) => Ok(false),
            (ALERT, _) => Err(Failure::malformed(Part::Record, "an alert that is not two bytes")),
            // Change cipher spec: middleboxes want to see one, and it means nothing here.
            (20, [1]) => Ok(false),
            (20, _) => Err(Failure::malformed(Part::Record, "a change of cipher spec that is not one byte")),
            _ => Err(Failure::malformed(Part::Record, format!("a record of type {kind} in a handshake"))),
        }
    }

    /// No message goes on over a change of keys (RFC 8446 section 5.1), so none is ever half in the clear.
    fn handshake(&mut self, content: &[u8], sealed: bool, receive: &mut impl Receive) -> Result<bool, Failure> {
        let mut message = std::mem::take(&mut self.message);
        let whole = message.is_empty();
        message.extend_from_slice(if whole { &[] } else { content });
        let bytes = if whole { content } else { &message };
        let mut rest = bytes;
        while !rest.is_empty() {
            if receive.is_sealed() != sealed {
                return Err(Failure::malformed(Part::Handshake, "a message in the clear after TLS 1.3 was agreed on"));
            }
            let Some(&[kind, high, middle, low]) = rest.first_chunk() else { break };
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if length > LARGEST_MESSAGE {
                let why = format!("a handshake message of type {kind} says {length} bytes; at most 65,535 are read");
                return Err(Failure::too_large(why));
            }
            let Some((whole, after)) = rest.split_at_checked(4 + length) else { break };
            if receive.message(whole)? {
                return Ok(true);
            }
            rest = after;
        }
        let consumed = bytes.len() - rest.len();
        self.message = if whole { rest.to_vec() } else { without_front(message, consumed) };
        Ok(false)
    }
}

/// Bytes that wait go on waiting where they are: a server that sends one at a time costs no copy for each.
fn without_front(mut bytes: Vec<u8>, count: usize) -> Vec<u8> {
    bytes.drain(..count);
    bytes
}

/// The header of the record that `bytes` begin with, and its length; None if it is not whole yet.
fn header(bytes: &[u8]) -> Result<Option<([u8; 5], usize)>, Failure> {
    let (Some(20..=23), None | Some(3)) = (bytes.first(), bytes.get(1)) else {
        return if bytes.is_empty() { Ok(None) } else { Err(looks_like(bytes)) };
    };
    let Some(&header) = bytes.first_chunk::<5>() else { return Ok(None) };
    let length = usize::from(header[3]) << 8 | usize::from(header[4]);
    match length {
        0 if header[0] != APPLICATION_DATA => Err(Failure::malformed(Part::Record, "an empty record")),
        length if length > LARGEST_RECORD => Err(Failure::malformed(Part::Record, "a record longer than any may be")),
        length => Ok(Some((header, length))),
    }
}

/// What bytes that are no record look like.
pub(crate) fn looks_like(bytes: &[u8]) -> Failure {
    let shown: String =
        bytes.iter().take(40).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
    let like = match bytes {
        [b'H', b'T', b'T', b'P', ..] => "plain HTTP",
        [b'S', b'S', b'H', b'-', ..] => "SSH",
        [b'2', b'2', b'0', ..] => "SMTP or FTP, which want --starttls",
        [b'2', b'0', b'0' | b'1', ..] => "NNTP, which wants --starttls nntp",
        [b'*', b' ', b'O', b'K', ..] => "IMAP, which wants --starttls imap",
        [b'+', b'O', b'K', ..] => "POP3, which wants --starttls pop3",
        [b'<', ..] => "XML or HTML",
        [20..=23, ..] => "a TLS record of a version that there is not",
        _ => "no protocol known here",
    };
    Failure::NotTls { looks_like: format!("{like} (it begins with \"{shown}\")") }
}
