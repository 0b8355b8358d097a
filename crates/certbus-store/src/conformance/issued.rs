//! Issued against observed.

use certbus_core::drift::Serves;
use certbus_core::endpoint::{Endpoint, Written};
use certbus_core::id::{Cursor, Hash};

use super::world::{DAYS, Engine, at, certificate, failed, managed, person, served};
use crate::issued::Told;
use crate::{Query, State};

pub(super) fn obtained(number: u8, names: &str, leaf: &[u8], place: i64) -> Told {
    Told::Obtained {
        id: managed(number),
        names: names.split(' ').map(|name| name.parse().unwrap()).collect(),
        leaf: leaf.to_vec(),
        place,
        reason: "renewal".into(),
        at: at(place.unsigned_abs()),
        overdue_at: at(0).plus(63 * DAYS),
    }
}

pub(super) fn offered(number: u8, leaf: &[u8], place: i64) -> Told {
    Told::Offered { id: managed(number), version: Hash::of(leaf), place, at: at(0) }
}

fn cursor(seq: u64) -> Cursor {
    Cursor { seq, hash: if seq == 0 { Hash::ZERO } else { Hash::of(&seq.to_be_bytes()) } }
}

impl Engine {
    pub(super) async fn told(&self, from: u64, told: &[Told]) {
        assert!(self.store.project("default", cursor(from), cursor(from + 1), told, at(0)).await.unwrap());
        self.holds().await;
    }

    async fn serves(&self, id: i64) -> Option<Serves> {
        let page = self.store.endpoints(&Query { limit: 1000, ..Query::default() }, at(0)).await.unwrap();
        page.rows.into_iter().find(|row| row.stored.id == id).unwrap().serves
    }
}

pub async fn what_was_issued_and_what_was_seen_is_one_certificate(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let leaf = certificate("shop.example", "R3", at(0), 90 * DAYS);
    engine.poll(id, 1, &[served("192.0.2.1", &leaf)]).await;
    let rows = engine.store.rows().await.unwrap();
    engine.told(0, &[obtained(1, "shop.example", &leaf, 1), offered(1, &leaf, 2)]).await;
    assert_eq!(engine.store.rows().await.unwrap()["certificate"], rows["certificate"]);
    assert_eq!(engine.serves(id).await, Some(Serves::Current));
    let stay = &engine.stays(id).await[0];
    assert_eq!(stay.certificate.as_ref().unwrap().managed, Some(format!("default/{}", managed(1))));
}

pub async fn a_projection_moves_its_cursor_with_its_effect_or_not_at_all(engine: &Engine) {
    let leaf = certificate("shop.example", "R3", at(0), 90 * DAYS);
    let told = [obtained(1, "shop.example", &leaf, 1)];
    let project = |from: u64, to: u64| engine.store.project("default", cursor(from), cursor(to), &told, at(0));
    assert!(project(0, 5).await.unwrap());
    let rows = engine.store.rows().await.unwrap();
    assert!(!project(0, 5).await.unwrap(), "another was quicker");
    assert!(!project(4, 6).await.unwrap());
    assert_eq!(engine.store.projected("default").await.unwrap(), cursor(5));
    assert_eq!(engine.store.rows().await.unwrap(), rows);
    assert_eq!(engine.store.projected("other").await.unwrap(), Cursor::START);
    engine.store.project_anew("default", &[managed(1)].into()).await.unwrap();
    assert!(!project(5, 6).await.unwrap(), "anew is from the begin");
    assert!(project(0, 5).await.unwrap(), "anew, with the same result");
    assert_eq!(engine.store.rows().await.unwrap(), rows);
    engine.store.project_anew("default", &[].into()).await.unwrap();
    assert_eq!(engine.store.rows().await.unwrap()["version"], 0, "what another log does not know is not issued");
}

