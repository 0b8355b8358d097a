//! From just before a manager's append to the moment at which another process answers with the new version: 1,000
//! renewals of 10 certificates, one at a time, through one SQLite file on a real disk.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use certbus_bus::sqlite::SqliteFile;
use certbus_bus::{EventLog, write};
use certbus_client::Client;
use certbus_core::event::Reason;
use certbus_core::id::Fingerprint;

use crate::goal;
use crate::world::{Shop, cache, host, node, now, serving, shake, trusting};

const MANAGED: usize = 10;
const EVENTS: usize = 1000;

/// What the client saw: when the log's place was reached, whose answer it was, and when a handshake had finished.
struct Seen {
    seq: u64,
    at: u128,
    finished: u128,
    answer: Fingerprint,
}

pub(crate) fn run() {
    std::fs::create_dir_all(cache()).unwrap();
    let folder = tempfile::tempdir_in(cache()).unwrap();
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .arg("served-writer")
        .arg(folder.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(writer.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(said.next().unwrap(), "ready");
    let ca = std::fs::read_to_string(folder.path().join("ca.pem")).unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = Client::open(node(), vec![], &folder.path().join("client")).unwrap();
    let resolver = client.resolver();
    let (trusting, serving) = (trusting(&ca), serving(resolver.clone()));
    let mut seen = Vec::new();
    runtime.block_on(async {
        let log: Arc<_> = SqliteFile::open(&folder.path().join("log"), false).await.unwrap().stream("certs").into();
        let mut changes = client.changes();
        tokio::spawn(client.clone().follow(log.clone(), log));
        changes.wait_for(|cursor| cursor.seq == 2).await.unwrap();
        writer.stdin.take().unwrap().write_all(b"go\n").unwrap();
        for seq in 3..3 + EVENTS as u64 {
            changes.wait_for(|cursor| cursor.seq >= seq).await.unwrap();
            let host = host(whose(seq));
            let key = resolver.certified_key(&host, now()).unwrap();
            let at = nanos();
            let answer = Fingerprint::of(key.end_entity_cert().unwrap());
            shake(&trusting, &serving, &host);
            let finished = nanos();
            seen.push(Seen { seq, at, finished, answer });
        }
    });
    let (mut served, mut finished, mut stored) = (vec![], vec![], vec![]);
    for seen in &seen {
        let line = said.next().unwrap();
        let words: Vec<&str> = line.split(' ').collect();
        let [seq, fingerprint, begun, done] = words.as_slice() else { unreachable!("{line}") };
        let ms = |until: u128| (until - begun.parse::<u128>().unwrap()) as f64 / 1e6;
        assert_eq!(seq.parse(), Ok(seen.seq));
        assert_eq!(fingerprint.parse(), Ok(seen.answer), "the answer is the new version");
        served.push(ms(seen.at));
        finished.push(ms(seen.finished));
        stored.push(ms(done.parse().unwrap()));
    }
    assert!(writer.wait().unwrap().success(), "the writer");
    println!("Append to served across two processes on SQLite, {EVENTS} renewals of {MANAGED} certificates");
    let show = |what: &str, times: &mut Vec<f64>| {
        times.sort_by(f64::total_cmp);
        let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize];
        println!("  {what}: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", at(0.5), at(0.99), at(1.0));
        at(0.99)
    };
    show("append returned (durable)", &mut stored);
    let p99 = show("the resolver answers with the new version", &mut served);
    show("a TLS handshake finished with it", &mut finished);
    goal("p99 to served", p99, " ms", p99 <= 50.0, "≤ 50 ms; polling every 10 s: p99 9,900 ms");
}

/// The manager's process: makes the log, waits for the word, appends, and says what and when.
pub(crate) fn writer(args: &[String]) {
    let folder = std::path::Path::new(&args[0]);
    let (mut shop, first) = Shop::new();
    std::fs::write(folder.join("ca.pem"), &shop.ca).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let log = SqliteFile::open(&folder.join("log"), true).await.unwrap().stream("certs");
        log.append(first.expected(), first).await.unwrap();
        let events = (0..MANAGED).flat_map(|number| shop.issue(number, Reason::New)).collect();
        let batch = shop.world.append(events);
        log.append(batch.expected(), batch).await.unwrap();
        // Making the certificates is not part of what is measured.
        let events: Vec<_> = (3..3 + EVENTS as u64).map(|seq| shop.issue(whose(seq), Reason::Renewal)).collect();
        let mut out = std::io::stdout();
        writeln!(out, "ready").unwrap();
        std::io::stdin().read_line(&mut String::new()).unwrap();
        // Said at the end: nobody reads a pipe meanwhile.
        let mut said = String::new();
        for (at, events) in events.into_iter().enumerate() {
            // At no fixed phase of the reader's looks.
            tokio::time::sleep(Duration::from_micros(20_000 + (at as u64 * 7_919) % 20_000)).await;
            let certbus_core::event::Event::CertificateOffered(offered) = &events[1] else {
                unreachable!("obtained, then offered")
            };
            let fingerprint = offered.version;
            let (expected, draft) = (shop.world.chain.cursor(), shop.world.draft(events.into()));
            let begun = nanos();
            let batch = write::append(&log, expected, draft, shop.world.manager.sign.as_ref().unwrap()).await.unwrap();
            let done = nanos();
            shop.world.chain.accept(&batch).unwrap();
            said += &format!("{} {fingerprint} {begun} {done}\n", batch.cursor().seq);
        }
        out.write_all(said.as_bytes()).unwrap();
    });
}

fn whose(seq: u64) -> usize {
    seq as usize % MANAGED
}

/// One clock for both processes.
fn nanos() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos()
}
