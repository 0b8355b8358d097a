//! Route 53 at moto: single values of one name, set and removed through the table of providers.

use std::time::Duration;

use certbus_acme::{Api, ChallengeHost, Dns01Provider, PlannedChallenge, Propagation, Words};
use certbus_core::spec::Challenge;

use crate::support::*;

/// One port is many services: the signature, which is not checked, says which.
const SIGNED: &str = "authorization: AWS4-HMAC-SHA256 Credential=AKIAEXAMPLE/20260101/us-east-1/route53/aws4_request, \
                      SignedHeaders=host, Signature=0";

fn words() -> Words {
    let pairs = [("access_key_id", "AKIAEXAMPLE".to_owned()), ("secret_access_key", "hush".to_owned())];
    let endpoint = ("endpoint", env("CERTBUS_TEST_MOTO"));
    pairs.into_iter().chain([endpoint]).map(|(name, word)| (name.to_owned(), word.into())).collect()
}

fn planned(zone: &str, value: &str) -> PlannedChallenge {
    PlannedChallenge {
        name: name(zone),
        challenge: Challenge::Dns01,
        token: "token".into(),
        key_authorization: "token.thumbprint".into(),
        dns_value: value.into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn route53_has_two_values_at_once_and_only_the_named_one_is_removed() {
    let zone = format!("z{}.bind.test", std::process::id());
    let url = format!("{}/2013-04-01/hostedzone", env("CERTBUS_TEST_MOTO"));
    let body = format!(
        "<CreateHostedZoneRequest xmlns=\"https://route53.amazonaws.com/doc/2013-04-01/\"><Name>{zone}.</Name>\
         <CallerReference>{zone}</CallerReference></CreateHostedZoneRequest>"
    );
    let made = run("curl", &["-sf", "-H", SIGNED, "-H", "content-type: text/xml", "--data", &body, &url]);
    let id = made.split("<Id>/hostedzone/").nth(1).and_then(|rest| rest.split('<').next()).unwrap().to_owned();
    let values = || {
        let listed = run("curl", &["-sf", "-H", SIGNED, &format!("{url}/{id}/rrset")]);
        ["apex", "wild"].map(|value| listed.contains(&format!("\"{value}\"")))
    };

    // Found by its id: of zones found by name moto leaves out a field that Amazon always gives.
    let mut words = words();
    words.insert("zone_id".into(), id.clone().into());
    let api = Api::new("route53", &words, Some(&zone)).unwrap().unwrap();
    let resolver = Some(address("CERTBUS_TEST_BIND"));
    let propagation = Propagation { resolver, authoritative: Vec::new(), timeout: Duration::from_secs(1) };
    let solvers = by_dns(Dns01Provider::Api(Box::new(api)), propagation);
    let (apex, wild) = (planned(&zone, "apex"), planned(&zone, "wild"));
    solvers.present(&apex).await.unwrap();
    solvers.present(&wild).await.unwrap();
    assert_eq!(values(), [true, true]);
    solvers.clean_up(std::slice::from_ref(&apex)).await.unwrap();
    assert_eq!(values(), [false, true]);
    // What is not there is no failure.
    solvers.clean_up(&[apex, wild]).await.unwrap();
    assert_eq!(values(), [false, false]);
}
