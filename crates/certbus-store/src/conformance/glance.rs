//! What a person sees first.

use certbus_core::endpoint::{Endpoint, Written};

use super::world::{DAYS, Engine, at, certificate, failed, person, served};
use crate::glance::Group;
use crate::{Query, State};

pub async fn a_glance_counts_what_the_lists_find_and_by_whose_it_is(engine: &Engine) {
    let add = async |host: &str, tags: &str, owner: &str, days_old: u32, seen: bool| {
        let text = |text: &str| Some(text.to_owned());
        let written = Written { host: text(host), tags: text(tags), owner: text(owner), ..Written::default() };
        let all = [Endpoint::parse(&written).unwrap()];
        let id = engine.store.add_endpoints(&all, &person(), at(0)).await.unwrap()[0];
        let leaf = certificate(host, "R3", at(0).minus(DAYS * days_old), DAYS * 90);
        let look = if seen { served("192.0.2.1", &leaf) } else { failed("192.0.2.1", "refused") };
        engine.poll(id, 1, &[look]).await;
        id
    };
    let none = engine.store.glance(at(2)).await.unwrap();
    assert_eq!((none.endpoints, none.needing, none.next_expiry), (0, 0, None));
    add("well.example", "eu web", "ada", 1, true).await;
    add("expired.example", "eu", "ada", 91, true).await;
    add("overdue.example", "us", "bob", 70, true).await;
    add("failing.example", "eu web", "bob", 0, false).await;
    engine.add("unseen.example").await;
    // In six days, and in half a day.
    add("soon.example", "", "", 54, true).await;
    add("sooner.example", "", "", 59, true).await;
    let paused = add("paused.example", "eu", "ada", 91, true).await;
    let was = engine.store.endpoint(paused).await.unwrap().unwrap();
    let edited = Endpoint { active: false, ..was.endpoint.clone() };
    engine.store.edit_endpoint(&was, &edited, &person(), at(1)).await.unwrap();

    let glance = engine.store.glance(at(2)).await.unwrap();
    let found = async |state: State| engine.in_state(state, 2).await;
    let polled = |names: Vec<String>| names.len() as i64;
    assert_eq!((glance.endpoints, glance.active), (8, 7));
    assert_eq!(glance.expired, polled(found(State::Expired).await));
    assert_eq!(glance.overdue, polled(found(State::Overdue).await));
    assert_eq!(glance.failing, polled(found(State::Failing).await));
    assert_eq!(glance.unseen, polled(found(State::Unseen).await));
    assert_eq!((glance.expired, glance.overdue, glance.failing, glance.unseen), (1, 2, 1, 1));
    assert_eq!(glance.needing, 3, "one that is expired and overdue is one");
    let needing = engine.store.needing(&Query { limit: 50, ..Query::default() }, at(2), 50).await.unwrap();
    assert_eq!(needing.len(), 3);
    assert_eq!((glance.overdue_in_a_day, glance.overdue_in_a_week), (1, 2));
    assert_eq!(engine.store.glance(at(9 * 24 * 60)).await.unwrap().overdue, 4, "which comes");

    let by = async |group: Group| engine.store.needing_by(group, at(2), 10).await.unwrap();
    let of = |all: &[(&str, i64)]| all.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect::<Vec<_>>();
    assert_eq!(by(Group::Tag).await, of(&[("eu", 2), ("us", 1), ("web", 1)]));
    assert_eq!(by(Group::Owner).await, of(&[("bob", 2), ("ada", 1)]));
    assert_eq!(by(Group::Site).await, of(&[("default", 3)]));
    assert_eq!(engine.store.needing_by(Group::Tag, at(2), 1).await.unwrap(), of(&[("eu", 2)]));
    let groups = async |group: Group| engine.store.groups(group, 10).await.unwrap();
    assert_eq!(groups(Group::Tag).await, ["eu", "us", "web"]);
    assert_eq!(groups(Group::Owner).await, ["ada", "bob"]);
    assert_eq!(groups(Group::Site).await, ["default"]);

    // Many that are paused, or that have long left, do not hide the one that is urgent.
    for number in 0..60 {
        let id = add(&format!("late-{number}.example"), "", "", 61, true).await;
        if number % 2 == 0 {
            let was = engine.store.endpoint(id).await.unwrap().unwrap();
            let edited = Endpoint { active: false, ..was.endpoint.clone() };
            engine.store.edit_endpoint(&was, &edited, &person(), at(1)).await.unwrap();
        }
    }
    let urgent = Query { limit: 2, ..Query::default() };
    let first = engine.store.needing(&urgent, at(2), 2).await.unwrap();
    let first: Vec<&str> = first.iter().map(|row| row.stored.endpoint.name.as_str()).collect();
    assert!(first.contains(&"expired.example:443") && first.contains(&"failing.example:443"), "{first:?}");
    let overdue = Query { state: Some(State::Overdue), soonest: true, limit: 2, ..Query::default() };
    let overdue = engine.store.endpoints(&overdue, at(2)).await.unwrap().rows;
    let overdue: Vec<&str> = overdue.iter().map(|row| row.stored.endpoint.name.as_str()).collect();
    assert_eq!(
        overdue,
        ["expired.example:443", "overdue.example:443"],
        "by what is left, not by how long it is overdue"
    );
}
