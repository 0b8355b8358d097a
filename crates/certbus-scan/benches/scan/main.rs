//! What `ci/bench scan` is made of: a farm of certificates for a server, the prober over a list of targets, and the bare
//! limit that it is compared with. `ci/bench-scan.py` runs and times them, each as a process of its own.

#![expect(clippy::unwrap_used, reason = "a bench that cannot go on says where")]

mod bare;
mod farm;
mod hostile;

use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use certbus_scan::found::Proof;
use certbus_scan::offer::{Hello, Version};
use certbus_scan::ways::{Learnt, Method};
use certbus_scan::{Limits, Options, Summary, Target, Timeouts, feed, most_in_flight, scan};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["farm", folder, count, first, port] => {
            farm::make(folder, count.parse().unwrap(), first, port.parse().unwrap())
        }
        ["bare", targets, in_flight] => bare::run(&read(targets), in_flight.parse().unwrap()),
        ["look", targets, highest, method, proof, in_flight] => {
            look(&read(targets), highest, method, proof, in_flight.parse().unwrap());
        }
        ["hostile", behaviour, first, ports] => {
            hostile::serve(behaviour, first.parse().unwrap(), ports.parse().unwrap())
        }
        _ => eprintln!("run through ci/bench scan"),
    }
}

fn read(targets: &str) -> Vec<SocketAddr> {
    std::fs::read_to_string(targets).unwrap().lines().map(|line| line.parse().unwrap()).collect()
}

fn look(targets: &[SocketAddr], highest: &str, method: &str, proof: &str, in_flight: usize) {
    let hello = Hello { highest: highest.parse::<Version>().unwrap(), ..Hello::ANY };
    let options = Options {
        method: match method {
            "quick" => Method::Quick,
            "full" => Method::Full,
            _ => Method::Auto,
        },
        proof: match proof {
            "presented" => Proof::Presented,
            "signed" => Proof::Signed,
            _ => Proof::Finished,
        },
        timeouts: Timeouts::all(Duration::from_secs(5)),
        limits: Limits { in_flight: in_flight.min(most_in_flight()), rate: None, per_host: None, per_network: None },
    };
    let (send, receive) = feed(1024).unwrap();
    let all = targets.to_vec();
    std::thread::spawn(move || {
        for server in all {
            let host = "".into();
            let (address, port) = (server.ip(), server.port());
            send.send(Target { host, address, port, server_name: None, starttls: None, hello, unanswered: None });
        }
    });
    let mut seen = std::collections::HashSet::new();
    let mut failures = std::collections::BTreeMap::new();
    let sink = |one: certbus_scan::observation::Observation| match &one.result {
        // A signature ends each: enough to tell them apart, and cheaper than a hash.
        Ok(found) => drop(seen.insert(found.chain.first().and_then(|leaf| leaf.last_chunk::<16>().copied()))),
        Err(failure) => *failures.entry(failure.kind()).or_insert(0) += 1,
    };
    let Summary { found, failed, peak, .. } =
        scan(receive, &options, &mut Learnt::default(), &AtomicBool::new(false), sink).unwrap();
    let different = seen.len();
    println!(r#"{{"found":{found},"failed":{failed},"peak":{peak},"different":{different},"failures":{failures:?}}}"#);
}
