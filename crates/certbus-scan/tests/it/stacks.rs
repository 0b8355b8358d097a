//! Servers of other TLS stacks: each answers the quick look at TLS 1.2 and at 1.3, signs, and finishes, and shows what
//! `openssl s_client` sees.

use std::process::Command;

use certbus_core::name::DnsName;
use certbus_scan::Target;
use certbus_scan::found::Proof;
use certbus_scan::observation::Look;
use certbus_scan::offer::Version;
use certbus_scan::ways::Method;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::support::{Certificates, Key, Server, found, free_port, options, s_client, target};
use crate::tls::only;

/// What a server is started with.
struct World {
    all: Certificates,
    chain: String,
    key: String,
    port: u16,
}

impl World {
    fn new(key: Key) -> Self {
        let all = Certificates::new();
        let (chain, key) = all.make("a.test", key);
        let text = |path: std::path::PathBuf| path.to_str().unwrap().to_owned();
        Self { chain: text(chain), key: text(key), all, port: free_port() }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let dir = self.all.path("");
        let text = text.replace("DIR", dir.to_str().unwrap().trim_end_matches('/'));
        let text = text.replace("PORT", &self.port.to_string());
        let path = self.all.path(name);
        std::fs::write(&path, text.replace("CHAIN", &self.chain).replace("KEY", &self.key)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn start(&self, program: &str, arguments: &[&str]) -> Server {
        let mut command = Command::new(program);
        command.args(arguments).env("HOME", self.all.path("")).env("GO111MODULE", "off").env("GOFLAGS", "");
        Server::start(&mut command, self.port, &self.all.path("server.log"))
    }

    fn answers_every_look(&self) {
        for (version, flag) in [(Version::Tls12, "-tls1_2"), (Version::Tls13, "-tls1_3")] {
            let shown = s_client(self.port, None, &["-servername", "a.test", flag]);
            for proof in [Proof::Presented, Proof::Signed, Proof::Finished] {
                let (seen, observation) =
                    found(Target { hello: only(version), ..target(self.port) }, &options(Method::Auto, proof));
                assert_eq!((seen.version, seen.proof, &seen.shortfall), (version, proof, &None));
                assert_eq!(seen.chain, shown.chain);
                let look = if proof == Proof::Finished { Look::Full } else { Look::Quick };
                assert_eq!((observation.method, observation.connections), (look, 1), "{version} {proof}");
            }
        }
        // And as it comes, without being told which version.
        let (_, observation) = found(target(self.port), &options(Method::Auto, Proof::Presented));
        assert_eq!((observation.method, observation.connections), (Look::Quick, 1));
    }
}

#[test]
fn gnutls_answers_every_look() {
    for key in [Key::Rsa, Key::Ecdsa] {
        let world = World::new(key);
        let port = world.port.to_string();
        let arguments = ["--quiet", "-p", &port, "--x509certfile", &world.chain, "--x509keyfile", &world.key];
        let _server = world.start("gnutls-serv", &arguments);
        world.answers_every_look();
    }
}

#[test]
fn golang_answers_every_look() {
    let world = World::new(Key::Ecdsa);
    let source = world.write("server.go", GO);
    let program = world.all.path("server").to_str().unwrap().to_owned();
    let path = format!("{}:/usr/local/go/bin", std::env::var("PATH").unwrap_or_default());
    let built = Command::new("go").args(["build", "-o", &program, &source]).env("PATH", path).output().unwrap();
    assert!(built.status.success(), "{built:?}");
    let _server = world.start(&program, &[]);
    world.answers_every_look();
}

const GO: &str = r#"
package main

import (
	"crypto/tls"
	"net"
)

func main() {
	certificate, err := tls.LoadX509KeyPair("CHAIN", "KEY")
	if err != nil {
		panic(err)
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:PORT", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		panic(err)
	}
	for {
		connection, err := listener.Accept()
		if err != nil {
			continue
		}
		go func(connection net.Conn) {
			buffer := make([]byte, 1024)
			for {
				if _, err := connection.Read(buffer); err != nil {
					connection.Close()
					return
				}
			}
		}(connection)
	}
}
"#;

#[test]
fn java_answers_every_look() {
    let world = World::new(Key::Rsa);
    let store = world.all.path("store.p12");
    let mut export = Command::new("openssl");
    export.args(["pkcs12", "-export", "-in", &world.chain, "-inkey", &world.key, "-passout", "pass:secret", "-out"]);
    assert!(export.arg(store).status().unwrap().success());
    let source = world.write("Server.java", JAVA);
    let _server = world.start("java", &[&source]);
    world.answers_every_look();
}

const JAVA: &str = r#"
import java.io.FileInputStream;
import java.net.InetAddress;
import java.net.Socket;
import java.security.KeyStore;
import javax.net.ssl.KeyManagerFactory;
import javax.net.ssl.SSLContext;

public class Server {
    public static void main(String[] arguments) throws Exception {
        KeyStore store = KeyStore.getInstance("PKCS12");
        store.load(new FileInputStream("DIR/store.p12"), "secret".toCharArray());
        KeyManagerFactory keys = KeyManagerFactory.getInstance("SunX509");
        keys.init(store, "secret".toCharArray());
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), null, null);
        var listener = context.getServerSocketFactory().createServerSocket(PORT, 50, InetAddress.getLoopbackAddress());
        while (true) {
            Socket socket = listener.accept();
            new Thread(() -> {
                try (socket) {
                    socket.getInputStream().transferTo(java.io.OutputStream.nullOutputStream());
                } catch (Exception gone) {
                }
            }).start();
        }
    }
}
"#;

