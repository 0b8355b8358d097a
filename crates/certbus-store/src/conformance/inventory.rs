//! Endpoints, what was observed of them, lists, counts, moments.

use std::time::Duration;

use certbus_core::endpoint::{Endpoint, Written};
use certbus_core::id::Hash;

use super::world::{DAYS, Engine, at, certificate, endpoint, failed, person, served};
use crate::endpoints::{Put, Wanted};
use crate::observations::{Look, Poll, Recorded};
use crate::{Query, State, StoreError};

pub async fn an_endpoint_is_registered_once_and_edited_by_one_at_a_time(engine: &Engine) {
    let store = &engine.store;
    let id = engine.add("shop.example").await;
    let twice = [endpoint("new.example"), endpoint("https://SHOP.example")];
    let again = store.add_endpoints(&twice, &person(), at(1)).await.unwrap_err();
    assert!(matches!(&again, StoreError::Duplicate { id: there, .. } if *there == id), "{again}");
    assert_eq!(engine.holds().await.what["endpoints"], 1, "all or none");
    engine.add("smtp://shop.example").await;
    let (ada, bob) = (store.endpoint(id).await.unwrap().unwrap(), store.endpoint(id).await.unwrap().unwrap());
    let written = |tags: &str| Written { tags: Some(tags.into()), ..Written::default() };
    let edited = ada.endpoint.edited(&written("web eu")).unwrap();
    store.edit_endpoint(&ada, &edited, &person(), at(2)).await.unwrap();
    let late = bob.endpoint.edited(&written("old")).unwrap();
    let refused = store.edit_endpoint(&bob, &late, &person(), at(3)).await.unwrap_err();
    assert!(matches!(refused, StoreError::Changed { .. }), "{refused}");
    let stored = store.endpoint(id).await.unwrap().unwrap();
    assert_eq!((stored.endpoint, stored.revision), (edited.clone(), 2));
    let other = Endpoint { key: endpoint("smtp://shop.example").key, ..edited };
    let taken = store.edit_endpoint(&store.endpoint(id).await.unwrap().unwrap(), &other, &person(), at(4)).await;
    assert!(matches!(taken, Err(StoreError::Duplicate { .. })), "{taken:?}");
    engine.holds().await;
}

pub async fn many_endpoints_are_put_all_or_none_and_putting_them_twice_changes_nothing(engine: &Engine) {
    let store = &engine.store;
    let wanted = |n: usize| Wanted { endpoint: endpoint(&format!("host-{n}.example")), written: Written::default() };
    let mut all: Vec<Wanted> = (0..20).map(wanted).collect();
    let put = store.put_endpoints(&all, &person(), at(0)).await.unwrap();
    assert!(put.iter().all(|put| matches!(put, Put::Added(_))));
    let lines = store.audit(None, 1000).await.unwrap().len();
    let again = store.put_endpoints(&all, &person(), at(1)).await.unwrap();
    assert!(again.iter().all(|put| matches!(put, Put::Same(_))));
    assert_eq!(store.audit(None, 1000).await.unwrap().len(), lines);
    all[3].written.owner = Some("ada".into());
    let edited = store.put_endpoints(&all, &person(), at(2)).await.unwrap();
    assert_eq!(edited.iter().filter(|put| matches!(put, Put::Edited(_))).count(), 1);
    all[3].written = Written { tags: Some("eu".into()), ..Written::default() };
    store.put_endpoints(&all, &person(), at(3)).await.unwrap();
    let id = store.meant("host-3.example").await.unwrap()[0];
    let stored = store.endpoint(id).await.unwrap().unwrap().endpoint;
    assert_eq!((stored.owner.as_str(), stored.tags.len()), ("ada", 1), "what was not written stays");
    assert_eq!(engine.holds().await.what["endpoints"], 20);
    let (first, mut second) = (wanted(30), wanted(30));
    second.written.owner = Some("ada".into());
    let twice = store.put_endpoints(&[first, wanted(3), second], &person(), at(4)).await.unwrap();
    assert!(matches!(twice[..], [Put::Added(new), Put::Same(_), Put::Edited(same)] if new == same), "{twice:?}");
    assert_eq!(engine.found("host-30").await.len(), 1, "named twice, it is one");
}

