//! Servers that misbehave in every way known, in one scan with servers that do not: each probe ends within its deadline
//! with a typed reason, and the others are unharmed.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use certbus_scan::failure::{Failure, Part, Phase};
use certbus_scan::found::Proof;
use certbus_scan::observation::Observation;
use certbus_scan::offer::Version;
use certbus_scan::starttls::Starttls;
use certbus_scan::ways::{Learnt, Method};
use certbus_scan::{Options, Target, Timeouts, probe, scan};

use crate::support::{listed, options, target};
use crate::tls::{self, TlsServer};

/// What a server does, where it listens, and what must come of it.
type Case = (&'static str, u16, fn(&Failure) -> bool);
type Behaviour = Arc<dyn Fn(TcpStream) + Send + Sync>;

/// Listens, and does the same to everybody, each on a thread of its own.
fn server(behaviour: impl Fn(TcpStream) + Send + Sync + 'static) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (port, behaviour): (u16, Behaviour) = (listener.local_addr().unwrap().port(), Arc::new(behaviour));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let behaviour = behaviour.clone();
            stream.set_write_timeout(Some(Duration::from_secs(5))).unwrap();
            std::thread::spawn(move || behaviour(stream));
        }
    });
    port
}

fn hear(stream: &mut TcpStream) -> Vec<u8> {
    let mut heard = vec![0; 4096];
    let count = stream.read(&mut heard).unwrap_or(0);
    heard.truncate(count);
    heard
}

