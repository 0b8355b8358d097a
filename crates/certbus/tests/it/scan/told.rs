//! What a scan says: rows while it goes on, words that move no terminal, and what is wrong with what was written.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use certbus_scan::failure::Failure;
use certbus_scan::starttls::Starttls;

use super::{Place, names, told};

/// A certificate as rcgen makes it, and its key, in the files of a name.
fn write(place: &Place, name: &str, params: rcgen::CertificateParams) {
    let key = rcgen::KeyPair::generate().unwrap();
    std::fs::write(place.path(&format!("{name}.pem")), params.self_signed(&key).unwrap().pem()).unwrap();
    std::fs::write(place.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
}

#[test]
fn rows_are_printed_while_more_targets_are_waited_for() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    let good = format!("127.0.0.1:{}", place.serve("a", ""));
    let mut child =
        place.command(&["-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let (send, rows) = mpsc::channel();
    let out = child.stdout.take().unwrap();
    std::thread::spawn(move || BufReader::new(out).lines().try_for_each(|row| send.send(row.unwrap())));
    let mut columns = Vec::new();
    for _ in 0..3 {
        writeln!(stdin, "{good}").unwrap();
        let row = rows.recv_timeout(Duration::from_secs(5)).expect("a row while standard input is open");
        assert!(row.starts_with(&good), "{row}");
        columns.push(row.find("a.test"));
    }
    assert!(columns.iter().all(|at| at.is_some() && *at == columns[0]), "{columns:?}");
    drop(stdin);
    told(0, child.wait_with_output().unwrap());
}

#[test]
fn what_a_certificate_says_moves_no_terminal() {
    let mut place = Place::new();
    let mut params = rcgen::CertificateParams::new(vec![]).unwrap();
    let name = "\u{1b}[2J\u{7}evil.test";
    params.distinguished_name.push(rcgen::DnType::CommonName, "\u{1b}]0;owned\u{7}\u{202e}");
    write(&place, "subject", params.clone());
    params.subject_alt_names = vec![rcgen::SanType::DnsName(name.try_into().unwrap())];
    write(&place, "name", params);
    for (file, shown) in [("subject", "owned"), ("name", "evil.test")] {
        let target = format!("127.0.0.1:{}", place.serve(file, ""));
        let (out, err) = place.scan(0, &[&target]);
        assert!(out.contains(shown) && out.contains('\u{fffd}'), "{out:?}");
        let moves = |c: char| (c.is_control() && c != '\n') || c == '\u{202e}';
        assert!(!out.chars().chain(err.chars()).any(moves), "{out:?}{err:?}");
    }
}

#[test]
fn nodes_that_nobody_could_tell_are_told_once_with_the_name_and_fail_no_scan() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    let target = format!("a.test:{}", place.serve("a", ""));
    let said = |code_for_six| {
        let names = names(&[[127, 0, 0, 1]], code_for_six);
        place.scan(0, &[&target, "--resolver", &names, "--roots", "a.pem", "--fail-on", "failed,untrusted", "--json"])
    };
    let (out, err) = said(SERVER_FAILURE);
    assert_eq!(err.matches("a.test: nodes may be missing: AAAA: ").count(), 1, "{err}");
    let seen = super::lines(&out);
    assert!(seen[0].seen.unanswered.as_ref().unwrap().starts_with("AAAA: "), "{out}");
    assert!(out.contains(r#""unanswered":"AAAA: "#) && seen.len() == 1, "{out}");
    // Most names have no AAAA.
    let (out, err) = said(0);
    assert!(!err.contains("missing") && !out.contains("unanswered"), "{out}{err}");
}

/// RFC 1035 section 4.1.1.
const SERVER_FAILURE: u8 = 2;

#[test]
fn each_key_says_which_was_not_seen() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    let target = format!("127.0.0.1:{}", place.serve("a", ""));
    let (out, _) = place.scan(0, &[&target, "--each-key"]);
    let rows: Vec<&str> = out.lines().collect();
    assert!(rows.len() == 2 && rows.iter().any(|row| row.contains("RSA 2048")), "{out}");
    assert!(rows.iter().any(|row| row.contains("no ECDSA") && row.contains("alert 40")), "{out}");
}

#[test]
fn what_cannot_be_meant_is_refused_with_what_would_be_right() {
    let place = Place::new();
    for (arguments, words) in [
        (&["a.test", "--port", "0"][..], "1..=65535"),
        (&["./home"], "./home, line 1: Is a directory"),
        (&["@home"], "home, line 1: Is a directory"),
        (&["fe80::1%lo"], "it has a zone (%lo), and link-local addresses are not scanned; write another"),
        (&["a.test", "--json", "--raw", "--fail-on", "expired"], "cannot be used with"),
    ] {
        let (_, err) = place.scan(2, arguments);
        assert!(err.contains(words), "{arguments:?}: {err}");
    }
}

#[test]
fn a_line_without_end_is_refused_by_its_number_in_bounded_memory() {
    let place = Place::new();
    let closed = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let mut command = place.command(&["-", "--json", "--raw"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    writeln!(stdin, "# one\n{closed}").unwrap();
    let part = vec![b'x'; 1 << 20];
    for _ in 0..300 {
        stdin.write_all(&part).unwrap();
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let peak = status.lines().find(|line| line.starts_with("VmHWM")).unwrap().split_whitespace().nth(1).unwrap();
    assert!(peak.parse::<u64>().unwrap() < 100_000, "{peak} KiB");
    write!(stdin, "\n{closed}\n\u{e9}").unwrap();
    stdin.write_all(b"\xff\n").unwrap();
    drop(stdin);
    let (out, err) = told(2, child.wait_with_output().unwrap());
    assert_eq!(out.matches("refused").count(), 2, "{out}");
    assert!(err.contains("standard input, line 3: it is longer than 65536 bytes; write one target a line"), "{err}");
    assert!(err.contains("line 5: it is not text in UTF-8"), "{err}");
}

#[test]
fn a_protocol_is_spoken_with_every_address_of_a_range() {
    let place = Place::new();
    let first = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
    let port = first.local_addr().unwrap().port();
    let second = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 3), port)).unwrap();
    for listener in [first, second] {
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let mut heard = [0; 256];
                let _ = stream.write_all(b"220 hi\r\n");
                let count = stream.read(&mut heard).unwrap_or(0);
                assert!(heard[..count].starts_with(b"EHLO"));
                let _ = stream.write_all(b"250 hi\r\n");
                let _ = stream.read(&mut heard);
                let _ = stream.write_all(b"502 no TLS here\r\n");
                let _ = stream.read(&mut heard);
            }
        });
    }
    let mut seen = place.json(0, &[&format!("smtp://127.0.0.2/31:{port}")]);
    seen.sort_by_key(|line| line.seen.address);
    let nodes: Vec<_> = seen.iter().map(|line| line.seen.address.unwrap().to_string()).collect();
    assert_eq!(nodes, ["127.0.0.2", "127.0.0.3"]);
    for line in seen {
        assert_eq!(line.seen.starttls, Some(Starttls::Smtp));
        assert!(matches!(line.seen.result, Err(Failure::Starttls { .. })), "{line:?}");
    }
}