pub async fn a_removed_endpoint_takes_its_history_along_and_leaves_the_certificate(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let leaf = certificate("shop.example", "R3", at(0), 90 * DAYS);
    engine.poll(id, 1, &[served("192.0.2.1", &leaf)]).await;
    assert_eq!(engine.store.remove_endpoints(&[id, 99], &person(), at(2)).await.unwrap(), 1);
    assert_eq!(engine.store.endpoint(id).await.unwrap(), None);
    assert!(engine.stays(id).await.is_empty());
    assert!(engine.found("shop").await.is_empty());
    assert!(engine.holds().await.what.is_empty());
    let again = engine.add("shop.example").await;
    assert_ne!(again, id, "a number is one endpoint's for ever");
    assert!(engine.stays(again).await.is_empty());
    let late = engine.poll(id, 3, &[served("192.0.2.1", &leaf)]).await;
    assert_eq!(late, Recorded { passed_over: 1, ..Recorded::default() }, "a poll of what is gone is passed over");
}

pub async fn endpoints_are_meant_by_number_name_host_or_place(engine: &Engine) {
    let web = engine.add("shop.example").await;
    let mail = engine.add("smtp://shop.example").await;
    let named = Endpoint { name: "The Shop".into(), ..endpoint("192.0.2.7:8443") };
    let named = engine.store.add_endpoints(std::slice::from_ref(&named), &person(), at(0)).await.unwrap()[0];
    for (text, ids) in [
        (web.to_string(), vec![web]),
        ("shop.example".into(), vec![web, mail]),
        ("shop.example:443".into(), vec![web]),
        ("smtp://shop.example:25".into(), vec![mail]),
        ("The Shop".into(), vec![named]),
        ("192.0.2.7".into(), vec![named]),
    ] {
        assert_eq!(engine.store.meant(&text).await.unwrap(), ids, "{text}");
    }
    let number = Endpoint { name: web.to_string(), ..endpoint("192.0.2.8") };
    engine.store.add_endpoints(&[number], &person(), at(0)).await.unwrap();
    assert_eq!(engine.store.meant(&web.to_string()).await.unwrap(), [web], "a number before a name that is one");
    let missing = engine.store.meant("nobody.example").await.unwrap_err();
    assert!(matches!(missing, StoreError::NotFound { .. }), "{missing}");
}

pub async fn invariant_10_every_change_of_an_endpoint_is_in_the_trail(engine: &Engine) {
    let store = &engine.store;
    let id = engine.add("shop.example").await;
    let was = store.endpoint(id).await.unwrap().unwrap();
    let edited = was.endpoint.edited(&Written { owner: Some("web team".into()), ..Written::default() }).unwrap();
    store.edit_endpoint(&was, &edited, &person(), at(1)).await.unwrap();
    store.remove_endpoints(&[id], &person(), at(2)).await.unwrap();
    let lines = store.audit(None, 10).await.unwrap();
    let actions: Vec<_> = lines.iter().map(|line| line.action.as_str()).collect();
    assert_eq!(actions, ["endpoint rm", "endpoint edit", "endpoint add"]);
    let all_said =
        |line: &crate::audit::Line| (&*line.actor, &*line.source, &*line.subject) == ("ada", "cli", "shop.example:443");
    assert!(lines.iter().all(all_said), "{lines:?}");
    assert!(lines[1].detail.contains("web team"), "{lines:?}");
    assert_eq!(store.audit(Some(lines[0].id), 1).await.unwrap(), lines[1..2]);
}

