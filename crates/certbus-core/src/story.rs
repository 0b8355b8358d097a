//! What an event says of one managed certificate, in a sentence for people. It decides nothing, and says no secret: there
//! is none in an event.

use std::fmt::Write;

use crate::event::{Event, Reason};
use crate::id::{CertificateId, Fingerprint};
use crate::name::NameSet;
use crate::x509::ParsedChain;

/// The story of one managed certificate, told event by event in the order of time.
#[derive(Debug)]
pub struct Story {
    id: CertificateId,
    /// The last attempt that was said to have begun: claims are renewed while it goes on.
    begun: Option<u32>,
}

impl Story {
    /// Of the managed certificate `id`.
    pub fn new(id: CertificateId) -> Self {
        Self { id, begun: None }
    }

    /// The sentence, if the event is about this certificate and says something new.
    pub fn tell(&mut self, event: &Event) -> Option<String> {
        if about(event) != Some(self.id) {
            return None;
        }
        if !matches!(event, Event::IssuanceClaimed(_) | Event::ChallengesChanged(_) | Event::OrderPlaced(_)) {
            self.begun = None;
        }
        Some(match event {
            Event::CertificateRequested(e) => {
                let mut said =
                    format!("requested for {}, {} with a key of {}", NameSet::new(&e.names), e.challenge, e.key_type);
                let _ = match &e.ca {
                    Some(ca) => write!(said, ", from {ca}"),
                    None => write!(said, ", from the default CA"),
                };
                if let Some(profile) = &e.profile {
                    let _ = write!(said, ", profile {profile}");
                }
                said
            }
            Event::IssuanceClaimed(e) => {
                if self.begun.replace(e.attempt) == Some(e.attempt) {
                    return None;
                }
                format!("attempt {} begun by {}", e.attempt, e.by)
            }
            Event::OrderPlaced(e) if e.account.is_empty() => format!("ordered from {} as {}", e.ca, why(e.reason)),
            Event::OrderPlaced(e) => {
                format!("ordered from {} as {}: {}, account {}", e.ca, why(e.reason), e.order, e.account)
            }
            Event::OrderEnded(e) => match &e.version {
                Some(version) => format!("the order ended in version {}", short(*version)),
                None => format!("the order ended in nothing: {}", e.order),
            },
            Event::RenewalWindowChanged(e) => {
                let reason = e.explanation.as_ref().map(|page| format!(", see {page}")).unwrap_or_default();
                format!("the CA wants {} renewed from {} to {}{reason}", short(e.version), e.start.date(), e.end.date())
            }
            Event::IssuanceFailed(e) => {
                format!("attempt {} failed: {}; tried again after {}", e.attempt, e.problem, e.retry_at)
            }
            Event::CertificateObtained(e) => {
                let by = ParsedChain::parse(&e.chain)
                    .map(|chain| format!(" by {}, serial {}", chain.issuer, chain.serial))
                    .unwrap_or_default();
                let (from, until) = (e.not_before.date(), e.not_after.date());
                format!("obtained version {}, {}{by}, valid {from} to {until}", short(e.version), why(e.reason))
            }
            Event::CertificateOffered(e) => match &e.to {
                None => format!("version {} offered to all", short(e.version)),
                Some(some) => format!("version {} offered to {}", short(e.version), some.join(", ")),
            },
            Event::CertificateRevoked(e) => {
                format!("version {} revoked at its CA, reason {} (RFC 5280 section 5.3.1)", short(e.version), e.reason)
            }
            Event::CertificateRemoved(_) => "removed: renewed and served no more".to_owned(),
            _ => return None,
        })
    }
}

/// The managed certificate that an event is about.
pub fn about(event: &Event) -> Option<CertificateId> {
    Some(match event {
        Event::CertificateObtained(e) => e.certificate,
        Event::CertificateOffered(e) => e.certificate,
        Event::CertificateRemoved(e) => e.certificate,
        Event::CertificateRevoked(e) => e.certificate,
        Event::CertificateRequested(e) => e.certificate,
        Event::IssuanceClaimed(e) => e.certificate,
        Event::OrderPlaced(e) => e.certificate,
        Event::OrderEnded(e) => e.certificate,
        Event::ChallengesChanged(e) => e.certificate,
        Event::RenewalWindowChanged(e) => e.certificate,
        Event::IssuanceFailed(e) => e.certificate,
        Event::Statement(_)
        | Event::Alive
        | Event::RecordClaimed(_)
        | Event::AccountLimited(_)
        | Event::ConfigUpdated(_)
        | Event::Unknown(_)
        | Event::Dropped => return None,
    })
}

fn why(reason: Reason) -> &'static str {
    match reason {
        Reason::New => "the first",
        Reason::Renewal => "a renewal",
        Reason::Replacement => "a replacement",
    }
}

/// Enough to tell versions of one certificate apart.
fn short(version: Fingerprint) -> String {
    version.to_string().chars().take(12).collect()
}
