//! Dialogues of bytes: PostgreSQL, MySQL and MariaDB, LDAP.

use super::{Answer, refused};
use crate::bytes::Reader;
use crate::failure::{Failure, Part};

/// SSLRequest: its length, and the number that stands where a version would.
pub(super) const POSTGRES_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// ExtendedRequest 1.3.6.1.4.1.1466.20037, as message 1 (RFC 4511 section 4.14.1).
pub(super) const LDAP_REQUEST: &[u8] = b"\x30\x1d\x02\x01\x01\x77\x18\x80\x161.3.6.1.4.1.1466.20037";

pub(super) fn postgres(held: &[u8]) -> Result<Option<Answer>, Failure> {
    match held.first() {
        None => Ok(None),
        Some(b'S') => Ok(Some(Answer { length: 1, done: true })),
        Some(b'N') => Err(refused(b"no (the server has no TLS)")),
        Some(_) => Err(refused(held)),
    }
}

/// The server's greeting (protocol 10); TLS begins right after the request that answers it.
pub(super) fn mysql(held: &[u8], out: &mut Vec<u8>) -> Result<Option<Answer>, Failure> {
    let Some((&[low, middle, high, number], rest)) = held.split_first_chunk() else { return Ok(None) };
    let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
    let Some(packet) = rest.get(..length) else { return Ok(None) };
    match packet {
        // Too many connections, or a host that is blocked: a code and a text.
        [0xff, _, _, said @ ..] => return Err(refused(said)),
        [10, ..] => {}
        _ => return Err(Failure::malformed(Part::Starttls, "no greeting of MySQL's protocol 10")),
    }
    if !greeting_has_tls(packet).ok_or_else(|| Failure::malformed(Part::Starttls, "a greeting that ends too early"))? {
        return Err(refused(b"the server has no TLS"));
    }
    // CLIENT_SSL, PROTOCOL_41 and SECURE_CONNECTION; packets of 16 MiB; UTF-8; 23 zeroes.
    out.extend([32, 0, 0, number.wrapping_add(1), 0x00, 0x8a, 0x00, 0x00, 0, 0, 0, 1, 33]);
    out.extend([0; 23]);
    Ok(Some(Answer { length: 4 + length, done: true }))
}

/// Version text, thread, eight bytes of nonce, a zero, then the capabilities: 0x0800 is CLIENT_SSL.
fn greeting_has_tls(packet: &[u8]) -> Option<bool> {
    let end_of_version = packet.iter().position(|byte| *byte == 0)?;
    let mut rest = Reader::new(packet.get(end_of_version + 1..)?);
    rest.take(4 + 8 + 1)?;
    let capabilities = u16::from_le_bytes(*rest.take(2)?.first_chunk()?);
    Some(capabilities & 0x0800 != 0)
}

/// An ExtendedResponse with result code 0.
pub(super) fn ldap(held: &[u8]) -> Result<Option<Answer>, Failure> {
    let bad = || Failure::malformed(Part::Starttls, "no answer of LDAP's");
    let mut message = Reader::new(held);
    let Some(tag) = message.u8() else { return Ok(None) };
    if tag != 0x30 {
        return Err(bad());
    }
    let Some(length) = ber_length(&mut message) else { return Ok(None) };
    let header = held.len() - message.rest().len();
    let Some(body) = message.take(length) else { return Ok(None) };
    let result = ldap_result(body).ok_or_else(bad)?;
    match result {
        (0, _) => Ok(Some(Answer { length: header + length, done: true })),
        (code, said) => Err(refused(format!("result {code} {}", String::from_utf8_lossy(said)).as_bytes())),
    }
}

/// The result code of an ExtendedResponse, and its message for people.
fn ldap_result(body: &[u8]) -> Option<(u8, &[u8])> {
    let mut body = Reader::new(body);
    let mut element = |tag: u8| {
        let found = body.u8()?;
        let length = ber_length(&mut body)?;
        (found == tag).then_some(())?;
        body.take(length)
    };
    element(0x02)?;
    let mut response = Reader::new(element(0x78)?);
    let mut element = |tag: u8| {
        let found = response.u8()?;
        let length = ber_length(&mut response)?;
        (found == tag).then_some(())?;
        response.take(length)
    };
    let code = *element(0x0a)?.first()?;
    element(0x04)?;
    Some((code, element(0x04).unwrap_or_default()))
}

fn ber_length(rest: &mut Reader<'_>) -> Option<usize> {
    match rest.u8()? {
        length @ 0..=0x7f => Some(length.into()),
        0x81 => Some(rest.u8()?.into()),
        0x82 => Some(rest.u16()?.into()),
        0x83 => rest.u24(),
        0x84 => Some(usize::from(rest.u8()?) << 24 | rest.u24()?),
        _ => Some(usize::MAX),
    }
}