/// Reads the hello, says something, and waits for the other side to close.
fn says(words: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> u16 {
    server(move |mut stream| {
        let heard = hear(&mut stream);
        let _ = stream.write_all(&words(&heard));
        hear(&mut stream);
    })
}

/// Does one thing again and again until nobody takes it any more.
fn goes_on(every: Duration, first: Vec<u8>, then: Vec<u8>) -> u16 {
    server(move |mut stream| {
        hear(&mut stream);
        let mut next = first.clone();
        while stream.write_all(&next).is_ok() {
            next = then.clone();
            std::thread::sleep(every);
        }
    })
}

#[test]
fn whatever_a_hostile_server_does_ends_in_time_with_its_reason_and_harms_no_other_probe() {
    let healthy = TlsServer::new(&[Version::Tls12, Version::Tls13]);
    let healthy_port = {
        let healthy = healthy.clone();
        says(move |hello| healthy.flight(hello))
    };
    let nothing = Duration::ZERO;
    let huge = tls::record(22, &[&[11, 0xff, 0xff, 0xff][..], &[0; 16_000]].concat());
    let der = tls::der_of(700);
    let cases: Vec<Case> = vec![
        ("silent", server(|stream| drop(hear(&mut { stream }))), |_| true),
        ("never answers", server(|mut stream| while !hear(&mut stream).is_empty() {}), |failure| {
            *failure == Failure::Timeout { phase: Phase::Handshake }
        }),
        ("a byte a second", goes_on(Duration::from_secs(1), vec![22], vec![3]), |failure| {
            matches!(
                failure,
                Failure::Timeout { phase: Phase::Handshake } | Failure::NotTls { .. } | Failure::Malformed { .. }
            )
        }),
        (
            "a long message, a byte a second",
            goes_on(Duration::from_secs(1), vec![22, 3, 3, 63, 0], vec![0]),
            |failure| *failure == Failure::Timeout { phase: Phase::Handshake },
        ),
        ("a message of 16 MB", goes_on(nothing, huge, tls::record(22, &[0; 16_000])), |failure| {
            matches!(failure, Failure::TooLarge { .. })
        }),
        ("small messages for ever", goes_on(nothing, vec![], tls::record(22, &tls::message(0, &[]))), |failure| {
            matches!(failure, Failure::TooLarge { .. })
        }),
        ("alerts for ever", goes_on(nothing, vec![], tls::record(21, &[1, 112])), |failure| {
            matches!(failure, Failure::TooLarge { .. })
        }),
        (
            "a chain of 200",
            says({
                let der = tls::der_of(250);
                move |_| tls::old_flight(&vec![der.clone(); 200])
            }),
            |failure| matches!(failure, Failure::TooLarge { why } if why.contains("100 certificates")),
        ),
        (
            "a chain of 100 KB",
            says(move |_| tls::old_flight(&vec![der.clone(); 150])),
            |failure| matches!(failure, Failure::TooLarge { why } if why.contains("65,535")),
        ),
        (
            "invalid DER",
            says(|_| tls::old_flight(&[b"no certificate".to_vec()])),
            |failure| matches!(failure, Failure::Malformed { at: Part::Certificate, why } if why.contains("certificate 1 is not DER")),
        ),
        ("no certificate", says(|_| tls::old_flight(&[])), |failure| {
            matches!(failure, Failure::Malformed { at: Part::Certificate, .. })
        }),
        (
            "a suite that nobody offered",
            says(|_| tls::server_hello(0x0303, 0x00ff, &[])),
            |failure| matches!(failure, Failure::Malformed { at: Part::ServerHello, why } if why.contains("cipher suite")),
        ),
        ("a version that there is not", says(|_| tls::server_hello(0x0399, 0xc02f, &[])), |failure| {
            matches!(failure, Failure::Malformed { at: Part::ServerHello, .. })
        }),
        (
            "TLS 1.3 for a client that did not ask",
            says(|_| tls::server_hello(0x0303, 0x1301, &[0, 43, 0, 2, 3, 4])),
            |failure| matches!(failure, Failure::Malformed { at: Part::ServerHello, .. }),
        ),
        ("a hello that ends too early", says(|_| tls::record(22, &tls::message(2, &[3, 3, 1]))), |failure| {
            matches!(failure, Failure::Malformed { at: Part::ServerHello, .. })
        }),
        ("a certificate before the hello", says(|_| tls::record(22, &tls::message(11, &[0, 0, 0]))), |failure| {
            matches!(failure, Failure::Malformed { at: Part::Handshake, .. })
        }),
        ("application data at once", says(|_| tls::record(23, b"hello")), |failure| {
            matches!(failure, Failure::Malformed { at: Part::Record, .. })
        }),
        ("a record that is too long", says(|_| vec![22, 3, 3, 0xff, 0xff]), |failure| {
            matches!(failure, Failure::Malformed { at: Part::Record, .. })
        }),
        ("an empty record", says(|_| vec![22, 3, 3, 0, 0]), |failure| {
            matches!(failure, Failure::Malformed { at: Part::Record, .. })
        }),
        (
            "plain HTTP",
            says(|_| b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
            |failure| matches!(failure, Failure::NotTls { looks_like } if looks_like.contains("plain HTTP")),
        ),
        (
            "SSH",
            server(|mut stream| drop(stream.write_all(b"SSH-2.0-OpenSSH_9.2\r\n"))),
            |failure| matches!(failure, Failure::NotTls { looks_like } if looks_like.contains("SSH")),
        ),
        (
            "an alert",
            says(|_| tls::record(21, &[2, 40])),
            |failure| matches!(failure, Failure::Alert { code: 40, name } if name == "handshake_failure"),
        ),
        ("closes at once", server(drop), |failure| {
            matches!(failure, Failure::Closed { phase: Phase::Handshake } | Failure::Reset { .. })
        }),
        ("nobody there", crate::support::free_port(), |failure| *failure == Failure::Refused),
    ];
    let mut ports = Vec::new();
    for (_, port, _) in &cases {
        ports.extend([healthy_port, *port, healthy_port]);
    }
    for (method, proof) in
        [(Method::Auto, Proof::Presented), (Method::Full, Proof::Presented), (Method::Auto, Proof::Finished)]
    {
        let each = Duration::from_secs(2);
        let options = Options { timeouts: Timeouts::all(each), ..options(method, proof) };
        let began = Instant::now();
        let seen = scan_all(ports.iter().map(|port| target(*port)), &options);
        // At most three connections, each with its deadline; they run side by side.
        assert!(began.elapsed() < 4 * each, "{:?}", began.elapsed());
        assert_eq!(seen.len(), ports.len());
        let (well, ill): (Vec<_>, Vec<_>) = seen.iter().partition(|seen| seen.port == healthy_port);
        assert_eq!(well.len(), 2 * cases.len());
        assert!(well.iter().all(|seen| seen.result.is_ok()), "{well:#?}");
        for (name, port, expected) in &cases {
            let seen = ill.iter().find(|seen| seen.port == *port).unwrap();
            let failure = seen.result.as_ref().expect_err(name);
            eprintln!("{method:?} {name}: {failure}");
            // rustls has words of its own; that it ends in time and with a reason is shown for it too.
            if method == Method::Auto && proof == Proof::Presented {
                assert!(expected(failure), "{name}: {failure:?}");
            }
        }
    }
}

fn scan_all(targets: impl Iterator<Item = Target>, options: &Options) -> Vec<Observation> {
    let mut seen = Vec::new();
    scan(listed(targets), options, &mut Learnt::default(), &AtomicBool::new(false), |one| seen.push(one)).unwrap();
    seen
}

#[test]
fn a_server_that_closes_at_any_byte_of_a_real_handshake_is_told_from_one_that_does_not() {
    for version in [Version::Tls12, Version::Tls13] {
        // In small records, so that the certificate is whole long before the flight is.
        let healthy = TlsServer::new(&[version]).fragmenting(100);
        let whole = healthy.clone().flight(&tls::client_hello(version)).len();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for (count, stream) in listener.incoming().flatten().enumerate() {
                let mut stream = stream;
                let flight = healthy.flight(&hear(&mut stream));
                let _ = stream.write_all(&flight[..count.min(flight.len())]);
            }
        });
        let hello = certbus_scan::offer::Hello { lowest: version, highest: version, ..crate::support::ANY };
        let mut options = options(Method::Quick, Proof::Presented);
        options.limits.per_host = Some(1);
        let seen = scan_all((0..whole).map(|_| Target { hello, ..target(port) }), &options);
        let needed = seen.iter().position(|seen| seen.result.is_ok()).unwrap();
        assert!(needed > 400, "{needed} of {whole}");
        for (count, seen) in seen.iter().enumerate() {
            match &seen.result {
                Ok(found) => assert!(count >= needed && found.chain == seen_chain(&seen.result), "{count}"),
                Err(Failure::Closed { phase: Phase::Handshake } | Failure::Reset { phase: Phase::Handshake }) => {
                    assert!(count < needed, "{count}: a whole certificate, and not seen");
                }
                Err(failure) => panic!("{count}: {failure:?}"),
            }
        }
    }
}

