//! Which messages are due: a pure decision of what was told before and what is true now. One message per problem, one when
//! it is over, one a day in between; a problem that comes and goes is told as one, and many at once as one digest.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::{Event, Kind, Message, Problem};
use crate::time::Timestamp;

/// A problem that lasts is told again this much later.
pub const AGAIN_AFTER: Duration = Duration::from_secs(86_400);

/// It is over when it was so for this long; for one that came back within a day, twice as long each time.
pub const HOLD: Duration = Duration::from_secs(10 * 60);

/// One that is over is remembered for this long, to know it again.
pub const REMEMBERED: Duration = Duration::from_secs(86_400);

/// So many messages about single problems are sent in [`WINDOW`]; what is more becomes a digest.
pub const SINGLES: usize = 20;

/// See [`SINGLES`].
pub const WINDOW: Duration = Duration::from_secs(3600);

/// There is at most one digest in so much time: what comes in between waits for the next.
pub const DIGEST_EVERY: Duration = Duration::from_secs(10 * 60);

/// Problems that a digest names.
const NAMED: usize = 20;

/// A problem with what was told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// What is wrong.
    pub problem: Problem,
    /// When it was told last. None: never yet.
    pub told_at: Option<Timestamp>,
    /// Since when it is no longer so.
    pub gone_at: Option<Timestamp>,
    /// Since when it counts as over: it is remembered for a while.
    pub over_at: Option<Timestamp>,
    /// How often it came back while it was remembered.
    pub returns: u32,
}

/// What was sent before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    /// Messages about single problems within [`WINDOW`].
    pub singles: usize,
    /// The last digest.
    pub digest_at: Option<Timestamp>,
}

/// What becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// To be kept: what changed, and what is new.
    pub kept: Vec<Open>,
    /// To be forgotten, by key.
    pub forgotten: Vec<String>,
    /// To be sent, in order.
    pub messages: Vec<Message>,
}

/// Decides. `before`: what is stored; `now_true`: what is wrong now; `is_muted` by key; `heard`: whether there is anybody to
/// tell, else everything waits.
pub fn decide(
    before: Vec<Open>,
    now_true: Vec<Problem>,
    is_muted: impl Fn(&str) -> bool,
    heard: bool,
    recent: Recent,
    now: Timestamp,
) -> Outcome {
    let mut truth: HashMap<String, Problem> = now_true.into_iter().map(|one| (one.key.clone(), one)).collect();
    let expired: HashSet<String> =
        truth.values().filter(|one| one.kind == Kind::Expired).map(|one| one.subject().to_owned()).collect();
    let mut outcome = Outcome::default();
    let mut wanted: Vec<(Event, Open)> = Vec::new();
    let mut rest: Vec<(Option<Open>, Open)> = Vec::new();
    for open in before {
        let after = step(&open, truth.remove(&open.problem.key), now);
        match after {
            None => outcome.forgotten.push(open.problem.key),
            Some(after) => rest.push((Some(open), after)),
        }
    }
    let begin = |problem| Open { problem, told_at: None, gone_at: None, over_at: None, returns: 0 };
    rest.extend(truth.into_values().map(|problem| (None, begin(problem))));
    for (stored, mut open) in rest {
        let is_muted = is_muted(&open.problem.key);
        // Who is told that it expired need not be told that it should have been renewed.
        let is_outdone = open.problem.kind == Kind::RenewalOverdue && expired.contains(open.problem.subject());
        match due(&open, now) {
            // Nobody hears it, and nobody was or is to be told.
            Some(Event::Over) if is_muted || !heard => open.over_at = Some(now),
            Some(event) if heard && !is_muted && (!is_outdone || event == Event::Over) => {
                wanted.push((event, open.clone()));
            }
            _ => {}
        }
        if stored.as_ref() != Some(&open) {
            outcome.kept.push(open);
        }
    }
    wanted.sort_by(|(a, one), (b, other)| {
        let place = |event: &Event| *event == Event::Over;
        (place(a), one.problem.kind, one.problem.since, &one.problem.key).cmp(&(
            place(b),
            other.problem.kind,
            other.problem.since,
            &other.problem.key,
        ))
    });
    let singly = wanted.len() + recent.singles <= SINGLES;
    let may_digest = recent.digest_at.is_none_or(|last| now.since(last) >= DIGEST_EVERY);
    if wanted.is_empty() || !(singly || may_digest) {
        return outcome;
    }
    outcome.messages = match singly {
        true => wanted.iter().map(|(event, open)| Message::about(*event, &open.problem, now)).collect(),
        false => vec![digest(&wanted, now)],
    };
    let told: HashSet<String> = wanted.iter().map(|(_, open)| open.problem.key.clone()).collect();
    outcome.kept.retain(|open| !told.contains(&open.problem.key));
    for (event, mut open) in wanted {
        match event {
            Event::Over => open.over_at = Some(now),
            _ => open.told_at = Some(now),
        }
        outcome.kept.push(open);
    }
    outcome
}

