//! Many probes at a time: limits, deadlines, cancellation, a reader that is slow, memory that is short.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use certbus_scan::failure::{Failure, Phase};
use certbus_scan::found::Proof;
use certbus_scan::observation::Observation;
use certbus_scan::offer::Version;
use certbus_scan::ways::{Learnt, Method};
use certbus_scan::{Limits, Options, Summary, Target, Timeouts, feed, most_in_flight, scan};

use crate::support::{listed, options, target};
use crate::tls::TlsServer;

/// A server on every address of 127/8 that answers after a while, and counts who is there at a time: to each address, each
/// network, and in all.
struct Counting {
    port: u16,
    most: Arc<AtomicUsize>,
}

fn counting(pause: Duration, by: fn(IpAddr) -> u32) -> Counting {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
    let counting = Counting { port: listener.local_addr().unwrap().port(), most: Arc::default() };
    let (most, server) = (counting.most.clone(), TlsServer::new(&[Version::Tls12]));
    let inside: Arc<std::sync::Mutex<std::collections::HashMap<u32, usize>>> = Arc::default();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let (most, server, inside) = (most.clone(), server.clone(), inside.clone());
            std::thread::spawn(move || {
                let key = by(stream.local_addr().unwrap().ip());
                let now = {
                    let mut inside = inside.lock().unwrap();
                    let count = inside.entry(key).or_insert(0);
                    *count += 1;
                    *count
                };
                most.fetch_max(now, Ordering::SeqCst);
                let mut hello = [0; 4096];
                let count = stream.read(&mut hello).unwrap_or(0);
                std::thread::sleep(pause);
                // It counts as gone before the prober can know that it is.
                *inside.lock().unwrap().get_mut(&key).unwrap() -= 1;
                let _ = stream.write_all(&server.flight(&hello[..count]));
                let _ = stream.read(&mut hello);
            });
        }
    });
    counting
}

fn run(targets: Vec<Target>, options: &Options, sink: impl FnMut(Observation)) -> Summary {
    scan(listed(targets), options, &mut Learnt::default(), &AtomicBool::new(false), sink).unwrap()
}

fn limited(limits: Limits) -> Options {
    Options { limits, ..options(Method::Quick, Proof::Presented) }
}

const NO_LIMITS: Limits = Limits { in_flight: 500, rate: None, per_host: None, per_network: None };

fn octets(address: IpAddr) -> [u8; 4] {
    let IpAddr::V4(address) = address else { panic!() };
    address.octets()
}

/// 6 networks, 5 hosts each, 4 probes of each.
fn spread(port: u16) -> Vec<Target> {
    let mut targets = Vec::new();
    for number in 0..120_u8 {
        let address = Ipv4Addr::new(127, 40, number % 6, 1 + number / 6 % 5);
        targets.push(Target { address: address.into(), ..target(port) });
    }
    targets
}

#[test]
fn no_host_and_no_network_has_more_probes_at_a_time_than_its_limit_and_all_are_made() {
    let pause = Duration::from_millis(20);
    let hosts = counting(pause, |address| u32::from_be_bytes(octets(address)));
    let limits = Limits { per_host: Some(2), ..NO_LIMITS };
    assert_eq!(run(spread(hosts.port), &limited(limits), |_| {}).found, 120);
    assert_eq!(hosts.most.load(Ordering::SeqCst), 2);
    let networks = counting(pause, |address| u32::from(octets(address)[2]));
    let limits = Limits { per_network: Some(3), per_host: Some(2), ..NO_LIMITS };
    assert_eq!(run(spread(networks.port), &limited(limits), |_| {}).found, 120);
    assert_eq!(networks.most.load(Ordering::SeqCst), 3);
    let all = counting(pause, |_| 0);
    let limits = Limits { in_flight: 7, ..NO_LIMITS };
    let summary = run(spread(all.port), &limited(limits), |_| {});
    assert_eq!((summary.found, summary.peak, all.most.load(Ordering::SeqCst)), (120, 7, 7));
    // Without limits they are all there at once, or nearly: the limits above were what held them.
    let free = counting(Duration::from_millis(300), |_| 0);
    run(spread(free.port), &limited(NO_LIMITS), |_| {});
    assert!(free.most.load(Ordering::SeqCst) > 60, "{:?}", free.most);
}

#[test]
fn connections_are_begun_no_faster_than_the_rate() {
    let server = counting(Duration::ZERO, |_| 0);
    let targets = spread(server.port).into_iter().take(60).collect();
    let began = Instant::now();
    run(targets, &limited(Limits { rate: Some(100), ..NO_LIMITS }), |_| {});
    // 60 of them, a tenth of a second of which may be made up for.
    assert!(began.elapsed() >= Duration::from_millis(490), "{:?}", began.elapsed());
}