fn seen_chain(result: &Result<certbus_scan::found::Found, Failure>) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    result.as_ref().unwrap().chain.clone()
}

#[test]
fn a_protocol_that_will_not_begin_tls_says_so_in_its_servers_words() {
    let speaks = |greeting: &'static str, answer: &'static str| {
        server(move |mut stream| {
            let _ = stream.write_all(greeting.as_bytes());
            while !hear(&mut stream).is_empty() {
                let _ = stream.write_all(answer.as_bytes());
            }
        })
    };
    let cases = [
        (Starttls::Smtp, speaks("220-a\r\n220 b\r\n", "502 no TLS here\r\n"), "502 no TLS here"),
        (Starttls::Smtp, speaks("554 go away\r\n", ""), "554 go away"),
        (Starttls::Imap, speaks("* OK hi\r\n", "* still\r\na1 BAD what\r\n"), "a1 BAD what"),
        (Starttls::Pop3, speaks("+OK hi\r\n", "-ERR no\r\n"), "-ERR no"),
        (Starttls::Ftp, speaks("220 hi\r\n", "530 no\r\n"), "530 no"),
        (Starttls::Postgres, speaks("", "N"), "the server has no TLS"),
        (Starttls::Ldap, speaks("", "\x30\x0f\x02\x01\x01\x78\x0a\x0a\x01\x02\x04\0\x04\x03bad"), "result 2 bad"),
        (Starttls::Mysql, speaks("\x17\0\0\0\n5.7\0AAAA12345678\0\0\0", ""), ""),
        (Starttls::Xmpp, speaks("", "<stream:features></stream:features>"), "offers no STARTTLS"),
        (Starttls::Nntp, speaks("200 hi\r\n", "580 no\r\n"), "580 no"),
        (Starttls::Sieve, speaks("\"X\" \"y\"\r\nOK hi\r\n", "NO \"no\"\r\n"), "NO \"no\""),
        (Starttls::Smtp, speaks("HTTP/1.1 400 Bad Request\r\n", ""), "HTTP/1.1 400"),
    ];
    for (protocol, port, words) in cases {
        let asked = Target { starttls: Some(protocol), ..target(port) };
        let each = Duration::from_millis(500);
        let seen = probe(asked, &Options { timeouts: Timeouts::all(each), ..options(Method::Auto, Proof::Presented) });
        match seen.result {
            Err(Failure::Starttls { said }) => assert!(said.contains(words), "{protocol}: {said}"),
            Err(Failure::Timeout { phase: Phase::Starttls }) if words.is_empty() => {}
            other => panic!("{protocol}: {other:?}"),
        }
    }
}

#[test]
fn bytes_between_the_go_ahead_and_tls_are_an_injection_and_refused() {
    let port = server(|mut stream| {
        let _ = stream.write_all(b"220 hi\r\n");
        hear(&mut stream);
        let _ = stream.write_all(b"250 STARTTLS\r\n");
        hear(&mut stream);
        let _ = stream.write_all(b"220 go\r\n250 injected\r\n");
        hear(&mut stream);
    });
    let asked = Target { starttls: Some(Starttls::Smtp), ..target(port) };
    let seen = probe(asked, &options(Method::Auto, Proof::Presented));
    let Err(Failure::Malformed { at: Part::Starttls, why }) = seen.result else { panic!("{seen:?}") };
    assert!(why.contains("14 bytes came"), "{why}");
}
