//! What an observation changes in what is known of a node: a pure decision. It erases nothing: what ends is kept with its
//! end (invariants 7 and 8).

use std::time::Duration;

use crate::id::Hash;
use crate::time::Timestamp;

/// Clocks may differ by so much: what was seen later than that after now was seen by one that is wrong.
pub const CLOCKS: Duration = Duration::from_secs(5 * 60);

/// A node that so many looks at its name in a row did not lead to is gone: names may lead elsewhere each time.
pub const MISSES: u32 = 3;

/// What is known of one node, as seen from one site.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// What it was last seen with.
    pub served: Option<Span<Served>>,
    /// Why polls have been failing, if the last one did.
    pub failing: Option<Span<Box<str>>>,
    /// When it was asked last.
    pub asked: Option<Timestamp>,
    /// How many looks at its name in a row did not lead to it.
    pub missed: u32,
    /// Since when its name no longer leads to it.
    pub gone: Option<Timestamp>,
}

/// A chain that a node served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// The leaf's fingerprint.
    pub leaf: Hash,
    /// The SHA-256 of the fingerprints of what came after the leaf, in order.
    pub chain: Hash,
    /// How it was looked at: like is compared with like.
    pub method: Box<str>,
}

/// Something that lasted, or lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span<T> {
    /// What.
    pub what: T,
    /// When it was first seen.
    pub first: Timestamp,
    /// When it was last seen.
    pub last: Timestamp,
    /// How often.
    pub times: u64,
}

/// What one look at a node came to: a chain, or the kind of a failure.
pub type Outcome<'a> = Result<Served, &'a str>;

/// What becomes of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What it is now.
    pub node: Node,
    /// What it no longer serves: to be kept.
    pub replaced: Option<Span<Served>>,
    /// A failure that is over: to be kept.
    pub over: Option<Span<Box<str>>>,
    /// What to tell, in order.
    pub changes: Vec<Change>,
}

/// What a person may want to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its first certificate.
    First,
    /// Another certificate.
    Replaced,
    /// Another certificate, but it was looked at in another way: a server that has two may have had both all the time.
    Otherwise,
    /// The same certificate, with another chain.
    Chain,
    /// Polls fail, or fail for another reason.
    Failing,
    /// Polls succeed again.
    Recovered,
    /// The name leads to it no longer.
    Gone,
    /// The name leads to it again.
    Back,
}

impl Change {
    /// As it is stored and shown.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::First => "first",
            Self::Replaced => "replaced",
            Self::Otherwise => "otherwise",
            Self::Chain => "chain",
            Self::Failing => "failing",
            Self::Recovered => "recovered",
            Self::Gone => "gone",
            Self::Back => "back",
        }
    }
}

impl<T> Span<T> {
    fn begun(what: T, at: Timestamp) -> Self {
        Self { what, first: at, last: at, times: 1 }
    }

    fn went_on(&mut self, at: Timestamp) {
        self.last = at;
        self.times += 1;
    }
}

impl Node {
    /// What `outcome`, seen at `at` and told at `now`, makes of it. None: it was asked since, or this very look is known,
    /// and what came later stands; or it was seen by a clock that is ahead.
    pub fn look(&self, outcome: Outcome<'_>, at: Timestamp, now: Timestamp) -> Option<Step> {
        if at > now.plus(CLOCKS) || self.was_asked_since(at, now) {
            return None;
        }
        let mut step = Step { node: self.clone(), ..Step::default() };
        step.node.asked = Some(at);
        step.node.missed = 0;
        if step.node.gone.take().is_some() {
            step.changes.push(Change::Back);
        }
        match outcome {
            Ok(seen) => {
                if let Some(over) = step.node.failing.take() {
                    step.over = Some(over);
                    step.changes.push(Change::Recovered);
                }
                match &mut step.node.served {
                    Some(served) if served.what.leaf == seen.leaf => {
                        if served.what.method == seen.method && served.what.chain != seen.chain {
                            step.changes.push(Change::Chain);
                        }
                        served.what = seen;
                        served.went_on(at);
                    }
                    served => {
                        step.changes.push(match served {
                            None => Change::First,
                            Some(before) if before.what.method == seen.method => Change::Replaced,
                            Some(_) => Change::Otherwise,
                        });
                        step.replaced = served.replace(Span::begun(seen, at));
                    }
                }
            }
            Err(kind) => match &mut step.node.failing {
                Some(failing) if *failing.what == *kind => failing.went_on(at),
                failing => {
                    step.changes.push(Change::Failing);
                    step.over = failing.replace(Span::begun(kind.into(), at));
                }
            },
        }
        Some(step)
    }

