//! A CA that is not always right, in front of a real Pebble: refusals of every type, answers that are no answers, and
//! certificates that nobody ordered. Whatever it does, the version before is served, and all is well when it is well.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::pebble::{fresh, service, shop_for, with_bind};
use crate::shop::{Ran, Running, Shop, eventually, openssl};

/// The proxy, and a shop whose CA it is.
pub(crate) struct Faulty {
    pub(crate) shop: Shop,
    directory: String,
    _proxy: Running,
}

impl Faulty {
    pub(crate) fn new() -> Self {
        let api = PathBuf::from(service("CERTBUS_TEST_PEBBLE_ROOT"));
        let api = api.parent().unwrap();
        let mut proxy = Command::new("python3")
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/ca_proxy.py"))
            .arg(service("CERTBUS_TEST_PEBBLE"))
            .args([api.join("server.pem"), api.join("server.key")])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut directory = String::new();
        BufReader::new(proxy.stdout.take().unwrap()).read_line(&mut directory).unwrap();
        let shop = Shop::empty();
        let directory = directory.trim().to_owned();
        let this = Self { shop, directory, _proxy: Running::new(proxy) };
        let roots = service("CERTBUS_TEST_PEBBLE_ROOT");
        this.shop.ok(&["init", "--ca", &this.directory, "--ca-roots", &roots, "--agree-tos"]);
        with_bind(&this.shop, None);
        let management = service("CERTBUS_TEST_PEBBLE_MANAGEMENT");
        let root = Command::new("curl").args(["-sk", &format!("{management}/roots/0")]).output().unwrap();
        std::fs::write(this.shop.path("roots.pem"), root.stdout).unwrap();
        this
    }

    /// From now on; `{}` ends it.
    pub(crate) fn fault(&self, fault: &Value) {
        let url = self.directory.replace("/dir", "/fault");
        let told = Command::new("curl").args(["-sfk", "--data", &fault.to_string(), &url]).output().unwrap();
        assert!(told.status.success(), "{told:?}");
    }

    fn made(&self) -> (String, String, String) {
        let name = fresh("bind.test");
        self.shop.ok(&["cert", "mk", "--subdomain", &name, "--challenge", "dns-01"]);
        let (id, version) = self.shop.only();
        (name, id, version)
    }

    /// A renewal that fails for `fault`, with these words; the version is what it was.
    fn refused(&self, id: &str, fault: Value, words: &[&str]) -> Ran {
        let (_, mut before) = self.shop.only();
        self.fault(&fault);
        let mut ran = self.shop.run(&["cert", "renew", id]);
        // Told never to use an authorization again, Pebble does so once in a hundred times: no challenge, no fault.
        for _ in 0..2 {
            if fault["at"] == "challenge" && ran.code == 0 {
                before = self.shop.only().1;
                ran = self.shop.run(&["cert", "renew", id]);
            }
        }
        assert_eq!(ran.code, 1, "{fault}: {ran:?}");
        for word in words {
            assert!(ran.err.contains(word), "{fault}: `{word}` is not in: {}", ran.err);
        }
        assert_eq!(self.shop.only().1, before, "{fault}");
        let row: Value = serde_json::from_str(self.shop.ok(&["cert", "ls", "--json"]).out.trim()).unwrap();
        assert_eq!(row["state"], "renewal failing", "{fault}");
        self.fault(&json!({}));
        ran
    }

    /// Renews, and all is well.
    fn healed(&self, id: &str, after: &str) -> String {
        let (_, before) = self.shop.only();
        let ran = self.shop.run(&["cert", "renew", id]);
        assert_eq!(ran.code, 0, "after {after}: {ran:?}");
        let (_, version) = self.shop.only();
        assert_ne!(version, before, "after {after}");
        version
    }
}

