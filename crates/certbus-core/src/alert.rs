//! What people are told when something is wrong: problems, each under a key that stays the same while it lasts, and the
//! messages about them. Whether a message is due is decided in [`telling`]; how it travels is not known here.

pub mod retry;
pub mod telling;
pub mod unexpected;

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A certificate is out of time.
    Expired,
    /// Three polls in a row saw no certificate.
    Unreachable,
    /// Polls are not made.
    Stalled,
    /// An attempt to renew failed.
    RenewalFailing,
    /// It should have been renewed.
    RenewalOverdue,
    /// A version that was replaced is still served.
    OlderVersion,
    /// The issuer or the key is another, and nobody expected that.
    Changed,
}

impl Kind {
    /// All of them, the worst first.
    pub const ALL: [Self; 7] = [
        Self::Expired,
        Self::Unreachable,
        Self::Stalled,
        Self::RenewalFailing,
        Self::RenewalOverdue,
        Self::OlderVersion,
        Self::Changed,
    ];

    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Unreachable => "unreachable",
            Self::Stalled => "stalled",
            Self::RenewalFailing => "renewal-failing",
            Self::RenewalOverdue => "renewal-overdue",
            Self::OlderVersion => "older-version",
            Self::Changed => "changed",
        }
    }

    /// As people say it.
    pub const fn words(self) -> &'static str {
        match self {
            Self::Expired => "certificate expired",
            Self::Unreachable => "unreachable",
            Self::Stalled => "polls are not made",
            Self::RenewalFailing => "renewal failing",
            Self::RenewalOverdue => "renewal overdue",
            Self::OlderVersion => "older version still served",
            Self::Changed => "issuer or key changed unexpectedly",
        }
    }

    /// Whether it happens rather than lasts: it is told once, and never over.
    pub const fn happens(self) -> bool {
        matches!(self, Self::Changed)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        known.ok_or_else(|| format!("`{text}` is no kind of problem"))
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What stays the same while it lasts: `endpoint/12/expired`, `managed/default/ID/renewal-failing`, `scheduler/stalled`.
    pub key: String,
    /// Of which kind.
    pub kind: Kind,
    /// What people call that which it is about.
    pub name: String,
    /// Whose it is; empty: nobody's.
    pub owner: String,
    /// What exactly, in words that do not change from one look to the next.
    pub words: String,
    /// Since when.
    pub since: Timestamp,
}

impl Problem {
    /// What it is about: its key without the kind.
    pub fn subject(&self) -> &str {
        let end = self.key.find(&format!("/{}", self.kind)).unwrap_or(self.key.len());
        self.key.get(..end).unwrap_or_default()
    }
}

/// So many polls of a node in a row that showed no certificate make its endpoint unreachable.
pub const POLLS_IN_VAIN: u32 = 3;

/// A version that is seen so long after another one was offered is told of: until then that one is on its way.
pub const ROLLOUT: Duration = Duration::from_secs(3600);

/// Polls that are due for so long are not made.
pub const STALLED_AFTER: Duration = Duration::from_secs(10 * 60);

/// Whether polling stalls, if what is due longest is due since `due` and somebody watches since `watching`: after a machine
/// slept, or while nothing ran, what is due is made up for first.
pub fn is_stalled(due: Timestamp, watching: Timestamp, now: Timestamp) -> bool {
    now.since(due.max(watching)) >= STALLED_AFTER
}

/// Whether `wanted` (`endpoint/12`, or a whole key) means the problem of this key.
pub fn means(wanted: &str, key: &str) -> bool {
    key.strip_prefix(wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a message says of its problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// It is there.
    Opened,
    /// It is there still, a day later.
    Reminder,
    /// It is over.
    Over,
    /// Many things at once, in one message.
    Digest,
    /// Nothing is wrong: somebody wants to see whether messages come.
    Test,
}

impl Event {
    /// As it is written.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Reminder => "reminder",
            Self::Over => "over",
            Self::Digest => "digest",
            Self::Test => "test",
        }
    }
}

/// One message, as every destination gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// What it says.
    pub event: Event,
    /// One line.
    pub title: String,
    /// All of it, in lines.
    pub words: String,
    /// The problem; none in a digest and in a test.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
    /// When it was written.
    pub at: Timestamp,
}

impl Message {
    /// About one problem.
    pub fn about(event: Event, problem: &Problem, at: Timestamp) -> Self {
        let (name, kind) = (&problem.name, problem.kind.words());
        let title = match event {
            Event::Reminder => format!("still: {name}: {kind}"),
            Event::Over => format!("over: {name}: {kind}"),
            _ => format!("{name}: {kind}"),
        };
        let mut words = format!("{}\nsince {}", problem.words, problem.since);
        if event == Event::Over {
            words.push_str(&format!(", over at {at}"));
        }
        if !problem.owner.is_empty() {
            words.push_str(&format!("\nowner: {}", problem.owner));
        }
        words.push_str(&format!("\nproblem: {}", problem.key));
        Self { event, title: line(&title), words, problem: Some(problem.clone()), at }
    }

    /// About nothing: to see whether messages come.
    pub fn test(at: Timestamp) -> Self {
        let words = "this is a test: nothing is wrong, and messages come through".to_owned();
        Self { event: Event::Test, title: "test".into(), words, problem: None, at }
    }
}

/// Foreign words on one line.
fn line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(key: &str, kind: Kind) -> Problem {
        let (name, owner) = ("shop\r\nBcc: x".to_owned(), "ada".to_owned());
        Problem { key: key.into(), kind, name, owner, words: "out of time".into(), since: Timestamp::default() }
    }

    #[test]
    fn a_subject_is_the_key_without_its_kind_and_whole_parts_of_keys_mean_problems() {
        assert_eq!(problem("endpoint/12/expired", Kind::Expired).subject(), "endpoint/12");
        assert_eq!(problem("endpoint/12/changed/ab", Kind::Changed).subject(), "endpoint/12");
        assert!(means("endpoint/12", "endpoint/12/expired") && means("endpoint/12/expired", "endpoint/12/expired"));
        assert!(!means("endpoint/1", "endpoint/12/expired") && !means("endpoint/12/exp", "endpoint/12/expired"));
        for kind in Kind::ALL {
            assert_eq!(kind.as_str().parse(), Ok(kind));
        }
    }

    #[test]
    fn polling_stalls_when_what_is_due_is_not_made_while_somebody_watches() {
        let at = |minutes: u32| Timestamp::default().plus(Duration::from_secs(60) * minutes);
        assert!(is_stalled(at(0), at(0), at(10)) && !is_stalled(at(0), at(0), at(9)));
        assert!(!is_stalled(at(0), at(600), at(601)), "the machine slept");
    }

    #[test]
    fn a_title_is_one_line_whatever_an_endpoint_is_called() {
        let message = Message::about(Event::Over, &problem("endpoint/12/expired", Kind::Expired), Timestamp::default());
        assert_eq!(message.title, "over: shop  Bcc: x: certificate expired");
    }
}
