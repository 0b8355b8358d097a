//! Problems, the messages about them, and their ways.

use certbus_core::alert::{Event, Kind, Problem};

use super::issued::{obtained, offered};
use super::world::{DAYS, Engine, MINUTE, at, certificate, failed, managed, person, served};
use crate::StoreError;
use crate::alerts::Watch;
use crate::observations::Poll;

fn watch() -> Watch {
    Watch {
        tenant: "default".into(),
        managed: Some(Vec::new()),
        endpoints_since: Some(at(0)),
        destinations: vec!["smtp".into()],
    }
}

impl Engine {
    /// Looks, and returns the titles of the messages that were written, in order.
    async fn judged(&self, watch: &Watch, minutes: u64) -> Vec<String> {
        let last = self.store.delivery_log(None, 1).await.unwrap().0.first().map_or(0, |one| one.message);
        self.store.judge(watch, at(minutes)).await.unwrap();
        let mut log = self.store.delivery_log(None, 1000).await.unwrap().0;
        log.retain(|one| one.message > last);
        log.sort_by_key(|one| one.message);
        log.dedup_by_key(|one| one.message);
        log.into_iter().map(|one| one.title).collect()
    }

    async fn keys(&self, minutes: u64) -> Vec<String> {
        let problems = self.store.problems("", 1000, at(minutes)).await.unwrap();
        problems.into_iter().map(|one| one.problem.key).collect()
    }

    /// Polls that are due are made, whatever they find.
    async fn polls_are_made(&self, minutes: u64) {
        let due = self.due(minutes).await;
        self.store.polled(&due).await.unwrap();
    }
}

fn overdue(tenant: &str) -> Problem {
    Problem {
        key: format!("managed/{tenant}/x/renewal-overdue"),
        kind: Kind::RenewalOverdue,
        name: "shop.example".into(),
        owner: String::new(),
        words: "in words".into(),
        since: at(0),
    }
}

pub async fn an_endpoint_that_expired_is_told_once_and_once_more_when_it_is_renewed(engine: &Engine) {
    let watch = |minutes| Watch { endpoints_since: Some(at(minutes)), ..watch() };
    let id = engine.add("shop.example").await;
    let old = certificate("shop.example", "R3", at(0), 60 * MINUTE);
    engine.poll(id, 1, &[served("192.0.2.1", &old)]).await;
    assert!(engine.judged(&watch(10), 10).await.is_empty());
    assert_eq!(engine.judged(&watch(31), 31).await, ["shop.example:443: renewal overdue"]);
    assert_eq!(engine.judged(&watch(61), 61).await, ["shop.example:443: certificate expired"]);
    assert!(engine.judged(&watch(62), 62).await.is_empty());
    assert_eq!(engine.keys(62).await, [format!("endpoint/{id}/expired"), format!("endpoint/{id}/renewal-overdue")]);
    let new = certificate("shop.example", "R3", at(60), 90 * DAYS);
    engine.poll(id, 63, &[served("192.0.2.1", &new)]).await;
    assert!(engine.judged(&watch(64), 64).await.is_empty());
    let over = ["over: shop.example:443: certificate expired", "over: shop.example:443: renewal overdue"];
    assert_eq!(engine.judged(&watch(74), 74).await, over);
    assert!(engine.keys(74).await.is_empty());
    // Who does not poll it is not told of it.
    engine.poll(id, 75, &[served("192.0.2.1", &old)]).await;
    let paused = certbus_core::endpoint::Written { active: Some("no".into()), ..Default::default() };
    let stored = engine.store.endpoint(id).await.unwrap().unwrap();
    let edited = stored.endpoint.edited(&paused).unwrap();
    engine.store.edit_endpoint(&stored, &edited, &person(), at(76)).await.unwrap();
    assert!(engine.judged(&watch(77), 77).await.is_empty());
}

