//! What is said before TLS in the protocols that begin without it. Fed bytes, it never touches a socket. It logs in nowhere
//! and says no more than is needed.

mod binary;
mod lines;
mod xmpp;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::failure::{Failure, Part};

/// A protocol that begins without TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Starttls {
    /// RFC 3207.
    Smtp,
    /// RFC 2033, with the extension of RFC 3207.
    Lmtp,
    /// RFC 9051 section 6.2.1.
    Imap,
    /// RFC 2595 section 4.
    Pop3,
    /// RFC 4217.
    Ftp,
    /// RFC 4511 section 4.14.
    Ldap,
    /// PostgreSQL's SSLRequest.
    Postgres,
    /// The SSL request of MySQL and MariaDB.
    Mysql,
    /// RFC 6120 section 5, client to server.
    Xmpp,
    /// RFC 6120 section 5, server to server.
    XmppServer,
    /// RFC 4642.
    Nntp,
    /// RFC 5804 section 2.2.
    Sieve,
}

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

impl Starttls {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Smtp,
        Self::Lmtp,
        Self::Imap,
        Self::Pop3,
        Self::Ftp,
        Self::Ldap,
        Self::Postgres,
        Self::Mysql,
        Self::Xmpp,
        Self::XmppServer,
        Self::Nntp,
        Self::Sieve,
    ];

    /// The protocol that usually listens on a port without TLS.
    pub fn of_port(port: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.port() == port).or((port == 587).then_some(Self::Smtp))
    }

    /// Where it usually listens.
    pub fn port(self) -> u16 {
        match self {
            Self::Smtp => 25,
            Self::Lmtp => 24,
            Self::Imap => 143,
            Self::Pop3 => 110,
            Self::Ftp => 21,
            Self::Ldap => 389,
            Self::Postgres => 5432,
            Self::Mysql => 3306,
            Self::Xmpp => 5222,
            Self::XmppServer => 5269,
            Self::Nntp => 119,
            Self::Sieve => 4190,
        }
    }
}

impl fmt::Display for Starttls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Smtp => "smtp",
            Self::Lmtp => "lmtp",
            Self::Imap => "imap",
            Self::Pop3 => "pop3",
            Self::Ftp => "ftp",
            Self::Ldap => "ldap",
            Self::Postgres => "postgres",
            Self::Mysql => "mysql",
            Self::Xmpp => "xmpp",
            Self::XmppServer => "xmpp-server",
            Self::Nntp => "nntp",
            Self::Sieve => "sieve",
        })
    }
}

impl FromStr for Starttls {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|protocol| protocol.to_string() == text);
        found.ok_or_else(|| {
            let known: Vec<_> = Self::ALL.iter().map(Self::to_string).collect();
            format!("no STARTTLS in `{text}`; one of {}", known.join(", "))
        })
    }
}

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
