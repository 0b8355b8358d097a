//! The figures of the inventory, each beside its goal: `ci/bench inventory`. And a generator of inventories of any size, with
//! a year of history: `ci/bench inventory-data NUMBER FILE`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement: a failure here is a failed measurement"
)]

mod generate;
mod week;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use certbus_core::time::Timestamp;
use certbus_store::observations::{Look, Poll};
use certbus_store::{Query, State, Store};
use futures::future::LocalBoxFuture;
use generate::{certificate_of, host, now};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let number = |at: usize, usual: usize| words.get(at).map_or(usual, |word| word.replace('_', "").parse().unwrap());
    match words.first().map(String::as_str) {
        Some("data") => runtime.block_on(generate::inventory(number(1, 1000), Path::new(&words[2]))),
        Some("observations") => runtime.block_on(observations(number(1, 100_000))),
        Some("listings") => runtime.block_on(listings(number(1, 1_000_000))),
        Some("week") => runtime.block_on(week::week(number(1, 1_000_000), number(2, 168))),
        // `cargo test --all-targets` comes here too.
        _ => println!("name one: data NUMBER FILE, observations, listings, week NUMBER HOURS"),
    }
}

/// An inventory of this size, made once and kept.
async fn made(count: usize) -> PathBuf {
    let file = cache().join(format!("inventory-{count}.db"));
    if !file.exists() {
        let begun = Instant::now();
        let half = file.with_extension("half");
        let _ = std::fs::remove_file(&half);
        generate::inventory(count, &half).await;
        std::fs::rename(&half, &file).unwrap();
        let size = std::fs::metadata(&file).unwrap().len() as f64 / 1e6;
        println!("made {count} endpoints with a year of history: {:.0} s, {size:.0} MB", begun.elapsed().as_secs_f64());
    }
    file
}

/// A copy that may be written to.
async fn copy(count: usize) -> (tempfile::TempDir, Store) {
    let folder = tempfile::tempdir_in(cache()).unwrap();
    let file = folder.path().join("inventory.db");
    std::fs::copy(made(count).await, &file).unwrap();
    let store = Store::open(&file).await.unwrap();
    (folder, store)
}

/// Polls of these endpoints at a time at which each serves what it did.
fn polls(endpoints: impl Iterator<Item = usize>, at: Timestamp) -> Vec<Poll> {
    let poll = |number: usize| {
        let look = Look {
            address: Some(generate::address(number).parse().unwrap()),
            method: "quick 1.3 1.2 1.1 1.0".into(),
            outcome: Ok(vec![certificate_of(number, generate::RENEWALS)]),
        };
        Poll { endpoint: number as i64 + 1, site: "default".into(), at, looks: vec![look], whole: true }
    };
    endpoints.map(poll).collect()
}

/// Observations a second, with two readers that list and search without a pause.
async fn observations(count: usize) {
    let (_folder, store) = copy(count).await;
    println!("Observations stored, {count} endpoints with a year of history:");
    let mut rates = Vec::new();
    for readers in [0, 2] {
        let reading: Vec<_> = (0..readers)
            .map(|reader| {
                let store = store.clone();
                tokio::spawn(async move {
                    for turn in reader.. {
                        let query = Query { search: host(turn * 7919 % count), limit: 50, ..Query::default() };
                        store.endpoints(&query, now()).await.unwrap();
                        store.endpoints(&Query { limit: 50, ..Query::default() }, now()).await.unwrap();
                    }
                })
            })
            .collect();
        let (mut stored, mut spent, mut turn) = (0, Duration::ZERO, 0_usize);
        while spent < Duration::from_secs(10) {
            // As polls come: neighbours at one moment, and these spread over all endpoints.
            let at = now().plus(Duration::from_secs(60 * (turn as u64 + 1 + 100_000 * readers as u64)));
            let batch = polls((0..1024).map(|n| ((n / 16 + turn * 64) * 977 % (count / 16)) * 16 + n % 16), at);
            let begun = Instant::now();
            let recorded = store.record(&batch, at).await.unwrap();
            spent += begun.elapsed();
            stored += recorded.looks;
            turn += 1;
        }
        reading.iter().for_each(tokio::task::JoinHandle::abort);
        let rate = stored as f64 / spent.as_secs_f64();
        println!("  {readers} readers at work: {rate:.0} a second");
        rates.push(rate);
    }
    goal("observations a second with readers at work", rates[1], "", rates[1] >= 20_000.0, "≥ 20,000");
}

