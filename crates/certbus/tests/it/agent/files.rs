//! What is in the files and whose they are; disks and folders that refuse; an agent that is killed.

use std::fs::File;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{contents, look, within};
use crate::shop::{Ran, Running, Shop, curl};

const COMBINED: &str = "[[target]]\nkind = \"files\"\ncombined = \"DIR/certs/{name}.pem\"\n";

/// Unmounted when the test ends.
struct Mount(PathBuf);

impl Mount {
    fn new(place: PathBuf, args: &[&str]) -> Self {
        std::fs::create_dir_all(&place).unwrap();
        let mounted = Command::new("mount").args(args).arg(&place).status().unwrap();
        assert!(mounted.success(), "this test mounts a small file system, which takes root");
        Self(place)
    }

    fn remount(&self, how: &str) {
        let done = Command::new("mount").args(["-o", &format!("remount,{how}")]).arg(&self.0).status().unwrap();
        assert!(done.success());
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn each_layout_holds_what_openssl_reads_with_the_owner_and_mode_that_were_asked_for() {
    let shop = Shop::internal();
    shop.ok(&["cert", "mk", "--wildcard", "shop.example"]);
    std::fs::write(shop.path("password"), "secret\n").unwrap();
    shop.targets(
        r#"
[[target]]
kind = "files"
name = "pem"
combined = "DIR/certs/{name}-{id}.pem"
owner = "www-data"
group = "daemon"
mode = "0600"
[[target]]
kind = "files"
name = "store"
names = ["www.shop.example", "*.shop.example"]
pkcs12 = "DIR/stores/{name}.p12"
password_file = "DIR/password"
[[target]]
kind = "files"
name = "others"
names = ["other.example"]
combined = "DIR/others/{name}.pem"
"#,
    );
    let ran = shop.once(0, &[]);
    assert!(ran.out.contains("others: 0 certificates, unchanged"), "{ran:?}");
    let (id, version) = shop.only();
    let pem = shop.path(&format!("certs/shop.example-{id}.pem"));
    let metadata = std::fs::metadata(&pem).unwrap();
    let (user, group) = (super::ids("www-data").0, super::ids("daemon").1);
    assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o7777), (user, group, 0o600));
    let text = std::fs::read_to_string(&pem).unwrap();
    assert!(text.starts_with("-----BEGIN PRIVATE KEY-----") && text.ends_with("-----END CERTIFICATE-----\n"));
    let openssl = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let public = openssl(&["pkey", "-in", pem.to_str().unwrap(), "-pubout"]);
    assert_eq!(openssl(&["x509", "-in", pem.to_str().unwrap(), "-noout", "-pubkey"]), public);
    let store = shop.path("stores/shop.example.p12");
    let read = openssl(&["pkcs12", "-in", store.to_str().unwrap(), "-passin", "pass:secret", "-nodes"]);
    assert!(read.contains("BEGIN PRIVATE KEY") && read.contains("BEGIN CERTIFICATE"));
    assert_eq!(std::fs::metadata(&store).unwrap().permissions().mode() & 0o7777, 0o640);
    // Salted, so it would differ each time: it is known by what was written.
    let before = look(&shop.path("stores"));
    shop.once(0, &[]);
    assert_eq!(look(&shop.path("stores")), before);
    // A renewal takes the place of the version before.
    shop.ok(&["cert", "renew", &id]);
    shop.once(0, &[]);
    assert!(!shop.read("data/agent/agent.json").contains(&version), "the one before is forgotten");
    // What is removed from the log stays on disk.
    shop.ok(&["cert", "rm", &id, "--yes"]);
    shop.once(0, &[]);
    assert!(store.exists() && pem.exists());
}

#[test]
fn a_folder_that_is_read_only_is_named_and_filled_when_it_is_not_any_more() {
    let shop = Shop::with_targets(&["shop.example"], COMBINED);
    let disk = Mount::new(shop.path("certs"), &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]);
    shop.once(0, &[]);
    let before = look(&disk.0);
    shop.ok(&["cert", "renew", &shop.only().0]);
    disk.remount("ro");
    shop.once(1, &["target `files`", "shop.example.pem", "Read-only file system", "old file is in its place"]);
    assert_eq!(look(&disk.0), before);
    let _agent = shop.agent();
    within(10, "in the log", || shop.read("agent.err").contains("Read-only file system").then_some(()));
    disk.remount("rw");
    within(30, "mended", || (look(&disk.0) != before).then_some(()));
    within(5, "said so", || shop.status("files")["next_try"].is_null().then_some(()));
    // A folder that is a file is named too, and the other target does not wait for it.
    std::fs::write(shop.path("file"), "").unwrap();
    shop.targets(&format!(
        "{COMBINED}[[target]]\nkind = \"files\"\nname = \"b\"\ncombined = \"DIR/file/{{name}}.pem\"\n"
    ));
    drop(_agent);
    let ran = shop.once(1, &["target `b`", "file/shop.example.pem"]);
    assert!(ran.out.contains("files: 1 certificates, unchanged"), "{ran:?}");
}