pub async fn of_two_that_are_for_a_name_the_one_that_is_served_counts(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let exact = certificate("shop.example", "R3", at(0), 90 * DAYS);
    let wide = certificate("*.example shop.example", "R3", at(1), 90 * DAYS);
    engine.told(0, &[obtained(1, "shop.example", &exact, 1), offered(1, &exact, 2)]).await;
    assert_eq!(engine.row(id, 0).await.managed, Some(format!("default/{}", managed(1))), "before it was ever seen");
    engine.poll(id, 1, &[failed("192.0.2.1", "refused")]).await;
    let nodes = engine.store.served_at("default", managed(1)).await.unwrap();
    assert_eq!((nodes.len(), nodes[0].serves), (1, None), "a node that does not answer is a node");
    engine.poll(id, 2, &[served("192.0.2.1", &exact)]).await;
    engine.told(1, &[obtained(2, "*.example shop.example", &wide, 3), offered(2, &wide, 4)]).await;
    assert_eq!(engine.serves(id).await, Some(Serves::Current), "it was issued here, and is the newest of its kind");
    engine.poll(id, 3, &[served("192.0.2.1", &wide)]).await;
    assert_eq!(engine.serves(id).await, Some(Serves::Current));
    assert_eq!(engine.row(id, 3).await.managed, Some(format!("default/{}", managed(2))));
}

pub async fn who_goes_back_to_an_older_version_makes_it_the_current_one(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let (one, two) =
        (certificate("shop.example", "R3", at(0), 90 * DAYS), certificate("shop.example", "R3", at(1), 90 * DAYS));
    engine.told(0, &[obtained(1, "shop.example", &one, 1), offered(1, &one, 2)]).await;
    engine.told(1, &[obtained(1, "shop.example", &two, 3), offered(1, &two, 4)]).await;
    engine.poll(id, 1, &[served("192.0.2.1", &one)]).await;
    assert_eq!(engine.serves(id).await, Some(Serves::OlderVersion));
    engine.told(2, &[offered(1, &one, 5)]).await;
    assert_eq!(engine.serves(id).await, Some(Serves::Current));
}

pub async fn a_node_that_two_sites_see_is_one_node(engine: &Engine) {
    let written = Written { host: Some("shop.example".into()), sites: Some("a, b".into()), ..Written::default() };
    let endpoints = [Endpoint::parse(&written).unwrap()];
    let id = engine.store.add_endpoints(&endpoints, &person(), at(0)).await.unwrap()[0];
    let leaf = certificate("shop.example", "R3", at(0), 90 * DAYS);
    engine.told(0, &[obtained(1, "shop.example", &leaf, 1), offered(1, &leaf, 2)]).await;
    engine.poll_from("a", id, 1, &[served("192.0.2.1", &leaf)]).await;
    engine.poll_from("b", id, 2, &[served("192.0.2.1", &leaf)]).await;
    assert_eq!(engine.store.served_at("default", managed(1)).await.unwrap().len(), 1);
    engine.poll_from("a", id, 3, &[failed("192.0.2.1", "refused")]).await;
    let nodes = engine.store.served_at("default", managed(1)).await.unwrap();
    assert_eq!((nodes.len(), nodes[0].serves), (1, None), "as it was seen last");
}

pub async fn what_is_issued_is_overdue_by_its_plan(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let leaf = certificate("shop.example", "R3", at(0), 90 * DAYS);
    engine.poll(id, 1, &[served("192.0.2.1", &leaf)]).await;
    assert_eq!(engine.row(id, 1).await.overdue_at, Some(at(0).plus(60 * DAYS)), "merely seen");
    engine.told(0, &[obtained(1, "shop.example", &leaf, 1), offered(1, &leaf, 2)]).await;
    assert_eq!(engine.row(id, 1).await.overdue_at, Some(at(0).plus(63 * DAYS)), "planned");
}