pub async fn a_node_that_fails_once_or_twice_makes_no_endpoint_unreachable(engine: &Engine) {
    let id = engine.add("shop.example").await;
    engine.polls_are_made(0).await;
    for minutes in 1..=2 {
        engine.poll(id, minutes, &[failed("192.0.2.1", "refused")]).await;
        assert!(engine.judged(&watch(), minutes).await.is_empty());
    }
    engine.poll(id, 3, &[failed("192.0.2.1", "refused")]).await;
    assert_eq!(engine.judged(&watch(), 3).await, ["shop.example:443: unreachable"]);
    let shown = engine.store.problems("", 10, at(3)).await.unwrap().remove(0);
    assert!(shown.problem.words.contains("1 of 1 nodes") && shown.problem.words.contains("refused, in words"));
    assert_eq!(shown.problem.since, at(1));
    // It comes and goes: nothing more is said until it stays.
    let leaf = certificate("shop.example", "R3", at(0), 90 * DAYS);
    for minutes in [4, 8, 12] {
        engine.poll(id, minutes, &[served("192.0.2.1", &leaf)]).await;
        assert!(engine.judged(&watch(), minutes).await.is_empty());
        for more in 1..=3 {
            engine.poll(id, minutes + more, &[failed("192.0.2.1", "refused")]).await;
        }
        assert!(engine.judged(&watch(), minutes + 3).await.is_empty());
    }
    engine.poll(id, 20, &[served("192.0.2.1", &leaf)]).await;
    engine.judged(&watch(), 20).await;
    assert_eq!(engine.judged(&watch(), 30).await, ["over: shop.example:443: unreachable"]);
}

pub async fn four_nodes_of_one_endpoint_are_one_problem(engine: &Engine) {
    let id = engine.add("shop.example").await;
    engine.polls_are_made(0).await;
    let nodes: Vec<_> = (1..=4).map(|n| failed(&format!("192.0.2.{n}"), "timeout")).collect();
    for minutes in 1..=3 {
        engine.poll(id, minutes, &nodes).await;
    }
    assert_eq!(engine.judged(&watch(), 3).await.len(), 1);
    assert!(engine.store.problems("", 10, at(3)).await.unwrap()[0].problem.words.contains("4 of 4 nodes"));
}

pub async fn another_issuer_is_told_once_and_what_was_seen_before_is_no_news(engine: &Engine) {
    let id = engine.add("shop.example").await;
    engine.polls_are_made(0).await;
    let (first, other) =
        (certificate("shop.example", "R3", at(0), 90 * DAYS), certificate("shop.example", "E9", at(1), 90 * DAYS));
    let both = |leaf: &[u8]| [served("192.0.2.1", leaf), served("192.0.2.2", leaf)];
    engine.poll(id, 1, &both(&first)).await;
    assert!(engine.judged(&watch(), 1).await.is_empty(), "the first is no change");
    engine.poll(id, 2, &both(&other)).await;
    assert_eq!(engine.judged(&watch(), 2).await, ["shop.example:443: issuer or key changed unexpectedly"]);
    for minutes in 3..20 {
        engine.poll(id, minutes, &both(if minutes % 2 == 0 { &other } else { &first })).await;
        assert!(engine.judged(&watch(), minutes).await.is_empty(), "two that take turns");
    }
    // What was issued here is expected, whoever issued it.
    let ours = certificate("shop.example", "CertBus", at(2), 90 * DAYS);
    engine.told(0, &[obtained(1, "shop.example", &ours, 1), offered(1, &ours, 2)]).await;
    engine.poll(id, 21, &both(&ours)).await;
    assert!(engine.judged(&watch(), 21).await.is_empty());
}

