//! The readers, byte by byte: however a flight is cut, it means the same; whatever the bytes, nothing panics.

use certbus_scan::conversation::{Conversation, Topic, Way};
use certbus_scan::failure::{Failure, Part};
use certbus_scan::found::{Found, Proof};
use certbus_scan::full::FullLook;
use certbus_scan::offer::Version;
use certbus_scan::starttls::Starttls;
use certbus_scan::verdict::certificates;
use proptest::prelude::*;
use rustls::pki_types::CertificateDer;

use crate::support::ANY;
use crate::tls::{self, TlsServer, quick};

/// Feeds a look in pieces of these sizes, again and again.
fn feed(version: Version, signed: bool, flight: &[u8], sizes: &[usize]) -> Result<Option<Found>, Failure> {
    let (mut look, _) = quick(version, signed);
    let mut rest = flight;
    let mut sizes = sizes.iter().cycle();
    while !rest.is_empty() {
        let (piece, after) = rest.split_at(rest.len().min(*sizes.next().unwrap()));
        rest = after;
        if let Some(found) = look.read(&mut piece.to_vec())? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn flight(version: Version) -> Vec<u8> {
    TlsServer::new(&[version]).flight(&quick(version, false).1)
}

fn versions() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::Tls12), Just(Version::Tls13)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn however_a_flight_is_cut_it_means_the_same(
        version in versions(),
        signed in any::<bool>(),
        sizes in proptest::collection::vec(1_usize..700, 1..8),
    ) {
        let flight = flight(version);
        let whole = feed(version, signed, &flight, &[flight.len()]).unwrap().unwrap();
        prop_assert_eq!(whole.proof, if signed { Proof::Signed } else { Proof::Presented });
        prop_assert_eq!(feed(version, signed, &flight, &sizes).unwrap().unwrap(), whole);
    }

    #[test]
    fn a_flight_of_tls_1_3_with_any_byte_changed_never_counts_as_signed(
        at in any::<prop::sample::Index>(),
        by in 1_u8..=255,
    ) {
        let mut flight = flight(Version::Tls13);
        let at = at.index(flight.len());
        flight[at] ^= by;
        if let Ok(Some(found)) = feed(Version::Tls13, true, &flight, &[flight.len()]) {
            // Only the headers of records in the clear are under no signature.
            prop_assert!(found.proof != Proof::Signed || is_record_header(&flight, at), "byte {at}");
        }
    }

    #[test]
    fn a_server_random_or_signature_of_tls_1_2_that_was_changed_never_counts_as_signed(
        at in prop_oneof![11_usize..43, 1000_usize..1030],
        by in 1_u8..=255,
    ) {
        let mut flight = flight(Version::Tls12);
        // From the end: ServerHelloDone (4 bytes), and before it the signature.
        let at = if at < 1000 { at } else { flight.len() - 4 - (at - 999) };
        flight[at] ^= by;
        let seen = feed(Version::Tls12, true, &flight, &[flight.len()]);
        prop_assert!(!matches!(&seen, Ok(Some(found)) if found.proof == Proof::Signed), "byte {at}");
    }

    #[test]
    fn no_bytes_make_a_look_panic(
        version in versions(),
        start in 0_usize..2000,
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
        sizes in proptest::collection::vec(1_usize..700, 1..4),
    ) {
        let mut flight = flight(version);
        flight.truncate(start);
        flight.extend(bytes);
        let _ = feed(version, true, &flight, &sizes);
    }

    #[test]
    fn no_bytes_make_a_dialogue_panic(
        protocol in prop::sample::select(Starttls::ALL.to_vec()),
        full in any::<bool>(),
        bytes in proptest::collection::vec(prop_oneof![any::<u8>(), prop::sample::select(b"2 5-0\r\nOK*<>a1+S".to_vec())], 0..300),
        size in 1_usize..50,
    ) {
        let topic = Topic {
            host: "a.test",
            address: [127, 0, 0, 1].into(),
            port: 1,
            server_name: None,
            starttls: Some(protocol),
            hello: ANY,
            way: if full { Way::Full } else { Way::Combined },
            proof: Proof::Finished,
        };
        let mut out = Vec::new();
        let mut conversation = Conversation::start(&topic, [1; 64], &mut out).unwrap();
        for piece in bytes.chunks(size) {
            if conversation.read(&topic, &mut piece.to_vec(), &mut out).is_err() {
                break;
            }
        }
    }
}

