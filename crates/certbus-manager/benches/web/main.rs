//! What pages and listings of the API cost the server, at inventories of different sizes, beside the way of all rows on one
//! page; and what the dashboard weighs. `ci/bench web` makes the inventories.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a measurement: a failure here is a failed measurement"
)]

use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Instant;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, header};
use certbus_core::access::Scope;
use certbus_manager::clock;
use certbus_manager::web::secret::Secret;
use certbus_manager::web::{Face, Parts};
use certbus_store::audit::Actor;
use certbus_store::tokens::Token;
use certbus_store::{Query, Store};
use tower::ServiceExt;

fn main() {
    let most = std::env::args().skip(1).find_map(|word| word.replace('_', "").parse().ok());
    // `cargo test --all-targets` comes here too.
    let Some(most) = most else { return println!("say how many endpoints at most: 1000, 100000 or 1000000") };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(pages(most));
}

struct Server {
    face: Face,
    router: Router,
    token: String,
}

impl Server {
    async fn open(file: &Path) -> (Self, Store) {
        let store = Store::open(file).await.unwrap();
        let secret = Secret::token();
        let actor = Actor { name: "bench".into(), source: "bench".into() };
        let name = format!("bench-{}", clock::now().millis());
        let token = Token {
            name,
            scope: Scope::Admin,
            tenant: "default".into(),
            made_by: "bench".into(),
            added_at: clock::now(),
            until: None,
            used_at: None,
        };
        store.add_token(&token, secret.hash(), &actor).await.unwrap();
        let parts = Parts {
            store: store.clone(),
            manager: None,
            site: "default".into(),
            local_alerts: certbus_manager::alerts::LocalAlerts::default(),
            proxies: Vec::new(),
            url: String::new(),
        };
        let face = Face::new(parts);
        (Self { router: face.router(), face, token: format!("Bearer {}", secret.text()) }, store)
    }

    /// Milliseconds, and the bytes that go over the wire.
    async fn get(&self, path: &str) -> (f64, Vec<u8>) {
        let request = Request::get(path)
            .header(header::AUTHORIZATION, &self.token)
            .header(header::ACCEPT_ENCODING, "gzip")
            .body(Body::empty())
            .unwrap();
        let begun = Instant::now();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (begun.elapsed().as_secs_f64() * 1e3, body.to_vec())
    }
}

async fn pages(most: usize) {
    let mut first: Vec<f64> = Vec::new();
    for count in [1_000, 100_000, 1_000_000].into_iter().filter(|count| *count <= most) {
        let file = cache().join(format!("inventory-{count}.db"));
        let (server, store) = Server::open(&file).await;
        println!("{count} endpoints with a year of history, p99 of 300:");
        let host = |n: usize| format!("host-{n}.shop-{}.example.com", n / 10);
        type Path<'a> = Box<dyn Fn(usize) -> String + 'a>;
        let kinds: Vec<(&str, Path)> = vec![
            ("the dashboard", Box::new(|_| "/".into())),
            ("endpoints, the first page", Box::new(|_| "/endpoints".into())),
            ("endpoints, a page in the middle", Box::new(|n| format!("/endpoints?after=t{}%3A443%7C0", host(n)))),
            ("endpoints that are overdue", Box::new(|_| "/endpoints?state=overdue".into())),
            ("endpoints of a tag", Box::new(|_| "/endpoints?tag=eu".into())),
            ("endpoints that expire first", Box::new(|_| "/endpoints?sort=expiry".into())),
            ("a search", Box::new(|n| format!("/endpoints?q={}", host(n)))),
            ("an endpoint", Box::new(|n| format!("/endpoints/{}", n + 1))),
            ("the API's list", Box::new(|_| "/api/v1/endpoints?limit=50".into())),
            ("the API's search", Box::new(|n| format!("/api/v1/endpoints?q={}", host(n)))),
            ("the API's timeline", Box::new(|n| format!("/api/v1/endpoints/{}/timeline", n + 1))),
            ("the API's glance", Box::new(|_| "/api/v1/glance".into())),
            ("the API's changes", Box::new(|_| "/api/v1/changes".into())),
            ("the trail", Box::new(|_| "/audit".into())),
            ("tasks", Box::new(|_| "/tasks".into())),
            ("alerts", Box::new(|_| "/alerts".into())),
            ("the API's alerts", Box::new(|_| "/api/v1/alerts".into())),
            ("metrics of 50", Box::new(|_| "/metrics?endpoints=50".into())),
        ];
        for (at, (what, path)) in kinds.iter().enumerate() {
            let mut times = Vec::new();
            for turn in 0..300 {
                times.push(server.get(&path(turn * 7919 % count)).await.0);
            }
            times.sort_by(f64::total_cmp);
            let p99 = times[times.len() * 99 / 100];
            let ratio = first.get(at).map(|first| p99 / first);
            first.extend((first.len() == at).then_some(p99));
            let against = ratio.map_or_else(String::new, |ratio| format!(", {ratio:.2} of that at 1,000"));
            let met = if p99 < 25.0 && ratio.is_none_or(|ratio| ratio <= 1.3) { "met" } else { "NOT MET" };
            println!("  {what}: {p99:.2} ms{against} (goal < 25 ms, ≤ 1.3): {met}");
        }
        if count <= 100_000 {
            println!("  all rows on one page: {:.0} ms", all_rows(&store).await);
        }
        if count == 100_000 {
            weight(&server).await;
        }
        under_wrk(&server).await;
    }
}