pub async fn an_older_version_is_told_when_it_is_still_seen_an_hour_after_the_offer(engine: &Engine) {
    let id = engine.add("shop.example").await;
    engine.polls_are_made(0).await;
    let (old, new) =
        (certificate("shop.example", "CA", at(0), 90 * DAYS), certificate("shop.example", "CA", at(1), 90 * DAYS));
    engine.told(0, &[obtained(1, "shop.example", &old, 1), offered(1, &old, 2)]).await;
    engine.poll(id, 1, &[served("192.0.2.1", &old), served("192.0.2.2", &old)]).await;
    engine.told(1, &[obtained(1, "shop.example", &new, 3), offered(1, &new, 4)]).await;
    engine.poll(id, 59, &[served("192.0.2.1", &new), served("192.0.2.2", &old)]).await;
    engine.polls_are_made(59).await;
    assert!(engine.judged(&watch(), 59).await.is_empty(), "it is on its way");
    assert!(engine.judged(&watch(), 62).await.is_empty(), "nobody has looked since");
    engine.poll(id, 61, &[served("192.0.2.1", &new), served("192.0.2.2", &old)]).await;
    engine.polls_are_made(61).await;
    assert_eq!(engine.judged(&watch(), 62).await, ["shop.example:443: older version still served"]);
    let words = engine.store.problems("", 10, at(62)).await.unwrap().remove(0).problem.words;
    assert!(words.starts_with("192.0.2.2 serves") && words.contains(&managed(1).to_string()), "{words}");
}

pub async fn polls_that_nobody_makes_are_told(engine: &Engine) {
    engine.add("shop.example").await;
    assert!(engine.judged(&watch(), 9).await.is_empty());
    assert_eq!(engine.judged(&watch(), 10).await, ["scheduler: polls are not made"]);
    engine.polls_are_made(11).await;
    engine.judged(&watch(), 11).await;
    assert_eq!(engine.judged(&watch(), 21).await, ["over: scheduler: polls are not made"]);
    // Asked for, and no worker is there.
    let task = crate::tasks::NewTask { lane: "poll/tokyo".into(), key: None, body: "{}".into() };
    crate::tasks::TaskQueue::add(&engine.store, &[task], at(22)).await.unwrap();
    engine.polls_are_made(32).await;
    assert_eq!(engine.judged(&watch(), 32).await, ["scheduler: polls are not made"]);
    assert!(engine.store.problems("", 1, at(32)).await.unwrap()[0].problem.words.contains("at: tokyo;"));
}

pub async fn managed_certificates_of_another_tenant_are_left_to_their_own(engine: &Engine) {
    let of = |tenant: &str, problems: Vec<Problem>| Watch {
        tenant: tenant.into(),
        managed: Some(problems),
        endpoints_since: None,
        destinations: vec!["smtp".into()],
    };
    assert_eq!(engine.judged(&of("a", vec![overdue("a")]), 0).await.len(), 1);
    assert_eq!(engine.judged(&of("ab", vec![overdue("ab")]), 0).await.len(), 1);
    for minutes in [1, 20, 40] {
        let own = of("a", vec![overdue("a")]);
        assert!(engine.judged(&own, minutes).await.is_empty(), "minute {minutes}: it knows nothing of the other's");
    }
    let unread = Watch { managed: None, ..of("a", Vec::new()) };
    for minutes in [50, 100] {
        assert!(engine.judged(&unread, minutes).await.is_empty(), "a log that cannot be read ends nothing");
    }
    assert!(engine.store.next_delivery("b", "smtp", at(41)).await.unwrap().is_none());
    let next = engine.store.next_delivery("ab", "smtp", at(41)).await.unwrap().unwrap();
    assert_eq!(next.body.problem.unwrap().key, "managed/ab/x/renewal-overdue");
}

