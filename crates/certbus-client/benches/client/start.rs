//! From `main` to the first served TLS handshake with a client snapshot of 100,000 certificates, each run a process of
//! its own; and the memory that a certificate takes.

use std::process::Command;
use std::time::{Instant, SystemTime};

use certbus_client::Client;

use crate::world::{folder, host, node, now, serving, shake, trusting};
use crate::{goal, median};

const CERTIFICATES: usize = 100_000;
const RUNS: usize = 11;

pub(crate) fn run() {
    let folder = folder(CERTIFICATES);
    let snapshot = folder.join("certs.snapshot");
    let bytes = std::fs::metadata(&snapshot).unwrap().len();
    println!("Cold start from a snapshot of {CERTIFICATES} certificates ({} MB)", bytes / 1_000_000);
    let run = |all: &str| -> Vec<f64> {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.arg("start-child").arg(&folder).arg(all);
        child.env("CERTBUS_BENCH_SPAWNED", nanos().to_string());
        let out = child.output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.split_whitespace().map(|figure| figure.parse().unwrap()).collect()
    };
    run("");
    let warm: Vec<Vec<f64>> = (0..RUNS).map(|_| run("")).collect();
    let of = |runs: &[Vec<f64>], which: usize| median(runs.iter().map(|run| run[which]).collect());
    let to_first = of(&warm, 0);
    let most = warm.iter().map(|run| run[0]).fold(0.0, f64::max);
    println!(
        "  median of {RUNS} processes, page cache warm: open {:.1} ms, with the first handshake {to_first:.1} ms \
         (slowest {most:.1} ms; from the parent's spawn {:.1} ms)",
        of(&warm, 1),
        of(&warm, 2)
    );
    goal("from main to the first handshake", to_first, " ms", to_first <= 100.0, "≤ 100 ms");
    // `dd` with `nocache` and no block asks the kernel to drop the file's pages.
    let cold: Vec<Vec<f64>> = (0..5)
        .map(|_| {
            let source = format!("if={}", snapshot.display());
            let dropped = Command::new("dd").args([&source, "iflag=nocache", "count=0", "status=none"]).status();
            assert!(dropped.unwrap().success(), "dd");
            run("")
        })
        .collect();
    println!("  snapshot dropped from the page cache: {:.1} ms (median of 5)", of(&cold, 0));
    let each = of(&warm, 3) / CERTIFICATES as f64;
    goal("resident for each certificate, ready to follow", each / 1024.0, " KiB", each <= 2048.0, "≤ 2 KiB");
    let opened = run("all");
    println!(
        "  resident for each certificate once every key is opened: {:.2} KiB; opening one takes {:.0} µs",
        opened[4] / CERTIFICATES as f64 / 1024.0,
        opened[5]
    );
}

/// Prints: ms to the first handshake, ms to open, ms since the spawn, bytes taken; with all opened: bytes, µs each.
pub(crate) fn child(args: &[String]) {
    let begun = Instant::now();
    let before = resident();
    let folder = std::path::Path::new(&args[0]);
    let client = Client::open(node(), vec![], folder).unwrap();
    let open = begun.elapsed();
    let ca = std::fs::read_to_string(folder.join("ca.pem")).unwrap();
    shake(&trusting(&ca), &serving(client.resolver()), &host(CERTIFICATES / 3));
    let first = begun.elapsed();
    let spawned: u64 = std::env::var("CERTBUS_BENCH_SPAWNED").unwrap().parse().unwrap();
    let since = (nanos() - spawned) as f64 / 1e6;
    let ms = |duration: std::time::Duration| duration.as_secs_f64() * 1e3;
    // What the first change of the log needs is counted too.
    assert_eq!(client.status().certificates, CERTIFICATES);
    print!("{} {} {since} {} ", ms(first), ms(open), resident() - before);
    if args.get(1).is_some_and(|all| all == "all") {
        let (begun, resolver, now) = (Instant::now(), client.resolver(), now());
        for number in 0..CERTIFICATES {
            resolver.certified_key(&host(number), now).unwrap();
        }
        print!("{} {} ", resident() - before, ms(begun.elapsed()) * 1e3 / CERTIFICATES as f64);
    }
    // What the program holds at its end is the kernel's to free.
    std::io::Write::flush(&mut std::io::stdout()).unwrap();
    std::process::exit(0);
}

fn nanos() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    now.as_nanos() as u64
}

/// VmRSS in bytes.
fn resident() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() * 1024.0
}