/// RFC 8555 section 6.7 and RFC 9773 section 7.4, in their order: where each may come, and what a person is told.
const PROBLEMS: [(&str, &str, u16, &str); 26] = [
    ("accountDoesNotExist", "newOrder", 400, "register again"),
    ("alreadyRevoked", "newOrder", 400, ""),
    ("badCSR", "finalize", 400, "--key-type"),
    ("badNonce", "newOrder", 400, "tried again"),
    ("badPublicKey", "finalize", 400, "--key-type"),
    ("badRevocationReason", "newOrder", 400, ""),
    ("badSignatureAlgorithm", "newOrder", 400, "account keys"),
    ("caa", "finalize", 403, "CAA record"),
    ("compound", "newOrder", 400, ""),
    ("connection", "challenge", 400, "cert check"),
    ("dns", "challenge", 400, "cert check"),
    ("externalAccountRequired", "newOrder", 403, "--eab-key-id"),
    ("incorrectResponse", "challenge", 403, "cert check"),
    ("invalidContact", "newOrder", 400, "`email`"),
    ("malformed", "authorization", 400, ""),
    ("orderNotReady", "newOrder", 403, "tried again"),
    ("rateLimited", "newOrder", 429, "when the CA allows it"),
    ("rejectedIdentifier", "newOrder", 400, "--ca"),
    ("serverInternal", "certificate", 500, "tried again"),
    ("tls", "challenge", 400, "cert check"),
    ("unauthorized", "finalize", 403, "cert check"),
    ("unsupportedContact", "newOrder", 400, "`email`"),
    ("unsupportedIdentifier", "newOrder", 400, "--ca"),
    ("userActionRequired", "newOrder", 403, "new terms"),
    ("invalidProfile", "newOrder", 400, "profile"),
    ("somethingNew", "order", 400, ""),
];

#[test]
fn every_problem_type_is_told_in_the_cas_words_with_the_next_step_and_mends_itself_at_pebble() {
    let ca = Faulty::new();
    let (name, id, first) = ca.made();
    let (_server, port) = ca.shop.serve(&[]);
    let roots = ca.shop.path("roots.pem");
    assert_eq!(eventually("served", || openssl(port, &name, &roots).ok()), first);
    let mut newest = first;
    for (kind, at, status, next) in PROBLEMS {
        // Were it not about this name, no order of the account would be placed for a while.
        let fault = json!({ "at": at, "problem": kind, "status": status, "about": name });
        ca.refused(&id, fault, &["a word of the CA", kind, next]);
        if at == "challenge" {
            newest = ca.shop.only().1;
            eventually("the newest is served", || openssl(port, &name, &roots).ok().filter(|seen| *seen == newest));
        }
        assert_eq!(openssl(port, &name, &roots).unwrap(), newest, "served as before {kind}");
        newest = ca.healed(&id, kind);
        eventually("the renewal is served", || openssl(port, &name, &roots).ok().filter(|seen| *seen == newest));
    }
    ca.shop.ok(&["stream", "verify"]);
}

#[test]
fn refusals_that_mean_try_again_are_tried_again_at_once_at_pebble() {
    let ca = Faulty::new();
    let (_, id, _) = ca.made();
    for (kind, at, status) in [
        ("badNonce", "newOrder", 400),
        ("badNonce", "finalize", 400),
        // It was ready, and the CA's other half did not know yet.
        ("orderNotReady", "finalize", 403),
        // Another has replaced it: it is ordered without saying what it replaces (RFC 9773 section 5).
        ("alreadyReplaced", "newOrder", 409),
    ] {
        ca.fault(&json!({ "at": at, "problem": kind, "status": status, "times": 1 }));
        ca.healed(&id, kind);
    }
}

