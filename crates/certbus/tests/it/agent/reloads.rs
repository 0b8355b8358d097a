//! Reloads that fail, hang or print without end; many changes at once; what a service manager is told.

use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use super::{look, within};
use crate::shop::Shop;

fn target(reload: &str) -> String {
    format!("[[target]]\nkind = \"files\"\ncombined = \"DIR/certs/{{name}}.pem\"\ntime_limit = 1\nreload = {reload}\n")
}

/// A shop whose first version is deployed and which has a second.
fn renewed() -> Shop {
    let shop = Shop::with_targets(&["shop.example"], &target("[\"true\"]"));
    shop.once(0, &[]);
    shop.ok(&["cert", "renew", &shop.only().0]);
    shop
}

#[test]
fn a_reload_that_fails_or_cannot_be_started_has_the_old_files_back_and_is_named() {
    for (reload, words) in [
        ("[\"sh\", \"-c\", \"echo no such thing >&2; exit 3\"]", &["status 3", "no such thing"][..]),
        ("[\"/no/such/program\"]", &["cannot be started", "/no/such/program", "install it"]),
        ("[\"sh\", \"-c\", \"kill -9 $$\"]", &["signal 9"]),
    ] {
        let shop = renewed();
        let before = look(&shop.path("certs"));
        shop.targets(&target(reload));
        let ran = shop.once(1, words);
        assert!(ran.err.contains("the reload failed, the old files are back; the server still runs the old ones"));
        assert_eq!(look(&shop.path("certs")), before);
        assert_eq!(shop.status("files")["failures"], 1);
        shop.targets(&target("[\"true\"]"));
        shop.once(0, &[]);
        assert_ne!(look(&shop.path("certs")), before);
    }
}

#[test]
fn a_reload_that_hangs_is_killed_with_all_it_started_at_the_time_limit() {
    let shop = renewed();
    let before = look(&shop.path("certs"));
    shop.targets(&target("[\"sh\", \"-c\", \"echo here I hang; sleep 4711 & echo $! > DIR/child; wait\"]"));
    let begun = Instant::now();
    shop.once(1, &["did not end within 1 s and was killed", "time_limit", "here I hang"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let child = shop.read("child").trim().to_owned();
    let state = std::fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z"), "its child runs on: {state}");
    assert_eq!(look(&shop.path("certs")), before);
}

#[test]
fn a_reload_that_prints_a_megabyte_is_kept_to_its_last_lines() {
    let shop = renewed();
    shop.targets(&target(
        "[\"sh\", \"-c\", \"head -c 1000000 /dev/zero | tr '\\\\0' 'x'; echo; echo the end; exit 1\"]",
    ));
    let ran = shop.once(1, &["the end"]);
    assert!(ran.err.len() < 3000, "{} bytes", ran.err.len());
    assert!(shop.read("data/agent/agent.json").len() < 5000);
    // One that prints and goes well is no failure.
    shop.targets(&target("[\"sh\", \"-c\", \"head -c 1000000 /dev/zero\"]"));
    shop.once(0, &[]);
}

#[test]
fn a_server_that_a_reload_starts_and_that_keeps_its_output_open_is_not_waited_for() {
    let shop = renewed();
    shop.targets(&target("[\"sh\", \"-c\", \"sleep 20 & echo $! > DIR/child\"]"));
    let begun = Instant::now();
    shop.once(0, &[]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    let ended = std::process::Command::new("kill").arg(shop.read("child").trim()).status().unwrap();
    assert!(ended.success(), "it was left alone");
}

#[test]
fn many_certificates_at_once_are_one_check_and_one_reload() {
    let count = |word: &str| format!("[\"sh\", \"-c\", \"echo {word} >> DIR/calls\"]");
    let shop = Shop::with_targets(&[], &format!("{}check = {}\n", target(&count("reload")), count("check")));
    let made: Vec<_> = (0..10)
        .map(|n| {
            let mut command = shop.command(&["cert", "mk", &format!("m{n}.shop.example")]);
            command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).spawn().unwrap()
        })
        .collect();
    for mut child in made {
        assert!(child.wait().unwrap().success());
    }
    let _agent = shop.agent();
    within(10, "all are written", || (shop.status("files")["deployed"].as_object()?.len() == 10).then_some(()));
    assert_eq!(shop.read("calls"), "check\nreload\n");
}

#[test]
fn a_service_manager_is_told_when_the_first_round_is_done_and_that_the_agent_lives_and_stops() {
    let shop = Shop::with_targets(&["shop.example"], &target("[\"true\"]"));
    let manager = UnixDatagram::bind(shop.path("notify")).unwrap();
    manager.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut command = shop.agent_command(&["agent"]);
    let mut agent = command.env("NOTIFY_SOCKET", shop.path("notify")).env("WATCHDOG_USEC", "200000").spawn().unwrap();
    let hear = |word: &str| {
        for _ in 0..200 {
            let mut said = [0; 500];
            let count = manager.recv(&mut said).unwrap();
            let said = String::from_utf8_lossy(&said[..count]).into_owned();
            if said.contains(word) {
                return said;
            }
        }
        panic!("`{word}` was never said");
    };
    hear("READY=1");
    assert!(shop.path("certs/shop.example.pem").exists() || shop.status("files")["last_success"].is_string());
    hear("WATCHDOG=1");
    shop.ok(&["cert", "renew", &shop.only().0]);
    assert!(hear("STATUS=1 certificates, 1 targets").ends_with("targets"));
    // An orderly stop: SIGTERM, exit code 0.
    std::process::Command::new("kill").arg(agent.id().to_string()).status().unwrap();
    hear("STOPPING=1");
    assert_eq!(agent.wait().unwrap().code(), Some(0));
}
