//! Verdicts over chains of every kind. Where OpenSSL has an opinion, `openssl verify` has the same one.

use std::process::Command;

use certbus_core::time::Timestamp;
use certbus_scan::roots::Roots;
use certbus_scan::verdict::{
    Extras, List, ListError, Problem, Revocation, Verdict, certificates, judge, signers, unlinked,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, CrlDistributionPoint,
    CustomExtension, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, KeyIdMethod, KeyPair, KeyUsagePurpose,
    NameConstraints, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName};

type Ca = CertifiedIssuer<'static, KeyPair>;

/// A root, an intermediate, and the day of the tests.
struct World {
    root: Ca,
    middle: Ca,
}

fn ca(name: &str, above: Option<&Ca>) -> Ca {
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    let key = KeyPair::generate().unwrap();
    match above {
        None => CertifiedIssuer::self_signed(params, key).unwrap(),
        Some(above) => CertifiedIssuer::signed_by(params, key, above).unwrap(),
    }
}

fn leaf(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.serial_number = Some(SerialNumber::from(4711));
    (params.not_before, params.not_after) = (date_time_ymd(2026, 1, 1), date_time_ymd(2026, 4, 11));
    params
}

fn signed(params: CertificateParams, by: &Ca) -> CertificateDer<'static> {
    params.signed_by(&KeyPair::generate().unwrap(), by).unwrap().der().clone()
}

