//! What fuzzers feed, and the corpus that tests replay: each function takes any bytes and must return. No use otherwise.

use certbus_core::time::Timestamp;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::conversation::{Conversation, Topic, Way};
use crate::found::Proof;
use crate::offer::{Hello, Version};
use crate::roots::Roots;
use crate::spec::Spec;
use crate::starttls::Starttls;
use crate::verdict::{Extras, List, certificates, judge, links, signers, unlinked};

/// The first three bytes say protocol, way and size of the pieces; the rest is what the server sends.
pub fn conversation(data: &[u8]) {
    let Some((&[protocol, way, size], sent)) = data.split_first_chunk() else { return };
    let topic = Topic {
        host: "a.test",
        address: [127, 0, 0, 1].into(),
        port: 443,
        server_name: None,
        starttls: Starttls::ALL.get(usize::from(protocol)).copied(),
        hello: Hello { highest: if way & 8 == 0 { Version::Tls13 } else { Version::Tls12 }, ..Hello::ANY },
        way: match way & 3 {
            0 => Way::Clear,
            1 => Way::Combined,
            _ => Way::Full,
        },
        proof: if way & 4 == 0 { Proof::Presented } else { Proof::Finished },
    };
    let mut out = Vec::new();
    let Ok(mut conversation) = Conversation::start(&topic, [7; 64], &mut out) else { return };
    for piece in sent.chunks(usize::from(size).max(1)) {
        match conversation.read(&topic, &mut piece.to_vec(), &mut out) {
            Ok(None) => {}
            Ok(Some(_)) => return,
            Err(failure) => {
                let _ = conversation.presented(&failure.to_string());
                return;
            }
        }
        let _ = conversation.held();
    }
}

/// A chain of one or two certificates, split at a length that stands first, and the same bytes as a revocation list.
pub fn verdict(data: &[u8]) {
    let Some((length, ders)) = data.split_first_chunk() else { return };
    let (leaf, other) = ders.split_at(usize::from(u16::from_be_bytes(*length)).min(ders.len()));
    let chain = [CertificateDer::from(leaf), CertificateDer::from(other)];
    let list = List::read(other, usize::MAX).ok();
    let intermediates = vec![CertificateDer::from(other.to_vec())];
    let _ = signers(&chain, &intermediates).len();
    let extras = Extras { intermediates, crls: list.iter().collect(), ..Extras::default() };
    let name = ServerName::try_from("a.test").ok();
    let verdict = judge(&chain, name.as_ref(), &Roots::mozilla(), &extras, Timestamp::from_seconds(1_800_000_000));
    // What is not on Mozilla's list is trusted by nobody here.
    assert!(!verdict.trusted, "trusted out of nothing");
    let _ = links(&CertificateDer::from(leaf));
    let _ = (unlinked(&chain), certificates(other).len());
}

/// A target that is accepted can be counted, and its first address named.
pub fn spec(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(spec) = Spec::parse(text) {
        assert!(spec.count() > 0 && spec.each_port(443).next().is_some());
        let _ = spec.hosts.addresses().next();
    }
}
