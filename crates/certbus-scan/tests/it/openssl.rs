//! OpenSSL's servers of every version, key and oddity. What is seen equals what `openssl s_client` shows.

use std::process::Command;

use certbus_scan::conversation::Way;
use certbus_scan::failure::Failure;
use certbus_scan::found::Proof;
use certbus_scan::observation::Look;
use certbus_scan::offer::{Hello, Keys, Version};
use certbus_scan::ways::Method;
use certbus_scan::{Target, probe};

use crate::support::{ANY, Certificates, Key, Server, found, free_port, listed, options, s_client, target};

fn s_server(all: &Certificates, key: Key, arguments: &str) -> Server {
    let (chain, private) = all.make("a.test", key);
    let port = free_port();
    let mut command = Command::new("openssl");
    command.args(["s_server", "-accept", &format!("127.0.0.1:{port}"), "-quiet", "-key"]).arg(private);
    command.arg("-cert").arg(&chain).arg("-cert_chain").arg(all.path("ca.pem"));
    command.args(arguments.split_whitespace());
    Server::start(&mut command, port, &all.path("server.log"))
}

#[test]
fn openssl_servers_of_each_version_show_what_s_client_sees() {
    let all = Certificates::new();
    let versions = [("-tls1", "1.0"), ("-tls1_1", "1.1"), ("-tls1_2", "1.2"), ("-tls1_3", "1.3")];
    for (flag, version) in versions {
        for key in [Key::Rsa, Key::Ecdsa] {
            let server = s_server(&all, key, &format!("{flag} -cipher ALL:@SECLEVEL=0"));
            let shown = s_client(server.port, None, &["-cipher", "ALL:@SECLEVEL=0"]);
            assert_eq!(shown.chain.len(), 2, "{shown:?}");
            let (seen, _) = found(target(server.port), &options(Method::Auto, Proof::Presented));
            assert_eq!(seen.chain, shown.chain);
            assert_eq!(seen.version.to_string(), version);
            assert_eq!(seen.proof, Proof::Presented);
        }
    }
}

#[test]
fn openssl_proves_its_key_by_signature_and_by_a_finished_handshake() {
    let all = Certificates::new();
    for (flag, version) in [("-tls1_2", Version::Tls12), ("-tls1_3", Version::Tls13)] {
        for key in [Key::Rsa, Key::Ecdsa, Key::Ed25519] {
            let server = s_server(&all, key, flag);
            for proof in [Proof::Signed, Proof::Finished] {
                for method in [Method::Auto, Method::Full] {
                    let (seen, observation) = found(target(server.port), &options(method, proof));
                    assert_eq!((seen.proof, seen.version, seen.shortfall), (proof, version, None));
                    let look =
                        if method == Method::Full || proof == Proof::Finished { Look::Full } else { Look::Quick };
                    assert_eq!(observation.method, look);
                }
            }
        }
    }
}

#[test]
fn openssl_with_every_suite_of_tls_1_3_is_read_and_signs() {
    let all = Certificates::new();
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        let server = s_server(&all, Key::Ecdsa, &format!("-tls1_3 -ciphersuites {suite}"));
        let (seen, observation) = found(target(server.port), &options(Method::Quick, Proof::Signed));
        assert_eq!((seen.cipher_suite.to_string().as_str(), seen.proof), (suite, Proof::Signed));
        assert_eq!(observation.method, Look::Quick);
        assert_eq!(s_client(server.port, None, &[]).suite, suite);
    }
}

#[test]
fn openssl_signs_finite_field_parameters_with_every_kind_of_cipher() {
    let all = Certificates::new();
    for (suite, name) in [
        ("DHE-RSA-CHACHA20-POLY1305", "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256"),
        ("DHE-RSA-AES128-GCM-SHA256", "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256"),
    ] {
        let server = s_server(&all, Key::Rsa, &format!("-tls1_2 -cipher {suite}"));
        let (seen, observation) = found(target(server.port), &options(Method::Quick, Proof::Signed));
        assert_eq!((seen.proof, seen.shortfall, observation.method), (Proof::Signed, None, Look::Quick));
        assert_eq!(
            (seen.cipher_suite.to_string().as_str(), s_client(server.port, None, &[]).suite.as_str()),
            (name, suite)
        );
    }
}

