//! Which version answers for a name.

use crate::shop::{Flaw, Shop, answer};

#[tokio::test(flavor = "multi_thread")]
async fn an_exact_name_comes_before_a_wildcard_and_case_does_not_matter() {
    let mut shop = Shop::new().await;
    let wild = shop.good(1, &["*.example.com", "example.com"]).await;
    let exact = shop.good(2, &["www.example.com"]).await;
    let client = shop.client();
    shop.settle(&client).await;
    assert_eq!(answer(&client, "WWW.Example.Com"), Some(exact));
    assert_eq!(answer(&client, "api.example.com"), Some(wild));
    assert_eq!(answer(&client, "example.com"), Some(wild));
    assert_eq!(answer(&client, "a.b.example.com"), None, "a wildcard covers one label");
    assert_eq!(answer(&client, ".example.com"), None);
    assert_eq!(answer(&client, &"a".repeat(300)), None);
    assert_eq!(answer(&client, ""), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_the_newest_valid_one_answers_and_after_its_removal_another() {
    let mut shop = Shop::new().await;
    let first = shop.good(1, &["example.com", "a.example.com"]).await;
    let second = shop.good(2, &["example.com"]).await;
    let third = shop.issue(3, &["example.com"], (-90, -1), Flaw::None).await;
    let client = shop.client();
    shop.settle(&client).await;
    assert_eq!(answer(&client, "example.com"), Some(second), "the newest is not valid");
    shop.remove(2).await;
    shop.settle(&client).await;
    assert_eq!(answer(&client, "example.com"), Some(first));
    shop.remove(1).await;
    shop.settle(&client).await;
    assert_eq!(answer(&client, "example.com"), Some(third), "invariant 5: validity never stops serving");
    assert_eq!(answer(&client, "a.example.com"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_5_a_version_that_does_not_hold_is_refused_and_the_one_before_is_served() {
    for flaw in [Flaw::OtherKey, Flaw::OtherNames, Flaw::Garbage] {
        let mut shop = Shop::new().await;
        let good = shop.good(1, &["example.com"]).await;
        let client = shop.client();
        shop.settle(&client).await;
        shop.issue(1, &["example.com"], (-1, 89), flaw).await;
        shop.settle(&client).await;
        assert_eq!(answer(&client, "example.com"), Some(good));
        assert_eq!(client.status().refused.len(), 1);
        // Also across a restart, before and after the tail is folded into the snapshot.
        drop(client);
        let client = shop.client();
        assert_eq!(answer(&client, "example.com"), Some(good));
        let better = shop.good(1, &["example.com"]).await;
        shop.settle(&client).await;
        assert_eq!(answer(&client, "example.com"), Some(better));
        assert!(client.status().refused.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_with_other_names_takes_the_old_names_away() {
    let mut shop = Shop::new().await;
    shop.good(1, &["a.example.com", "b.example.com"]).await;
    let client = shop.client();
    shop.settle(&client).await;
    let renewed = shop.good(1, &["b.example.com", "c.example.com"]).await;
    shop.settle(&client).await;
    assert_eq!(answer(&client, "a.example.com"), None);
    assert_eq!(answer(&client, "b.example.com"), Some(renewed));
    assert_eq!(answer(&client, "c.example.com"), Some(renewed));
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_names_answer_right_after_packing_and_changing() {
    let mut shop = Shop::new().await;
    let mut wanted = Vec::new();
    for id in 0..40_u8 {
        let names: Vec<String> = (0..50).map(|n| format!("n{n}.c{id}.example.com")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        wanted.push(shop.good(id, &names).await);
    }
    let client = shop.client();
    shop.settle(&client).await;
    for id in [3_u8, 39] {
        wanted[usize::from(id)] = shop.good(id, &[&format!("n7.c{id}.example.com")]).await;
        shop.settle(&client).await;
    }
    for (id, version) in wanted.iter().enumerate() {
        assert_eq!(answer(&client, &format!("n7.c{id}.example.com")), Some(*version));
    }
    assert_eq!(answer(&client, "n8.c3.example.com"), None);
    assert!(answer(&client, "n8.c4.example.com").is_some());
}
