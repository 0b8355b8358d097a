//! Invariants 2 and 3 by force: managers are killed at every named step of issuing on a real CA, and another one ends
//! what they began: nothing lost, nothing finalized twice, no challenge left behind.

use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use certbus_core::crash::Step;
use certbus_core::event::Event;

use crate::pebble::{fresh, service, shop, with_bind};
use crate::shop::{Ran, Shop};

/// Who goes on with what the killed manager began.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Successor {
    /// The same manager, started again.
    Itself,
    /// The same, killed once more.
    KilledToo,
    /// One of another name, which honours the claim of the killed one until it ends.
    Another,
}

/// A kill, and what is known of the shop where it happened.
struct Case {
    shop: Shop,
    domain: String,
    at: String,
    renewal: bool,
    successor: Successor,
}

/// The steps that an issuance meets, each append of it apart.
fn steps() -> Vec<String> {
    let others = [Step::SnapshotPart, Step::SnapshotManifest, Step::SnapshotDone, Step::Deploying];
    let named = Step::ALL.iter().filter(|step| !others.contains(step));
    let appends = |step: &Step| matches!(step, Step::Appending | Step::Appended);
    // Request, claim, order, two records claimed and given back, twice, and no more needed, version, end, window.
    let times = |step: &Step| if appends(step) { 14 } else { 1 };
    named.flat_map(|step| (1..=times(step)).map(|n| format!("{}:{n}", step.name()))).collect()
}

impl Case {
    /// Issues or renews with a manager that is killed at the step. Pebble uses one authorization in a hundred again,
    /// whatever it is told, and then the last steps are not met: begun anew.
    fn killed(at: &str, renewal: bool, successor: Successor) -> Self {
        (0..4).find_map(|_| Self::try_killed(at, renewal, successor)).unwrap_or_else(|| panic!("{at} is not met"))
    }

    fn try_killed(at: &str, renewal: bool, successor: Successor) -> Option<Self> {
        let shop = shop("PEBBLE", "CERTBUS_TEST_HTTP01_PORT");
        with_bind(&shop, None);
        shop.ok(&["manager", "add", "second"]);
        let settings = std::fs::read_to_string(shop.path("certbus.toml")).unwrap();
        std::fs::write(shop.path("second.toml"), format!("{settings}\n[identity]\nmanager = \"second.key\"\n"))
            .unwrap();
        let domain = fresh("bind.test");
        let case = Self { shop, domain, at: at.to_owned(), renewal, successor };
        if renewal {
            case.shop.ok(&["cert", "mk", "--wildcard", &case.domain]);
            let (id, _) = case.shop.only();
            case.kill(&["cert", "renew", &id])
        } else {
            case.kill(&["cert", "mk", "--wildcard", &case.domain])
        }
        .then_some(case)
    }

    /// Whether the step was met, and ended the process.
    fn kill(&self, args: &[&str]) -> bool {
        let ran = Ran::from(self.shop.command(args).env("CERTBUS_CRASH_AT", &self.at).output().unwrap());
        assert!(matches!(ran.code, -1 | 0), "{}: {ran:?}", self.at);
        ran.code == -1
    }

    /// Runs the successor until the claim of the killed one does not hold it off any more.
    fn run(&self, args: &[&str]) -> Ran {
        let settings = if self.successor == Successor::Another { "second.toml" } else { "certbus.toml" };
        let until = Instant::now() + Duration::from_secs(90);
        loop {
            let mut command = self.shop.command(args);
            let ran = Ran::from(command.env("CERTBUS_CONFIG", self.shop.path(settings)).output().unwrap());
            if !ran.err.contains("is being issued by") {
                assert_eq!(ran.code, 0, "{}: {args:?}: {ran:?}", self.name());
                return ran;
            }
            assert!(Instant::now() < until, "{}: the claim does not end: {ran:?}", self.name());
            std::thread::sleep(Duration::from_secs(1));
        }
    }

    fn name(&self) -> String {
        format!("{} of {}, then {:?}", self.at, if self.renewal { "a renewal" } else { "an issuance" }, self.successor)
    }