pub async fn invariant_7_first_and_last_seen_stay_for_each_node_and_site(engine: &Engine) {
    let written =
        Written { host: Some("shop.example".into()), sites: Some("default, elsewhere".into()), ..Written::default() };
    let endpoints = [Endpoint::parse(&written).unwrap()];
    let id = engine.store.add_endpoints(&endpoints, &person(), at(0)).await.unwrap()[0];
    let (one, two) =
        (certificate("shop.example", "R3", at(0), 90 * DAYS), certificate("shop.example", "R3", at(5), 90 * DAYS));
    let both = |a: &[u8], b: &[u8]| [served("192.0.2.1", a), served("2001:db8::1", b)];
    engine.poll(id, 1, &both(&one, &one)).await;
    engine.poll(id, 2, &both(&one, &one)).await;
    engine.poll(id, 3, &both(&two, &one)).await;
    engine.poll(id, 4, &both(&one, &two)).await;
    engine.poll_from("elsewhere", id, 4, &both(&one, &one)).await;
    let seen: Vec<_> = engine
        .stays(id)
        .await
        .into_iter()
        .filter(|stay| stay.site == "default" && stay.address == "192.0.2.1")
        .map(|stay| (stay.certificate.unwrap().fingerprint, stay.first, stay.last, stay.times, stay.still))
        .collect();
    let (one, two) = (Hash::of(&one), Hash::of(&two));
    assert_eq!(
        seen,
        [(one, at(4), at(4), 1, true), (two, at(3), at(3), 1, false), (one, at(1), at(2), 2, false)],
        "what comes back is a stay of its own"
    );
    let stays = engine.stays(id).await;
    assert_eq!(stays.iter().filter(|stay| stay.site == "elsewhere").count(), 2);
    assert_eq!(
        engine.changes(id).await,
        [
            "192.0.2.1 first",
            "2001:db8::1 first",
            "192.0.2.1 replaced",
            "192.0.2.1 replaced",
            "2001:db8::1 replaced",
            "192.0.2.1 first",
            "2001:db8::1 first"
        ]
    );
}

pub async fn invariant_7_only_looks_of_one_method_are_compared(engine: &Engine) {
    let id = engine.add("dual.example").await;
    let (rsa, ecdsa) =
        (certificate("dual.example", "R3", at(0), 90 * DAYS), certificate("dual.example", "E5", at(1), 80 * DAYS));
    let look = |method: &str, leaf: &[u8]| Look { method: method.into(), ..served("192.0.2.1", leaf) };
    engine.poll(id, 1, &[look("quick", &rsa)]).await;
    engine.poll(id, 2, &[look("full", &rsa)]).await;
    engine.poll(id, 3, &[look("quick", &ecdsa)]).await;
    engine.poll(id, 4, &[failed("192.0.2.1", "refused")]).await;
    let told = ["first", "otherwise", "failing"].map(|kind| format!("192.0.2.1 {kind}"));
    assert_eq!(engine.changes(id).await, told, "a server with two certificates does not seem to replace them");
    let row = engine.row(id, 5).await;
    assert_eq!(
        row.fingerprint,
        Some(Hash::of(&ecdsa)),
        "and a failure hides no certificate, whichever way it was seen"
    );
    assert_eq!(engine.stays(id).await.len(), 3, "the outage, what is served, what was");
}

pub async fn invariant_7_polls_that_come_twice_or_late_change_nothing(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let (one, two) =
        (certificate("shop.example", "R3", at(0), 90 * DAYS), certificate("shop.example", "R3", at(5), 90 * DAYS));
    engine.poll(id, 1, &[served("192.0.2.1", &one)]).await;
    engine.poll(id, 5, &[served("192.0.2.1", &two)]).await;
    let before = (engine.stays(id).await, engine.changes(id).await);
    for (minutes, leaf) in [(5, &two), (1, &one), (3, &one)] {
        let recorded = engine.poll(id, minutes, &[served("192.0.2.1", leaf)]).await;
        assert_eq!(recorded, Recorded { passed_over: 1, ..Recorded::default() });
    }
    // By a clock that is a day ahead.
    let look = served("192.0.2.1", &one);
    let ahead = Poll { endpoint: id, site: "default".into(), at: at(1440), looks: vec![look], whole: true };
    assert_eq!(engine.store.record(&[ahead], at(6)).await.unwrap().passed_over, 1);
    assert_eq!((engine.stays(id).await, engine.changes(id).await), before);
}

