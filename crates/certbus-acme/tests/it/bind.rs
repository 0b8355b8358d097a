//! DNS-01 by way of BIND: dynamic updates, the user's program, delegation, and what is left behind.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use certbus_acme::{ChallengeHost, Dns01Provider, ExecHook, IssueError, SolverError};
use certbus_core::spec::Challenge;

use crate::support::*;

const BIND: &str = "CERTBUS_TEST_BIND";
const KEY: &str = "CERTBUS_TEST_BIND_KEY";

#[tokio::test(flavor = "multi_thread")]
async fn apex_and_wildcard_have_two_values_at_once_and_nobody_elses_is_removed() {
    let (ca, solvers) = (account().await, by_update(BIND, KEY));
    let apex = fresh("bind.test");
    let names = [apex.clone(), name(&format!("*.{apex}"))];
    let record = format!("_acme-challenge.{apex}");
    nsupdate(&format!("update add {record} 1 TXT \"of another\""));

    let order = ca.new_order(&request(&names, Challenge::Dns01)).await.unwrap();
    assert_eq!(order.challenges.len(), 2);
    for planned in &order.challenges {
        solvers.present(planned).await.unwrap();
    }
    assert_eq!(txt(BIND, &record).len(), 3);
    let issued = ca.complete(order, &csr(&names), &solvers, now()).await.unwrap();
    openssl_verify(&issued.chain_pem, &manage("/roots/0", None), &format!("www.{apex}")).unwrap();
    openssl_verify(&issued.chain_pem, &manage("/roots/0", None), apex.as_str()).unwrap();
    // Set up twice, by two needs of one value: the second still holds them.
    assert_eq!(txt(BIND, &record).len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_3_what_an_order_set_up_is_removed_and_only_that() {
    let (ca, solvers) = (account().await, by_update(BIND, KEY));
    let names = [fresh("bind.test")];
    let record = format!("_acme-challenge.{}", names[0]);
    nsupdate(&format!("update add {record} 1 TXT \"of another\""));
    issue(&ca, &request(&names, Challenge::Dns01), &solvers).await.unwrap();
    assert_eq!(txt(BIND, &record), ["of another"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_left_behind_is_removed_by_another() {
    let ca = account().await;
    let names = [fresh("bind.test")];
    let record = format!("_acme-challenge.{}", names[0]);
    let order = ca.new_order(&request(&names, Challenge::Dns01)).await.unwrap();
    by_update(BIND, KEY).present(&order.challenges[0]).await.unwrap();
    assert_eq!(txt(BIND, &record), [order.challenges[0].dns_value.clone()]);
    let stored = serde_json::to_string(&order.challenges).unwrap();
    let planned: Vec<certbus_acme::PlannedChallenge> = serde_json::from_str(&stored).unwrap();
    by_update(BIND, KEY).clean_up(&planned).await.unwrap();
    assert!(txt(BIND, &record).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_key_is_refused_and_the_server_is_named() {
    let ca = account().await;
    let right = env(KEY);
    for wrong in ["certbus-bind:bm90IHRoZSByaWdodCBrZXk=".to_owned(), right.replace("certbus-bind", "someone-else")] {
        let solvers = by_dns(Dns01Provider::Rfc2136(rfc2136(BIND, &wrong)), propagation(vec![address(BIND)]));
        let error = issue(&ca, &request(&[fresh("bind.test")], Challenge::Dns01), &solvers).await.unwrap_err();
        let IssueError::Solver(SolverError::UpdateRefused { server, zone, answer, .. }) = &error else {
            panic!("{error:?}")
        };
        assert_eq!((server, zone.as_str()), (&env(BIND), "bind.test."));
        assert!(answer.starts_with("NOTAUTH"), "{error}");
        assert!(error.is_permanent(), "{error}");
        assert!(!error.to_string().contains(wrong.split_once(':').unwrap().1), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zone_that_takes_no_updates_is_refused_and_named() {
    let (ca, solvers) = (account().await, by_update(BIND, KEY));
    let error = issue(&ca, &request(&[fresh("http.test")], Challenge::Dns01), &solvers).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("zone http.test.") && text.contains(&env(BIND)), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_does_not_serve_the_value_is_named_and_the_value_removed() {
    let ca = account().await;
    let solvers = by_dns(
        Dns01Provider::Rfc2136(rfc2136(BIND, &env(KEY))),
        propagation(vec![address(BIND), address("CERTBUS_TEST_KNOT")]),
    );
    let names = [fresh("bind.test")];
    let error = issue(&ca, &request(&names, Challenge::Dns01), &solvers).await.unwrap_err();
    let IssueError::Solver(SolverError::NotPropagated { server, saw, .. }) = &error else { panic!("{error:?}") };
    assert_eq!((server, saw.as_str()), (&env("CERTBUS_TEST_KNOT"), "REFUSED"));
    assert!(txt(BIND, &format!("_acme-challenge.{}", names[0])).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cname_at_the_challenge_name_is_followed() {
    let (ca, solvers) = (account().await, by_update(BIND, KEY));
    let label = format!("n{}", std::process::id() % 1000);
    let names = [name(&format!("{label}.alias.test")), name(&format!("*.{label}.alias.test"))];
    let record = format!("{label}.delegated.bind.test");
    let order = ca.new_order(&request(&names, Challenge::Dns01)).await.unwrap();
    solvers.present(&order.challenges[0]).await.unwrap();
    assert_eq!(txt(BIND, &record), [order.challenges[0].dns_value.clone()]);
    solvers.clean_up(&order.challenges[..1]).await.unwrap();
    ca.complete(order, &csr(&names), &solvers, now()).await.unwrap();
    assert!(txt(BIND, &record).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_users_program_is_called_as_lego_calls_it() {
    let folder = tempfile::tempdir().unwrap();
    let (hook, calls) = hook(&folder, "");
    let solvers =
        by_dns(Dns01Provider::Exec(ExecHook::new(hook, Duration::from_secs(10))), propagation(vec![address(BIND)]));
    let apex = fresh("bind.test");
    let names = [apex.clone(), name(&format!("*.{apex}"))];
    issue(&account().await, &request(&names, Challenge::Dns01), &solvers).await.unwrap();
    let record = format!("_acme-challenge.{apex}");
    assert!(txt(BIND, &record).is_empty());
    let calls = std::fs::read_to_string(calls).unwrap();
    let begins: Vec<String> = calls.lines().map(|line| line.rsplit_once(' ').unwrap().0.to_owned()).collect();
    let (present, cleanup) = (format!("present {record}."), format!("cleanup {record}."));
    assert_eq!(begins, [present.clone(), present, cleanup.clone(), cleanup]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_fails_is_quoted() {
    let folder = tempfile::tempdir().unwrap();
    let (hook, _) = hook(&folder, "echo first >&2; echo 'no such zone at the provider' >&2; exit 3");
    let solvers =
        by_dns(Dns01Provider::Exec(ExecHook::new(&hook, Duration::from_secs(10))), propagation(vec![address(BIND)]));
    let error = issue(&account().await, &request(&[fresh("bind.test")], Challenge::Dns01), &solvers).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains(hook.to_str().unwrap()) && text.contains("no such zone at the provider"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_zones_nameservers_are_found_by_its_ns_records() {
    // They lead to 127.0.0.1, port 53, where nobody serves this zone; the program does nothing.
    let hook = ExecHook::new("true", Duration::from_secs(10));
    let solvers = by_dns(Dns01Provider::Exec(hook), propagation(Vec::new()));
    let error = issue(&account().await, &request(&[fresh("bind.test")], Challenge::Dns01), &solvers).await.unwrap_err();
    let IssueError::Solver(SolverError::NotPropagated { server, .. }) = &error else { panic!("{error:?}") };
    assert_eq!(server, "127.0.0.1:53");
}

/// A script like those that people have for lego, and the file it notes its calls in.
fn hook(folder: &tempfile::TempDir, first: &str) -> (PathBuf, PathBuf) {
    let (script, calls) = (folder.path().join("hook"), folder.path().join("calls"));
    let server = env(BIND).replace(':', " ");
    let key = env(KEY);
    let text = format!(
        "#!/bin/sh\necho \"$1 $2 $3\" >>{calls}\n{first}\n\
         case $1 in present) what=add ttl=1 ;; cleanup) what=delete ttl= ;; esac\n\
         printf 'server {server}\\nupdate %s %s %s TXT \"%s\"\\nsend\\n' $what $2 \"$ttl\" $3 | nsupdate -y hmac-sha256:{key}\n",
        calls = calls.display(),
    );
    // Another process writes what is run: a fork of another test that still has it open would make it busy.
    let source = folder.path().join("source");
    std::fs::write(&source, text).unwrap();
    run("cp", &[source.to_str().unwrap(), script.to_str().unwrap()]);
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (script, calls)
}

pub(crate) fn nsupdate(line: &str) {
    let server = env(BIND).replace(':', " ");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("update");
    std::fs::write(&file, format!("server {server}\n{line}\nsend\n")).unwrap();
    run("nsupdate", &["-y", &format!("hmac-sha256:{}", env(KEY)), file.to_str().unwrap()]);
}