    /// Its name was looked up and did not lead to it. None: it is gone already, or was asked since.
    pub fn left_out(&self, at: Timestamp, now: Timestamp) -> Option<Step> {
        if self.gone.is_some() || at > now.plus(CLOCKS) || self.was_asked_since(at, now) {
            return None;
        }
        let mut step = Step { node: self.clone(), ..Step::default() };
        step.node.missed += 1;
        if step.node.missed >= MISSES {
            step.end(at, Change::Gone);
        }
        Some(step)
    }

    /// That the name led nowhere is over: it leads somewhere. None: that is known.
    pub fn resolved(&self, at: Timestamp, now: Timestamp) -> Option<Step> {
        if self.gone.is_some() || at > now.plus(CLOCKS) || self.was_asked_since(at, now) {
            return None;
        }
        let mut step = Step { node: self.clone(), ..Step::default() };
        step.end(at, Change::Recovered);
        Some(step)
    }

    /// A time that is ahead of now is a wrong clock's, and counts for nothing.
    fn was_asked_since(&self, at: Timestamp, now: Timestamp) -> bool {
        self.asked.is_some_and(|asked| asked >= at && asked <= now.plus(CLOCKS))
    }
}

impl Step {
    fn end(&mut self, at: Timestamp, change: Change) {
        self.node.gone = Some(at);
        self.over = self.node.failing.take();
        self.changes.push(change);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: u64) -> Timestamp {
        Timestamp::parse("2026-11-22").unwrap().plus(Duration::from_secs(minute * 60))
    }

    fn seen(leaf: &str) -> Served {
        Served { leaf: Hash::of(leaf.as_bytes()), chain: Hash::ZERO, method: "quick".into() }
    }