pub async fn invariant_8_a_failed_poll_is_recorded_and_the_last_certificate_stays(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let leaf = certificate("shop.example", "R3", at(0), 90 * DAYS);
    engine.poll(id, 1, &[served("192.0.2.1", &leaf)]).await;
    for minutes in 2..5 {
        engine.poll(id, minutes, &[failed("192.0.2.1", "refused")]).await;
    }
    engine.poll(id, 5, &[failed("192.0.2.1", "timeout")]).await;
    assert_eq!(engine.in_state(State::Failing, 5).await, ["shop.example:443"]);
    let stays = engine.stays(id).await;
    let failures: Vec<_> = stays.iter().filter_map(|stay| Some((stay.failure.as_deref()?, stay.times))).collect();
    assert_eq!(failures, [("timeout, in words", 1), ("refused, in words", 3)]);
    let kept = stays.iter().find(|stay| stay.certificate.is_some()).unwrap();
    assert_eq!((kept.last, kept.still), (at(1), true), "the last certificate seen");
    engine.poll(id, 6, &[served("192.0.2.1", &leaf)]).await;
    assert!(engine.in_state(State::Failing, 6).await.is_empty());
    let kept = engine.stays(id).await.into_iter().find(|stay| stay.certificate.is_some()).unwrap();
    assert_eq!((kept.first, kept.last, kept.times), (at(1), at(6), 2));
    let kinds = ["first", "failing", "failing", "recovered"].map(|kind| format!("192.0.2.1 {kind}"));
    assert_eq!(engine.changes(id).await, kinds);
}

pub async fn an_unchanged_poll_costs_no_row(engine: &Engine) {
    let mut polls = Vec::new();
    for number in 0..10 {
        let host = format!("host-{number}.example");
        let leaf = certificate(&host, "R3", at(0), 90 * DAYS);
        polls.push((engine.add(&host).await, leaf));
    }
    for (id, leaf) in &polls {
        engine.poll(*id, 1, &[served("192.0.2.1", leaf), failed("192.0.2.2", "refused")]).await;
    }
    let rows = engine.store.rows().await.unwrap();
    for minutes in 2..5 {
        for (id, leaf) in &polls {
            let recorded =
                engine.poll(*id, minutes, &[served("192.0.2.1", leaf), failed("192.0.2.2", "refused")]).await;
            assert_eq!(recorded, Recorded { looks: 2, ..Recorded::default() });
        }
    }
    assert_eq!(engine.store.rows().await.unwrap(), rows);
    let stays = engine.stays(polls[0].0).await;
    assert!(stays.iter().all(|stay| (stay.last, stay.times) == (at(4), 4)), "and yet it is known: {stays:?}");
}

pub async fn a_node_that_the_name_no_longer_leads_to_is_told_once_and_counts_no_more(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let old = certificate("shop.example", "R3", at(0), DAYS);
    let new = certificate("shop.example", "R3", at(1), 90 * DAYS);
    engine.poll(id, 1, &[served("192.0.2.1", &old), served("192.0.2.2", &new)]).await;
    assert_eq!(engine.in_state(State::Expired, 2000).await.len(), 1);
    for minutes in 2..4 {
        engine.poll(id, minutes, &[served("192.0.2.2", &new)]).await;
        assert_eq!(engine.in_state(State::Expired, 2000).await.len(), 1, "a name may lead elsewhere each time");
    }
    engine.poll(id, 4, &[served("192.0.2.2", &new)]).await;
    engine.poll(id, 5, &[served("192.0.2.2", &new)]).await;
    assert!(engine.in_state(State::Expired, 2000).await.is_empty());
    assert!(engine.stays(id).await.iter().any(|stay| stay.gone == Some(at(4))));
    engine.poll(id, 6, &[served("192.0.2.1", &old), served("192.0.2.2", &new)]).await;
    let told = engine.changes(id).await;
    assert_eq!(told, ["192.0.2.1 first", "192.0.2.2 first", "192.0.2.1 gone", "192.0.2.1 back"]);
}