#[test]
fn caddy_answers_every_look() {
    let world = World::new(Key::Ecdsa);
    let text = "{\n\tadmin off\n\tauto_https disable_redirects\n\thttp_port 0\n\tskip_install_trust\n}\n\
        https://a.test:PORT {\n\tbind 127.0.0.1\n\ttls CHAIN KEY\n\trespond ok\n}\n";
    let file = world.write("Caddyfile", text);
    let _server = world.start("caddy", &["run", "--config", &file, "--adapter", "caddyfile"]);
    world.answers_every_look();
}

#[test]
fn rustls_answers_every_look() {
    let world = World::new(Key::Ecdsa);
    let listener = std::net::TcpListener::bind(("127.0.0.1", world.port)).unwrap();
    let chain = CertificateDer::pem_file_iter(&world.chain).unwrap().map(|one| one.unwrap()).collect();
    let key = rustls::pki_types::PrivateKeyDer::from_pem_file(&world.key).unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = std::sync::Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut connection = rustls::ServerConnection::new(config.clone()).unwrap();
            std::thread::spawn(move || while connection.complete_io(&mut stream).is_ok_and(|(read, _)| read > 0) {});
        }
    });
    world.answers_every_look();
}

const MANY: usize = 60;

/// Each name shows its own certificate, which is the one in its file and the one that OpenSSL sees.
fn shows_each_name_its_own(world: &World, names: &[String]) {
    let mut fingerprints = std::collections::HashSet::new();
    for (number, name) in names.iter().enumerate() {
        let file = CertificateDer::from_pem_file(world.all.path(&format!("{name}-ecdsa.crt"))).unwrap();
        let server_name = Some(DnsName::parse(name).unwrap());
        for hello in [only(Version::Tls12), only(Version::Tls13)] {
            let asked = Target { server_name: server_name.clone(), hello, ..target(world.port) };
            let (seen, observation) = found(asked, &options(Method::Quick, Proof::Signed));
            assert_eq!((&seen.chain[0], seen.proof), (&file, Proof::Signed), "{name}");
            fingerprints.insert(observation.fingerprint());
        }
        if number % 10 == 0 {
            assert_eq!(s_client(world.port, None, &["-servername", name]).chain[0], file);
        }
    }
    assert_eq!(fingerprints.len(), names.len());
}

#[test]
fn nginx_with_many_certificates_shows_each_name_its_own() {
    let world = World::new(Key::Ecdsa);
    let names: Vec<String> = (0..MANY).map(|number| format!("n{number}.test")).collect();
    let mut servers = String::new();
    for name in &names {
        let (chain, key) = world.all.make(name, Key::Ecdsa);
        servers += &format!(
            "server {{ listen 127.0.0.1:PORT ssl; server_name {name}; ssl_certificate {}; ssl_certificate_key {}; }}\n",
            chain.display(),
            key.display()
        );
    }
    let text = "daemon off; error_log DIR/error.log; pid DIR/nginx.pid; events {}\n\
        http { access_log off; ssl_protocols TLSv1.2 TLSv1.3; client_body_temp_path DIR/b; proxy_temp_path DIR/p; \
        fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;\n";
    let file = world.write("nginx.conf", &format!("{text}{servers}}}\n"));
    let _server = world.start("nginx", &["-c", &file]);
    shows_each_name_its_own(&world, &names);
}

#[test]
fn haproxy_with_many_certificates_shows_each_name_its_own() {
    let world = World::new(Key::Ecdsa);
    let names: Vec<String> = (0..MANY).map(|number| format!("h{number}.test")).collect();
    std::fs::create_dir(world.all.path("certs")).unwrap();
    for name in &names {
        let (chain, key) = world.all.make(name, Key::Ecdsa);
        let both = std::fs::read_to_string(chain).unwrap() + &std::fs::read_to_string(key).unwrap();
        std::fs::write(world.all.path(&format!("certs/{name}.pem")), both).unwrap();
    }
    let text = "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\nfrontend f\n \
        bind 127.0.0.1:PORT ssl crt DIR/certs/\n http-request return status 200\n";
    let file = world.write("haproxy.cfg", text);
    let _server = world.start("haproxy", &["-db", "-f", &file]);
    shows_each_name_its_own(&world, &names);
}
