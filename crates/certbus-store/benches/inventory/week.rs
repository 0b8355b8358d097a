//! A fleet polled every hour for a simulated week: time is passed in, the polls' results are made up, the rest is real.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use certbus_core::history::Change;
use certbus_store::observations::{Look, Poll};

use crate::copy;
use crate::generate::{address, certificate_of, now};

/// One in so many polls finds a renewed certificate: a life of 60 days of hourly polls.
const RENEWED: u64 = 60 * 24;

pub(crate) async fn week(count: usize, hours: usize) {
    let (folder, store) = copy(count).await;
    let file = folder.path().join("inventory.db");
    let size = || {
        let of = |name: &str| std::fs::metadata(folder.path().join(name)).map_or(0, |found| found.len());
        (of("inventory.db") + of("inventory.db-wal")) as f64 / 1e6
    };
    println!("{count} endpoints polled every hour, {hours} simulated hours ({}):", file.display());
    let (before, begun) = (size(), Instant::now());
    // How many polls began so many tenths of a second late: a week of them singly would be the most of what is held.
    let (mut asked, mut changed, mut lags) = (0_usize, 0_usize, BTreeMap::<u64, u64>::new());
    // The scheduler looks every ten simulated seconds; a poll's result is there when it looks the next time.
    for tick in 0..hours as u64 * 360 {
        let at = now().plus(Duration::from_secs(tick * 10));
        let due = store.due_polls("default", at, 100_000).await.unwrap();
        if due.is_empty() {
            continue;
        }
        for due in &due {
            *lags.entry(at.since(due.since).as_millis() as u64 / 100).or_default() += 1;
        }
        store.polled(&due).await.unwrap();
        for some in due.chunks(1024) {
            let polls: Vec<Poll> = some
                .iter()
                .map(|due| {
                    let number = due.endpoint as usize - 1;
                    let renewed = (due.endpoint as u64 ^ (tick / 360 * 7919)).is_multiple_of(RENEWED);
                    let leaf = certificate_of(number, crate::generate::RENEWALS - usize::from(renewed));
                    let look = Look {
                        address: Some(address(number).parse().unwrap()),
                        method: "quick 1.3 1.2 1.1 1.0".into(),
                        outcome: Ok(vec![leaf]),
                    };
                    Poll { endpoint: due.endpoint, site: due.site.clone(), at, looks: vec![look], whole: true }
                })
                .collect();
            changed += store.record(&polls, at).await.unwrap().changed;
        }
        asked += due.len();
        if tick % (6 * 360) == 6 * 360 - 1 {
            println!("  after {} h: {asked} polls, {:.0} s", (tick + 1) / 360, begun.elapsed().as_secs_f64());
        }
    }
    let spent = begun.elapsed().as_secs_f64();
    println!(
        "  {asked} polls, {changed} of them `{}` or the like, in {spent:.0} s: {:.0} a second",
        Change::Replaced.as_str(),
        asked as f64 / spent
    );
    println!("  scheduler lag: p50 {:.1} s, p99 {:.1} s", percentile(&lags, 0.5), percentile(&lags, 0.99));
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let memory = status.lines().find(|line| line.starts_with("VmHWM")).unwrap_or_default();
    println!("  CPU {:.0} s; memory: {}", cpu(), memory.split_whitespace().skip(1).collect::<Vec<_>>().join(" "));
    println!("  database: {before:.0} MB before, {:.0} MB after", size());
    println!("  of simulated time it took {:.1} % ", spent / (hours as f64 * 3600.0) * 100.0);
}

/// In seconds, of counts by tenths of one.
fn percentile(counts: &BTreeMap<u64, u64>, share: f64) -> f64 {
    let wanted = counts.values().sum::<u64>() as f64 * share;
    let mut passed = 0;
    let found = counts.iter().find(|(_, count)| {
        passed += **count;
        passed as f64 >= wanted
    });
    found.map_or(f64::NAN, |(tenths, _)| *tenths as f64 / 10.0)
}

/// Seconds of processors spent so far.
fn cpu() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = text.rsplit(") ").next().unwrap().split(' ').collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}
