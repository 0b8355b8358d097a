//! What a client does with a log that is down, forged, newer, or another than it was.

use std::sync::Arc;
use std::time::Duration;

use certbus_bus::EventLog;
use certbus_bus::memory::MemoryLog;
use certbus_client::{Client, ClientError, LogHealth};
use certbus_core::batch::Batch;
use certbus_core::event::Event;
use certbus_core::identity::{Identity, Role};
use certbus_core::statement::Said;
use certbus_core::testing::identity;

use crate::shop::{Shop, answer, settle_at};

async fn health(client: &Arc<Client>, log: Arc<MemoryLog>, wanted: impl Fn(&LogHealth) -> bool) -> LogHealth {
    let task = tokio::spawn(client.clone().follow(log.clone(), log));
    for _ in 0..200 {
        if wanted(&client.status().log) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    task.abort();
    let _ = task.await;
    client.status().log
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_4_a_restart_without_any_log_serves_what_was_served() {
    let mut shop = Shop::new().await;
    let version = shop.good(1, &["example.com"]).await;
    let client = shop.client();
    shop.settle(&client).await;
    drop(client);
    let client = shop.client();
    assert_eq!(answer(&client, "example.com"), Some(version));
    assert_eq!(client.status().log, LogHealth::NotReadYet);
    assert_eq!(client.status().cursor, shop.world.chain.cursor());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forged_batch_is_refused_and_what_was_served_is_served() {
    let mut shop = Shop::new().await;
    let version = shop.good(1, &["example.com"]).await;
    let thief = identity(Role::Manager, "thief", 66);
    let events =
        vec![Event::CertificateObtained(Arc::new(shop.make(1, &["example.com"], (-1, 9), crate::shop::Flaw::None)))];
    let forged = Batch::sign(shop.world.draft(events), shop.world.chain.cursor(), thief.sign.as_ref().unwrap());
    shop.log.append(forged.expected(), forged).await.unwrap();
    let client = shop.client();
    let found = health(&client, shop.log.clone(), |h| matches!(h, LogHealth::Refused { .. })).await;
    assert!(
        matches!(&found, LogHealth::Refused { cause, upgrade: false } if cause.contains("never admitted")),
        "{found:?}"
    );
    assert_eq!(answer(&client, "example.com"), Some(version));
    // The tail is cut off, and it goes on by itself.
    shop.log.cut(shop.world.chain.cursor()).await.unwrap();
    let renewed = shop.good(1, &["example.com"]).await;
    shop.settle(&client).await;
    assert_eq!(answer(&client, "example.com"), Some(renewed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_a_newer_program_asks_for_an_upgrade_and_serving_goes_on() {
    let mut shop = Shop::new().await;
    let version = shop.good(1, &["example.com"]).await;
    let line = r#"{"kind":"Later","format":1,"critical":true}"#.to_owned();
    let key = identity(Role::Manager, "first", 2);
    let newer =
        Batch::sign_lines(shop.world.draft(vec![]), shop.world.chain.cursor(), key.sign.as_ref().unwrap(), &[line]);
    shop.log.append(newer.expected(), newer).await.unwrap();
    let client = shop.client();
    let found = health(&client, shop.log.clone(), |h| matches!(h, LogHealth::Refused { .. })).await;
    assert!(matches!(found, LogHealth::Refused { upgrade: true, .. }), "{found:?}");
    assert_eq!(answer(&client, "example.com"), Some(version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_is_not_the_pinned_one_is_refused() {
    let mut shop = Shop::new().await;
    shop.good(1, &["example.com"]).await;
    let distrustful = || {
        let mut node = shop.node();
        node.pin.as_mut().unwrap().authority = shop.world.nodes.open.public();
        node
    };
    let client = shop.client_as(distrustful);
    let found = health(&client, shop.log.clone(), |h| matches!(h, LogHealth::Refused { .. })).await;
    assert!(matches!(&found, LogHealth::Refused { cause, .. } if cause.contains("not trust")), "{found:?}");
    assert_eq!(answer(&client, "example.com"), None);
    drop(client);
    let client = shop.client_as(distrustful);
    assert_eq!(answer(&client, "example.com"), None, "nor after a restart");
    assert!(matches!(
        Client::open(identity(Role::Node, "nodes", 3), vec![], shop.folder.path()),
        Err(ClientError::NotPinned(_))
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_wrong_identity_gets_a_clear_error_and_no_key() {
    let mut shop = Shop::new().await;
    shop.good(1, &["example.com"]).await;
    let late = identity(Role::Node, "late", 11);
    let own = late.open.public();
    let client =
        Client::open(Identity { pin: Some(shop.world.pins()[0]), ..late }, vec![], shop.folder.path()).unwrap();
    shop.settle(&client).await;
    assert_eq!(answer(&client, "example.com"), None);
    let status = client.status();
    assert!(status.refused[0].1.contains("does not open with this identity"), "{:?}", status.refused);
    // Once the authority adds it, with the ring in use, it serves without a restart.
    let ring = shop.world.chain.current_ring().unwrap().id;
    let added = shop.world.say(|owner| owner.add_recipient("late", own, &[ring]).unwrap());
    shop.append(added).await;
    shop.settle(&client).await;
    assert!(answer(&client, "example.com").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_is_not_followed_until_the_authority_says_so() {
    let mut shop = Shop::new().await;
    let first = shop.good(1, &["example.com"]).await;
    let at_copy = shop.world.chain.clone();
    let copy = Arc::new(MemoryLog::default());
    let page = shop.log.read(certbus_core::id::Cursor::START, 99).await.unwrap();
    for batch in page.batches {
        copy.append(batch.expected(), batch).await.unwrap();
    }
    let second = shop.good(1, &["example.com"]).await;
    let client = shop.client();
    shop.settle(&client).await;
    let found = health(&client, copy.clone(), |h| matches!(h, LogHealth::Refused { .. })).await;
    assert!(matches!(&found, LogHealth::Refused { cause, .. } if cause.contains("copy")), "{found:?}");
    assert_eq!(answer(&client, "example.com"), Some(second));

    shop.world.chain = at_copy;
    shop.log = copy.clone();
    let here = shop.world.chain.cursor();
    let said = Said::LogRestored { epoch: 1, certs: here, work: here };
    let (log, now) = (shop.world.chain.log().unwrap(), shop.world.now);
    let owner = shop.world.owner.sign.as_ref().unwrap();
    let signed = shop.world.chain.clone().state(said, log, now, owner, None).unwrap();
    shop.append(vec![Event::Statement(signed)]).await;
    let mut changes = client.changes();
    changes.mark_unchanged();
    let task = tokio::spawn(client.clone().follow(copy.clone(), copy.clone()));
    tokio::time::timeout(Duration::from_secs(10), changes.changed()).await.unwrap().unwrap();
    task.abort();
    assert_eq!(client.status().cursor, shop.world.chain.cursor());
    assert_eq!(answer(&client, "example.com"), Some(first), "the log's word counts");
    let third = shop.good(1, &["example.com"]).await;
    settle_at(&client, &copy, shop.world.chain.cursor().seq).await;
    assert_eq!(answer(&client, "example.com"), Some(third));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_who_was_away_for_longer_than_the_log_is_kept_goes_on_from_its_snapshot() {
    let mut shop = Shop::new().await;
    shop.good(1, &["example.com"]).await;
    let client = shop.client();
    shop.settle(&client).await;
    shop.remove(1).await;
    let mut wanted = Vec::new();
    for id in 2..6 {
        wanted.push(shop.good(id, &[&format!("n{id}.example.com")]).await);
    }
    let key = identity(Role::Manager, "first", 2);
    let start = certbus_core::chain::Chain::new(certbus_core::id::StreamKind::Certs, shop.world.pins());
    let made = certbus_bus::compact::publish(&*shop.log, &*shop.log, start, key.sign.as_ref().unwrap(), shop.world.now);
    let manifest = made.await.unwrap().unwrap();
    shop.log.trim(manifest.cursor).await.unwrap();
    shop.settle(&client).await;
    assert_eq!(answer(&client, "example.com"), None, "removed while it was away");
    for (id, version) in (2..6).zip(&wanted) {
        assert_eq!(answer(&client, &format!("n{id}.example.com")), Some(*version));
    }
    drop(client);
    let client = shop.client();
    assert_eq!(answer(&client, "n3.example.com"), Some(wanted[1]), "and it is on disk");
}