fn day(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

impl World {
    fn new() -> Self {
        let root = ca("root", None);
        let middle = ca("middle", Some(&root));
        Self { root, middle }
    }

    fn judge(&self, chain: &[CertificateDer<'_>], now: &str, extras: &Extras<'_>) -> Verdict {
        let roots = Roots::from_pem(self.root.pem().as_bytes(), "roots.pem").unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        let verdict = judge(chain, Some(&name), &roots, extras, day(now));
        // What it was served with is what OpenSSL is given.
        if extras.crls.is_empty() && !matches!(&verdict.problems[..], [Problem::Usage { .. }]) {
            assert_eq!(self.openssl_agrees(chain, now), verdict.trusted, "{verdict:?}");
        }
        verdict
    }

    fn openssl_agrees(&self, chain: &[CertificateDer<'_>], now: &str) -> bool {
        self.openssl(chain, now, None).is_none()
    }

    /// What OpenSSL says against a chain; with a list, also whether that has the leaf.
    fn openssl(&self, chain: &[CertificateDer<'_>], now: &str, list: Option<&[u8]>) -> Option<String> {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, ders: &[CertificateDer<'_>]| {
            let pem = |der: &CertificateDer<'_>| {
                let text = data_encoding::BASE64_MIME.encode(der);
                format!("-----BEGIN CERTIFICATE-----\n{}-----END CERTIFICATE-----\n", text.replace('\r', ""))
            };
            std::fs::write(folder.path().join(name), ders.iter().map(pem).collect::<String>()).unwrap();
        };
        write("leaf.pem", &chain[..1]);
        write("others.pem", if chain.len() > 1 { &chain[1..] } else { chain });
        std::fs::write(folder.path().join("root.pem"), self.root.pem()).unwrap();
        let at = day(now).seconds().to_string();
        let arguments = ["verify", "-CAfile", "root.pem", "-no-CApath", "-no-CAstore", "-untrusted", "others.pem"];
        let more = ["-verify_hostname", "a.test", "-purpose", "sslserver", "-attime", &at, "leaf.pem"];
        let mut command = Command::new("openssl");
        if let Some(list) = list {
            let text = data_encoding::BASE64_MIME.encode(list).replace('\r', "");
            let pem = format!("-----BEGIN X509 CRL-----\n{text}-----END X509 CRL-----\n");
            std::fs::write(folder.path().join("list.pem"), pem).unwrap();
        }
        let of_list: &[&str] = if list.is_some() { &["-crl_check", "-CRLfile", "list.pem"] } else { &[] };
        let command = command.args(arguments).args(of_list).args(more).current_dir(folder.path());
        let output = command.output().unwrap();
        (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

#[test]
fn openssl_verify_agrees_about_what_is_trusted_and_the_verdict_says_why_not() {
    let world = World::new();
    let (middle, none) = (world.middle.der().clone(), Extras::default());
    let chain = |params| vec![signed(params, &world.middle), middle.clone()];
    let good = chain(leaf("a.test"));
    let problems = |chain: &[CertificateDer<'_>], now| world.judge(chain, now, &none).problems;

    assert_eq!(problems(&good, "2026-01-20"), []);
    assert_eq!(problems(&good, "2026-04-12"), [Problem::Expired]);
    assert_eq!(problems(&good, "2025-12-31"), [Problem::NotYetValid]);
    let wanted = "a.test".to_owned();
    assert_eq!(problems(&chain(leaf("b.test")), "2026-01-20"), [Problem::NameMismatch { wanted: wanted.clone() }]);
    // A wildcard directly below the top is for nobody.
    assert_eq!(problems(&chain(leaf("*.test")), "2026-01-20"), [Problem::NameMismatch { wanted: wanted.clone() }]);
    // Expired and for another name: both are said.
    let both = [Problem::Expired, Problem::NameMismatch { wanted }];
    assert_eq!(problems(&chain(leaf("b.test")), "2027-01-01"), both);

    let mut client = leaf("a.test");
    client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let verdict = world.judge(&chain(client), "2026-01-20", &none);
    assert!(matches!(&verdict.problems[..], [Problem::Usage { .. }]) && !verdict.trusted, "{verdict:?}");
    assert!(verdict.leaf.unwrap().client_auth);

    let mut itself = leaf("a.test");
    itself.distinguished_name.push(rcgen::DnType::OrganizationName, "itself");
    let itself = itself.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone();
    assert_eq!(problems(&[itself], "2026-01-20"), [Problem::SelfSigned]);

    let other = World::new();
    let strange = [signed(leaf("a.test"), &other.middle), other.middle.der().clone()];
    assert_eq!(problems(&strange, "2026-01-20"), [Problem::UntrustedRoot { issuer: "CN=root".into() }]);
    let with_root = [strange.to_vec(), vec![other.root.der().clone()]].concat();
    assert_eq!(problems(&with_root, "2026-01-20"), [Problem::UntrustedRoot { issuer: "CN=root".into() }]);
    // In any order, and with what does not belong there: trusted all the same.
    let jumbled = [good[0].clone(), ca("stranger", None).der().clone(), middle.clone()];
    assert_eq!(problems(&jumbled, "2026-01-20"), []);
}

#[test]
fn a_missing_intermediate_is_named_and_what_was_fetched_mends_it_or_not() {
    let world = World::new();
    let alone = [signed(leaf("a.test"), &world.middle)];
    let missing = |extras| match &world.judge(&alone, "2026-01-20", &extras).problems[..] {
        [Problem::MissingIntermediate { issuer, mends, .. }] => (issuer.clone(), *mends),
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(Extras::default()), ("CN=middle".into(), None));
    let fetched = |der: &CertificateDer<'static>| Extras { intermediates: vec![der.clone()], ..Extras::default() };
    assert_eq!(missing(fetched(world.middle.der())), ("CN=middle".into(), Some(true)));
    assert_eq!(missing(fetched(World::new().middle.der())), ("CN=middle".into(), Some(false)));
}

#[test]
fn a_leaf_that_is_itself_a_trusted_root_is_trusted() {
    let itself = leaf("a.test").self_signed(&KeyPair::generate().unwrap()).unwrap();
    let roots = Roots::from_pem(itself.pem().as_bytes(), "own.pem").unwrap();
    let name = ServerName::try_from("a.test").unwrap();
    let chain = [itself.der().clone()];
    let verdict = judge(&chain, Some(&name), &roots, &Extras::default(), day("2026-01-20"));
    assert!(verdict.trusted, "{verdict:?}");
    let verdict = judge(&chain, Some(&name), &Roots::mozilla(), &Extras::default(), day("2026-01-20"));
    assert_eq!(verdict.problems, [Problem::SelfSigned]);
}

fn crl(by: &Ca, serials: &[u64], until: i32) -> CertificateRevocationListDer<'static> {
    let params = CertificateRevocationListParams {
        this_update: date_time_ymd(2026, 1, 1),
        next_update: date_time_ymd(until, 2, 1),
        crl_number: SerialNumber::from(1),
        issuing_distribution_point: None,
        revoked_certs: serials
            .iter()
            .map(|serial| RevokedCertParams {
                serial_number: SerialNumber::from(*serial),
                revocation_time: date_time_ymd(2026, 1, 10),
                reason_code: None,
                invalidity_date: None,
            })
            .collect(),
        key_identifier_method: KeyIdMethod::Sha256,
    };
    params.signed_by(by).unwrap().der().clone()
}

fn read(list: &[u8]) -> List {
    List::read(list, usize::MAX).unwrap()
}

#[test]
fn what_is_no_list_or_takes_too_much_memory_is_not_read() {
    let list = crl(&World::new().root, &(0..1000).collect::<Vec<_>>(), 2027);
    let takes = read(&list).takes();
    assert!(takes > 100 * 1000 && takes < 300 * 1000, "{takes}");
    assert_eq!(List::read(&list, takes - 1).unwrap_err(), ListError::TooLarge(takes));
    for none in [&b"<html>not found</html>"[..], b"", &list[..list.len() - 1]] {
        assert_eq!(List::read(none, usize::MAX).unwrap_err(), ListError::NoList);
    }
}

#[test]
fn a_certificate_is_revoked_by_the_list_of_its_issuer_and_of_no_other() {
    let world = World::new();
    let mut params = leaf("a.test");
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec!["http://crl.test/1".into()] }];
    let chain = [signed(params, &world.middle), world.middle.der().clone()];
    assert_eq!(certbus_scan::verdict::links(&chain[0]).crls, ["http://crl.test/1"]);
    let verdict =
        |crl: Vec<u8>| world.judge(&chain, "2026-01-20", &Extras { crls: vec![&read(&crl)], ..Extras::default() });
    let seen = verdict(crl(&world.middle, &[4711], 2027).to_vec());
    assert_eq!(seen.revocation, Some(Revocation::Revoked { since: Some(day("2026-01-10")) }));
    assert_eq!((seen.trusted, seen.problems), (false, vec![Problem::Revoked]));
    let seen = verdict(crl(&world.middle, &[4712], 2027).to_vec());
    assert_eq!((seen.trusted, seen.revocation), (true, Some(Revocation::Good)));
    // Another CA's list, and one that is too old, say nothing.
    for silent in [crl(&world.root, &[4711], 2027), crl(&world.middle, &[], 2026)] {
        let now = "2026-03-01";
        let seen = world.judge(&chain, now, &Extras { crls: vec![&read(&silent)], ..Extras::default() });
        assert!(matches!(seen.revocation, Some(Revocation::Unknown { .. })) && seen.trusted, "{seen:?}");
    }
}

#[test]
fn life_is_told_in_days_and_as_a_part_and_overdue_follows_from_the_part() {
    let world = World::new();
    let chain = [signed(leaf("a.test"), &world.middle), world.middle.der().clone()];
    for (now, days, part, overdue) in [
        ("2026-01-01", 100.0, 1.0, false),
        ("2026-03-02", 40.0, 0.4, false),
        ("2026-03-12", 30.0, 0.3, true),
        ("2026-04-21", -10.0, -0.1, true),
    ] {
        let verdict = world.judge(&chain, now, &Extras::default());
        assert_eq!((verdict.days_left, verdict.life_left, verdict.overdue), (Some(days), Some(part), overdue), "{now}");
    }
    let mut short = leaf("a.test");
    short.not_after = date_time_ymd(2026, 1, 7);
    let chain = [signed(short, &world.middle), world.middle.der().clone()];
    assert!(!world.judge(&chain, "2026-01-03", &Extras::default()).overdue);
    assert!(world.judge(&chain, "2026-01-05", &Extras::default()).overdue);
}

#[test]
fn weak_keys_and_signatures_are_named_and_what_does_not_parse_is_no_panic() {
    let folder = tempfile::tempdir().unwrap();
    let make = |arguments: &str| {
        let fixed =
            "req -x509 -nodes -keyout /dev/null -days 30 -outform DER -addext subjectAltName=DNS:a.test -out out.der";
        let mut command = Command::new("openssl");
        let ran =
            command.args(fixed.split(' ')).args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        CertificateDer::from(std::fs::read(folder.path().join("out.der")).unwrap())
    };
    let judge = |der: CertificateDer<'static>| {
        let verdict = judge(&[der], None, &Roots::mozilla(), &Extras::default(), day("2030-01-01"));
        verdict.problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
    };
    assert!(judge(make("-newkey rsa:1024 -subj /CN=short")).contains("weak key (RSA 1024 of CN=short)"));
    assert!(!judge(make("-newkey rsa:2048 -subj /CN=long")).contains("weak"));
    assert_eq!(judge(CertificateDer::from(crate::tls::der_of(300))), "invalid: the first certificate does not parse");
    // Signed by another with SHA-1.
    let world = World::new();
    std::fs::write(folder.path().join("ca.pem"), world.middle.pem()).unwrap();
    std::fs::write(folder.path().join("ca.key"), world.middle.key().serialize_pem()).unwrap();
    let run = |arguments: &str| {
        let ran = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    };
    run("req -newkey rsa:2048 -nodes -keyout k.pem -subj /CN=old -out r.pem");
    run("x509 -req -in r.pem -CA ca.pem -CAkey ca.key -sha1 -days 9 -outform DER -out out.der");
    let old = CertificateDer::from(std::fs::read(folder.path().join("out.der")).unwrap());
    assert!(judge(old).contains("weak signature (ecdsa-with-SHA1 on CN=old)"));
}

#[test]
fn nobody_is_trusted_for_a_purpose_that_hides_who_signed_and_openssl_verify_agrees() {
    let (world, none) = (World::new(), Extras::default());
    // Signed by somebody else, and good for anything.
    let mut any = leaf("a.test");
    any.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any];
    let evil = ca("evil", None);
    let verdict = world.judge(&[signed(any.clone(), &evil), evil.der().clone()], "2026-01-20", &none);
    assert!(!verdict.trusted && !verdict.problems.is_empty(), "{verdict:?}");
    // Also where a trusted one signed it: servers are for server authentication.
    let verdict = world.judge(&[signed(any, &world.middle), world.middle.der().clone()], "2026-01-20", &none);
    assert!(matches!(verdict.problems[..], [Problem::Usage { .. }]), "{verdict:?}");
    // An intermediate that may sign for mail alone.
    let mut params = CertificateParams::new(vec![]).unwrap();
    params.distinguished_name.push(rcgen::DnType::CommonName, "mail only");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::EmailProtection];
    (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
    let mail = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &world.root).unwrap();
    let verdict = world.judge(&[signed(leaf("a.test"), &mail), mail.der().clone()], "2026-01-20", &none);
    assert!(!verdict.trusted, "{verdict:?}");
}