#[test]
fn openssl_with_suites_that_sign_nothing_says_why_less_is_proved() {
    let all = Certificates::new();
    let server = s_server(&all, Key::Rsa, "-tls1_2 -cipher AES128-SHA:@SECLEVEL=0");
    let (seen, _) = found(target(server.port), &options(Method::Auto, Proof::Signed));
    assert_eq!(
        (seen.proof, seen.cipher_suite.to_string().as_str()),
        (Proof::Presented, "TLS_RSA_WITH_AES_128_CBC_SHA")
    );
    assert!(seen.shortfall.unwrap().contains("RSA key exchange"));
    // rustls has no such suite; the quick look still shows the certificate.
    let (seen, observation) = found(target(server.port), &options(Method::Auto, Proof::Finished));
    assert_eq!((seen.proof, observation.connections), (Proof::Presented, 2));
    assert!(seen.shortfall.unwrap().contains("full handshake failed: alert 40"), "{observation:?}");
}

#[test]
fn openssl_that_asks_for_another_key_share_is_seen_on_the_full_way_only() {
    let all = Certificates::new();
    let server = s_server(&all, Key::Ecdsa, "-tls1_3 -groups X25519:P-384");
    let (seen, observation) = found(target(server.port), &options(Method::Auto, Proof::Signed));
    assert_eq!((seen.proof, observation.method, observation.connections), (Proof::Signed, Look::Full, 2));
    let seen = probe(target(server.port), &options(Method::Quick, Proof::Presented));
    let Err(failure) = &seen.result else { panic!("{seen:?}") };
    assert!(failure.to_string().contains("HelloRetryRequest"), "{failure}");
    // Where TLS 1.2 is spoken too, the quick look goes that way.
    let server = s_server(&all, Key::Ecdsa, "-groups X25519:P-384");
    let (seen, observation) = found(target(server.port), &options(Method::Quick, Proof::Signed));
    assert_eq!((seen.version, seen.proof, observation.connections), (Version::Tls12, Proof::Signed, 2));
}

#[test]
fn openssl_with_two_certificates_shows_each_when_asked_for() {
    let all = Certificates::new();
    let (rsa, rsa_key) = all.make("a.test", Key::Rsa);
    for flag in ["-tls1_2", "-tls1_3"] {
        let second = format!("{flag} -dcert {} -dkey {}", rsa.display(), rsa_key.display());
        let server = s_server(&all, Key::Ecdsa, &second);
        for method in [Method::Quick, Method::Full] {
            let see = |keys| {
                let asked = Target { hello: Hello { keys, ..ANY }, ..target(server.port) };
                found(asked, &options(method, Proof::Signed)).0.chain.first().unwrap().clone()
            };
            let shown = |sigalgs| s_client(server.port, None, &["-sigalgs", sigalgs]).chain.first().unwrap().clone();
            assert_eq!(see(Keys::Ecdsa), shown("ecdsa_secp256r1_sha256"));
            assert_eq!(see(Keys::Rsa), shown("rsa_pss_rsae_sha256"));
            assert_ne!(see(Keys::Rsa), see(Keys::Ecdsa));
            assert_eq!(see(Keys::Any), see(Keys::Ecdsa));
        }
    }
}

