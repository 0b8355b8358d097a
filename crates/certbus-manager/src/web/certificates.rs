//! One certificate: every field that a person looks for, its chain, its PEM and DER, and where it was seen.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use certbus_core::certificate::Facts;
use certbus_core::id::Fingerprint;
use certbus_store::kept::Kept;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::Face;
use super::asker::Asker;
use super::fault::Fault;
use super::page::{self, Frame, When, when};
use super::rows::node_words;
use crate::clock;

/// Places that are listed.
const PLACES: i64 = 200;

#[derive(Template)]
#[template(path = "certificate.html")]
struct CertificatePage {
    frame: Frame,
    facts: Facts,
    fields: Vec<(&'static str, String)>,
    begins: When,
    ends: When,
    kind: &'static str,
    life: String,
    managed: Option<String>,
    chain: Vec<(String, String, When)>,
    places: Vec<Place>,
    pem: String,
}

struct Place {
    endpoint: i64,
    name: String,
    node: String,
    still: bool,
    first: When,
    last: When,
}

pub(super) async fn kept(face: &Face, fingerprint: &str) -> Result<(Fingerprint, Kept), Fault> {
    let parsed: Result<Fingerprint, _> = fingerprint.to_lowercase().parse();
    let fingerprint = parsed.map_err(|error| Fault::missing(error.to_string()))?;
    let kept = face.store.certificate(fingerprint).await?;
    Ok((fingerprint, kept.ok_or_else(|| Fault::missing(format!("no certificate {fingerprint} was seen or issued")))?))
}

pub(super) async fn show(
    State(face): State<Face>,
    Extension(asker): Extension<Asker>,
    Path(fingerprint): Path<String>,
) -> Result<Response, Fault> {
    let now = clock::now();
    let (fingerprint, kept) = kept(&face, &fingerprint).await?;
    let facts = Facts::read(&kept.der);
    let places = face.store.seen_at(fingerprint, PLACES).await?;
    let life = facts.not_after.since(facts.not_before);
    let left = facts.not_after.since(now.max(facts.not_before));
    let part = if life.is_zero() { 0.0 } else { left.as_secs_f64() / life.as_secs_f64() * 100.0 };
    let kind = match part {
        part if part <= 0.0 => "bad",
        part if part < 33.4 => "warn",
        _ => "good",
    };
    let place = |one: certbus_store::kept::SeenAt| Place {
        endpoint: one.endpoint,
        name: one.name,
        node: node_words(&one.address, &one.site),
        still: one.still,
        first: when(one.first, now),
        last: when(one.last, now),
    };
    let link = |der: &Vec<u8>| {
        let facts = Facts::read(der);
        (facts.subject, facts.fingerprint.to_string(), when(facts.not_after, now))
    };
    let title = facts.names.first().cloned().unwrap_or_else(|| facts.subject.clone());
    page::rendered(&CertificatePage {
        frame: Frame::new(title, "endpoints", &asker),
        fields: fields(&kept.der, &facts),
        begins: when(facts.not_before, now),
        ends: when(facts.not_after, now),
        kind,
        life: format!("{part:.0} % of {} left", days(life.as_secs())),
        managed: kept.managed.as_deref().and_then(|text| text.split_once('/')).map(|(_, id)| id.to_owned()),
        chain: kept.chain.iter().map(link).collect(),
        places: places.into_iter().map(place).collect(),
        pem: pem_of(&kept),
        facts,
    })
}

fn days(seconds: u64) -> String {
    if seconds < 864_000 { format!("{} h", seconds / 3600) } else { format!("{} days", seconds / 86_400) }
}

/// What else a person looks for, as far as the certificate says it.
fn fields(der: &[u8], facts: &Facts) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("Subject", facts.subject.clone()),
        ("Issuer", facts.issuer.clone()),
        ("Serial", facts.serial.clone()),
        ("Key", facts.key.clone()),
        ("Signature", facts.signature.clone()),
        ("SHA-256", facts.fingerprint.to_string()),
        ("SHA-256 of its key", facts.spki.to_string()),
    ];
    let Ok((_, parsed)) = X509Certificate::from_der(der) else { return fields };
    if let Ok(Some(usage)) = parsed.key_usage() {
        fields.push(("Key usage", usage.value.to_string()));
    }
    if let Ok(Some(usage)) = parsed.extended_key_usage() {
        let usage = usage.value;
        let all = [
            (usage.server_auth, "server authentication"),
            (usage.client_auth, "client authentication"),
            (usage.any, "any"),
        ];
        let words: Vec<&str> = all.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
        fields.push(("For", words.join(", ")));
    }
    if let Ok(Some(basic)) = parsed.basic_constraints() {
        fields.push(("A CA's", if basic.value.ca { "yes" } else { "no" }.to_owned()));
    }
    fields.retain(|(_, value)| !value.is_empty());
    fields
}

fn pem_of(kept: &Kept) -> String {
    let one = |der: &Vec<u8>| {
        let text = data_encoding::BASE64.encode(der);
        let lines: Vec<&str> = text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    std::iter::once(&kept.der).chain(&kept.chain).map(one).collect()
}

pub(super) async fn pem(State(face): State<Face>, Path(fingerprint): Path<String>) -> Result<Response, Fault> {
    let (fingerprint, kept) = kept(&face, &fingerprint).await?;
    Ok(page::download(pem_of(&kept), "application/x-pem-file", &format!("{fingerprint}.pem")))
}

pub(super) async fn der(State(face): State<Face>, Path(fingerprint): Path<String>) -> Result<Response, Fault> {
    let (fingerprint, kept) = kept(&face, &fingerprint).await?;
    Ok(page::download(kept.der, "application/pkix-cert", &format!("{fingerprint}.der")))
}