#[test]
fn a_link_above_what_was_served_mends_a_chain_and_a_served_root_does_not_hide_where_it_is() {
    let world = World::new();
    let lower = ca("lower", Some(&world.middle));
    let mut params = leaf("a.test");
    let aia = |url: &str| {
        let name = [&[0x86, url.len() as u8][..], url.as_bytes()].concat();
        let access = [&[6, 8, 0x2b, 6, 1, 5, 5, 7, 0x30, 2][..], &name].concat();
        let one = [&[0x30, access.len() as u8][..], &access].concat();
        CustomExtension::from_oid_content(&[1, 3, 6, 1, 5, 5, 7, 1, 1], [&[0x30, one.len() as u8][..], &one].concat())
    };
    params.custom_extensions.push(aia("http://a.test/lower"));
    let alone = signed(params, &lower);
    // The leaf and the one above it are served, and the next is not.
    let chain = [alone.clone(), lower.der().clone()];
    assert_eq!(unlinked(&chain), Some(lower.der()));
    let problems = |chain: &[CertificateDer<'_>], fetched: &[&CertificateDer<'static>]| {
        let intermediates = fetched.iter().map(|one| (*one).clone()).collect();
        world.judge(chain, "2026-01-20", &Extras { intermediates, ..Extras::default() }).problems
    };
    assert_eq!(problems(&chain, &[]), [Problem::UntrustedRoot { issuer: "CN=middle".into() }]);
    let missing = |issuer: &str, aia: Option<&str>, mends| {
        [Problem::MissingIntermediate { issuer: issuer.into(), aia: aia.map(Into::into), mends }]
    };
    assert_eq!(problems(&chain, &[world.middle.der()]), missing("CN=middle", None, Some(true)));
    // The root is served, and what stands between is not: the leaf says where that is.
    let with_root = [alone.clone(), world.root.der().clone()];
    assert_eq!(unlinked(&with_root), Some(&alone));
    let from = Some("http://a.test/lower");
    assert_eq!(problems(&with_root, &[lower.der(), world.middle.der()]), missing("CN=lower", from, Some(true)));
    assert_eq!(problems(&with_root, &[lower.der()]), missing("CN=lower", from, Some(false)));
    // Below a root that nobody trusts, which another has signed too.
    let other = World::new();
    let below = [signed(leaf("a.test"), &other.middle), other.middle.der().clone(), other.root.der().clone()];
    assert_eq!(unlinked(&below), Some(other.middle.der()));
}

