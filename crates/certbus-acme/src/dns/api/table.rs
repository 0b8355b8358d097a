//! The providers of `dns-update`, one row each: adding one is adding its row. It says nothing of how a zone is changed.

use std::time::Duration;

use dns_update::providers::ovh::OvhEndpoint;
use dns_update::providers::route53::Route53Config;
use dns_update::{DnsUpdater, Error};
use secrecy::ExposeSecret;

use crate::dns::api::{ApiKind, Key, Words, optional, secret, word};

const ANSWER_WITHIN: Option<Duration> = Some(Duration::from_secs(20));

const TOKEN: &[Key] = &[secret("token")];
const API_KEY: &[Key] = &[secret("api_key")];

/// Every provider there is. `route53` is tested against a server that speaks its API, `cloudflare` against its recorded
/// contract, the others not at all.
pub const PROVIDERS: &[ApiKind] = &[
    ApiKind {
        word: "cloudflare",
        keys: TOKEN,
        ttl: 60,
        make: |w| DnsUpdater::new_cloudflare(at(w, "token"), ANSWER_WITHIN),
    },
    ApiKind {
        word: "route53",
        keys: &[
            word("access_key_id"),
            secret("secret_access_key"),
            optional("region"),
            optional("zone_id"),
            optional("endpoint"),
        ],
        ttl: 60,
        make: |w| {
            DnsUpdater::new_route53(Route53Config {
                access_key_id: at(w, "access_key_id").to_owned(),
                secret_access_key: at(w, "secret_access_key").to_owned(),
                session_token: None,
                region: owned(w, "region"),
                hosted_zone_id: owned(w, "zone_id"),
                private_zone_only: None,
                endpoint: owned(w, "endpoint"),
            })
        },
    },
    ApiKind { word: "bunny", keys: API_KEY, ttl: 60, make: |w| DnsUpdater::new_bunny(at(w, "api_key"), ANSWER_WITHIN) },
    ApiKind { word: "desec", keys: TOKEN, ttl: 3600, make: |w| DnsUpdater::new_desec(at(w, "token"), ANSWER_WITHIN) },
    ApiKind {
        word: "digitalocean",
        keys: TOKEN,
        ttl: 60,
        make: |w| DnsUpdater::new_digitalocean(at(w, "token"), ANSWER_WITHIN),
    },
    ApiKind {
        word: "dnsimple",
        keys: &[secret("token"), word("account_id")],
        ttl: 60,
        make: |w| DnsUpdater::new_dnsimple(at(w, "token"), at(w, "account_id"), ANSWER_WITHIN),
    },
    ApiKind { word: "gandi", keys: TOKEN, ttl: 300, make: |w| DnsUpdater::new_gandiv5(at(w, "token"), ANSWER_WITHIN) },
    ApiKind { word: "gcore", keys: TOKEN, ttl: 120, make: |w| DnsUpdater::new_gcore(at(w, "token"), ANSWER_WITHIN) },
    ApiKind { word: "hetzner", keys: TOKEN, ttl: 60, make: |w| DnsUpdater::new_hetzner(at(w, "token"), ANSWER_WITHIN) },
    ApiKind { word: "ionos", keys: API_KEY, ttl: 60, make: |w| DnsUpdater::new_ionos(at(w, "api_key"), ANSWER_WITHIN) },
    ApiKind { word: "linode", keys: TOKEN, ttl: 300, make: |w| DnsUpdater::new_linode(at(w, "token"), ANSWER_WITHIN) },
    ApiKind { word: "netlify", keys: TOKEN, ttl: 60, make: |w| DnsUpdater::new_netlify(at(w, "token"), ANSWER_WITHIN) },
    ApiKind {
        word: "ovh",
        keys: &[secret("application_key"), secret("application_secret"), secret("consumer_key"), optional("region")],
        ttl: 60,
        make: |w| {
            let endpoint = match owned(w, "region").as_deref() {
                None | Some("eu") => OvhEndpoint::OvhEu,
                Some("us") => OvhEndpoint::OvhUs,
                Some("ca") => OvhEndpoint::OvhCa,
                Some(other) => return Err(Error::Parse(format!("dns01.region is `{other}`; write eu, us or ca"))),
            };
            let (key, hidden) = (at(w, "application_key"), at(w, "application_secret"));
            DnsUpdater::new_ovh(key, hidden, at(w, "consumer_key"), endpoint, ANSWER_WITHIN)
        },
    },
    ApiKind {
        word: "scaleway",
        keys: TOKEN,
        ttl: 60,
        make: |w| DnsUpdater::new_scaleway(at(w, "token"), ANSWER_WITHIN),
    },
    ApiKind {
        word: "vultr",
        keys: API_KEY,
        ttl: 120,
        make: |w| DnsUpdater::new_vultr(at(w, "api_key"), ANSWER_WITHIN),
    },
];

fn at<'a>(words: &'a Words, name: &str) -> &'a str {
    words.get(name).map(|word| word.expose_secret().trim()).unwrap_or_default()
}

fn owned(words: &Words, name: &str) -> Option<String> {
    words.get(name).map(|word| word.expose_secret().trim().to_owned())
}