#[test]
fn a_rate_limit_is_waited_out_as_long_as_the_ca_says_at_pebble() {
    let ca = Faulty::new();
    let (_, id, _) = ca.made();
    let limit = |words: &str| json!({ "at": "newOrder", "problem": "rateLimited", "status": 429, "retry_after": 7200, "about": words });
    let each = |names: &[String]| {
        std::fs::write(ca.shop.path("each"), names.join("\n")).unwrap();
        let each = ca.shop.path("each");
        ca.shop.run(&["cert", "mk", "--each", each.to_str().unwrap(), "--challenge", "dns-01"])
    };
    // About these names alone, as Let's Encrypt says it without naming them: others go on.
    let exact =
        limit("too many certificates (5) already issued for this exact set of identifiers in the last 168h0m0s");
    ca.refused(&id, exact, &["asks to wait 7200 s"]);
    let failed = ca.shop.events().into_iter().filter_map(|event| match event {
        certbus_core::event::Event::IssuanceFailed(failed) => Some(failed),
        _ => None,
    });
    let wait = failed.last().unwrap().retry_at.since(certbus_manager::clock::now()).as_secs();
    assert!((7000..=7200).contains(&wait), "{wait}");
    assert_eq!(each(&[fresh("bind.test")]).code, 0);
    // About the account: nothing is ordered meanwhile, but by a person who asks for one.
    ca.fault(&limit("too many new orders (300) from this account in the last 3h0m0s"));
    ca.shop.fails(&["cert", "renew", &id], 1, &["asks to wait"]);
    ca.fault(&json!({}));
    let placed = ca.shop.count("OrderPlaced");
    let ran = each(&[fresh("bind.test"), fresh("bind.test")]);
    assert!(ran.code == 1 && ran.out.contains("takes no orders of this account before"), "{ran:?}");
    let ran = ca.shop.ok(&["cert", "renew", "--due"]);
    assert!(ran.err.contains("takes no orders of this account before"), "{ran:?}");
    assert_eq!(ca.shop.count("OrderPlaced"), placed);
    assert_eq!(ca.shop.run(&["cert", "renew", &id]).code, 0);
    // The whole story, in the CA's words too, also of what was removed.
    let story = ca.shop.ok(&["cert", "explain", &id]).out;
    for word in [
        "requested for",
        "/my-order/",
        "from this account in the last 3h0m0s (rateLimited)",
        "tried again after",
        "by CN=Pebble",
    ] {
        assert!(story.contains(word), "`{word}` is not in: {story}");
    }
    ca.shop.ok(&["cert", "rm", &id, "--yes"]);
    let story = ca.shop.ok(&["cert", "explain", &id, "--json"]).out;
    let last: Value = serde_json::from_str(story.lines().last().unwrap()).unwrap();
    assert_eq!(last["kind"], "CertificateRemoved");
    assert!(ca.shop.ok(&["cert", "explain", &id]).out.contains("managed no more"));
    ca.shop.fails(&["cert", "explain", "AAAAAAAAAAA"], 3, &["never heard of"]);
}

#[test]
fn answers_that_are_no_answers_of_a_ca_are_named_and_leave_all_as_it_was_at_pebble() {
    let ca = Faulty::new();
    let (_, id, _) = ca.made();
    let page = "<html><body>Down for maintenance</body></html>";
    for at in ["directory", "newNonce", "newOrder", "authorization", "challenge", "finalize", "certificate"] {
        // A nonce is a header: whatever the body is, a success with one is an answer.
        if at != "newNonce" {
            ca.refused(&id, json!({ "at": at, "answer": page }), &[]);
        }
        ca.refused(&id, json!({ "at": at, "answer": page, "status": 503 }), &["503", "text/html"]);
        ca.refused(&id, json!({ "at": at, "answer": "", "status": 500, "type": "text/plain" }), &["500"]);
        ca.refused(&id, json!({ "at": at, "redirect": "https://127.0.0.1:9/" }), &[]);
        // Half a word of a challenge is enough: it is looked whether the CA has heard.
        if !["newNonce", "challenge"].contains(&at) {
            ca.refused(&id, json!({ "at": at, "cut": true }), &[]);
        }
        ca.healed(&id, at);
    }
}

#[test]
fn a_ca_that_is_verbose_is_cut_short_and_waited_for_like_any_other_at_pebble() {
    let ca = Faulty::new();
    let (_, id, _) = ca.made();
    // More than a batch of the log could hold.
    ca.refused(&id, json!({ "at": "newOrder", "problem": "serverInternal", "status": 500, "words": 25_000 }), &[]);
    assert_eq!(ca.shop.count("IssuanceFailed"), 1);
    let failed = ca.shop.events().into_iter().find_map(|event| match event {
        certbus_core::event::Event::IssuanceFailed(failed) => Some(failed),
        _ => None,
    });
    let problem = failed.unwrap().problem;
    assert!(
        problem.contains("a word of the CA") && problem.ends_with('…') && problem.len() < 5000,
        "{}",
        problem.len()
    );
    ca.healed(&id, "verbosity");
}

