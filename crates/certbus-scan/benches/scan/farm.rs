//! Certificates for thousands of endpoints, of the sizes that public CAs issue, and an nginx that serves them.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, IsCa, KeyPair, KeyUsagePurpose};

/// Writes `NUMBER.pem`, one key, `servers.conf` and `targets.txt`: addresses from `first`, all on `port`.
pub(crate) fn make(folder: &str, count: u32, first: &str, port: u16) {
    let folder = Path::new(folder);
    std::fs::create_dir_all(folder).unwrap();
    let authority = |name: &str| {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params
    };
    let root = CertifiedIssuer::self_signed(authority("farm root"), KeyPair::generate().unwrap()).unwrap();
    let mut params = authority("farm intermediate");
    params.custom_extensions.push(padding(550));
    let issuer = CertifiedIssuer::signed_by(params, KeyPair::generate().unwrap(), &root).unwrap();
    let key = KeyPair::generate().unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
    std::fs::write(folder.join("root.pem"), root.pem()).unwrap();
    let first: Ipv4Addr = first.parse().unwrap();
    let (mut servers, mut targets) = (String::new(), String::new());
    for number in 0..count {
        let address = Ipv4Addr::from_bits(first.to_bits() + number);
        let mut params = CertificateParams::new(vec![format!("n{number}.farm.test"), address.to_string()]).unwrap();
        // What public certificates carry: proofs of logging, policies, addresses.
        params.custom_extensions.push(padding(480));
        let leaf = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(folder.join(format!("{number}.pem")), leaf.pem() + &issuer.pem()).unwrap();
        let at = folder.display();
        writeln!(
            servers,
            "server {{ listen {address}:{port} ssl; ssl_certificate {at}/{number}.pem; ssl_certificate_key {at}/key.pem; return 200; }}"
        )
        .unwrap();
        writeln!(targets, "{address}:{port}").unwrap();
    }
    std::fs::write(folder.join("servers.conf"), servers).unwrap();
    std::fs::write(folder.join("targets.txt"), targets).unwrap();
}

fn padding(length: usize) -> CustomExtension {
    CustomExtension::from_oid_content(
        &[1, 3, 6, 1, 4, 1, 55555, 1],
        [&[4, 0x82, (length >> 8) as u8, length as u8], &vec![7; length][..]].concat(),
    )
}