pub async fn the_endpoint_with_an_older_version_is_found_by_name_and_by_what_it_served(engine: &Engine) {
    let leaf = |issuer: &str, start: u64| certificate("shop.example *.shop.example", issuer, at(start), 90 * DAYS);
    let (one, two, three, foreign) = (leaf("R3", 0), leaf("R3", 10), leaf("R3", 20), leaf("Other", 0));
    let (by_name, by_wildcard) = (engine.add("shop.example").await, engine.add("www.shop.example").await);
    let (by_address, stranger) = (engine.add("192.0.2.9").await, engine.add("other.example").await);
    let four = |a: &[u8], b: &[u8]| {
        ["192.0.2.1", "192.0.2.2", "192.0.2.3"].map(|node| served(node, a)).into_iter().chain([served("10.2.0.7", b)])
    };
    engine.told(0, &[obtained(1, "shop.example *.shop.example", &one, 1), offered(1, &one, 2)]).await;
    engine.poll(by_name, 1, &four(&one, &one).collect::<Vec<_>>()).await;
    engine.poll(by_wildcard, 1, &[served("192.0.2.5", &one)]).await;
    engine.poll(by_address, 1, &[served("192.0.2.9", &one)]).await;
    engine.poll(stranger, 1, &[served("192.0.2.6", &foreign)]).await;
    assert_eq!(engine.serves(by_address).await, Some(Serves::Current), "known by what it serves");
    assert_eq!(engine.serves(stranger).await, None);
    // Obtained is not offered: nobody is behind yet.
    engine.told(1, &[obtained(1, "shop.example *.shop.example", &two, 3)]).await;
    assert_eq!(engine.serves(by_name).await, Some(Serves::Current));
    engine.told(2, &[offered(1, &two, 4)]).await;
    for id in [by_name, by_wildcard, by_address] {
        assert_eq!(engine.serves(id).await, Some(Serves::OlderVersion));
    }
    assert_eq!(engine.in_state(State::OlderVersion, 2).await.len(), 3);
    engine.poll(by_name, 3, &four(&two, &one).collect::<Vec<_>>()).await;
    assert_eq!(engine.serves(by_name).await, Some(Serves::OlderVersion), "one of four");
    let nodes = engine.store.served_at("default", managed(1)).await.unwrap();
    let nodes: Vec<_> = nodes.into_iter().filter(|node| node.endpoint == by_name).collect();
    let behind: Vec<_> = nodes
        .iter()
        .filter(|node| node.serves == Some(Serves::OlderVersion))
        .map(|node| node.address.as_str())
        .collect();
    assert_eq!((nodes.len(), behind), (4, vec!["10.2.0.7"]));
    engine.poll(by_name, 4, &four(&two, &two).collect::<Vec<_>>()).await;
    assert_eq!(engine.serves(by_name).await, Some(Serves::Current));
    // Where the earlier version was seen another one stands now: found although neither name nor certificate say so.
    engine.poll(by_address, 5, &[served("192.0.2.9", &foreign)]).await;
    assert_eq!(engine.serves(by_address).await, Some(Serves::Another));
    engine.told(3, &[obtained(1, "shop.example *.shop.example", &three, 5), offered(1, &three, 6)]).await;
    assert_eq!(engine.serves(by_address).await, Some(Serves::Another));
    assert_eq!(engine.serves(by_name).await, Some(Serves::OlderVersion));
}

pub async fn a_removed_managed_certificate_is_for_no_endpoint(engine: &Engine) {
    let id = engine.add("shop.example").await;
    let leaf = certificate("shop.example", "R3", at(0), 90 * DAYS);
    engine.poll(id, 1, &[served("192.0.2.1", &leaf)]).await;
    engine.told(0, &[obtained(1, "shop.example", &leaf, 1), offered(1, &leaf, 2)]).await;
    engine.told(1, &[Told::Removed { id: managed(1) }]).await;
    assert_eq!(engine.serves(id).await, None);
    assert!(engine.store.served_at("default", managed(1)).await.unwrap().is_empty());
    assert_eq!(engine.stays(id).await.len(), 1, "what was seen was seen");
}