#[test]
fn bundles_that_openssl_makes_are_read_and_the_issuer_is_found_among_them() {
    let world = World::new();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("all.pem"), world.root.pem() + &world.middle.pem()).unwrap();
    let run = |arguments: &str| {
        let ran = Command::new("openssl").args(arguments.split(' ')).current_dir(folder.path()).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    };
    run("crl2pkcs7 -nocrl -certfile all.pem -outform DER -out all.p7c");
    run("x509 -in all.pem -outform DER -out root.der");
    let read = |name: &str| certificates(&std::fs::read(folder.path().join(name)).unwrap());
    let (root, middle) = (world.root.der().clone(), world.middle.der().clone());
    assert_eq!(read("all.p7c"), [root.clone(), middle.clone()]);
    assert_eq!(read("all.pem"), [root.clone(), middle.clone()]);
    assert_eq!(read("root.der"), [root]);
    let below = |by: &Ca| [signed(leaf("a.test"), by)];
    assert_eq!(signers(&below(&world.middle), &read("all.p7c")), [&middle]);
    assert!(signers(&below(&ca("other", None)), &read("all.p7c")).is_empty());
    // Another may have the name, but not the key; the same key may have two certificates.
    let namesake = World::new().middle.der().clone();
    let mut again = CertificateParams::new(vec![]).unwrap();
    again.distinguished_name.push(rcgen::DnType::CommonName, "middle");
    let again = again.signed_by(world.middle.key(), &ca("elsewhere", None)).unwrap().der().clone();
    let among = [namesake, middle.clone(), again.clone()];
    assert_eq!(signers(&below(&world.middle), &among), [&middle, &again]);
    assert_eq!(certificates(b"<html>not found</html>"), []);
}