pub async fn a_name_that_leads_nowhere_fails_and_its_nodes_stay(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let leaf = certificate("shop.example", "R3", at(0), 90 * DAYS);
    engine.poll(id, 1, &[served("192.0.2.1", &leaf)]).await;
    engine.poll(id, 2, &[failed("", "dns")]).await;
    assert_eq!(engine.in_state(State::Failing, 2).await.len(), 1);
    assert!(engine.stays(id).await.iter().all(|stay| stay.gone.is_none()));
    engine.poll(id, 3, &[served("192.0.2.1", &leaf)]).await;
    assert!(engine.in_state(State::Failing, 3).await.is_empty(), "the name leads somewhere again");
    engine.poll(id, 9, &[failed("", "dns")]).await;
    assert_eq!(engine.row(id, 9).await.failing_since, Some(at(9)), "an outage of its own");
    let told = engine.changes(id).await;
    assert_eq!(told, ["192.0.2.1 first", " failing", " recovered", " back", " failing"]);
}

pub async fn an_endpoint_that_becomes_another_begins_anew_and_keeps_what_was(engine: &Engine) {
    let store = &engine.store;
    let id = engine.add("shop.example").await;
    let (one, two) =
        (certificate("shop.example", "R3", at(0), 90 * DAYS), certificate("b.example", "R3", at(1), 80 * DAYS));
    engine.poll(id, 1, &[served("192.0.2.1", &one)]).await;
    let was = store.endpoint(id).await.unwrap().unwrap();
    let edited = was.endpoint.edited(&Written { host: Some("b.example".into()), ..Written::default() }).unwrap();
    store.edit_endpoint(&was, &edited, &person(), at(5)).await.unwrap();
    engine.holds().await;
    assert_eq!(engine.row(id, 5).await.fingerprint, None, "nothing was seen of what it is now");
    let late = engine.poll(id, 4, &[served("192.0.2.1", &one)]).await;
    assert_eq!(late.passed_over, 1, "a poll that was under way was of the former");
    engine.poll(id, 6, &[served("192.0.2.1", &two)]).await;
    assert_eq!(engine.changes(id).await, ["192.0.2.1 first", "192.0.2.1 first"], "not replaced");
    assert_eq!(engine.stays(id).await.len(), 2, "what was seen was seen");
    assert!(engine.found("shop").await.is_empty());
}

pub async fn a_site_that_polls_no_more_counts_no_more(engine: &Engine) {
    let store = &engine.store;
    let written = Written { host: Some("shop.example".into()), sites: Some("a, b".into()), ..Written::default() };
    let id = store.add_endpoints(&[Endpoint::parse(&written).unwrap()], &person(), at(0)).await.unwrap()[0];
    let (old, new) =
        (certificate("shop.example", "R3", at(0), DAYS), certificate("shop.example", "R3", at(1), 90 * DAYS));
    engine.poll_from("a", id, 1, &[served("192.0.2.1", &old)]).await;
    engine.poll_from("b", id, 1, &[served("192.0.2.1", &new)]).await;
    assert_eq!(engine.in_state(State::Expired, 2000).await.len(), 1);
    let was = store.endpoint(id).await.unwrap().unwrap();
    let edited = was.endpoint.edited(&Written { sites: Some("b".into()), ..Written::default() }).unwrap();
    store.edit_endpoint(&was, &edited, &person(), at(2)).await.unwrap();
    engine.holds().await;
    assert!(engine.in_state(State::Expired, 2000).await.is_empty());
    let elsewhere = engine.poll_from("a", id, 3, &[served("192.0.2.1", &old)]).await;
    assert_eq!(elsewhere.passed_over, 1);
}

