//! A problem's life, minute by minute.

use super::*;

const MINUTE: Duration = Duration::from_secs(60);

fn at(minutes: u32) -> Timestamp {
    Timestamp::parse("2026-11-22T12:00:00Z").unwrap().plus(MINUTE * minutes)
}

fn problem(number: usize, kind: Kind) -> Problem {
    let key = format!("endpoint/{number}/{kind}");
    let (name, owner) = (format!("shop-{number}"), String::new());
    Problem { key, kind, name, owner, words: "in words".into(), since: at(0) }
}

/// What a store would keep, and what was sent.
#[derive(Default)]
struct World {
    stored: BTreeMap<String, Open>,
    sent: Vec<Message>,
    muted: bool,
    deaf: bool,
}

impl World {
    fn look(&mut self, minutes: u32, truth: &[Problem]) -> Vec<String> {
        let now = at(minutes);
        let recent = Recent {
            singles: self.sent.iter().filter(|m| m.event != Event::Digest && now.since(m.at) < WINDOW).count(),
            digest_at: self.sent.iter().filter(|m| m.event == Event::Digest).map(|m| m.at).max(),
        };
        let before = self.stored.values().cloned().collect();
        let outcome = decide(before, truth.to_vec(), |_| self.muted, !self.deaf, recent, now);
        for key in outcome.forgotten {
            self.stored.remove(&key);
        }
        self.stored.extend(outcome.kept.into_iter().map(|open| (open.problem.key.clone(), open)));
        self.sent.extend(outcome.messages.clone());
        outcome.messages.into_iter().map(|message| message.title).collect()
    }
}

#[test]
fn a_problem_is_told_once_again_after_a_day_and_once_when_it_is_over() {
    let (mut world, expired) = (World::default(), [problem(1, Kind::Expired)]);
    assert_eq!(world.look(0, &expired), ["shop-1: certificate expired"]);
    for minutes in [1, 60, 1439] {
        assert!(world.look(minutes, &expired).is_empty(), "minute {minutes}");
    }
    assert_eq!(world.look(1440, &expired), ["still: shop-1: certificate expired"]);
    assert!(world.look(1441, &expired).is_empty());
    assert!(world.look(1500, &[]).is_empty() && world.look(1509, &[]).is_empty(), "it may come back");
    assert_eq!(world.look(1510, &[]), ["over: shop-1: certificate expired"]);
    assert!(world.look(1511, &[]).is_empty());
    world.look(1510 + 1440, &[]);
    assert!(world.stored.is_empty());
}

#[test]
fn one_that_comes_and_goes_is_told_as_one_and_is_held_longer_each_time() {
    let (mut world, gone) = (World::default(), [problem(1, Kind::Unreachable)]);
    world.look(0, &gone);
    for minutes in (2..100).step_by(4) {
        assert!(world.look(minutes, &[]).is_empty() && world.look(minutes + 2, &gone).is_empty());
    }
    world.look(100, &[]);
    assert_eq!(world.look(110, &[]).len(), 1, "over");
    assert_eq!(world.look(120, &gone), ["shop-1: unreachable"], "back");
    world.look(130, &[]);
    assert!(world.look(149, &[]).is_empty());
    assert_eq!(world.look(150, &[]).len(), 1, "after twice as long");
}

#[test]
fn what_is_muted_is_not_told_and_what_lasts_is_told_when_that_ends() {
    let (mut world, expired) = (World { muted: true, ..World::default() }, [problem(1, Kind::Expired)]);
    assert!(world.look(0, &expired).is_empty());
    world.muted = false;
    assert_eq!(world.look(1, &expired).len(), 1);
    world.muted = true;
    assert!(world.look(2000, &expired).is_empty() && world.look(2001, &[]).is_empty());
    assert!(world.look(2012, &[]).is_empty(), "over, and nobody is told");
    world.muted = false;
    assert!(world.look(2020, &[]).is_empty());
}

#[test]
fn where_nobody_hears_it_waits_and_what_ended_meanwhile_is_not_told() {
    let mut world = World { deaf: true, ..World::default() };
    let both = [problem(1, Kind::Expired), problem(2, Kind::Expired)];
    assert!(world.look(0, &both).is_empty() && world.look(5, &both[..1]).is_empty());
    world.deaf = false;
    assert_eq!(world.look(6, &both[..1]), ["shop-1: certificate expired"]);
}

#[test]
fn a_hundred_thousand_at_once_are_one_message_and_those_that_follow_wait_for_the_next() {
    let mut world = World::default();
    let many: Vec<Problem> = (0..100_000).map(|number| problem(number, Kind::Unreachable)).collect();
    assert_eq!(world.look(0, &many), ["100000 at once: 100000 unreachable"]);
    let words = &world.sent[0].words;
    assert_eq!(words.lines().filter(|line| line.starts_with("shop-")).count(), 20, "{words}");
    assert!(words.contains("and 99980 more"), "{words}");
    let more: Vec<Problem> = (0..100_500).map(|number| problem(number, Kind::Unreachable)).collect();
    assert!(world.look(1, &more).is_empty() && world.look(9, &more).is_empty());
    assert_eq!(world.look(10, &more), ["500 at once: 500 unreachable"]);
    world.look(20, &[]);
    assert_eq!(world.look(30, &[]), ["100500 at once: 100500 over: unreachable"]);
}

#[test]
fn many_one_after_the_other_are_twenty_messages_an_hour_and_a_digest_every_ten_minutes() {
    let (mut world, mut sent) = (World::default(), 0);
    for minutes in 0..60 {
        let truth: Vec<Problem> =
            (0..16 * (minutes as usize + 1)).map(|number| problem(number, Kind::Unreachable)).collect();
        sent += world.look(minutes, &truth).len();
    }
    assert!(sent <= SINGLES + 6, "{sent}");
    assert!(world.stored.values().filter(|open| open.told_at.is_none()).count() < 16 * 10);
}

#[test]
fn who_is_told_that_it_expired_is_not_told_too_that_it_is_overdue() {
    let mut world = World::default();
    let both = [problem(1, Kind::Expired), problem(1, Kind::RenewalOverdue)];
    assert_eq!(world.look(0, &both), ["shop-1: certificate expired"]);
    world.look(10, &[]);
    assert_eq!(world.look(20, &[]), ["over: shop-1: certificate expired"]);
}

#[test]
fn what_happens_is_told_once_and_is_never_over() {
    let (mut world, changed) = (World { deaf: true, ..World::default() }, [problem(1, Kind::Changed)]);
    assert!(world.look(0, &changed).is_empty() && world.look(30, &[]).is_empty(), "nobody hears it yet");
    world.deaf = false;
    assert_eq!(world.look(31, &[]), ["shop-1: issuer or key changed unexpectedly"]);
    for minutes in [32, 60, 1440, 1480, 3000] {
        assert!(world.look(minutes, &[]).is_empty(), "minute {minutes}");
    }
    assert!(world.stored.is_empty());
}

#[test]
fn the_worst_is_told_first_and_what_is_over_last() {
    let mut world = World::default();
    world.look(0, &[problem(1, Kind::Expired)]);
    world.look(1, &[]);
    let truth = [problem(2, Kind::OlderVersion), problem(3, Kind::Expired)];
    assert_eq!(
        world.look(11, &truth),
        ["shop-3: certificate expired", "shop-2: older version still served", "over: shop-1: certificate expired"]
    );
}