#[test]
fn the_platforms_roots_are_those_of_this_machine() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    place.self_signed("b", 90, "rsa:2048");
    let target = format!("127.0.0.1:{}", place.serve("a", ""));
    for (file, trusted) in [("a.pem", true), ("b.pem", false)] {
        let mut command = place.command(&[&target, "--json"]);
        let ran = command.env("SSL_CERT_FILE", place.path(file)).env_remove("SSL_CERT_DIR").output().unwrap();
        let verdict = super::lines(&told(0, ran).0).remove(0).verdict.unwrap();
        assert_eq!((verdict.roots.as_str(), verdict.trusted), ("platform", trusted), "{verdict:?}");
    }
}

#[test]
fn a_terminal_sees_a_bar_and_a_heading_and_a_pipe_sees_neither() {
    let mut place = Place::new();
    place.self_signed("a", 90, "rsa:2048");
    let good = format!("127.0.0.1:{}", place.serve("a", ""));
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let silent = silent.local_addr().map(|address| (address.to_string(), silent)).unwrap();
    let scan = format!("{} scan {good} {} --timeout 2", env!("CARGO_BIN_EXE_certbus"), silent.0);
    let mut command = Command::new("script");
    command.args(["-qec", &scan, "/dev/null"]).current_dir(place.folder.path()).env("HOME", place.path("home"));
    command.env("TERM", "xterm").env_remove("CERTBUS_CONFIG").env_remove("CERTBUS_DATA").stdin(Stdio::null());
    let began = Instant::now();
    let (shown, _) = told(0, command.output().unwrap());
    assert!(began.elapsed() > Duration::from_secs(2));
    assert!(shown.contains("1 of 2") && shown.contains("left"), "{shown:?}");
    assert_eq!(shown.matches("CERTIFICATE FOR").count(), 1, "{shown:?}");
    // The row of who answered stands there before the other's deadline has passed.
    let row = shown.find("a.test and 2 more").unwrap();
    assert!(row < shown.find("no end to handshake").unwrap(), "{shown:?}");
    let (out, err) = place.scan(0, &[&good]);
    assert!(!out.contains("CERTIFICATE FOR") && !err.contains("left"), "{out}{err}");
}