#[test]
fn openssl_verify_finds_the_same_fault_in_lists_that_are_old_or_forged() {
    let world = World::new();
    let mut params = leaf("a.test");
    params.crl_distribution_points = vec![CrlDistributionPoint { uris: vec!["http://crl.test/1".into()] }];
    let chain = [signed(params, &world.middle), world.middle.der().clone()];
    // Of the issuer's name, and signed by somebody else.
    let forger = World::new().middle;
    let mut tampered = crl(&world.middle, &[4712], 2027).to_vec();
    *tampered.last_mut().unwrap() ^= 1;
    for (list, fault, theirs) in [
        (crl(&world.middle, &[4712], 2027), None, None),
        (crl(&world.middle, &[4711], 2027), Some("revoked"), Some("certificate revoked")),
        (crl(&world.middle, &[], 2026), Some("the list is out of date"), Some("CRL has expired")),
        (tampered.into(), Some("signature is wrong"), Some("CRL signature failure")),
        (crl(&forger, &[4711], 2027), Some("signature is wrong"), Some("unable to get certificate CRL")),
    ] {
        let now = "2026-03-01";
        let said = world.openssl(&chain, now, Some(&list));
        assert_eq!(said.is_some(), theirs.is_some(), "{fault:?}: {said:?}");
        assert!(said.iter().all(|said| said.contains(theirs.unwrap())), "{fault:?}: {said:?}");
        let verdict = world.judge(&chain, now, &Extras { crls: vec![&read(&list)], ..Extras::default() });
        match (fault, verdict.revocation.unwrap()) {
            (None, Revocation::Good) => assert!(verdict.trusted),
            (Some("revoked"), Revocation::Revoked { .. }) => assert!(!verdict.trusted),
            // A list that says nothing takes nobody's trust, and is told.
            (Some(words), Revocation::Unknown { why }) => assert!(why.contains(words) && verdict.trusted, "{why}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn openssl_verify_agrees_about_names_that_a_ca_may_not_sign_for() {
    let world = World::new();
    let constrained = |permitted: &[&str], excluded: &[&str]| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, "constrained");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let subtrees = |names: &[&str]| names.iter().map(|name| GeneralSubtree::DnsName((*name).into())).collect();
        let (permitted_subtrees, excluded_subtrees) = (subtrees(permitted), subtrees(excluded));
        params.name_constraints = Some(NameConstraints { permitted_subtrees, excluded_subtrees });
        (params.not_before, params.not_after) = (date_time_ymd(2020, 1, 1), date_time_ymd(2040, 1, 1));
        CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &world.root).unwrap()
    };
    for (permitted, excluded, trusted) in [
        (&["test"][..], &[][..], true),
        (&["a.test"], &[], true),
        (&["b.test"], &[], false),
        (&[], &["test"], false),
        (&[], &["b.test"], true),
        (&["test"], &["a.test"], false),
    ] {
        let by = constrained(permitted, excluded);
        // `judge` asks OpenSSL too.
        let verdict = world.judge(&[signed(leaf("a.test"), &by), by.der().clone()], "2026-01-20", &Extras::default());
        assert_eq!(verdict.trusted, trusted, "{permitted:?} {excluded:?}: {verdict:?}");
        let told = verdict.problems.iter().any(|one| one.to_string().contains("may not sign for this name"));
        assert_eq!(told, !trusted, "{verdict:?}");
    }
}