#[test]
fn a_signature_by_another_key_is_no_proof_and_the_certificate_is_shown_with_the_reason() {
    for version in [Version::Tls12, Version::Tls13] {
        let server = TlsServer::with_another_key(version);
        let flight = server.flight(&quick(version, true).1);
        let found = feed(version, true, &flight, &[flight.len()]).unwrap().unwrap();
        assert_eq!((found.proof, found.chain.len()), (Proof::Presented, 1));
        assert!(found.shortfall.unwrap().contains("not of the certificate's key"));
    }
}

/// Whether a byte lies in a header of a record that is in the clear, whose version nothing covers.
fn is_record_header(flight: &[u8], at: usize) -> bool {
    let mut begin = 0;
    while let Some(header) = flight.get(begin..begin + 5) {
        if (begin..begin + 5).contains(&at) {
            return true;
        }
        begin += 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
    }
    false
}

#[test]
fn what_a_server_sends_after_its_finished_does_not_keep_a_handshake_from_being_finished() {
    use std::io::Write;
    for (version, closes) in [(Version::Tls12, true), (Version::Tls12, false), (Version::Tls13, false)] {
        let mut server = TlsServer::new(&[version]).connection();
        let mut out = Vec::new();
        let address = std::net::IpAddr::from([127, 0, 0, 1]);
        let hello = crate::tls::only(version);
        let mut look = FullLook::start(&hello, None, address, false, Proof::Finished, &mut out).unwrap();
        let found = loop {
            let sent = std::mem::take(&mut out);
            let mut rest = &sent[..];
            while !rest.is_empty() {
                server.read_tls(&mut rest).unwrap();
                server.process_new_packets().unwrap();
            }
            // Said in one breath with its last words of the handshake.
            if version == Version::Tls13 || !server.is_handshaking() {
                if closes {
                    server.send_close_notify();
                }
                let _ = server.writer().write_all(&[b'x'; 40_000]);
            }
            let mut flight = Vec::new();
            while server.wants_write() {
                server.write_tls(&mut flight).unwrap();
            }
            if closes && !server.is_handshaking() {
                flight.extend([23, 3, 3, 0, 100].into_iter().chain([0; 100]));
            }
            if let Some(found) = look.read(&flight, &mut out).unwrap() {
                break found;
            }
        };
        assert_eq!(found.proof, Proof::Finished, "{version:?} {closes}");
    }
}

#[test]
fn a_message_in_the_clear_after_tls_1_3_was_agreed_on_is_refused() {
    let flight = flight(Version::Tls13);
    let hello = &flight[..5 + usize::from(flight[3]) * 256 + usize::from(flight[4])];
    let list = tls::message(11, &[&[0, 0, 0, 203, 0, 0, 198][..], &tls::der_of(198), &[0, 0]].concat());
    let clear = [tls::message(8, &[0, 0]), list].concat();
    // In records of its own, and in that of the hello.
    let in_one = tls::record(22, &[&hello[5..], &clear].concat());
    for flight in [[hello, &tls::record(22, &clear)].concat(), in_one] {
        let seen = feed(Version::Tls13, false, &flight, &[flight.len()]);
        let Err(Failure::Malformed { at: Part::Handshake, why }) = &seen else { panic!("{seen:?}") };
        assert!(why.contains("in the clear"), "{why}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn a_bundle_with_any_byte_changed_or_cut_at_any_is_read_or_not_and_panics_never(
        at in any::<prop::sample::Index>(),
        by in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let certificate = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        let certificate = certificate.cert.der().to_vec();
        let element = |tag: u8, inside: &[u8]| {
            [&[tag, 0x82, (inside.len() >> 8) as u8, inside.len() as u8][..], inside].concat()
        };
        let data = [&[2, 1, 1, 0x31, 0, 0x30, 0][..], &element(0xa0, &[&certificate[..], &certificate].concat())].concat();
        let content = element(0xa0, &element(0x30, &data));
        let oid = [6, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
        let mut bundle = element(0x30, &[&oid[..], &content].concat());
        prop_assert_eq!(certificates(&bundle), vec![certificate.clone().into(), certificate.into()] as Vec<CertificateDer<'_>>);
        let at = at.index(bundle.len());
        bundle[at] = by;
        for one in certificates(&bundle[..cut.index(bundle.len() + 1)]).iter().chain(&certificates(&bundle)) {
            prop_assert!(one.len() <= bundle.len());
        }
    }

    #[test]
    fn whatever_stands_at_an_address_is_read_without_a_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = certificates(&body);
    }
}
