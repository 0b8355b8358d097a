//! HTTP-01 by way of an S3 bucket (moto) that a web server in front serves: what Pebble is answered is the object.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::pebble::{HTTP01, fresh, service};
use crate::shop::Shop;

/// The bucket is not public: the web server in front has credentials of its own, which moto reads and does not check.
const LET_IN: &str = "host: s3\r\nauthorization: AWS4-HMAC-SHA256 Credential=AKIAFRONT/20260101/eu-central-1/s3/aws4_request, \
                      SignedHeaders=host, Signature=0\r\n";

/// A web server that maps `/.well-known/acme-challenge/` to a bucket, and notes what it served.
struct Front {
    served: Arc<Mutex<Vec<String>>>,
}

impl Front {
    /// Listens where Pebble asks, for as long as the test runs; the next one waits until the port is free.
    fn new(bucket: &str, prefix: &str) -> (Self, impl Drop + use<>) {
        let address = format!("127.0.0.1:{}", service("CERTBUS_TEST_HTTP01_PORT"));
        let listener = TcpListener::bind(address).unwrap();
        let (served, place) = (Arc::new(Mutex::new(Vec::new())), format!("/{bucket}/{prefix}"));
        let (notes, stopper) = (served.clone(), listener.try_clone().unwrap());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                let Some(path) = line.split(' ').nth(1).filter(|path| path.starts_with("/.well-known/")) else {
                    return;
                };
                let answer = moto(&format!("GET {place}{} HTTP/1.0\r\n{LET_IN}\r\n", path.trim_start_matches('/')));
                notes.lock().unwrap().push(answer.clone());
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        (Self { served }, Stop(stopper, Some(thread)))
    }

    fn served(&self) -> Vec<String> {
        self.served.lock().unwrap().clone()
    }
}

struct Stop(TcpListener, Option<std::thread::JoinHandle<()>>);

impl Drop for Stop {
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(self.0.local_addr().unwrap()) {
            let _ = stream.write_all(b"GET /stop HTTP/1.0\r\n\r\n");
        }
        let _ = self.1.take().unwrap().join();
    }
}

