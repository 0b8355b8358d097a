//! The seed's lifecycle on the internal CA: make, list, show, renew, export, remove.

use crate::shop::Shop;

#[test]
fn a_certificate_is_made_listed_renewed_and_removed() {
    let shop = Shop::internal();
    let ran = shop.ok(&["cert", "ls"]);
    assert!(ran.out.is_empty() && ran.err.contains("log.db"), "an empty listing names the log's place: {ran:?}");

    let ran = shop.ok(&["cert", "mk", "--wildcard", "shop.example"]);
    assert!(ran.out.contains("names      *.shop.example, shop.example"), "{ran:?}");
    let (id, version) = shop.only();
    assert_eq!((id.len(), version.len()), (11, 64));
    let listed = shop.ok(&["cert", "ls"]).out;
    assert!(listed.starts_with(&id) && listed.contains("*.shop.example, shop.example"), "{listed}");

    let again = shop.ok(&["cert", "mk", "--wildcard", "shop.example"]);
    assert!(again.out.contains(&id) && again.out.contains("nothing was ordered"), "{again:?}");
    assert_eq!(shop.only(), (id.clone(), version.clone()));

    let shown = shop.ok(&["cert", "cat", &id]).out;
    assert!(shown.contains(&version) && shown.contains("BEGIN CERTIFICATE") && !shown.contains("PRIVATE"), "{shown}");

    assert!(shop.ok(&["cert", "renewable"]).out.is_empty());
    assert!(shop.ok(&["cert", "renewable", "2099-01-01"]).out.contains(&id), "due by then");
    assert!(shop.ok(&["cert", "renewable", "--renew-first"]).err.contains("nothing is due"));
    shop.ok(&["cert", "renew", "--due"]);
    assert_eq!(shop.only().1, version, "a dry run and an empty round renew nothing");

    shop.ok(&["cert", "renew", &id]);
    let renewed = shop.only();
    assert_eq!(renewed.0, id, "the id stays over renewals");
    assert_ne!(renewed.1, version);

    let before = shop.only().1;
    let ahead = shop.ok(&["cert", "renewable", "2099-01-01", "--renew-all"]);
    assert!(!ahead.err.contains("failed"), "{ahead:?}");
    assert_ne!(shop.only().1, before, "what is due by then is renewed");

    shop.fails(&["cert", "rm", &id], 2, &["--yes", "nothing is revoked"]);
    assert!(shop.ok(&["cert", "rm", &id, "--yes"]).out.contains("nothing was revoked"));
    assert!(shop.ok(&["cert", "ls", "--json"]).out.is_empty());
    shop.ok(&["stream", "verify"]);
}

#[test]
fn mk_covers_www_only_directly_below_a_public_suffix() {
    let shop = Shop::internal();
    let names = |args: &[&str]| {
        let out = shop.ok(&[&["cert", "mk", "--dry-run"], args].concat()).out;
        out.lines().next().unwrap().replace("names      ", "")
    };
    assert_eq!(names(&["example.co.uk"]), "example.co.uk, www.example.co.uk");
    assert_eq!(names(&["shop.example.co.uk"]), "shop.example.co.uk");
    assert_eq!(names(&["--subdomain", "example.co.uk"]), "example.co.uk");
    assert_eq!(names(&["--wildcard", "example.co.uk"]), "*.example.co.uk, example.co.uk");
    assert_eq!(names(&["Bücher.Example.COM.", "-d", "b.example.com"]), "b.example.com, xn--bcher-kva.example.com");
    let file = shop.path("names");
    std::fs::write(&file, "# the shop\na.example.com\n\nb.example.com\n").unwrap();
    assert_eq!(names(&["--file", file.to_str().unwrap()]), "a.example.com, b.example.com");
    std::fs::write(&file, "a.example.com\nb..example.com\n").unwrap();
    shop.fails(&["cert", "mk", "--file", file.to_str().unwrap()], 2, &["line 2", "b..example.com"]);
    assert!(shop.ok(&["cert", "ls", "--json"]).out.is_empty(), "a dry run orders nothing");
}

