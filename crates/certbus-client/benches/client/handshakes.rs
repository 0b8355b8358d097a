//! Handshakes a second with the CertBus resolver at 10,000 certificates, each opened once before, against one fixed
//! certificate: TLS 1.3, P-256, no resumption, in memory, one thread.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use certbus_client::Client;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::{CertifiedKey, SingleCertAndKey};

use crate::world::{folder, host, node, now, serving, shake, trusting};
use crate::{goal, median};

const CERTIFICATES: usize = 10_000;
const ROUNDS: usize = 201;
const A_ROUND: usize = 100;

/// What an embedder without CertBus would write: a map, filled at the start.
#[derive(Debug)]
struct Map(HashMap<String, Arc<CertifiedKey>>);

impl ResolvesServerCert for Map {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.get(hello.server_name()?).cloned()
    }
}

pub(crate) fn run() {
    let folder = folder(CERTIFICATES);
    let ca = std::fs::read_to_string(folder.join("ca.pem")).unwrap();
    let client = Client::open(node(), vec![], &folder).unwrap();
    let resolver = client.resolver();
    for number in 0..CERTIFICATES {
        resolver.certified_key(&host(number), now()).unwrap();
    }
    // What `with_single_cert` makes of the same chain and key.
    let one = resolver.certified_key(&host(0), now()).unwrap();
    let single: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(Arc::unwrap_or_clone(one)));
    let keys = (0..CERTIFICATES).map(|number| (host(number), resolver.certified_key(&host(number), now()).unwrap()));
    let map = serving(Arc::new(Map(keys.collect())));
    let (single, ours, trusting) = (serving(single), serving(resolver), trusting(&ca));
    // Both ask for names of the same shape; the fixed certificate is always asked for its own.
    let mut at = 0;
    let mut whose = || {
        at = (at + 7919) % CERTIFICATES;
        host(at)
    };
    let (mut server, mut whole) = ([const { vec![] }; 4], [const { vec![] }; 4]);
    for round in 0..=ROUNDS {
        for turn in 0..4 {
            let side = (round + turn) % 4;
            let begun = Instant::now();
            let spent = (0..A_ROUND).map(|_| match side {
                0 => shake(&trusting, &single, &host(0)),
                // The resolver alone is the difference: the same certificate, among all the others.
                1 => shake(&trusting, &ours, &host(0)),
                // And with it ten thousand keys and chains, which no cache holds at once.
                2 => shake(&trusting, &ours, &whose()),
                // The same keys behind a bare map.
                _ => shake(&trusting, &map, &whose()),
            });
            let spent: std::time::Duration = spent.sum();
            if round > 0 {
                server[side].push(A_ROUND as f64 / spent.as_secs_f64());
                whole[side].push(A_ROUND as f64 / begun.elapsed().as_secs_f64());
            }
        }
    }
    println!(
        "Handshakes/s, TLS 1.3, P-256, {CERTIFICATES} certificates, median of {ROUNDS} interleaved rounds of {A_ROUND}"
    );
    for (what, [fixed, same, any, map]) in [("the server's side alone", &server), ("both sides", &whole)] {
        for (which, ours, than, theirs) in [
            ("the same certificate", same, "one fixed certificate", fixed),
            ("any of them", any, "one fixed certificate", fixed),
            ("any of them", any, "a bare map of them", map),
        ] {
            let ratio = median(ours.iter().zip(theirs).map(|(a, b)| a / b).collect());
            let (theirs, ours) = (median(theirs.clone()), median(ours.clone()));
            println!("  {what}, {which}: {than} {theirs:.0}/s, CertBus {ours:.0}/s");
            goal(&format!("{what}, {which}, CertBus against {than}"), ratio, "", ratio >= 0.98, "≥ 0.98");
        }
    }
}
