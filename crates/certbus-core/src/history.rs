//! What an observation changes in what is known of a node: a pure decision. It erases nothing: what ends is kept with its
//! end (invariants 7 and 8).

use crate::id::Hash;
use crate::time::Timestamp;

/// What is known of one node, from one site, looked at in one way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Node {
    /// The certificate it was last seen with.
    pub served: Option<Span<Hash>>,
    /// Why polls have been failing, if the last one did.
    pub failing: Option<Span<Box<str>>>,
    /// When it was asked last.
    pub asked: Option<Timestamp>,
    /// Since when its name no longer leads to it.
    pub gone: Option<Timestamp>,
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

/// What one look at a node came to: a leaf by its fingerprint, or the kind of a failure.
pub type Outcome<'a> = Result<Hash, &'a str>;

/// What becomes of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Step {
    /// What it is now.
    pub node: Node,
    /// A certificate that it no longer serves: to be kept.
    pub replaced: Option<Span<Hash>>,
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
    /// What `outcome`, seen at `at`, makes of it. None: it was asked since, or this very look is known; what came later
    /// stands.
    pub fn look(&self, outcome: Outcome<'_>, at: Timestamp) -> Option<Step> {
        if self.asked.is_some_and(|asked| asked >= at) {
            return None;
        }
        let mut step = Step { node: self.clone(), ..Step::default() };
        step.node.asked = Some(at);
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
                    Some(served) if served.what == seen => served.went_on(at),
                    served => {
                        step.changes.push(if served.is_none() { Change::First } else { Change::Replaced });
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

    /// Its name was looked up and does not lead to it. None: that is known, or it was asked since.
    pub fn left_out(&self, at: Timestamp) -> Option<Step> {
        if self.gone.is_some() || self.asked.is_some_and(|asked| asked >= at) {
            return None;
        }
        let mut step = Step { node: self.clone(), changes: vec![Change::Gone], ..Step::default() };
        step.node.gone = Some(at);
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(minute: u64) -> Timestamp {
        Timestamp::parse("2026-11-22").unwrap().plus(Duration::from_secs(minute * 60))
    }

    /// What is known after these looks, and everything that was to be kept.
    fn after(looks: &[(u64, Outcome<'_>)]) -> (Node, Vec<Step>) {
        let (mut node, mut steps) = (Node::default(), Vec::new());
        for (minute, outcome) in looks {
            if let Some(step) = node.look(*outcome, at(*minute)) {
                node = step.node.clone();
                steps.push(step);
            }
        }
        (node, steps)
    }

    #[test]
    fn invariant_7_first_and_last_seen_and_every_change_stay() {
        let (one, two) = (Hash::of(b"1"), Hash::of(b"2"));
        let (node, steps) = after(&[(1, Ok(one)), (2, Ok(one)), (3, Ok(two)), (4, Ok(one))]);
        assert_eq!(node.served, Some(Span { what: one, first: at(4), last: at(4), times: 1 }));
        let kept: Vec<_> = steps.iter().filter_map(|step| step.replaced.clone()).collect();
        assert_eq!(kept[0], Span { what: one, first: at(1), last: at(2), times: 2 });
        assert_eq!(kept[1], Span { what: two, first: at(3), last: at(3), times: 1 }, "also of what comes back");
        let told: Vec<_> = steps.iter().flat_map(|step| step.changes.clone()).collect();
        assert_eq!(told, [Change::First, Change::Replaced, Change::Replaced]);
    }

    #[test]
    fn invariant_7_what_is_told_late_or_twice_changes_nothing() {
        let (one, two) = (Hash::of(b"1"), Hash::of(b"2"));
        let (node, _) = after(&[(1, Ok(one)), (5, Ok(two))]);
        assert_eq!(node.look(Ok(one), at(3)), None);
        assert_eq!(node.look(Ok(two), at(5)), None);
        assert_eq!(node.look(Err("refused"), at(5)), None);
        assert_eq!(node.left_out(at(5)), None);
    }

    #[test]
    fn invariant_8_a_failed_poll_is_recorded_with_its_reason_and_erases_no_certificate() {
        let one = Hash::of(b"1");
        let (node, steps) = after(&[(1, Ok(one)), (2, Err("refused")), (3, Err("refused")), (4, Err("timeout"))]);
        assert_eq!(node.served.as_ref().map(|served| served.what), Some(one));
        assert_eq!(node.failing, Some(Span { what: "timeout".into(), first: at(4), last: at(4), times: 1 }));
        assert_eq!(steps[3].over, Some(Span { what: "refused".into(), first: at(2), last: at(3), times: 2 }));
        let again = node.look(Ok(one), at(5)).unwrap();
        assert_eq!((again.changes.as_slice(), again.replaced), ([Change::Recovered].as_slice(), None));
        assert_eq!(again.node.served.map(|served| (served.first, served.last)), Some((at(1), at(5))));
    }

    #[test]
    fn a_node_that_its_name_no_longer_leads_to_is_gone_until_it_is_asked_again() {
        let (node, _) = after(&[(1, Ok(Hash::of(b"1")))]);
        let gone = node.left_out(at(2)).unwrap();
        assert_eq!((gone.node.gone, gone.changes.as_slice()), (Some(at(2)), [Change::Gone].as_slice()));
        assert_eq!(gone.node.left_out(at(3)), None, "told once");
        let back = gone.node.look(Ok(Hash::of(b"1")), at(4)).unwrap();
        assert_eq!((back.node.gone, back.changes.as_slice()), (None, [Change::Back].as_slice()));
    }
}