#[test]
fn a_reader_that_is_slow_slows_the_scan_and_fails_no_probe() {
    let server = counting(Duration::from_millis(100), |_| 0);
    let options = Options { timeouts: Timeouts::all(Duration::from_millis(600)), ..limited(NO_LIMITS) };
    let mut failures = Vec::new();
    let summary = run(spread(server.port).into_iter().take(40).collect(), &options, |seen| {
        std::thread::sleep(Duration::from_millis(60));
        failures.extend(seen.result.err());
    });
    // Together the pauses are four times the deadline.
    assert_eq!((summary.found, failures), (40, vec![]));
}

#[test]
fn results_come_in_the_order_of_arrival_and_not_of_the_list() {
    let (slow, fast) = (counting(Duration::from_millis(400), |_| 0), counting(Duration::ZERO, |_| 0));
    let mut ports = Vec::new();
    run(vec![target(slow.port), target(fast.port)], &limited(NO_LIMITS), |seen| ports.push(seen.port));
    assert_eq!(ports, [fast.port, slow.port]);
}

#[test]
fn a_cancelled_scan_ends_at_once_and_says_how_many_were_under_way() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = silent.local_addr().unwrap().port();
    let (send, receive) = feed(50).unwrap();
    (0..50).for_each(|_| assert!(send.send(target(port))));
    let cancel = Arc::new(AtomicBool::new(false));
    let later = cancel.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        later.store(true, Ordering::Relaxed);
    });
    let began = Instant::now();
    // The sender lives on: there is no other reason to end.
    let summary = scan(receive, &limited(NO_LIMITS), &mut Learnt::default(), &cancel, |_| {}).unwrap();
    assert_eq!((summary.unfinished, summary.found, summary.failed), (50, 0, 0));
    assert!(began.elapsed() < Duration::from_secs(2));
    drop(send);
}

#[test]
fn when_memory_is_short_those_that_hold_the_most_give_way_and_no_other() {
    most_in_flight();
    let hostile = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = hostile.local_addr().unwrap().port();
    std::thread::spawn(move || {
        // 15 KB of a record of 16 KB, and no more; each stays open.
        let mut half = vec![22, 3, 3, 0x40, 0];
        half.resize(15_000, 0);
        let mut open: Vec<TcpStream> = Vec::new();
        for mut stream in hostile.incoming().flatten() {
            let _ = stream.write_all(&half);
            open.push(stream);
        }
    });
    let good = counting(Duration::from_millis(700), |_| 0);
    let mut targets = spread(good.port);
    targets.extend((0..700).map(|_| target(port)));
    let limits = Limits { in_flight: 1000, ..NO_LIMITS };
    let options = Options { timeouts: Timeouts::all(Duration::from_secs(3)), ..limited(limits) };
    let (mut short, mut timeout, mut found) = (0, 0, 0);
    run(targets, &options, |seen| match seen.result {
        Ok(_) => found += 1,
        Err(Failure::TooLarge { why }) if why.contains("memory was short") => short += 1,
        Err(Failure::Timeout { phase: Phase::Handshake }) => timeout += 1,
        other => panic!("{other:?}"),
    });
    // 8 MiB are what 559 of them hold.
    assert_eq!((found, short + timeout), (120, 700));
    assert!(short >= 100, "{short}");
}

#[test]
fn an_engine_that_waits_for_targets_sleeps_until_one_comes() {
    let (fast, silent) = (counting(Duration::ZERO, |_| 0), TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
    let silent = silent.local_addr().map(|address| (address.port(), silent)).unwrap();
    let (feed, targets) = feed(16).unwrap();
    let scanning = std::thread::spawn(move || {
        let before = rounds();
        let mut came = Vec::new();
        scan(targets, &limited(NO_LIMITS), &mut Learnt::default(), &AtomicBool::new(false), |_| {
            came.push(Instant::now());
        })
        .unwrap();
        (rounds() - before, came)
    });
    // One is under way all the time, and waits too.
    assert!(feed.send(target(silent.0)));
    let mut sent = Vec::new();
    for _ in 0..10 {
        std::thread::sleep(Duration::from_millis(230));
        sent.push(Instant::now());
        assert!(feed.send(target(fast.port)));
    }
    std::thread::sleep(Duration::from_millis(230));
    drop(silent.1);
    drop(feed);
    let (rounds, came) = scanning.join().unwrap();
    // Far below the tenth of a second after which it looks around by itself, most of the time at least.
    let mut delays: Vec<_> = sent.iter().zip(&came).map(|(sent, came)| *came - *sent).collect();
    delays.sort_unstable();
    assert!(delays[5] < Duration::from_millis(40), "{delays:?}");
    // 2.5 s in steps of a tenth, and some rounds for each probe: not one every two milliseconds.
    assert!(rounds < 200, "{rounds}");
}

/// How often this thread went to sleep of its own will.
fn rounds() -> u64 {
    let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