#[test]
fn a_disk_that_fills_during_the_write_leaves_the_old_files_and_nothing_half_written() {
    let shop = Shop::with_targets(&["shop.example"], COMBINED);
    let disk = Mount::new(shop.path("certs"), &["-t", "tmpfs", "-o", "size=64k", "tmpfs"]);
    shop.once(0, &[]);
    shop.ok(&["cert", "renew", &shop.only().0]);
    let fill = disk.0.join("fill");
    let mut size = 64 * 1024;
    while std::fs::write(&fill, vec![b'x'; size]).is_err() {
        size -= 512;
    }
    let before = look(&disk.0);
    shop.once(1, &["shop.example.pem", "No space left on device", "old file is in its place"]);
    assert_eq!(look(&disk.0), before);
    std::fs::remove_file(&fill).unwrap();
    let ran = shop.once(0, &[]);
    assert!(ran.out.contains("1 of 1 certificates written"), "{ran:?}");
    assert_eq!(contents(&disk.0).len(), 1);
}

/// Invariant 1, for an agent that ends at any moment: killed again and again in the midst of many certificates.
#[test]
fn invariant_1_a_killed_agent_leaves_no_key_that_others_may_read_and_the_next_start_finishes() {
    let shop = Shop::internal();
    for number in 0..12 {
        shop.ok(&["cert", "mk", &format!("m{number}.shop.example")]);
    }
    // The check holds the agent between the renames and the reload.
    shop.targets(&format!("{COMBINED}check = [\"sleep\", \"0.2\"]\nmode = \"0600\"\n"));
    let certs = shop.path("certs");
    let mut cut_short = 0;
    for round in 0..12 {
        let mut agent = shop.agent_command(&["agent", "--once"]).spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_millis(20 + 15 * round));
        agent.kill().unwrap();
        agent.wait().unwrap();
        if certs.exists() {
            for (path, (.., mode)) in look(&certs) {
                assert_eq!(mode, 0o600, "{}", path.display());
            }
        }
        cut_short += usize::from(shop.data().join("agent/deploying-files.json").exists());
    }
    assert!(cut_short > 0, "no kill came between the first write and the last");
    shop.once(0, &[]);
    assert_eq!(names(&certs).len(), 12, "no companion is left: {:?}", names(&certs));
    assert!(!shop.data().join("agent/deploying-files.json").exists());
    for (path, bytes) in contents(&certs) {
        assert!(bytes.ends_with(b"-----END CERTIFICATE-----\n"), "{}", path.display());
    }
}

