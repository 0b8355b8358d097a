//! What is said before TLS in the protocols that begin without it. Fed bytes, it never touches a socket. It logs in nowhere
//! and says no more than is needed.

mod binary;
mod lines;
mod xmpp;

pub use certbus_core::starttls::Starttls;

use crate::failure::{Failure, Part};

/// A dialogue before TLS, over one connection.
pub(crate) struct Dialogue {
    protocol: Starttls,
    /// How many answers were had.
    answers: u8,
    /// What is not a whole answer yet.
    held: Vec<u8>,
    total: usize,
    to: Box<str>,
}

/// Longer dialogues than this are none.
const LONGEST: usize = 32 * 1024;

impl Dialogue {
    /// Begins a dialogue with the server of `to`, and appends to `out` what is said first, if anything is.
    pub(crate) fn start(protocol: Starttls, to: &str, out: &mut Vec<u8>) -> Self {
        let dialogue = Self { protocol, answers: 0, held: Vec::new(), total: 0, to: to.into() };
        match protocol {
            Starttls::Postgres => out.extend(binary::POSTGRES_REQUEST),
            Starttls::Ldap => out.extend(binary::LDAP_REQUEST),
            Starttls::Xmpp | Starttls::XmppServer => xmpp::open(protocol, &dialogue.to, out),
            _ => {}
        }
        dialogue
    }

    /// Takes what the server sent, and appends the answer to `out`. True: TLS may begin.
    pub(crate) fn read(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<bool, Failure> {
        self.total += input.len();
        if self.total > LONGEST {
            return Err(Failure::too_large("over 32 KiB before TLS began"));
        }
        self.held.extend_from_slice(input);
        loop {
            let answer = match self.protocol {
                Starttls::Postgres => binary::postgres(&self.held)?,
                Starttls::Mysql => binary::mysql(&self.held, out)?,
                Starttls::Ldap => binary::ldap(&self.held)?,
                Starttls::Xmpp | Starttls::XmppServer => xmpp::answer(&self.held, self.answers, out)?,
                _ => lines::answer(self.protocol, &self.held, self.answers, out)?,
            };
            let Some(Answer { length, done }) = answer else { return Ok(false) };
            self.held.drain(..length.min(self.held.len()));
            self.answers += 1;
            if done && !self.held.is_empty() {
                // Whoever stands between could have put them there.
                let why = format!("{} bytes came after the server agreed and before TLS began", self.held.len());
                return Err(Failure::malformed(Part::Starttls, why));
            }
            if done {
                return Ok(true);
            }
        }
    }

    pub(crate) fn held(&self) -> usize {
        self.held.capacity()
    }
}

/// One whole answer of the server: how long it is, and whether it was the last.
struct Answer {
    length: usize,
    done: bool,
}

/// The server said no, in its own words.
fn refused(said: &[u8]) -> Failure {
    let said: String = String::from_utf8_lossy(said).chars().filter(|c| !c.is_control()).take(200).collect();
    Failure::Starttls { said }
}