/// p99 of what pages read, at 1,000 endpoints and at more. The sizes take turns, so that a ratio is of one moment.
async fn listings(most: usize) {
    let mut stores = Vec::new();
    for count in [1_000, 100_000, 1_000_000].into_iter().filter(|count| *count <= most) {
        stores.push((count, Store::open(&made(count).await).await.unwrap()));
    }
    println!("p99 of {} of each, with a year of history:", ROUNDS * 100);
    for (what, read) in READS {
        let mut times = vec![Vec::new(); stores.len()];
        // The first round is of a file that nobody has read yet; it is not counted.
        for round in 0..=ROUNDS {
            for ((count, store), times) in stores.iter().zip(&mut times) {
                for turn in 0..100 {
                    let number = (round * 100 + turn) * 7919 % count;
                    let begun = Instant::now();
                    read(store, number).await;
                    times.extend((round > 0).then(|| begun.elapsed().as_secs_f64() * 1e3));
                }
            }
        }
        println!("  {what}");
        let p99s: Vec<f64> = times.into_iter().map(|times| percentile(times, 0.99)).collect();
        for ((count, _), p99) in stores.iter().zip(&p99s) {
            let ratio = p99 / p99s[0];
            let met = if *p99 < 10.0 && ratio <= 1.3 { "met" } else { "NOT MET" };
            println!("    {count:>9}: {p99:.2} ms, {ratio:.2} of that at 1,000 (goal < 10 ms, ≤ 1.3): {met}");
        }
    }
}

const ROUNDS: usize = 20;

/// A read of one page, with a number that goes through all endpoints.
type Read = for<'a> fn(&'a Store, usize) -> LocalBoxFuture<'a, ()>;

const READS: [(&str, Read); 10] = [
    ("list, the first page", |store, _| page(store, Query::default())),
    ("list, a page in the middle", |store, n| {
        page(store, Query { after: Some(format!("t{}:443|0", host(n))), ..Query::default() })
    }),
    ("list of what is overdue", |store, _| page(store, Query { state: Some(State::Overdue), ..Query::default() })),
    // As many as fail at 1,000.
    ("list of what fails", |store, _| {
        page(store, Query { state: Some(State::Failing), limit: 20, ..Query::default() })
    }),
    ("list by tag", |store, _| page(store, Query { tag: Some("eu".into()), ..Query::default() })),
    ("search of one host", |store, n| search(store, host(n))),
    ("search of what all have", |store, _| search(store, "example".into())),
    ("search of two words", |store, n| search(store, format!("shop-{} r3", n / 10))),
    ("show", |store, n| {
        Box::pin(async move {
            let id = n as i64 + 1;
            store.endpoint(id).await.unwrap().unwrap();
            let stays = store.timeline(id, 20).await.unwrap();
            let changes = store.changes(Some(id), None, 20).await.unwrap();
            assert!(stays.len() > 5 && changes.len() > 5);
        })
    }),
    ("counts and expiries", |store, _| {
        Box::pin(async move {
            store.counts().await.unwrap().expiries(now(), 90);
        })
    }),
];

fn page(store: &Store, query: Query) -> LocalBoxFuture<'_, ()> {
    let query = Query { limit: query.limit.min(50), ..query };
    Box::pin(async move { assert!(!store.endpoints(&query, now()).await.unwrap().rows.is_empty()) })
}

fn search(store: &Store, words: String) -> LocalBoxFuture<'_, ()> {
    page(store, Query { search: words, ..Query::default() })
}

pub(crate) fn percentile(mut times: Vec<f64>, share: f64) -> f64 {
    times.sort_by(f64::total_cmp);
    times[((times.len() - 1) as f64 * share).round() as usize]
}

/// A real disk, as the other figures use.
pub(crate) fn cache() -> PathBuf {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    let base = var("CERTBUS_CACHE").or_else(|| Some(var("XDG_CACHE_HOME")?.join("certbus-ci")));
    let cache = base.unwrap_or_else(|| var("HOME").unwrap().join(".cache/certbus-ci")).join("bench");
    std::fs::create_dir_all(&cache).unwrap();
    cache
}

/// A figure with its goal, and whether it is met.
pub(crate) fn goal(what: &str, figure: f64, unit: &str, met: bool, goal: &str) {
    let met = if met { "met" } else { "NOT MET" };
    println!("  {what}: {figure:.1}{unit} (goal {goal}): {met}");
}