    /// Another manager goes on; everything is as if nothing had happened.
    fn ended_right(&self) {
        if self.successor == Successor::KilledToo {
            // Wherever the first was killed, the second is killed too: at another step, if it comes that far.
            let steps = steps();
            let at = steps.iter().position(|step| *step == self.at).unwrap();
            let again = &steps[(at * 7 + 3) % steps.len()];
            self.shop.command(&["cert", "renew", "--due"]).env("CERTBUS_CRASH_AT", again).output().unwrap();
        }
        self.run(&["cert", "renew", "--due"]);
        // The request itself may have been lost, which a person sees: he types it again.
        self.run(&["cert", "mk", "--wildcard", &self.domain]);
        let wanted = 1 + usize::from(self.renewal);
        if self.shop.count("CertificateObtained") < wanted {
            let (id, _) = self.shop.only();
            self.run(&["cert", "renew", &id]);
        }
        let name = self.name();
        assert_eq!(self.shop.count("CertificateObtained"), wanted, "{name}");
        assert_eq!(self.shop.only().1.len(), 64, "{name}");
        assert!(self.shop.ok(&["cert", "renewable"]).out.is_empty(), "{name}: no order is left open");
        let mut orders: Vec<String> = Vec::new();
        for event in self.shop.events() {
            if let Event::OrderPlaced(placed) = event {
                orders.push(placed.order.rsplit('/').next().unwrap().to_owned());
            }
        }
        let said = std::fs::read_to_string(service("CERTBUS_TEST_PEBBLE_LOG")).unwrap();
        let issued =
            |order: &String| said.lines().filter(|l| l.contains("Issued") && l.contains(order.as_str())).count();
        let issued: Vec<usize> = orders.iter().map(issued).collect();
        assert!(issued.iter().all(|times| *times <= 1), "{name}: an order is finalized once: {issued:?}");
        assert_eq!(issued.iter().sum::<usize>(), wanted, "{name}: what the CA issued is on the log: {issued:?}");
        assert_eq!(texts(&self.domain), "", "{name}: no challenge is left behind");
    }
}

/// The TXT records of a domain's challenges.
fn texts(domain: &str) -> String {
    let server = service("CERTBUS_TEST_BIND");
    let (address, port) = server.split_once(':').unwrap();
    let dig = Command::new("dig")
        .args([&format!("@{address}"), "-p", port, "+tcp", "+short", "TXT", &format!("_acme-challenge.{domain}")])
        .output()
        .unwrap();
    assert!(dig.status.success(), "{dig:?}");
    String::from_utf8(dig.stdout).unwrap()
}

/// Does all of it, four at a time.
fn in_parallel<T: Send, U: Send>(work: Vec<T>, act: impl Fn(T) -> U + Sync) -> Vec<U> {
    let (work, done) = (Mutex::new(work.into_iter().rev().collect::<Vec<_>>()), Mutex::new(Vec::new()));
    let next = || work.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(one) = next() {
                    let outcome = act(one);
                    done.lock().unwrap().push(outcome);
                }
            });
        }
    });
    done.into_inner().unwrap()
}

/// `CERTBUS_KILL_ROUNDS` rounds, 3 where it is not set.
#[test]
fn invariants_2_and_3_a_manager_killed_at_any_step_is_followed_by_one_that_ends_the_order_at_pebble_and_bind() {
    let rounds: usize = std::env::var("CERTBUS_KILL_ROUNDS").ok().and_then(|r| r.parse().ok()).unwrap_or(3);
    let mut kills = Vec::new();
    for round in 0..rounds {
        let successor = [Successor::Itself, Successor::Another, Successor::KilledToo][round % 3];
        kills.extend(steps().into_iter().flat_map(|at| [false, true].map(|renewal| (at.clone(), renewal, successor))));
    }
    // All are killed before the first is followed, so that the claims of the others run out meanwhile.
    kills.sort_by_key(|(_, _, successor)| *successor != Successor::Another);
    let mut cases = in_parallel(kills, |(at, renewal, successor)| Case::killed(&at, renewal, successor));
    cases.sort_by_key(|case| case.successor == Successor::Another);
    let count = in_parallel(cases, |case| case.ended_right()).len();
    assert_eq!(count, rounds * 2 * steps().len());
}

#[test]
fn a_manager_killed_while_it_writes_a_snapshot_leaves_the_one_before_or_the_new_one() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    shop.ok(&["stream", "snapshot"]);
    shop.ok(&["cert", "mk", "b.shop.example"]);
    for step in [Step::SnapshotPart, Step::SnapshotManifest, Step::SnapshotDone] {
        let mut command = shop.command(&["stream", "snapshot"]);
        let ran = Ran::from(command.env("CERTBUS_CRASH_AT", step.name()).output().unwrap());
        assert_eq!(ran.code, -1, "{ran:?}");
        shop.ok(&["stream", "verify"]);
        assert_eq!(shop.ok(&["cert", "ls", "--json"]).out.lines().count(), 2);
    }
    shop.ok(&["stream", "snapshot"]);
}
