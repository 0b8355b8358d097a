//! Which versions are deployed, and how many rounds a change is worth.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use certbus_agent::{Agent, Target, TargetSettings};
use certbus_core::id::Fingerprint;
use certbus_core::x509::ParsedChain;

use crate::shop::{Flaw, Shop};

/// Beside the client's folder, which the shop has.
fn target(folder: &Path, more: &str) -> Vec<Target> {
    let text = format!("kind = \"files\"\ncombined = \"{}/certs/{{name}}.pem\"\n{more}", folder.display());
    let settings: TargetSettings = toml::from_str(&text).unwrap();
    Target::parse_all(&[settings]).unwrap()
}

/// The version in a file.
fn lies(folder: &Path, name: &str) -> Option<Fingerprint> {
    let text = std::fs::read_to_string(folder.join(format!("certs/{name}.pem"))).ok()?;
    let chain = text.get(text.find("-----BEGIN CERTIFICATE")?..)?;
    Some(ParsedChain::parse(chain).unwrap().fingerprint)
}

async fn agent(shop: &Shop, more: &str) -> Arc<Agent> {
    let client = shop.client();
    shop.settle(&client).await;
    Agent::open(client, target(shop.folder.path(), more), shop.folder.path()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_5_a_version_that_does_not_hold_is_not_deployed_and_the_one_before_stays() {
    for flaw in [Flaw::OtherKey, Flaw::OtherNames, Flaw::Garbage] {
        let mut shop = Shop::new().await;
        let good = shop.good(1, &["example.com"]).await;
        agent(&shop, "").await.once().await.unwrap();
        shop.issue(1, &["example.com"], (-1, 89), flaw).await;
        let round = agent(&shop, "").await.once().await.unwrap().remove(0);
        assert_eq!((round.written, round.failures.len()), (0, 0));
        assert_eq!(lies(shop.folder.path(), "example.com"), Some(good));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_managed_certificates_for_the_same_names_the_newer_version_is_deployed() {
    let mut shop = Shop::new().await;
    shop.good(1, &["example.com", "www.example.com"]).await;
    let newer = shop.good(2, &["example.com", "www.example.com"]).await;
    agent(&shop, "").await.once().await.unwrap();
    assert_eq!(lies(shop.folder.path(), "example.com"), Some(newer));
    let newest = shop.good(1, &["example.com", "www.example.com"]).await;
    agent(&shop, "").await.once().await.unwrap();
    assert_eq!(lies(shop.folder.path(), "example.com"), Some(newest));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_renewals_in_a_moment_are_one_check_and_one_reload() {
    let mut shop = Shop::new().await;
    let names: Vec<String> = (0..200).map(|n| format!("m{n}.example.com")).collect();
    for (id, name) in names.iter().enumerate() {
        shop.good(id as u8, &[name]).await;
    }
    let calls = shop.folder.path().join("calls");
    let count = |word: &str| format!("{word} = [\"sh\", \"-c\", \"echo {word} >> {}\"]\n", calls.display());
    let said = || std::fs::read_to_string(&calls).unwrap_or_default();
    let client = shop.client();
    shop.settle(&client).await;
    let targets = target(shop.folder.path(), &format!("{}{}", count("check"), count("reload")));
    let agent = Agent::open(client.clone(), targets, shop.folder.path()).unwrap();
    tokio::spawn(client.clone().follow(shop.log.clone(), shop.log.clone()));
    tokio::spawn(async move { agent.run(std::future::pending(), |_| ()).await });
    until(|| said().matches("reload").count() == 1).await;
    let begun = Instant::now();
    let last = renew_all(&mut shop, &names).await;
    // A pause of a tenth of a second begins a round: on a machine that is busy elsewhere the moment has some.
    let rounds = 2 + begun.elapsed().as_millis() as usize / 100;
    until(|| last.iter().all(|(name, version)| lies(shop.folder.path(), name) == Some(*version))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (checks, reloads) = (said().matches("check").count(), said().matches("reload").count());
    assert!(checks == reloads && (2..=rounds).contains(&reloads), "{reloads} reloads, {checks} checks, not {rounds}");
}

/// Made before, so that they come within the moment.
async fn renew_all(shop: &mut Shop, names: &[String]) -> Vec<(String, Fingerprint)> {
    use certbus_core::event::{CertificateOffered, Event};
    let made: Vec<_> =
        names.iter().enumerate().map(|(id, name)| shop.make(id as u8, &[name], (-1, 89), Flaw::None)).collect();
    let mut versions = Vec::new();
    for obtained in made {
        let (certificate, version) = (obtained.certificate, obtained.version);
        versions.push((obtained.names[0].to_string(), version));
        let offered = CertificateOffered { certificate, version, to: None };
        shop.append(vec![Event::CertificateObtained(Arc::new(obtained)), Event::CertificateOffered(offered)]).await;
    }
    versions
}

/// Invariant 1: at no moment is there a file with a key that others may read, under its name or another.
#[tokio::test(flavor = "multi_thread")]
async fn invariant_1_a_staged_file_is_its_owners_alone_from_its_creation() {
    let mut shop = Shop::new().await;
    for id in 0..100 {
        shop.good(id, &[&format!("m{id}.example.com")]).await;
    }
    let agent = agent(&shop, "mode = \"0600\"\n").await;
    let certs = shop.folder.path().join("certs");
    std::fs::create_dir(&certs).unwrap();
    let working = tokio::spawn(async move { agent.once().await.unwrap() });
    let mut looked = 0;
    while !working.is_finished() {
        for entry in std::fs::read_dir(&certs).unwrap() {
            let Ok(metadata) = entry.unwrap().metadata() else { continue };
            assert_eq!(metadata.permissions().mode() & 0o077, 0);
            looked += 1;
        }
    }
    assert!(looked > 0 && working.await.unwrap().remove(0).written == 100);
}

async fn until(mut done: impl FnMut() -> bool) {
    for _ in 0..500 {
        if done() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not within 10 s");
}