#[test]
fn openssl_reads_what_is_exported_for_each_key_type() {
    let shop = Shop::internal();
    for kind in ["p256", "p384", "rsa2048", "rsa3072", "rsa4096"] {
        shop.ok(&["cert", "mk", &format!("{kind}.shop.example"), "--key-type", kind]);
    }
    for line in shop.ok(&["cert", "ls", "--json"]).out.lines() {
        let row: serde_json::Value = serde_json::from_str(line).unwrap();
        let out = shop.path(&format!("out-{}", row["id"].as_str().unwrap()));
        let folder = out.to_str().unwrap();
        shop.ok(&["cert", "export", row["id"].as_str().unwrap(), "--out", folder]);
        let openssl = |args: &[&str]| {
            let output = std::process::Command::new("openssl").args(args).current_dir(&out).output().unwrap();
            assert!(output.status.success(), "{args:?}: {output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let roots = shop.path("roots.pem");
        openssl(&["verify", "-CAfile", roots.to_str().unwrap(), "cert.pem"]);
        let of_cert = openssl(&["x509", "-in", "cert.pem", "-noout", "-pubkey"]);
        assert_eq!(of_cert, openssl(&["pkey", "-in", "privkey.pem", "-pubout"]), "{row}");
        let mode = std::os::unix::fs::PermissionsExt::mode(&out.join("privkey.pem").metadata().unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);

        std::fs::write(shop.path("password"), "correct horse\n").unwrap();
        let password = shop.path("password");
        let bundle = ["--format", "pkcs12", "--password-file", password.to_str().unwrap()];
        shop.ok(&[&["cert", "export", row["id"].as_str().unwrap(), "--out", folder][..], &bundle].concat());
        let read = openssl(&["pkcs12", "-in", "bundle.p12", "-nodes", "-passin", "pass:correct horse"]);
        assert!(read.contains("BEGIN PRIVATE KEY") && read.contains("BEGIN CERTIFICATE"), "{read}");
    }
}

#[test]
fn init_may_be_run_again_and_changes_nothing() {
    let shop = Shop::internal();
    let before: Vec<_> =
        ["owner.key", "manager.key", "nodes.key"].map(|f| std::fs::read(shop.data().join(f)).unwrap()).into();
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let ran = shop.ok(&["init", "--ca", "internal"]);
    assert!(ran.out.contains("cert mk"), "it ends with the next command to type: {}", ran.out);
    let after: Vec<_> =
        ["owner.key", "manager.key", "nodes.key"].map(|f| std::fs::read(shop.data().join(f)).unwrap()).into();
    assert_eq!(before, after);
    assert_eq!(shop.ok(&["conf", "display", "--reveal"]).out, conf);
    for file in ["owner.key", "manager.key", "nodes.key"] {
        let metadata = shop.data().join(file).metadata().unwrap();
        assert_eq!(std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777, 0o600, "{file}");
    }
}

#[test]
fn init_that_stopped_between_keys_and_log_goes_on() {
    let shop = Shop::internal();
    let owner = std::fs::read(shop.data().join("owner.key")).unwrap();
    for file in std::fs::read_dir(shop.data()).unwrap() {
        let file = file.unwrap().path();
        if file.file_name().unwrap() != "owner.key" {
            std::fs::remove_file(file).unwrap();
        }
    }
    shop.ok(&["init", "--ca", "internal"]);
    assert_eq!(std::fs::read(shop.data().join("owner.key")).unwrap(), owner, "an owner file is never replaced");
    shop.ok(&["cert", "mk", "a.shop.example"]);
}

#[test]
fn conf_shows_a_diff_masks_secrets_and_keeps_them_behind_their_masks() {
    let shop = Shop::internal();
    let shown = shop.ok(&["conf", "display"]).out;
    assert!(shown.contains("********") && !shown.contains("PRIVATE KEY"), "{shown}");
    let secret = shop.ok(&["conf", "display", "--reveal"]).out;
    assert!(secret.contains("PRIVATE KEY"));

    let edited = shown.replace("[ca.internal]", "[ca.internal]\nlifetime_days = 7");
    let ran = shop.run_with_input(&["conf", "update"], &edited);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.out.contains("+ lifetime_days = 7") && !ran.out.contains("PRIVATE KEY"), "{ran:?}");
    assert_eq!(shop.ok(&["conf", "display", "--reveal"]).out.replace("lifetime_days = 7\n", ""), secret);
    assert!(shop.run_with_input(&["conf", "update"], &edited).out.contains("nothing changes"));

    let mut command = shop.command(&["conf", "edit"]);
    let edit = command.env("EDITOR", "sed -i 's/lifetime_days = 7/lifetime_days = 8/'").output().unwrap();
    assert!(String::from_utf8_lossy(&edit.stdout).contains("+ lifetime_days = 8"), "{edit:?}");
}

#[test]
fn listings_live_with_readers_that_go_away_and_name_a_disk_that_is_full() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "a.shop.example"]);
    for args in [&["completions", "bash"][..], &["conf", "display"], &["cert", "ls", "--json"]] {
        let pipe = format!("{} {} | head -1", env!("CARGO_BIN_EXE_certbus"), args.join(" "));
        let mut command = std::process::Command::new("bash");
        command.args(["-o", "pipefail", "-c", &pipe]);
        command.env("CERTBUS_CONFIG", shop.path("certbus.toml")).env("CERTBUS_DATA", shop.data());
        let output = command.output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{args:?}: {output:?}");
    }
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = shop.command(&["cert", "ls", "--json"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(shop.run_with_input(&["conf", "update"], "  \n").code == 2, "an empty pipe wipes nothing");
    let coloured = shop.command(&["doctor"]).env("NO_COLOR", "1").output().unwrap();
    assert!(!String::from_utf8_lossy(&coloured.stdout).contains('\u{1b}'));
}

#[test]
fn two_cas_on_one_host_keep_apart() {
    let shop = Shop::internal();
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let two = format!("{conf}\n[ca.ca-example-8443]\ndirectory = \"https://ca.example:8443/one/directory\"\n");
    assert_eq!(shop.run_with_input(&["conf", "update"], &two).code, 0);
    // Nobody answers there; what matters is that nothing of the first was touched.
    assert_ne!(shop.run(&["init", "--ca", "https://127.0.0.1:1/two", "--agree-tos"]).code, 0);
    assert!(shop.ok(&["conf", "display"]).out.contains("https://ca.example:8443/one/directory"));
}