fn names(folder: &Path) -> Vec<String> {
    std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn the_files_serve_curl_when_a_program_of_ones_own_reads_them() {
    // `openssl s_server` stands for whatever reads PEM files.
    let shop = Shop::with_targets(&["shop.example"], COMBINED);
    shop.once(0, &[]);
    let (port, pem) = (super::free_port(), shop.path("certs/shop.example.pem"));
    let mut command = Command::new("openssl");
    command.args(["s_server", "-www", "-accept", &format!("127.0.0.1:{port}"), "-cert"]).arg(&pem);
    command.arg("-cert_chain").arg(&pem).arg("-key").arg(&pem);
    let _server = super::Server::start(&mut command, port, &shop.path("server.log"));
    assert!(curl(port, "shop.example", "/", &shop.path("roots.pem")).contains("s_server"));
}

#[test]
fn an_agent_killed_before_the_reload_has_the_old_files_back_at_the_next_start_and_reloads() {
    let shop = Shop::with_targets(&["shop.example"], COMBINED);
    shop.once(0, &[]);
    let (certs, before) = (shop.path("certs"), look(&shop.path("certs")));
    shop.ok(&["cert", "renew", &shop.only().0]);
    shop.targets(&format!("{COMBINED}check = [\"sh\", \"-c\", \"echo $$ > DIR/checking; exec sleep 30\"]\n"));
    let agent = shop.agent();
    let check = within(10, "the check runs", || shop.read("checking").trim().parse::<u32>().ok());
    assert_ne!(look(&certs)[&certs.join("shop.example.pem")], before[&certs.join("shop.example.pem")]);
    agent.kill();
    Command::new("kill").arg(check.to_string()).status().unwrap();
    shop.targets(&format!("{COMBINED}check = [\"false\"]\n"));
    shop.once(1, &["the check failed"]);
    assert_eq!(look(&certs), before, "the old files, not what the killed agent put there");
    shop.targets(&format!("{COMBINED}reload = [\"touch\", \"DIR/reloaded\"]\n"));
    let ran = shop.once(0, &[]);
    assert!(ran.out.contains("written, reloaded") && shop.path("reloaded").exists(), "{ran:?}");
    assert_eq!(names(&certs), ["shop.example.pem"]);
}

#[test]
fn a_log_that_is_silent_or_unreachable_is_said_and_the_files_stay() {
    let shop = Shop::with_targets(&["--subdomain", "shop.example"], COMBINED);
    shop.once(0, &[]);
    let before = shop.read("certs/shop.example.pem");
    assert!(before.contains("CERTIFICATE"));
    // Three days without a word of a manager.
    let ran = Ran::from(shop.command_at("+3d", &["agent", "--once"]).output().unwrap());
    assert!(ran.code == 0 && ran.err.contains("warning: log silent: its newest batch is of"), "{ran:?}");
    let mut command = shop.command_at("+3d", &["agent"]);
    let agent = Running::new(command.stderr(File::create(shop.path("agent.err")).unwrap()).spawn().unwrap());
    within(20, "it is in the log lines", || shop.read("agent.err").contains("log silent").then_some(()));
    let said = || shop.ok(&["agent", "--status"]).out;
    within(20, "and in the status", || said().contains("log silent").then_some(()));
    drop(agent);

    std::fs::rename(shop.path("data/log.db"), shop.path("data/elsewhere.db")).unwrap();
    shop.once(1, &["log unreachable", "deployed from the snapshot on disk"]);
    assert_eq!(shop.read("certs/shop.example.pem"), before);
    // Missing at the start, and back without a word on it.
    let _agent = shop.agent();
    within(20, "said at the start", || said().contains("log unreachable").then_some(()));
    std::fs::rename(shop.path("data/elsewhere.db"), shop.path("data/log.db")).unwrap();
    within(30, "well again", || (!said().contains("log ")).then_some(()));
    std::fs::rename(shop.path("data/log.db"), shop.path("data/elsewhere.db")).unwrap();
    within(60, "said later", || said().contains("log unreachable").then_some(()));
    std::fs::rename(shop.path("data/elsewhere.db"), shop.path("data/log.db")).unwrap();
    within(60, "well again", || (!said().contains("log ")).then_some(()));
}

#[test]
fn an_agent_killed_between_any_two_changes_leaves_a_pair_and_the_next_start_serves_the_newest_and_tells_of_it() {
    let two = "[[target]]\nkind = \"files\"\nchain = \"DIR/certs/{name}.crt\"\nkey = \"DIR/certs/{name}.key\"\n";
    let shop = Shop::with_targets(&["--subdomain", "shop.example"], two);
    shop.once(0, &[]);
    let certs = shop.path("certs");
    let public = |args: &[&str]| {
        let output = Command::new("openssl").args(args).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let (crt, key) = (certs.join("shop.example.crt"), certs.join("shop.example.key"));
    let is_pair = || {
        public(&["x509", "-in", crt.to_str().unwrap(), "-noout", "-pubkey"])
            == public(&["pkey", "-in", key.to_str().unwrap(), "-pubout"])
    };
    let mut kills = 0;
    for step in 1.. {
        shop.ok(&["cert", "renew", &shop.only().0]);
        let at = format!("deploying:{step}");
        let killed = !shop.agent_command(&["agent", "--once"]).env("CERTBUS_CRASH_AT", at).status().unwrap().success();
        if !killed {
            break;
        }
        kills += 1;
        // A full compare, which finds what the killed one left, and nothing else.
        shop.targets(&format!("{two}reload = [\"touch\", \"DIR/told\"]\n"));
        shop.once(0, &[]);
        assert!(shop.path("told").exists(), "step {step}: somebody is told of the new files");
        std::fs::remove_file(shop.path("told")).unwrap();
        shop.targets(two);
        assert!(is_pair(), "step {step}: chain and key are of two versions");
        let chain = certbus_core::x509::ParsedChain::parse(&std::fs::read_to_string(&crt).unwrap()).unwrap();
        assert_eq!(chain.fingerprint.to_string(), shop.only().1, "step {step}: the newest");
        shop.once(0, &[]);
        assert_eq!(names(&certs).len(), 2, "step {step}: {:?}", names(&certs));
    }
    assert!(kills >= 10, "{kills}");
}

#[test]
fn a_certificate_that_wants_a_taken_file_is_left_out_and_the_others_are_deployed() {
    let shop = Shop::with_targets(&["--subdomain", "a.shop.example"], COMBINED);
    shop.ok(&["cert", "mk", "--subdomain", "other.example"]);
    shop.once(0, &[]);
    let before = shop.read("certs/a.shop.example.pem");
    // Its shortest name is the other's only one.
    shop.ok(&["cert", "mk", "--subdomain", "a.shop.example", "--name", "longer.shop.example"]);
    let listed = shop.ok(&["cert", "ls", "--json"]).out;
    let other = listed.lines().find(|line| line.contains("other.example")).unwrap();
    let other: serde_json::Value = serde_json::from_str(other).unwrap();
    shop.ok(&["cert", "renew", other["id"].as_str().unwrap()]);
    let ran = shop.once(1, &["a.shop.example.pem", "longer.shop.example", "is left out", "{id}", "`combined`"]);
    assert!(ran.out.contains("1 of 2 certificates written"), "{ran:?}");
    assert_eq!(shop.read("certs/a.shop.example.pem"), before, "who has the file keeps it");
    // A file of another target is left to that one.
    let both = "[[target]]\nkind = \"files\"\nname = \"b\"\nchain = \"DIR/certs/other.example.pem\"\nkey = \"DIR/b.key\"\nnames = [\"other.example\"]\n";
    shop.targets(&format!(
        "[[target]]\nkind = \"files\"\nnames = [\"other.example\"]\ncombined = \"DIR/certs/{{name}}.pem\"\n{both}"
    ));
    let ran = shop.once(1, &["other.example.pem", "another target"]);
    assert_eq!(ran.err.matches("is left out").count(), 1, "{ran:?}");
}

#[test]
fn a_path_that_leads_nowhere_is_named_and_the_other_certificates_are_deployed() {
    let shop = Shop::with_targets(&["--subdomain", "a.example"], "");
    shop.ok(&["cert", "mk", "--subdomain", "b.example"]);
    shop.targets("[[target]]\nkind = \"files\"\ncombined = \"DIR/out/{name}/c.pem\"\n");
    std::fs::create_dir(shop.path("out")).unwrap();
    std::os::unix::fs::symlink(shop.path("out/a.example"), shop.path("out/a.example")).unwrap();
    let ran = shop.once(1, &["out/a.example/c.pem", "Too many levels of symbolic links"]);
    assert!(ran.out.contains("1 of 2 certificates written"), "{ran:?}");
    assert!(shop.path("out/b.example/c.pem").exists());
    std::fs::remove_file(shop.path("out/a.example")).unwrap();
    shop.once(0, &[]);
    assert!(shop.path("out/a.example/c.pem").exists());
}

#[test]
fn after_a_failure_every_file_is_compared_also_when_news_come_first_and_a_free_file_is_taken() {
    let shop = Shop::with_targets(&["--subdomain", "a.example"], "");
    shop.ok(&["cert", "mk", "--subdomain", "b.example"]);
    let checked = |word: &str| {
        format!("{COMBINED}names = [\"a.example\", \"b.example\"]\ncheck = [\"test\", \"-e\", \"DIR/{word}\"]\n")
    };
    // The second wants the file of the first's b.example.
    let second = "[[target]]\nkind = \"files\"\nname = \"second\"\nnames = [\"c.example\"]\ncombined = \"DIR/certs/b.example.pem\"\n";
    shop.targets(&format!("{}{second}", checked("fine")));
    std::fs::write(shop.path("fine"), "").unwrap();
    let _agent = shop.agent();
    within(10, "written", || {
        (contents_of(&shop, "certs/a.example.pem") && shop.path("certs/b.example.pem").exists()).then_some(())
    });
    std::fs::write(shop.path("certs/a.example.pem"), "scratched").unwrap();
    std::fs::remove_file(shop.path("fine")).unwrap();
    let ids: Vec<serde_json::Value> =
        shop.ok(&["cert", "ls", "--json"]).out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let b = ids.iter().find(|row| row["names"][0] == "b.example").unwrap()["id"].as_str().unwrap().to_owned();
    shop.ok(&["cert", "renew", &b]);
    within(10, "the check fails", || shop.status("files")["next_try"].is_string().then_some(()));
    std::fs::write(shop.path("fine"), "").unwrap();
    shop.ok(&["cert", "renew", &b]);
    within(20, "the scratched one is mended too", || contents_of(&shop, "certs/a.example.pem").then_some(()));
    shop.ok(&["cert", "mk", "--subdomain", "c.example"]);
    within(10, "refused", || shop.status("second")["next_try"].is_string().then_some(()));
    shop.ok(&["cert", "rm", &b, "--yes"]);
    within(30, "free", || shop.status("second")["deployed"].as_object().filter(|held| held.len() == 1).map(drop));
}

fn contents_of(shop: &Shop, file: &str) -> bool {
    shop.read(file).contains("-----END CERTIFICATE-----")
}