/// Every row, on one page.
async fn all_rows(store: &Store) -> f64 {
    let begun = Instant::now();
    let (mut page, mut query) = (String::new(), Query { limit: 1000, ..Query::default() });
    loop {
        let rows = store.endpoints(&query, clock::now()).await.unwrap();
        for row in &rows.rows {
            let issuer = row.issuer.as_deref().unwrap_or_default();
            let _ = write!(page, "<tr><td>{}<td>{}<td>{issuer}", row.stored.endpoint.name, row.state.as_str());
        }
        match rows.next {
            None => break,
            next => query.after = next,
        }
    }
    assert!(!page.is_empty());
    begun.elapsed().as_secs_f64() * 1e3
}

/// What the dashboard weighs with its style and its scripts, as gzip sends them.
async fn weight(server: &Server) {
    let (_, page) = server.get("/").await;
    let request = Request::get("/").header(header::AUTHORIZATION, &server.token).body(Body::empty()).unwrap();
    let plain = server.router.clone().oneshot(request).await.unwrap();
    let text = String::from_utf8(to_bytes(plain.into_body(), usize::MAX).await.unwrap().to_vec()).unwrap();
    let mut all = page.len();
    let links = text.split('"').filter(|word| word.starts_with("/assets/") && !word.ends_with("icon.svg"));
    for link in links.collect::<std::collections::BTreeSet<_>>() {
        all += server.get(link).await.1.len();
    }
    let kilobytes = all as f64 / 1000.0;
    let met = if kilobytes < 60.0 { "met" } else { "NOT MET" };
    println!("  the dashboard with style and scripts, gzip: {kilobytes:.1} KB (goal < 60 KB): {met}");
}

/// The dashboard under 64 connections for ten seconds, wrk on the same two cores.
async fn under_wrk(server: &Server) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let serving = tokio::spawn(server.face.clone().serve(listener, None, std::future::pending()));
    let token = format!("authorization: {}", server.token);
    let arguments = ["-t1", "-c64", "-d10s", "--latency", "-H", &token, "-H", "accept-encoding: gzip", &url];
    let ran = tokio::process::Command::new("wrk").args(arguments).output().await.unwrap();
    serving.abort();
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(!text.contains("Non-2xx"), "{text}");
    let word = |key: &str| {
        let line = text.lines().find(|line| line.trim_start().starts_with(key));
        line.and_then(|line| line.split_whitespace().nth(1)).unwrap_or("?").to_owned()
    };
    println!("  the dashboard under wrk, 64 connections: {} requests/s, p99 {}", word("Requests/sec"), word("99%"));
}

/// Where `ci/bench inventory` keeps its data.
fn cache() -> PathBuf {
    let var = |name| std::env::var_os(name).map(PathBuf::from);
    let base = var("CERTBUS_CACHE").or_else(|| Some(var("XDG_CACHE_HOME")?.join("certbus-ci")));
    base.unwrap_or_else(|| var("HOME").unwrap().join(".cache/certbus-ci")).join("bench")
}