    /// What is known after these looks, and everything that was to be kept.
    fn after(looks: &[(u64, Outcome<'_>)]) -> (Node, Vec<Step>) {
        let (mut node, mut steps) = (Node::default(), Vec::new());
        for (minute, outcome) in looks {
            if let Some(step) = node.look(outcome.clone(), at(*minute), at(*minute)) {
                node = step.node.clone();
                steps.push(step);
            }
        }
        (node, steps)
    }

    fn told(steps: &[Step]) -> Vec<Change> {
        steps.iter().flat_map(|step| step.changes.clone()).collect()
    }

    #[test]
    fn invariant_7_first_and_last_seen_and_every_change_stay() {
        let (one, two) = (seen("1"), seen("2"));
        let (node, steps) =
            after(&[(1, Ok(one.clone())), (2, Ok(one.clone())), (3, Ok(two.clone())), (4, Ok(one.clone()))]);
        assert_eq!(node.served, Some(Span { what: one.clone(), first: at(4), last: at(4), times: 1 }));
        let kept: Vec<_> = steps.iter().filter_map(|step| step.replaced.clone()).collect();
        assert_eq!(kept[0], Span { what: one, first: at(1), last: at(2), times: 2 });
        assert_eq!(kept[1], Span { what: two, first: at(3), last: at(3), times: 1 }, "also of what comes back");
        assert_eq!(told(&steps), [Change::First, Change::Replaced, Change::Replaced]);
    }

    #[test]
    fn invariant_7_like_is_compared_with_like() {
        let full = |leaf: &str| Served { method: "full".into(), ..seen(leaf) };
        let (_, steps) = after(&[(1, Ok(seen("1"))), (2, Ok(full("1"))), (3, Ok(full("2"))), (4, Ok(seen("3")))]);
        assert_eq!(told(&steps), [Change::First, Change::Replaced, Change::Otherwise], "and the same is the same");
        assert!(steps[3].replaced.is_some(), "what was seen is kept all the same");
        let chain = Served { chain: Hash::of(b"another intermediate"), ..seen("1") };
        let (node, steps) = after(&[(1, Ok(seen("1"))), (2, Ok(chain.clone())), (3, Ok(chain.clone()))]);
        assert_eq!(told(&steps), [Change::First, Change::Chain]);
        assert_eq!(node.served, Some(Span { what: chain, first: at(1), last: at(3), times: 3 }));
    }

    #[test]
    fn invariant_7_what_is_told_late_or_twice_changes_nothing() {
        let (node, _) = after(&[(1, Ok(seen("1"))), (5, Ok(seen("2")))]);
        assert_eq!(node.look(Ok(seen("1")), at(3), at(6)), None);
        assert_eq!(node.look(Ok(seen("2")), at(5), at(6)), None);
        assert_eq!(node.look(Err("refused"), at(5), at(6)), None);
        assert_eq!(node.left_out(at(5), at(6)), None);
    }

    #[test]
    fn a_clock_that_is_ahead_neither_tells_nor_blinds() {
        let (node, _) = after(&[(1, Ok(seen("1")))]);
        assert_eq!(node.look(Ok(seen("2")), at(100), at(2)), None, "seen by a wrong clock");
        let (ahead, _) = after(&[(1000, Ok(seen("1")))]);
        let step = ahead.look(Ok(seen("2")), at(2), at(2)).unwrap();
        assert_eq!(step.changes, [Change::Replaced], "what a wrong clock saw does not stand for ever");
    }

    #[test]
    fn invariant_8_a_failed_poll_is_recorded_with_its_reason_and_erases_no_certificate() {
        let (node, steps) = after(&[(1, Ok(seen("1"))), (2, Err("refused")), (3, Err("refused")), (4, Err("timeout"))]);
        assert_eq!(node.served.as_ref().map(|served| &served.what), Some(&seen("1")));
        assert_eq!(node.failing, Some(Span { what: "timeout".into(), first: at(4), last: at(4), times: 1 }));
        assert_eq!(steps[3].over, Some(Span { what: "refused".into(), first: at(2), last: at(3), times: 2 }));
        let again = node.look(Ok(seen("1")), at(5), at(5)).unwrap();
        assert_eq!((again.changes.as_slice(), again.replaced), ([Change::Recovered].as_slice(), None));
        assert_eq!(again.node.served.map(|served| (served.first, served.last)), Some((at(1), at(5))));
    }

    #[test]
    fn a_node_that_its_name_does_not_lead_to_three_times_is_gone_until_it_is_asked_again() {
        let (mut node, _) = after(&[(1, Ok(seen("1"))), (2, Err("refused"))]);
        for minute in 3..5 {
            let step = node.left_out(at(minute), at(minute)).unwrap();
            assert!(step.changes.is_empty() && step.node.gone.is_none());
            node = step.node;
        }
        let gone = node.left_out(at(5), at(5)).unwrap();
        assert_eq!((gone.node.gone, gone.changes.as_slice()), (Some(at(5)), [Change::Gone].as_slice()));
        assert_eq!(gone.over.map(|over| over.what), Some("refused".into()), "how it failed is kept");
        assert_eq!(gone.node.left_out(at(6), at(6)), None, "told once");
        let back = gone.node.look(Ok(seen("1")), at(7), at(7)).unwrap();
        assert_eq!((back.node.gone, back.changes.as_slice()), (None, [Change::Back].as_slice()));
    }

    #[test]
    fn a_name_that_led_nowhere_and_leads_somewhere_has_recovered() {
        let (nowhere, _) = after(&[(1, Err("dns")), (2, Err("dns"))]);
        let step = nowhere.resolved(at(3), at(3)).unwrap();
        assert_eq!(step.changes, [Change::Recovered]);
        assert_eq!(step.over, Some(Span { what: "dns".into(), first: at(1), last: at(2), times: 2 }));
        let again = step.node.look(Err("dns"), at(9), at(9)).unwrap();
        assert_eq!(again.node.failing.map(|failing| failing.first), Some(at(9)), "an outage of its own");
    }
}