/// A raw request to moto, with its whole answer.
fn moto(request: &str) -> String {
    let address = service("CERTBUS_TEST_MOTO").trim_start_matches("http://").to_owned();
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn bucket() -> String {
    let name = fresh("challenges");
    let url = format!("{}/{name}", service("CERTBUS_TEST_MOTO"));
    let made = Command::new("curl").args(["-sf", "-X", "PUT", &url]).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    name
}

fn objects(bucket: &str) -> usize {
    moto(&format!("GET /{bucket}?list-type=2 HTTP/1.0\r\n{LET_IN}\r\n")).matches("<Key>").count()
}

/// A shop with an account at Pebble and `[s3]`, with no way of its own.
fn shop(s3: &str) -> Shop {
    let shop = Shop::empty();
    let (directory, roots) = (service("CERTBUS_TEST_PEBBLE"), service("CERTBUS_TEST_PEBBLE_ROOT"));
    shop.ok(&["init", "--ca", &directory, "--ca-roots", &roots, "--agree-tos"]);
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let ran = shop.run_with_input(&["conf", "update"], &format!("{conf}\n[s3]\n{s3}"));
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(!ran.out.contains("hush"), "the diff masks the secret: {}", ran.out);
    shop
}

fn with_keys(bucket: &str) -> String {
    let endpoint = service("CERTBUS_TEST_MOTO");
    format!(
        "bucket = \"{bucket}\"\nregion = \"eu-central-1\"\nprefix = \"/acme/\"\nendpoint = \"{endpoint}\"\n\
         access_key_id = \"AKIAEXAMPLE\"\nsecret_access_key = \"hush-hush\"\n"
    )
}

#[test]
fn what_pebble_is_answered_is_the_object_at_moto_and_none_is_left() {
    let _turn = HTTP01.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bucket = bucket();
    let shop = shop(&with_keys(&bucket));
    let (front, _stop) = Front::new(&bucket, "acme/");
    let ran = shop.ok(&["cert", "mk", "--subdomain", &fresh("http.test"), "--name", &fresh("http.test")]);
    assert!(ran.out.contains("http-01"), "{}", ran.out);
    let served = front.served();
    assert!(served.len() >= 2, "both names are shown by objects: {served:?}");
    for answer in served {
        let head = answer.to_ascii_lowercase();
        assert!(answer.starts_with("HTTP/1.1 200") && head.contains("content-type: text/plain"), "{answer}");
        assert!(head.contains("cache-control: no-store"), "no CDN keeps it: {answer}");
    }
    assert_eq!(objects(&bucket), 0);
    let shown = shop.ok(&["conf", "display"]).out;
    assert!(shown.contains("AKIAEXAMPLE") && !shown.contains("hush"), "the secret alone is masked: {shown}");
}

#[test]
fn a_check_tries_the_bucket_at_moto_finds_nobody_at_port_80_and_leaves_nothing() {
    let _turn = HTTP01.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bucket = bucket();
    let shop = shop(&with_keys(&bucket));
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let resolver = format!("resolver = \"{}\"\n{conf}", service("CERTBUS_TEST_BIND"));
    assert_eq!(shop.run_with_input(&["conf", "update"], &resolver).code, 0);
    let found = shop.fails(&["cert", "check", &fresh("http.test")], 10, &["to mend"]);
    assert!(found.out.contains("✗ http-01") && found.out.contains("127.0.0.1:80"), "{}", found.out);
    assert_eq!(objects(&bucket), 0);
    let gone = conf.replace(&bucket, "no-such-bucket");
    assert_eq!(shop.run_with_input(&["conf", "update"], &gone).code, 0);
    let found = shop.fails(&["cert", "check", &fresh("http.test")], 10, &[]);
    assert!(found.out.contains("make the bucket"), "{}", found.out);
}

#[test]
fn invariant_3_what_a_killed_manager_left_at_moto_is_removed_by_the_next() {
    let _turn = HTTP01.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bucket = bucket();
    let shop = shop(&with_keys(&bucket));
    let (_front, _stop) = Front::new(&bucket, "acme/");
    let name = fresh("http.test");
    let mut killed = shop.command(&["cert", "mk", "--subdomain", &name]);
    assert!(!killed.env("CERTBUS_CRASH_AT", "set-up").output().unwrap().status.success());
    assert_eq!(objects(&bucket), 1, "it was killed with the object there");
    shop.ok(&["cert", "mk", "--subdomain", &name]);
    assert_eq!((shop.only().1.len(), objects(&bucket)), (64, 0));
}

#[test]
fn without_keys_in_the_settings_those_of_the_environment_are_taken_to_moto() {
    let _turn = HTTP01.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let bucket = bucket();
    let shop = shop(&format!("bucket = \"{bucket}\"\nendpoint = \"{}\"\n", service("CERTBUS_TEST_MOTO")));
    let (front, _stop) = Front::new(&bucket, "");
    let name = fresh("http.test");
    let mut mk = shop.command(&["cert", "mk", "--subdomain", &name]);
    mk.env("AWS_EC2_METADATA_DISABLED", "true").env("AWS_REGION", "eu-central-1");
    mk.env_remove("AWS_ACCESS_KEY_ID").env_remove("AWS_SECRET_ACCESS_KEY");
    let without = mk.output().unwrap();
    let said = String::from_utf8_lossy(&without.stderr).into_owned();
    assert!(!without.status.success() && said.contains("s3.access_key_id") && said.contains(&bucket), "{said}");
    mk.env("AWS_ACCESS_KEY_ID", "AKIAEXAMPLE").env("AWS_SECRET_ACCESS_KEY", "hush-hush");
    let with = mk.output().unwrap();
    assert!(with.status.success(), "{}", String::from_utf8_lossy(&with.stderr));
    assert_eq!((front.served().is_empty(), objects(&bucket)), (false, 0));
}

#[test]
fn a_bucket_that_is_not_at_moto_and_an_s3_that_is_not_there_are_named_with_what_to_do() {
    let shop = shop(&with_keys("no-such-bucket"));
    let mk = ["cert", "mk", "--subdomain", &fresh("http.test")];
    let ran = shop.fails(&mk, 1, &["no-such-bucket", "NoSuchBucket", "make the bucket, or correct s3.bucket"]);
    assert!(!ran.err.contains("hush"), "{}", ran.err);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let conf = shop.ok(&["conf", "display", "--reveal"]).out;
    let gone = conf.replace(&service("CERTBUS_TEST_MOTO"), &format!("http://{taken}"));
    assert_eq!(shop.run_with_input(&["conf", "update"], &gone).code, 0);
    let ran = shop.fails(&mk, 1, &["refused", "s3.endpoint"]);
    assert!(!ran.err.contains("hush"), "{}", ran.err);
    for (bad, word) in [
        (conf.replace("access_key_id", "acess_key_id"), "acess_key_id"),
        (conf.replace("secret_access_key = \"hush-hush\"\n", ""), "both or none"),
        (conf.replace("no-such-bucket", "s3://bucket"), "no name of a bucket"),
    ] {
        let ran = shop.run_with_input(&["conf", "update"], &bad);
        assert!(ran.code == 2 && ran.err.contains(word) && !ran.err.contains("hush"), "{ran:?}");
    }
}