pub async fn a_muted_problem_is_stored_and_not_told_and_both_are_in_the_trail(engine: &Engine) {
    let watch = Watch { managed: Some(vec![overdue("default")]), endpoints_since: None, ..watch() };
    assert_eq!(engine.judged(&watch, 0).await.len(), 1);
    engine.store.mute("managed/default/x", Some(at(2000)), &person(), at(1)).await.unwrap();
    assert!(engine.judged(&watch, 1500).await.is_empty(), "no reminder");
    let shown = engine.store.problems("", 10, at(1500)).await.unwrap();
    assert!(shown[0].is_muted && engine.store.mutes(at(1500)).await.unwrap()[0].until == Some(at(2000)));
    assert_eq!(engine.judged(&watch, 2000).await.len(), 1, "its time is over");
    engine.store.mute("managed/default/x/renewal-overdue", None, &person(), at(2001)).await.unwrap();
    engine.judged(&Watch { managed: Some(Vec::new()), ..watch.clone() }, 2002).await;
    assert!(engine.judged(&Watch { managed: Some(Vec::new()), ..watch }, 2100).await.is_empty(), "over, and not told");
    engine.store.unmute("managed/default/x/renewal-overdue", &person(), at(2101)).await.unwrap();
    let trail = engine.store.audit(None, 10).await.unwrap();
    let told: Vec<_> = trail.iter().map(|line| (line.action.as_str(), line.subject.as_str())).collect();
    let whole = "managed/default/x/renewal-overdue";
    assert_eq!(told, [("alert unmute", whole), ("alert mute", whole), ("alert mute", "managed/default/x")]);
    assert!(trail[2].detail.contains("until"), "{trail:?}");
}

pub async fn a_destination_gets_its_messages_in_order_and_one_that_hangs_keeps_its_own(engine: &Engine) {
    let store = &engine.store;
    let watch = |problems| Watch {
        managed: Some(problems),
        endpoints_since: None,
        destinations: vec!["smtp".into(), "exec".into()],
        ..watch()
    };
    let numbered = |number: u64| Problem { key: format!("managed/default/{number}/renewal-overdue"), ..overdue("") };
    for minutes in 0..3 {
        engine.judged(&watch((0..=minutes).map(numbered).collect()), minutes).await;
    }
    let next =
        async |destination: &str, minutes| store.next_delivery("default", destination, at(minutes)).await.unwrap();
    let first = next("smtp", 3).await.unwrap();
    assert_eq!(
        (first.attempt, first.body.problem.as_ref().unwrap().key.as_str()),
        (1, "managed/default/0/renewal-overdue")
    );
    store.undelivered(&first, "it hangs", Some(at(5)), at(3)).await.unwrap();
    assert_eq!(next("smtp", 4).await, None, "the others wait behind it");
    for number in 0..3_u64 {
        let one = next("exec", 4).await.unwrap();
        assert_eq!(one.body.problem.as_ref().unwrap().key, numbered(number).key, "in order");
        assert!(store.delivered(&one, "", at(4)).await.unwrap());
        assert!(!store.delivered(&one, "", at(4)).await.unwrap(), "once");
    }
    assert_eq!(next("exec", 4).await, None);
    let again = next("smtp", 5).await.unwrap();
    assert_eq!((again.attempt, &again.uid), (2, &first.uid), "known by one id in every attempt");
    assert!(
        next("smtp", 0).await.is_none()
            && store.next_delivery("default", "smtp", at(0).minus(2 * DAYS)).await.unwrap().is_some(),
        "a clock that was ahead"
    );
    store.undelivered(&again, "refused", None, at(5)).await.unwrap();
    assert_eq!(next("smtp", 5).await.unwrap().body.problem.unwrap().key, numbered(1).key);
    let log = store.delivery_log(None, 100).await.unwrap().0;
    let of_first: Vec<_> = log.iter().filter(|one| one.message == first.message).collect();
    assert_eq!(of_first.iter().map(|one| one.state.as_str()).collect::<Vec<_>>(), ["delivered", "given-up"]);
    assert_eq!((of_first[1].attempts, of_first[1].why.as_str()), (2, "refused"));
    // A destination that never comes back keeps nothing for ever.
    engine.judged(&watch(Vec::new()), 8 * 24 * 60).await;
    assert!(next("smtp", 8 * 24 * 60).await.is_none());
}