pub async fn any_prefix_of_a_label_of_host_name_san_or_issuer_finds_it(engine: &Engine) {
    let id = engine.add("www.shop.example").await;
    let named = Endpoint { name: "Payroll Frontend".into(), ..endpoint("192.0.2.9") };
    engine.store.add_endpoints(std::slice::from_ref(&named), &person(), at(0)).await.unwrap();
    let leaf = certificate("www.shop.example *.intern.shop.example", "Let's Encrypt R3", at(0), 90 * DAYS);
    engine.poll(id, 1, &[served("192.0.2.1", &leaf)]).await;
    let www = ["www.shop.example:443"];
    for words in ["www", "shop", "sho", "exa", "shop.exa", "inter", "let's enc", "encrypt", "R3 shop"] {
        assert_eq!(engine.found(words).await, www, "{words}");
    }
    for words in ["front", "payroll fro", "192.0.2.9"] {
        assert_eq!(engine.found(words).await, ["Payroll Frontend"], "{words}");
    }
    assert_eq!(engine.found("www.shop.example:443").await, www);
    for words in ["hop", "shop payroll", "ncrypt", "*", "443"] {
        assert!(engine.found(words).await.is_empty(), "{words}");
    }
    let next = certificate("www.shop.example", "E5", at(5), 90 * DAYS);
    engine.poll(id, 6, &[served("192.0.2.1", &next)]).await;
    assert!(engine.found("intern").await.is_empty(), "of what is served now");
    assert_eq!(engine.found("e5").await, www);
}

pub async fn pages_go_on_where_the_last_ended_whatever_is_added_meanwhile(engine: &Engine) {
    let all: Vec<Endpoint> = (0..57).map(|n| endpoint(&format!("host-{n:02}.example"))).collect();
    engine.store.add_endpoints(&all, &person(), at(0)).await.unwrap();
    for search in ["", "host"] {
        let mut query = Query { limit: 10, search: search.into(), ..Query::default() };
        let (mut seen, mut pages) = (Vec::new(), 0);
        loop {
            let page = engine.store.endpoints(&query, at(0)).await.unwrap();
            seen.extend(page.rows.into_iter().map(|row| row.stored.id));
            pages += 1;
            engine.add(&format!("aaa-{search}{pages}.example")).await;
            match page.next {
                None => break,
                next => query.after = next,
            }
        }
        let mut once = seen.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!((once.len(), pages), (seen.len(), 6), "none twice");
        assert!(seen.len() >= 57);
    }
    let bad = Query { after: Some("nonsense".into()), limit: 10, ..Query::default() };
    assert!(matches!(engine.store.endpoints(&bad, at(0)).await, Err(StoreError::NotFound { .. })));
}

pub async fn every_state_lists_its_endpoints_and_no_others(engine: &Engine) {
    let well = engine.add("well.example").await;
    let expired = engine.add("expired.example").await;
    let overdue = engine.add("overdue.example").await;
    let failing = engine.add("failing.example").await;
    engine.add("unseen.example").await;
    let paused = Endpoint { active: false, ..endpoint("paused.example") };
    engine.store.add_endpoints(std::slice::from_ref(&paused), &person(), at(0)).await.unwrap();
    let tagged = Written { host: Some("tagged.example".into()), tags: Some("eu".into()), ..Written::default() };
    let tagged = Endpoint { owner: "ada".into(), ..Endpoint::parse(&tagged).unwrap() };
    engine.store.add_endpoints(std::slice::from_ref(&tagged), &person(), at(0)).await.unwrap();
    let leaf = |host: &str, days: u32, old: u32| certificate(host, "R3", at(0).minus(DAYS * old), DAYS * days);
    engine.poll(well, 1, &[served("192.0.2.1", &leaf("well.example", 90, 1))]).await;
    engine.poll(expired, 1, &[served("192.0.2.1", &leaf("expired.example", 90, 91))]).await;
    engine.poll(overdue, 1, &[served("192.0.2.1", &leaf("overdue.example", 90, 70))]).await;
    engine.poll(failing, 1, &[failed("192.0.2.1", "refused")]).await;
    for (state, names) in [
        (State::Expired, vec!["expired.example:443"]),
        (State::Overdue, vec!["expired.example:443", "overdue.example:443"]),
        (State::Failing, vec!["failing.example:443"]),
        (State::Ok, vec!["well.example:443"]),
        (State::Current, vec![]),
        (State::Paused, vec!["paused.example:443"]),
        (State::Unseen, vec!["unseen.example:443", "tagged.example:443"]),
    ] {
        assert_eq!(engine.in_state(state, 2).await, names, "{state:?}");
    }
    let by = |query: Query| async move { engine.names(query, 2).await };
    let tagged = ["tagged.example:443"];
    assert_eq!(by(Query { tag: Some("eu".into()), ..Query::default() }).await, tagged);
    assert_eq!(by(Query { owner: Some("ada".into()), ..Query::default() }).await, tagged);
    assert_eq!(by(Query { site: Some("default".into()), ..Query::default() }).await.len(), 7);
    assert!(by(Query { site: Some("moon".into()), ..Query::default() }).await.is_empty());
    let both = Query { tag: Some("eu".into()), state: Some(State::Unseen), search: "tag".into(), ..Query::default() };
    assert_eq!(by(both).await, tagged);
}

