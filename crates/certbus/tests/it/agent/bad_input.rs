//! Targets that cannot be: refused with line, what and what would be right, before anything is written.

use crate::shop::Shop;

#[test]
fn a_target_that_cannot_be_is_refused_with_its_line_and_what_would_be_right() {
    let shop = Shop::with_targets(&["shop.example"], "");
    let files = "kind = \"files\"\ncombined = \"DIR/certs/{name}.pem\"\n";
    let nginx = "kind = \"nginx\"\n";
    let settings = std::fs::read_to_string(shop.path("certbus.toml")).unwrap();
    let first = settings.lines().count();
    for (target, line, words) in [
        (format!("{files}chekc = []\n"), 4, &["chekc"][..]),
        (format!("{files}check = \"nginx -t\"\n"), 4, &["list", "['nginx', '-t']", "no shell"]),
        (format!("{files}check = [\"nginx -t\"]\n"), 4, &["check", "blanks", "each word"]),
        (format!("{files}reload = [\"bin/reload\"]\n"), 4, &["reload", "relative", "PATH"]),
        ("kind = \"files\"\ncombined = \"certs/{name}.pem\"\n".into(), 3, &["combined", "relative", "whole path"]),
        ("kind = \"files\"\ncombined = \"DIR/../{name}.pem\"\n".into(), 3, &["combined", "`..`"]),
        ("kind = \"files\"\ncombined = \"DIR/{domain}.pem\"\n".into(), 3, &["combined", "{name} and {id}"]),
        ("kind = \"files\"\n".into(), 1, &["no file is named", "combined"]),
        ("kind = \"files\"\nchain = \"DIR/a\"\n".into(), 3, &["chain", "write `key`"]),
        ("kind = \"files\"\nchain = \"DIR/a\"\nkey = \"DIR/a\"\n".into(), 4, &["key", "same file"]),
        ("kind = \"apache\"\n".into(), 2, &["files", "nginx", "haproxy"]),
        (format!("{files}pkcs12 = \"DIR/b\"\npassword_file = \"DIR/nowhere\"\n"), 3, &["combined", "more targets"]),
        (
            "kind = \"files\"\npkcs12 = \"DIR/b\"\npassword_file = \"nowhere\"\n".into(),
            4,
            &["password_file", "relative"],
        ),
        (format!("{files}mode = \"0644\"\n"), 4, &["mode", "everyone", "0640"]),
        (format!("{files}mode = 640\n"), 4, &["octal", "'0640'"]),
        (format!("{files}names = []\n"), 4, &["names", "empty"]),
        (format!("{files}names = [\"a.*.example\"]\n"), 4, &["names", "a.*.example", "*.shop.example"]),
        (format!("{files}time_limit = 0\n"), 4, &["time_limit", "3600"]),
        (format!("{files}socket = \"/run/x\"\n"), 4, &["socket", "haproxy"]),
        (format!("{files}name = \"a/b\"\n"), 4, &["name", "letters"]),
        (format!("{nginx}[[target]]\n{nginx}"), 3, &["name", "`name` of its own"]),
        (format!("{files}[[target]]\n{files}name = \"b\"\n"), 6, &["combined", "too"]),
    ] {
        shop.targets(&format!("[[target]]\n{target}"));
        let line = format!("line {}", first + line);
        let ran = shop.fails(&["agent", "--once"], 2, words);
        assert!(ran.err.contains(&line), "`{line}` is not in: {}", ran.err);
    }
    assert!(!shop.path("certs").exists() && !shop.data().join("agent").exists(), "nothing was written");
    shop.targets("");
    shop.fails(&["agent", "--once"], 2, &["[[target]]", "docs/AGENT.md"]);
}

#[test]
fn what_the_machine_does_not_know_yet_is_named_retried_and_keeps_no_other_command_from_its_work() {
    let shop = Shop::with_targets(&["shop.example"], "");
    let files = "[[target]]\nkind = \"files\"\ncombined = \"DIR/certs/{name}.pem\"\n";
    for (more, words) in [
        ("group = \"no-such-group\"\n", &["group", "no-such-group", "getent group"][..]),
        ("owner = \"no-such-user\"\n", &["owner", "no-such-user", "getent passwd"]),
    ] {
        shop.targets(&format!("{files}{more}"));
        shop.once(1, words);
        shop.ok(&["cert", "ls"]);
        assert!(shop.status("files")["next_try"].is_string());
    }
    shop.targets("[[target]]\nkind = \"files\"\npkcs12 = \"DIR/store\"\npassword_file = \"DIR/nowhere\"\n");
    shop.once(1, &["nowhere", "cannot be read"]);
    std::fs::write(shop.path("nowhere"), "secret\n").unwrap();
    shop.once(0, &[]);
}

#[test]
fn two_certificates_for_one_file_are_named_with_the_template_to_change() {
    let shop = Shop::with_targets(&["a.shop.example"], "");
    shop.ok(&["cert", "mk", "b.shop.example"]);
    shop.targets("[[target]]\nkind = \"files\"\nchain = \"DIR/certs/{name}.crt\"\nkey = \"DIR/certs/one.key\"\n");
    let words = ["a.shop.example", "b.shop.example", "one.key", "`key`", "{id}", "is left out"];
    let ran = shop.once(1, &words);
    assert!(ran.out.contains("1 of 1 certificates written"), "{ran:?}");
    shop.targets(
        "[[target]]\nkind = \"files\"\nnames = [\"b.shop.example\"]\nchain = \"DIR/certs/one.crt\"\nkey = \"DIR/certs/one.key\"\n",
    );
    shop.once(0, &[]);
}