pub async fn a_test_that_was_asked_for_goes_to_whatever_destinations_there_are(engine: &Engine) {
    let store = &engine.store;
    let number = store.ask_for_test("default", &person(), at(0)).await.unwrap();
    let log = store.delivery_log(None, 10).await.unwrap().0;
    assert_eq!((log[0].message, log[0].state.as_str(), log[0].destination.as_str()), (number, "waiting", ""));
    let watch = Watch { destinations: vec!["smtp".into(), "webhook/chat".into()], ..watch() };
    assert_eq!(store.judge(&watch, at(1)).await.unwrap(), 1);
    for destination in &watch.destinations {
        let one = store.next_delivery("default", destination, at(1)).await.unwrap().unwrap();
        assert_eq!((one.message, one.body.event), (number, Event::Test));
    }
    assert_eq!(store.judge(&watch, at(2)).await.unwrap(), 0);
    // A new one goes past what waits, and once only.
    let failed = store.next_delivery("default", "smtp", at(2)).await.unwrap().unwrap();
    store.undelivered(&failed, "refused", Some(at(60)), at(2)).await.unwrap();
    assert_eq!(store.next_delivery("default", "smtp", at(3)).await.unwrap(), None, "it waits");
    let newer = store.ask_for_test("default", &person(), at(3)).await.unwrap();
    store.judge(&watch, at(4)).await.unwrap();
    let now = store.next_delivery("default", "smtp", at(4)).await.unwrap().unwrap();
    assert_eq!(now.message, newer);
    store.undelivered(&now, "refused", Some(at(60)), at(4)).await.unwrap();
    assert_eq!(store.next_delivery("default", "smtp", at(5)).await.unwrap(), None);
    assert_eq!(store.next_delivery("default", "smtp", at(61)).await.unwrap().unwrap().message, number);
    assert_eq!(store.audit(None, 1).await.unwrap()[0].action, "alert test");
    // One that is tried at once is nobody else's meanwhile.
    let now = store.test_now("default", "exec", &person(), at(3)).await.unwrap();
    assert_eq!(store.next_delivery("default", "exec", at(3)).await.unwrap(), None);
    store.tested(&now, None, at(3)).await.unwrap();
    assert_eq!(store.delivery_log(None, 1).await.unwrap().0[0].state, "delivered");
}

pub async fn invariant_9_nothing_is_muted_that_is_not_there(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let mute = async |subject: &str| engine.store.mute(subject, None, &person(), at(0)).await;
    assert!(matches!(mute("endpoint/999").await, Err(StoreError::NotFound { .. })));
    for subject in ["nonsense", "endpoint/999/expired", "managed/nobody", "endpoint/x"] {
        assert!(matches!(mute(subject).await, Err(StoreError::NotFound { .. })), "{subject}");
    }
    for subject in [format!("endpoint/{id}/expired"), "scheduler/stalled".into()] {
        mute(&subject).await.unwrap();
        engine.store.unmute(&subject, &person(), at(0)).await.unwrap();
    }
    let lines = engine.store.audit(None, 100).await.unwrap().len();
    mute(&format!("endpoint/{id}/")).await.unwrap();
    assert!(matches!(engine.store.unmute("endpoint/999", &person(), at(0)).await, Err(StoreError::NotFound { .. })));
    assert_eq!(engine.store.audit(None, 100).await.unwrap().len(), lines + 1);
    // What is muted before it is wrong is not told either.
    for minutes in 1..=3 {
        let looks = vec![failed("192.0.2.1", "refused")];
        let poll = Poll { endpoint: id, site: "default".into(), at: at(minutes), looks, whole: true };
        engine.store.record(&[poll], at(minutes)).await.unwrap();
    }
    engine.polls_are_made(3).await;
    assert!(engine.judged(&watch(), 3).await.is_empty() && engine.keys(3).await.len() == 1);
}