#[test]
fn an_attempt_that_fails_after_another_has_issued_is_of_no_account_at_pebble() {
    let ca = Faulty::new();
    let (_, id, _) = ca.made();
    ca.fault(&json!({ "at": "newOrder", "hang": true }));
    let late = ca.shop.command(&["cert", "renew", &id]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    eventually("it asks", || (ca.shop.count("IssuanceClaimed") >= 2).then_some(()));
    std::thread::sleep(std::time::Duration::from_millis(500));
    ca.fault(&json!({}));
    let version = ca.healed(&id, "nothing yet");
    let late = Ran::from(late.wait_with_output().unwrap());
    assert!(late.code == 0 && late.out.contains(&version), "{late:?}");
    assert_eq!(ca.shop.count("IssuanceFailed"), 0);
}

#[test]
fn a_ca_that_hangs_is_waited_for_half_a_minute_and_named_at_pebble() {
    let ca = Faulty::new();
    let (_, id, _) = ca.made();
    let begun = std::time::Instant::now();
    ca.refused(&id, json!({ "at": "newOrder", "hang": true }), &["no answer within 30 s", "order-plz"]);
    assert!(begun.elapsed().as_secs() < 90, "bounded");
    ca.healed(&id, "hanging");
}

#[test]
fn invariant_5_a_chain_that_was_not_ordered_is_never_published_and_given_up_after_three_attempts_at_pebble() {
    let ca = Faulty::new();
    let (_, id, _) = ca.made();
    ca.healed(&id, "nothing");
    for (chain, words) in [
        ("before", "another key"),
        ("names", "another.example"),
        ("text", "not PEM"),
        ("half", "PEM"),
        ("reversed", "another key"),
        ("stranger", "certificate 2 of the chain"),
    ] {
        let placed = ca.shop.count("OrderPlaced");
        let fault = json!({ "at": "certificate", "chain": chain });
        for _ in 0..2 {
            ca.refused(&id, fault.clone(), &[words]);
        }
        assert_eq!(ca.shop.count("OrderPlaced"), placed + 1, "{chain}: the same order is fetched again");
        if chain == "half" {
            // Cut on its way: what the CA issued is not lost (invariant 2).
            ca.healed(&id, chain);
            assert_eq!(ca.shop.count("OrderPlaced"), placed + 1);
            continue;
        }
        ca.refused(&id, fault, &[words]);
        ca.healed(&id, chain);
        assert_eq!(ca.shop.count("OrderPlaced"), placed + 2, "{chain}: then a new one is placed");
    }
    // Signed by a key that cannot be checked here: the names fit.
    ca.fault(&json!({ "at": "certificate", "chain": "p521" }));
    ca.healed(&id, "a CA with P-521");
}

#[test]
fn what_is_issued_for_another_time_is_published_with_a_warning_and_not_renewed_in_a_loop_at_pebble() {
    for (chain, state) in [("past", "expired"), ("future", "ok")] {
        let ca = Faulty::new();
        let (_, id, _) = ca.made();
        ca.fault(&json!({ "at": "certificate", "chain": chain }));
        let ran = ca.shop.ok(&["cert", "renew", &id]);
        assert!(ran.err.contains("the clock here says"), "{chain}: {}", ran.err);
        let row: Value = serde_json::from_str(ca.shop.ok(&["cert", "ls", "--json"]).out.trim()).unwrap();
        assert_eq!(row["state"], state);
        let placed = ca.shop.count("OrderPlaced");
        for _ in 0..3 {
            ca.shop.ok(&["serve", "--once"]);
        }
        assert!(ca.shop.count("OrderPlaced") <= placed, "{chain}: it was ordered twice already");
        if chain == "past" {
            let ran = ca.shop.ok(&["cert", "renew", "--due"]);
            assert!(ran.err.contains("2 times in 1h"), "{}", ran.err);
        }
    }
}

#[test]
fn a_clock_that_is_wrong_is_said_and_orders_nothing_in_a_loop_at_pebble() {
    let (shop, _turn) = shop_for("PEBBLE");
    shop.ok(&["cert", "mk", &fresh("http.test")]);
    let (id, version) = shop.only();
    // The certificate of the CA's own API is of the past, or of the future.
    for (offset, word) in [("+100y", "expired"), ("-10y", "not valid yet")] {
        let ran = Ran::from(shop.command_at(offset, &["cert", "renew", &id]).output().unwrap());
        assert!(ran.code == 1 && ran.err.contains(word) && ran.err.contains("this machine's clock"), "{ran:?}");
        assert_eq!(shop.only().1, version);
    }
    // Years ahead: all is due, always.
    let ran = Ran::from(shop.command_at("+6y", &["cert", "renew", &id]).output().unwrap());
    assert!(ran.code == 0 && ran.err.contains("the clock here says"), "{ran:?}");
    for _ in 0..3 {
        shop.command_at("+6y", &["serve", "--once"]).output().unwrap();
    }
    assert_eq!(shop.count("OrderPlaced"), 3, "twice in the hour that it takes to be, and not again");
    assert_eq!(shop.ok(&["serve", "--once"]).code, 0, "and with the right clock all goes on");
}
