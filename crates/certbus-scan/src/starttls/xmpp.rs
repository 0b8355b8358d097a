//! STARTTLS of XMPP (RFC 6120 section 5). It looks for three elements and parses no XML.

use super::{Answer, Starttls, refused};
use crate::failure::Failure;

/// The opening of a stream to the server of `to`.
pub(super) fn open(protocol: Starttls, to: &str, out: &mut Vec<u8>) {
    let namespace = if protocol == Starttls::XmppServer { "jabber:server" } else { "jabber:client" };
    let text = format!(
        "<?xml version='1.0'?><stream:stream xmlns='{namespace}' xmlns:stream='http://etherx.jabber.org/streams' \
         to='{to}' version='1.0'>"
    );
    out.extend(text.into_bytes());
}

pub(super) fn answer(held: &[u8], answers: u8, out: &mut Vec<u8>) -> Result<Option<Answer>, Failure> {
    if end_of(held, b"<stream:error").is_some() || end_of(held, b"<failure").is_some() {
        return Err(refused(held));
    }
    if answers > 0 {
        return Ok(end_of(held, b"<proceed").map(|length| Answer { length, done: true }));
    }
    let features = end_of(held, b"</stream:features").or_else(|| end_of(held, b"<stream:features/"));
    let Some(length) = features else {
        return if held.first().is_some_and(|byte| *byte != b'<') { Err(refused(held)) } else { Ok(None) };
    };
    if end_of(held, b"<starttls").is_none() {
        return Err(refused(b"the server offers no STARTTLS"));
    }
    out.extend(b"<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>");
    Ok(Some(Answer { length, done: false }))
}

/// Where the element that begins with `begin` ends.
fn end_of(held: &[u8], begin: &[u8]) -> Option<usize> {
    let at = held.windows(begin.len()).position(|window| window == begin)?;
    let close = held.get(at..)?.iter().position(|byte| *byte == b'>')?;
    Some(at + close + 1)
}
