//! What is on disk: sealed, whole, and never worse than it was.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use certbus_client::Client;

use crate::shop::{Shop, answer};

/// A folder whose snapshot holds everything and whose tail is empty: a reload writes one.
async fn packed(shop: &mut Shop) -> Vec<u8> {
    let start = certbus_core::chain::Chain::new(certbus_core::id::StreamKind::Certs, shop.world.pins());
    let key = certbus_core::testing::identity(certbus_core::identity::Role::Manager, "first", 2);
    let made = certbus_bus::compact::publish(&*shop.log, &*shop.log, start, key.sign.as_ref().unwrap(), shop.world.now);
    let manifest = made.await.unwrap().unwrap();
    certbus_bus::compact::trim(&*shop.log, &manifest).await.unwrap();
    let client = shop.client();
    shop.settle(&client).await;
    fs::read(shop.folder.path().join("certs.snapshot")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn invariant_1_no_private_key_is_in_the_clear_on_disk_and_files_are_the_owners_alone() {
    let mut shop = Shop::new().await;
    shop.good(1, &["example.com"]).await;
    packed(&mut shop).await;
    shop.good(2, &["b.example.com"]).await;
    let client = shop.client();
    shop.settle(&client).await;
    let key = client.resolver().certified_key("b.example.com", crate::shop::now()).unwrap();
    assert!(key.keys_match().is_ok());
    assert_eq!(fs::metadata(shop.folder.path().join("certs.snapshot")).unwrap().permissions().mode() & 0o777, 0o600);
    for file in ["certs.snapshot", "certs.tail"] {
        let path = shop.folder.path().join(file);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600, "{file}");
        let text = String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned();
        assert!(text.contains("CertificateObtained") && !text.contains("PRIVATE KEY"), "{file}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_cut_anywhere_is_named_and_never_served_wrong() {
    let mut shop = Shop::new().await;
    let version = shop.good(1, &["example.com"]).await;
    let whole = packed(&mut shop).await;
    let path = shop.folder.path().join("certs.snapshot");
    for cut in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
        let _ = fs::remove_file(shop.folder.path().join("certs.snapshot.previous"));
        fs::write(&path, &whole[..cut]).unwrap();
        let client = shop.client();
        assert_eq!(answer(&client, "example.com"), None);
        let damaged = client.status().damaged.expect("named");
        assert!(damaged.contains("certs.snapshot"), "{damaged}");
    }
    // With the one before it at hand, that one serves.
    fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    fs::write(shop.folder.path().join("certs.snapshot.previous"), &whole).unwrap();
    assert_eq!(answer(&shop.client(), "example.com"), Some(version));
    assert!(shop.folder.path().join("certs.snapshot.damaged").exists());
    // And with neither, the log gives everything back.
    fs::remove_file(shop.folder.path().join("certs.snapshot.previous")).unwrap();
    let _ = fs::remove_file(&path);
    let client = shop.client();
    shop.settle(&client).await;
    assert_eq!(answer(&client, "example.com"), Some(version));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flipped_in_a_snapshot_never_serves_another_key() {
    let mut shop = Shop::new().await;
    let version = shop.good(1, &["example.com"]).await;
    let whole = packed(&mut shop).await;
    let path = shop.folder.path().join("certs.snapshot");
    for at in (0..whole.len()).step_by(31) {
        let mut bent = whole.clone();
        bent[at] ^= 4;
        fs::write(&path, &bent).unwrap();
        let _ = fs::remove_file(shop.folder.path().join("certs.snapshot.previous"));
        if let Ok(client) = Client::open(shop.node(), vec![], shop.folder.path()) {
            assert!([None, Some(version)].contains(&answer(&client, "example.com")), "byte {at}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_written_tail_is_read_up_to_its_last_whole_batch() {
    let mut shop = Shop::new().await;
    let first = shop.good(1, &["example.com"]).await;
    let client = shop.client();
    shop.settle(&client).await;
    shop.good(1, &["example.com"]).await;
    shop.settle(&client).await;
    drop(client);
    let path = shop.folder.path().join("certs.tail");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 100]).unwrap();
    let client = shop.client();
    assert_eq!(answer(&client, "example.com"), Some(first));
    shop.settle(&client).await;
    assert_ne!(answer(&client, "example.com"), Some(first), "read again from the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_cannot_be_written_does_not_stop_serving_what_is_new() {
    let mut shop = Shop::new().await;
    shop.good(1, &["example.com"]).await;
    let client = shop.client();
    shop.settle(&client).await;
    // The folder is taken away under its feet: neither tail nor snapshot can be made anew.
    fs::remove_dir_all(shop.folder.path()).unwrap();
    fs::write(shop.folder.path(), "a file where the folder was").unwrap();
    let mut last = None;
    for _ in 0..3 {
        last = Some(shop.good(1, &["example.com"]).await);
        shop.settle(&client).await;
    }
    assert_eq!(answer(&client, "example.com"), last);
    fs::remove_file(shop.folder.path()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bit_flipped_in_a_record_is_named_and_the_name_is_served_again_from_the_log() {
    let mut shop = Shop::new().await;
    let version = shop.good(1, &["example.com"]).await;
    shop.good(2, &["other.example.com"]).await;
    let whole = packed(&mut shop).await;
    let text = String::from_utf8_lossy(&whole).into_owned();
    let at = text.find("BEGIN CERTIFICATE").unwrap() + 60;
    let mut bent = whole.clone();
    bent[at] = if bent[at] == b'A' { b'B' } else { b'A' };
    fs::write(shop.folder.path().join("certs.snapshot"), &bent).unwrap();
    let client = shop.client();
    let task = tokio::spawn(client.clone().follow(shop.log.clone(), shop.log.clone()));
    let hosts = ["example.com", "other.example.com"];
    assert!(hosts.iter().any(|host| answer(&client, host).is_none()), "one of them is damaged");
    for _ in 0..500 {
        if hosts.iter().all(|host| answer(&client, host).is_some()) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(answer(&client, "example.com"), Some(version));
    assert!(answer(&client, "other.example.com").is_some());
    task.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_clients_never_share_a_folder() {
    let shop = Shop::new().await;
    let first = shop.client();
    let error = Client::open(shop.node(), vec![], shop.folder.path()).unwrap_err().to_string();
    assert!(error.contains("another process") && error.contains("--state"), "{error}");
    drop(first);
    shop.client();
}

/// What an older program of ours left on disk is served by this one, with no log at hand (invariant 4 across an upgrade).
/// `BLESS=1` writes the folder if it is missing, never one that is there.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_format_on_disk_is_served_as_it_was() {
    let golden = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/client.1");
    if !golden.exists() && std::env::var_os("BLESS").is_some() {
        let mut shop = Shop::new().await;
        let packed_version = shop.good(1, &["*.example.com", "example.com"]).await;
        packed(&mut shop).await;
        let tail_version = shop.good(2, &["tail.example.org"]).await;
        let client = shop.client();
        shop.settle(&client).await;
        fs::create_dir_all(&golden).unwrap();
        for file in ["certs.snapshot", "certs.tail"] {
            fs::copy(shop.folder.path().join(file), golden.join(file)).unwrap();
        }
        fs::write(golden.join("versions"), format!("{packed_version}\n{tail_version}\n")).unwrap();
    }
    let shop = Shop::new().await;
    for file in ["certs.snapshot", "certs.tail"] {
        fs::copy(golden.join(file), shop.folder.path().join(file)).expect("a golden file is never removed");
    }
    let versions = fs::read_to_string(golden.join("versions")).unwrap();
    let versions: Vec<_> = versions.lines().map(|line| line.parse().unwrap()).collect();
    let client = shop.client();
    assert_eq!(answer(&client, "www.example.com"), Some(versions[0]));
    assert_eq!(answer(&client, "tail.example.org"), Some(versions[1]));
    assert_eq!(client.status().damaged, None);
}