pub async fn counts_are_what_a_full_count_says_after_everything_that_changes_them(engine: &Engine) {
    // A run of the same numbers on every engine and every day.
    let mut state = 7_u64;
    let mut draw = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut ids = Vec::new();
    for step in 1..250 {
        match draw(10) {
            0 | 1 => ids.push(engine.add(&format!("host-{step}.example")).await),
            2 if !ids.is_empty() => {
                let id = ids.swap_remove(draw(ids.len() as u64) as usize);
                engine.store.remove_endpoints(&[id], &person(), at(step)).await.unwrap();
            }
            3 if !ids.is_empty() => {
                let was = engine.store.endpoint(ids[draw(ids.len() as u64) as usize]).await.unwrap().unwrap();
                let edited = Endpoint { active: !was.endpoint.active, ..was.endpoint.clone() };
                engine.store.edit_endpoint(&was, &edited, &person(), at(step)).await.unwrap();
            }
            _ if !ids.is_empty() => {
                let id = ids[draw(ids.len() as u64) as usize];
                let leaf = certificate("a.example", "R3", at(draw(4) * 2000), DAYS * (1 + draw(3) as u32 * 40));
                let looks = [served("192.0.2.1", &leaf), failed("192.0.2.2", "refused"), failed("", "dns")];
                engine.poll(id, step, &looks[draw(3) as usize..][..1]).await;
            }
            _ => {}
        }
        engine.holds().await;
    }
    let counts = engine.holds().await;
    assert!(counts.lives.len() > 3 && counts.what["failing"] > 0, "{counts:?}");
    let expiries = counts.expiries(at(0), 365);
    assert_eq!(expiries.iter().sum::<i64>(), counts.lives.iter().map(|(_, _, count)| count).sum::<i64>());
}

pub async fn overdue_is_a_habit_once_there_is_one(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let mut start = 0;
    let day = 24 * 60;
    let overdue = |minutes: u64| async move { engine.in_state(State::Overdue, minutes).await.len() };
    // 90 days each, and replaced every 30.
    for turn in 0..3 {
        assert_eq!(overdue(start + 25 * day).await, 0, "{turn} replacements are no habit");
        let leaf = certificate("shop.example", "R3", at(start), 90 * DAYS);
        engine.poll(id, start + 1, &[served("192.0.2.1", &leaf)]).await;
        start += 30 * day;
    }
    let last = start - 30 * day;
    assert_eq!(overdue(last + 30 * day).await, 0);
    assert_eq!(overdue(last + 40 * day).await, 1, "it is later than ever, with 50 days left");
}

