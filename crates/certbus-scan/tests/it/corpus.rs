//! The corpus of the fuzzers, replayed: what once was found stays mended. `ci/bench fuzz` looks for more.

use std::path::Path;

fn replay(target: &str, exercise: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        eprintln!("{}", path.display());
        exercise(&std::fs::read(path).unwrap());
        count += 1;
    }
    assert!(count >= 10, "{target}: only {count}");
}

#[test]
fn the_corpus_of_conversations_ends_without_a_panic() {
    replay("conversation", certbus_scan::exercise::conversation);
}

#[test]
fn the_corpus_of_verdicts_ends_without_a_panic() {
    replay("verdict", certbus_scan::exercise::verdict);
}

#[test]
fn the_corpus_of_targets_ends_without_a_panic() {
    replay("spec", certbus_scan::exercise::spec);
}

/// Writes the seeds that fuzzing began with: real flights, real certificates, real targets.
/// `BLESS=1 cargo test -p certbus-scan --test it corpus` makes them anew.
#[test]
fn the_seeds_of_the_corpus_are_real() {
    use certbus_scan::offer::Version;
    if std::env::var_os("BLESS").is_none() {
        return;
    }
    let write = |target: &str, name: &str, bytes: &[u8]| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(name), bytes).unwrap();
    };
    let none = 99;
    for (version, way) in [(Version::Tls12, 0_u8), (Version::Tls12, 4), (Version::Tls13, 1), (Version::Tls13, 5)] {
        let flight = crate::tls::TlsServer::new(&[version]).flight(&crate::tls::client_hello(version));
        for size in [1, 50, 255] {
            write(
                "conversation",
                &format!("flight-{version}-{way}-{size}"),
                &[&[none, way, size], &flight[..]].concat(),
            );
        }
    }
    let dialogues: [&[u8]; 12] = [
        b"220 hi\r\n250-a\r\n250 STARTTLS\r\n220 go\r\n",
        b"220 hi\r\n250-a\r\n250 STARTTLS\r\n220 go\r\n",
        b"* OK hi\r\n* x\r\na1 OK go\r\n",
        b"+OK hi\r\n+OK go\r\n",
        b"220 hi\r\n234 go\r\n",
        b"\x30\x0c\x02\x01\x01\x78\x07\x0a\x01\x00\x04\x00\x04\x00",
        b"S",
        b"\x20\0\0\0\n5.7\0AAAA12345678\0\xff\xff\0\0\0\0\0\0\0\0\0\0\0\0",
        b"<stream:features><starttls/></stream:features><proceed/>",
        b"<stream:features><starttls/></stream:features><proceed/>",
        b"200 hi\r\n382 go\r\n",
        b"\"STARTTLS\"\r\nOK hi\r\nOK go\r\n",
    ];
    for (protocol, dialogue) in dialogues.iter().enumerate() {
        write("conversation", &format!("starttls-{protocol}"), &[&[protocol as u8, 1, 7], *dialogue].concat());
    }
    for number in 0..10 {
        let names = vec![format!("n{number}.test"); number + 1];
        let der = rcgen::generate_simple_self_signed(names).unwrap().cert.der().to_vec();
        let length = (der.len() as u16).to_be_bytes();
        write("verdict", &format!("self-signed-{number}"), &[&length[..], &der, &der].concat());
    }
    let targets = [
        "example.com",
        "example.com:443",
        "192.0.2.0/24",
        "[2001:db8::1]:25",
        "smtp://mx.test",
        "https://a.test:8443/b",
        "2001:db8::/120",
        "a.test:1-65535",
        "10.0.0.0/8:1,2,3",
        "xn--bcher-kva.example",
        "bücher.example",
        "[::",
    ];
    for (number, target) in targets.iter().enumerate() {
        write("spec", &format!("target-{number}"), target.as_bytes());
    }
}