#[test]
fn openssl_shows_another_certificate_without_a_name() {
    let all = Certificates::new();
    let (other, other_key) = all.make("b.test", Key::Ecdsa);
    let second = format!("-servername b.test -cert2 {} -key2 {}", other.display(), other_key.display());
    let server = s_server(&all, Key::Ecdsa, &second);
    let see = |name: Option<&str>, method| {
        let server_name = name.map(|name| name.parse().unwrap());
        found(Target { server_name, ..target(server.port) }, &options(method, Proof::Presented))
            .0
            .chain
            .first()
            .unwrap()
            .clone()
    };
    for method in [Method::Quick, Method::Full] {
        let shown = |arguments: &[&str]| s_client(server.port, None, arguments).chain.first().unwrap().clone();
        assert_eq!(see(Some("b.test"), method), shown(&["-servername", "b.test"]));
        assert_eq!(see(None, method), shown(&["-noservername"]));
        assert_ne!(see(Some("b.test"), method), see(None, method));
    }
}

#[test]
fn openssl_that_splits_its_flight_over_many_records_is_read() {
    let all = Certificates::new();
    for flag in ["-tls1_2", "-tls1_3"] {
        let server = s_server(&all, Key::Rsa, &format!("{flag} -max_send_frag 512"));
        let shown = s_client(server.port, None, &[]);
        for proof in [Proof::Presented, Proof::Signed] {
            let (seen, observation) = found(target(server.port), &options(Method::Quick, proof));
            assert_eq!((&seen.chain, seen.proof, observation.method), (&shown.chain, proof, Look::Quick));
        }
    }
}

#[test]
fn openssl_tells_each_version_that_it_speaks() {
    let all = Certificates::new();
    let server = s_server(&all, Key::Ecdsa, "-no_tls1_1 -cipher ALL:@SECLEVEL=0");
    let speaks = |version| {
        let hello = Hello { lowest: version, highest: version, keys: Keys::Any };
        let asked = Target { hello, ..target(server.port) };
        probe(asked, &options(Method::Quick, Proof::Presented)).result.map(|found| found.version)
    };
    assert_eq!(speaks(Version::Tls10), Ok(Version::Tls10));
    let Err(Failure::Incompatible { why }) = speaks(Version::Tls11) else { panic!("{:?}", speaks(Version::Tls11)) };
    assert_eq!(why, "the server would speak TLS 1.0 instead");
    assert_eq!(speaks(Version::Tls12), Ok(Version::Tls12));
    assert_eq!(speaks(Version::Tls13), Ok(Version::Tls13));
}

#[test]
fn openssl_that_wants_a_clients_certificate_still_shows_its_own() {
    let all = Certificates::new();
    for flag in ["-tls1_2", "-tls1_3"] {
        let server = s_server(&all, Key::Ecdsa, &format!("{flag} -Verify 1"));
        let (seen, _) = found(target(server.port), &options(Method::Auto, Proof::Signed));
        assert_eq!((seen.proof, seen.chain.len()), (Proof::Signed, 2));
        let (seen, _) = found(target(server.port), &options(Method::Auto, Proof::Finished));
        // TLS 1.3 is finished before the server has seen that no certificate comes.
        let expected = if flag == "-tls1_3" { Proof::Finished } else { Proof::Signed };
        assert_eq!((seen.proof, seen.shortfall.is_some()), (expected, expected != Proof::Finished));
    }
}

#[test]
fn the_way_that_worked_at_openssl_is_gone_first_the_next_time() {
    let all = Certificates::new();
    let server = s_server(&all, Key::Ecdsa, "-tls1_3 -groups X25519");
    let mut learnt = certbus_scan::ways::Learnt::default();
    let mut connections = Vec::new();
    for _ in 0..2 {
        let targets = listed([target(server.port)]);
        let options = options(Method::Auto, Proof::Presented);
        let go_on = std::sync::atomic::AtomicBool::new(false);
        let sink = |seen: certbus_scan::observation::Observation| connections.push(seen.connections);
        certbus_scan::scan(targets, &options, &mut learnt, &go_on, sink).unwrap();
    }
    assert_eq!(connections, [2, 1]);
    assert_eq!(learnt.of(([127, 0, 0, 1], server.port).into()), Some(Way::Full));
}