pub async fn the_moments_of_polls_follow_interval_site_and_pauses(engine: &Engine) {
    let store = &engine.store;
    let sites = Written {
        host: Some("shop.example".into()),
        sites: Some("default, tokyo".into()),
        interval: Some("10m".into()),
        ..Written::default()
    };
    let id = store.add_endpoints(&[Endpoint::parse(&sites).unwrap()], &person(), at(0)).await.unwrap()[0];
    let due = engine.due(0).await;
    assert_eq!(due.iter().map(|due| due.site.as_str()).collect::<Vec<_>>(), ["default", "tokyo"], "at once at first");
    store.polled(&due).await.unwrap();
    store.polled(&due).await.unwrap();
    assert!(engine.due(0).await.is_empty());
    let due = engine.due(10).await;
    assert_eq!(due.len(), 2, "an interval later at the latest");
    assert!(due.iter().all(|due| due.since > at(0) && due.next > at(10) && due.next <= at(20)));
    assert_eq!(store.poll_lag(at(30)).await.unwrap().map(|lag| lag >= Duration::from_secs(1200)), Some(true));
    let was = store.endpoint(id).await.unwrap().unwrap();
    let paused = Endpoint { active: false, ..was.endpoint.clone() };
    store.edit_endpoint(&was, &paused, &person(), at(10)).await.unwrap();
    assert!(engine.due(1000).await.is_empty(), "paused");
    store.polled(&due).await.unwrap();
    assert!(engine.due(1000).await.is_empty(), "a poll that was under way does not wake it");
    let was = store.endpoint(id).await.unwrap().unwrap();
    assert_eq!(was.endpoint.sites.len(), 2, "a pause forgets no site");
    store.edit_endpoint(&was, &Endpoint { active: true, ..was.endpoint.clone() }, &person(), at(11)).await.unwrap();
    assert_eq!(engine.due(11).await.len(), 2);
    let was = store.endpoint(id).await.unwrap().unwrap();
    store.polled(&engine.due(11).await).await.unwrap();
    let often = was.endpoint.edited(&Written { interval: Some("1m".into()), ..Written::default() }).unwrap();
    store.edit_endpoint(&was, &often, &person(), at(11)).await.unwrap();
    assert_eq!(engine.due(11).await.len(), 2, "another interval begins at once");
    // A short life is polled four times an hour.
    let short = engine.add("short.example").await;
    let leaf = certificate("short.example", "R3", at(0), 6 * DAYS);
    engine.poll(short, 1, &[served("192.0.2.1", &leaf)]).await;
    let due = engine.due(11).await;
    let next = due.iter().find(|due| due.endpoint == short).unwrap().next;
    assert!(next.since(at(11)) <= Duration::from_secs(15 * 60), "{next}");
    assert_eq!(store.to_poll(&[id, short, 99]).await.unwrap().len(), 2);
}

pub async fn a_role_is_one_processs_until_its_time_is_over(engine: &Engine) {
    let store = &engine.store;
    assert!(store.take_role("scheduler", "a", at(0), at(1)).await.unwrap());
    assert!(!store.take_role("scheduler", "b", at(0), at(1)).await.unwrap());
    assert!(store.take_role("scheduler", "a", at(0), at(2)).await.unwrap(), "kept");
    assert!(store.take_role("scheduler", "b", at(2), at(3)).await.unwrap(), "left to end");
    assert!(!store.take_role("scheduler", "a", at(2), at(3)).await.unwrap());
    store.leave_role("scheduler", "a").await.unwrap();
    assert!(!store.take_role("scheduler", "a", at(2), at(3)).await.unwrap(), "only its own");
    store.leave_role("scheduler", "b").await.unwrap();
    assert!(store.take_role("scheduler", "a", at(2), at(3)).await.unwrap());
}

/// A certificate of the suite is what it says.
#[cfg(test)]
mod tests {
    use certbus_core::certificate::Facts;

    use super::*;

    #[test]
    fn certificates_of_the_suite_parse() {
        let facts = Facts::read(&certificate("a.example *.b.example", "R3", at(0), 90 * DAYS));
        assert_eq!(facts.names, ["a.example", "*.b.example"]);
        assert_eq!((facts.issuer.as_str(), facts.key.as_str()), ("CN=R3", "P-256"));
        assert_eq!((facts.not_before, facts.not_after), (at(0), at(0).plus(90 * DAYS)));
    }
}