/// What becomes of a stored problem, whether it is true or not. None: it is forgotten.
fn step(open: &Open, truth: Option<Problem>, now: Timestamp) -> Option<Open> {
    let mut after = open.clone();
    if open.problem.kind.happens() {
        // It stays until it was told, and is remembered for a while.
        let told_long_ago = open.told_at.is_some_and(|told| now.since(told) >= REMEMBERED);
        return (!told_long_ago).then_some(after);
    }
    match truth {
        Some(problem) if open.over_at.is_some() => {
            let returns = open.returns.saturating_add(1);
            return Some(Open { problem, told_at: None, gone_at: None, over_at: None, returns });
        }
        Some(problem) => {
            let since = open.problem.since.min(problem.since);
            after.problem = Problem { since, ..problem };
            after.gone_at = None;
        }
        None if open.over_at.is_some_and(|over| now.since(over) >= REMEMBERED) => return None,
        None if open.over_at.is_some() => {}
        // Of what nobody was told, nobody is told that it is over.
        None if open.told_at.is_none() && open.returns == 0 => return None,
        None if open.told_at.is_none() => after.over_at = Some(now),
        None => after.gone_at = Some(open.gone_at.unwrap_or(now)),
    }
    Some(after)
}

/// What is to be said of a problem, if it may be said.
fn due(open: &Open, now: Timestamp) -> Option<Event> {
    if open.over_at.is_some() {
        return None;
    }
    match (open.gone_at, open.told_at) {
        (Some(gone), _) if now.since(gone) >= hold(open.returns) => Some(Event::Over),
        (Some(_), _) => None,
        (None, None) => Some(Event::Opened),
        (None, Some(told)) if now.since(told) >= AGAIN_AFTER && !open.problem.kind.happens() => Some(Event::Reminder),
        (None, Some(_)) => None,
    }
}

fn hold(returns: u32) -> Duration {
    HOLD.saturating_mul(1 << returns.min(7)).min(REMEMBERED)
}

fn digest(wanted: &[(Event, Open)], now: Timestamp) -> Message {
    let mut counts: BTreeMap<(bool, Kind), usize> = BTreeMap::new();
    for (event, open) in wanted {
        *counts.entry((*event == Event::Over, open.problem.kind)).or_default() += 1;
    }
    let said = |((over, kind), count): (&(bool, Kind), &usize)| {
        format!("{count} {}{}", if *over { "over: " } else { "" }, kind.words())
    };
    let counts: Vec<String> = counts.iter().map(said).collect();
    let mut words = counts.join("\n");
    words.push('\n');
    for (event, open) in wanted.iter().take(NAMED) {
        words.push_str(&format!("\n{}", Message::about(*event, &open.problem, now).title));
    }
    if wanted.len() > NAMED {
        words.push_str(&format!("\nand {} more: `certbus alert ls` lists them", wanted.len() - NAMED));
    }
    let title = super::line(&format!("{} at once: {}", wanted.len(), counts.join(", ")));
    Message { event: Event::Digest, title, words, problem: None, at: now }
}

#[cfg(test)]
mod tests;
