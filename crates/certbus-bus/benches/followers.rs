//! Many who follow one log over HTTP: `followers HOST:PORT TOKEN COUNT`. Says when all are there, then for each line on its
//! standard input when the last of them has had the next batch: `ci/bench followers`.
#![expect(clippy::unwrap_used, reason = "a measurement: a failure here is a failed measurement")]

use std::io::BufRead;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [place, token, count] = &words[..] else {
        // `cargo test --all-targets` comes here too.
        println!("write HOST:PORT TOKEN COUNT");
        return;
    };
    let count: usize = count.parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(follow(place.clone(), token.clone(), count));
}

async fn follow(place: String, token: String, count: usize) {
    let (ready, had) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    // As many are let in at a time as a server has places for whom it does not know yet.
    let doors = Arc::new(Semaphore::new(64));
    let begun = Instant::now();
    for _ in 0..count {
        let (place, token, ready, had, doors) =
            (place.clone(), token.clone(), ready.clone(), had.clone(), doors.clone());
        tokio::spawn(async move {
            loop {
                one(&place, &token, &ready, &had, &doors).await;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
    }
    while ready.load(Ordering::SeqCst) < count {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("ready {:.2}", begun.elapsed().as_secs_f64());
    let (send, mut lines) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        std::io::stdin().lock().lines().map_while(Result::ok).try_for_each(|line| send.send(line))
    });
    while lines.recv().await.is_some() {
        let wanted = had.load(Ordering::SeqCst) + count;
        println!("waiting");
        while had.load(Ordering::SeqCst) < wanted {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        println!("last {:.4}", SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64());
    }
}

/// One that follows, until its stream ends.
async fn one(place: &str, token: &str, ready: &AtomicUsize, had: &AtomicUsize, doors: &Semaphore) {
    let door = doors.acquire().await.unwrap();
    let Ok(mut stream) = TcpStream::connect(place).await else { return };
    let ask =
        format!("GET /api/log/v1/certs/events HTTP/1.1\r\nhost: {place}\r\nauthorization: Bearer {token}\r\n\r\n");
    if stream.write_all(ask.as_bytes()).await.is_err() {
        return;
    }
    let (mut bytes, mut tail, mut is_ready) = (vec![0; 16 * 1024], Vec::new(), false);
    let mut door = Some(door);
    while let Ok(size @ 1..) = stream.read(&mut bytes).await {
        tail.extend_from_slice(bytes.get(..size).unwrap_or_default());
        // Each event ends with an empty line; what is told before it is there is history.
        while let Some(end) = tail.windows(2).position(|two| two == b"\n\n") {
            let event: Vec<u8> = tail.drain(..end + 2).collect();
            let text = String::from_utf8_lossy(&event);
            if text.contains(": here") && !is_ready {
                is_ready = true;
                door = None;
                ready.fetch_add(1, Ordering::SeqCst);
            }
            if text.contains("event: batch") && is_ready {
                had.fetch_add(1, Ordering::SeqCst);
            }
        }
    }
    drop(door);
    if is_ready {
        ready.fetch_sub(1, Ordering::SeqCst);
    }
}
