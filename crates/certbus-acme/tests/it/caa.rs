//! CAA records at BIND, and what they mean to Pebble, which says in its directory by what name they mean it.

use certbus_acme::{Ca, Caa, IssueError};
use certbus_core::name::DnsName;
use certbus_core::spec::Challenge;

use crate::bind::nsupdate;
use crate::support::*;

async fn check(ca: &Ca, names: &[DnsName]) -> Result<Vec<String>, IssueError> {
    let Ca::Acme(acme) = ca else { panic!("{ca:?}") };
    Caa::new(Some(address("CERTBUS_TEST_BIND"))).check(acme, names, Challenge::Dns01).await
}

#[tokio::test(flavor = "multi_thread")]
async fn the_closest_record_at_bind_decides_for_pebble_and_is_named_with_its_owner() {
    let ca = account().await;
    let shop = fresh("bind.test");
    let www = name(&format!("www.{shop}"));
    assert!(check(&ca, std::slice::from_ref(&www)).await.unwrap().is_empty(), "no records: anyone may");

    nsupdate(&format!("update add {shop} 1 CAA 0 issue \"other.example\""));
    let error = check(&ca, std::slice::from_ref(&www)).await.unwrap_err();
    let IssueError::ForbiddenByCaa { name, owner, .. } = &error else { panic!("{error:?}") };
    assert_eq!((name, owner.as_str()), (&www, shop.as_str()));
    let text = error.to_string();
    assert!(text.contains("`issue \"other.example\"`") && text.contains("pebble.letsencrypt.org"), "{text}");
    assert!(error.is_permanent());

    // Closer, and it lets the CA in; for a wildcard it does not.
    nsupdate(&format!("update add {www} 1 CAA 0 issue \"pebble.letsencrypt.org\""));
    nsupdate(&format!("update add {www} 1 CAA 0 issuewild \";\""));
    check(&ca, std::slice::from_ref(&www)).await.unwrap();
    let wildcard = certbus_core::name::DnsName::parse(&format!("*.{www}")).unwrap();
    assert!(check(&ca, &[wildcard]).await.unwrap_err().to_string().contains("issuewild"));
}

#[tokio::test(flavor = "multi_thread")]
async fn account_and_method_of_a_record_at_bind_are_those_of_pebbles_account() {
    let ca = account().await;
    let Ca::Acme(acme) = &ca else { panic!("{ca:?}") };
    let (mine, other) = (fresh("bind.test"), fresh("bind.test"));
    let record = |owner: &DnsName, parameters: &str| {
        nsupdate(&format!("update add {owner} 1 CAA 0 issue \"pebble.letsencrypt.org; {parameters}\""));
    };
    record(&mine, &format!("validationmethods=dns-01; accounturi={}", acme.account_url()));
    check(&ca, &[mine]).await.unwrap();
    record(&other, &format!("accounturi={}x", acme.account_url()));
    assert!(check(&ca, std::slice::from_ref(&other)).await.unwrap_err().to_string().contains("another account"));
    record(&other, "validationmethods=http-01");
    assert!(check(&ca, &[other]).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resolver_that_does_not_answer_forbids_nothing_at_pebble() {
    let ca = account().await;
    let Ca::Acme(acme) = &ca else { panic!("{ca:?}") };
    let nobody = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let names = [fresh("bind.test")];
    let unanswered = Caa::new(Some(nobody)).check(acme, &names, Challenge::Dns01).await.unwrap();
    assert_eq!(unanswered, [names[0].to_string()]);
}
