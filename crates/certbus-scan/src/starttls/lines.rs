//! Dialogues of lines: SMTP, LMTP, FTP, NNTP (codes), POP3, IMAP, Sieve.

use super::{Answer, Starttls, refused};
use crate::failure::Failure;

/// What a line means in a dialogue.
enum Meaning {
    /// More lines of the same answer follow.
    More,
    Yes,
    No,
}

/// The first whole answer in `held`, if there is one, and what is said to it.
pub(super) fn answer(
    protocol: Starttls,
    held: &[u8],
    answers: u8,
    out: &mut Vec<u8>,
) -> Result<Option<Answer>, Failure> {
    let script = script(protocol);
    let mut length = 0;
    for (number, line) in held.split_inclusive(|byte| *byte == b'\n').enumerate() {
        if !line.ends_with(b"\n") {
            return Ok(None);
        }
        length += line.len();
        match meaning(protocol, answers, number == 0, line.trim_ascii_end()) {
            Meaning::More => {}
            Meaning::No => return Err(refused(line)),
            Meaning::Yes => {
                let next = script.get(usize::from(answers));
                out.extend_from_slice(next.map_or("", |(_, next)| next).as_bytes());
                return Ok(Some(Answer { length, done: usize::from(answers) + 1 >= script.len() }));
            }
        }
    }
    Ok(None)
}

/// For each answer of the server: how it must begin, and what is said then. After the last one TLS begins.
fn script(protocol: Starttls) -> &'static [(&'static str, &'static str)] {
    match protocol {
        Starttls::Smtp => &[("220", "EHLO scan.certbus.invalid\r\n"), ("250", "STARTTLS\r\n"), ("220", "")],
        Starttls::Lmtp => &[("220", "LHLO scan.certbus.invalid\r\n"), ("250", "STARTTLS\r\n"), ("220", "")],
        Starttls::Ftp => &[("220", "AUTH TLS\r\n"), ("234", "")],
        // 201: no posting here, and welcome all the same.
        Starttls::Nntp => &[("20", "STARTTLS\r\n"), ("382", "")],
        Starttls::Pop3 => &[("+OK", "STLS\r\n"), ("+OK", "")],
        Starttls::Imap => &[("* OK", "a1 STARTTLS\r\n"), ("a1 OK", "")],
        Starttls::Sieve => &[("OK", "STARTTLS\r\n"), ("OK", "")],
        _ => &[],
    }
}

fn meaning(protocol: Starttls, answers: u8, first: bool, line: &[u8]) -> Meaning {
    let wanted = script(protocol).get(usize::from(answers)).map_or("", |(wanted, _)| wanted).as_bytes();
    let begins = line.get(..wanted.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(wanted));
    let more = match protocol {
        Starttls::Pop3 => false,
        // Untagged answers may come at any time (RFC 9051 section 7).
        Starttls::Imap => answers > 0 && line.starts_with(b"* ") && !line.starts_with(b"* BYE"),
        // Capabilities are quoted strings.
        Starttls::Sieve => line.starts_with(b"\""),
        // `220-` begins an answer of several lines (RFC 5321 section 4.2.1); FTP lets any text stand inside.
        _ => {
            let coded = line.first_chunk::<3>().is_some_and(|code| code.iter().all(u8::is_ascii_digit));
            if coded { line.get(3) == Some(&b'-') } else { !first }
        }
    };
    match (more, begins) {
        (true, _) => Meaning::More,
        (false, true) => Meaning::Yes,
        (false, false) => Meaning::No,
    }
}
