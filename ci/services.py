#!/usr/bin/env python3
"""Starts the counterparties of the tests on free loopback ports, runs a command, and stops exactly what it started.

    ci/services.py [--cache DIR] -- cargo test -p certbus-acme

The command finds them by environment variables:

    CERTBUS_TEST_PEBBLE              directory URL of an ACME CA (Pebble)
    CERTBUS_TEST_PEBBLE_ROOT         file: the root that signs the TLS certificate of Pebble's own API
    CERTBUS_TEST_PEBBLE_MANAGEMENT   URL of its management API (/roots/0: the root it issues from)
    CERTBUS_TEST_PEBBLE_LOG          file: what it says, each issued certificate with its order among it
    CERTBUS_TEST_PEBBLE_NONCE        directory URL of a second one, which refuses a fifth of all nonces
    CERTBUS_TEST_PEBBLE_NONCE_MANAGEMENT
    CERTBUS_TEST_PEBBLE_HALF         directory URL of another, which refuses half of all nonces (and …_MANAGEMENT)
    CERTBUS_TEST_PEBBLE_EAB          directory URL of a third one, which wants external account binding
    CERTBUS_TEST_PEBBLE_EAB_KEY      KEY_ID:HMAC_KEY that it takes
    CERTBUS_TEST_HTTP01_PORT         where the first asks for HTTP-01 (one at a time: tests take turns)
    CERTBUS_TEST_NONCE_HTTP01_PORT   where the second does
    CERTBUS_TEST_HALF_HTTP01_PORT    and the one that refuses half
    CERTBUS_TEST_BIND                ADDRESS:PORT; authoritative for bind.test, alias.test and http.test; all CAs
                                     resolve through it; it also resolves knot.test
    CERTBUS_TEST_BIND_KEY            NAME:SECRET (hmac-sha256) for updates of bind.test
    CERTBUS_TEST_KNOT                ADDRESS:PORT; authoritative for knot.test
    CERTBUS_TEST_KNOT_KEY            NAME:SECRET (hmac-sha256) for updates of knot.test
    CERTBUS_TEST_MOTO                URL of an S3 and Route 53 (moto), which take any credentials
    CERTBUS_TEST_POSTGRES            log URL of a PostgreSQL, whose user may do anything
    CERTBUS_TEST_MARIADB             log URL of a MariaDB, whose user may do anything
    CERTBUS_TEST_DYNAMODB            log URL of a table of DynamoDB Local, which takes the credentials of the environment
    CERTBUS_TEST_NATS                log URL of a NATS server with JetStream
    CERTBUS_CHROMIUM, CERTBUS_NODE_MODULES  a browser, and a folder with playwright-core and axe-core
    CERTBUS_TEST_SCHEMATHESIS        the program
    CERTBUS_TEST_AIOSMTPD            a Python that has aiosmtpd: tests start mail servers of their own
    CERTBUS_TEST_COUNTERPARTIES      file: one line for each, `counterparty NAME VERSION`

In zone http.test every name has the address 127.0.0.1, except below nowhere.http.test. In alias.test,
_acme-challenge.nNUMBER.alias.test is a CNAME to nNUMBER.delegated.bind.test (0 to 999).
"""

import base64
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

START_WITHIN = 30
LINES_OF_LOG = 25


class Failed(Exception):
    """A service that did not start: its name, and what its log says."""


class Services:
    def __init__(self, folder: Path, cache: Path):
        self.folder = folder
        known = ["/usr/sbin", "/sbin", "/usr/local/go/bin"]
        self.path = os.pathsep.join([str(cache / "bin"), os.environ.get("PATH", ""), *known])
        self.running = []
        self.homes = []
        self.versions = []
        self.environment = {}
        self.cache = cache

    def program(self, name: str) -> str:
        found = shutil.which(name, path=self.path)
        if not found:
            raise Failed(f"{name} is not installed; run ci/install-counterparties")
        return found

    def start(self, name: str, command: list, ready, environment=None):
        log = self.folder / f"{name}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(environment or {})},
                cwd=self.folder,
                start_new_session=True,
            )
        self.running.append((name, process))
        deadline = time.monotonic() + START_WITHIN
        while not ready():
            if process.poll() is not None:
                raise Failed(f"{name} ended with status {process.returncode}:\n{tail(log)}")
            if time.monotonic() > deadline:
                raise Failed(f"{name} did not answer within {START_WITHIN} s:\n{tail(log)}")
            time.sleep(0.02)

    def stop(self):
        for name, process in reversed(self.running):
            signal_group(process, signal.SIGTERM)
        for name, process in reversed(self.running):
            try:
                process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                signal_group(process, signal.SIGKILL)
                process.wait()
        self.running.clear()
        for home in self.homes:
            shutil.rmtree(home, ignore_errors=True)

    def counterparty(self, name: str, version: str):
        line = f"counterparty {name} {version}"
        self.versions.append(line)
        print(line, file=sys.stderr)

    # BIND: the zones that the CAs resolve, updates by TSIG, and the way to Knot.
    def bind(self, knot_port: int):
        named = self.program("named")
        port, home, secret = free_port(), self.folder / "bind", tsig_secret()
        home.mkdir()
        zone = "$TTL 1\n@ SOA ns.{0}. root.{0}. 1 60 60 3600 1\n@ NS ns.{0}.\nns A 127.0.0.1\n{1}"
        (home / "bind.test.zone").write_text(zone.format("bind.test", ""))
        (home / "http.test.zone").write_text(
            zone.format("http.test", "@ A 127.0.0.1\n* A 127.0.0.1\nnowhere TXT \"so that nothing matches below\"\n")
        )
        alias = '$GENERATE 0-999 _acme-challenge.n$ CNAME n$.delegated.bind.test.\n'
        (home / "alias.test.zone").write_text(zone.format("alias.test", alias))
        (home / "named.conf").write_text(f"""
options {{
    directory "{home}";
    pid-file "{home}/named.pid";
    session-keyfile "{home}/session.key";
    managed-keys-directory "{home}";
    listen-on port {port} {{ 127.0.0.1; }};
    listen-on-v6 {{ none; }};
    recursion yes;
    allow-recursion {{ 127.0.0.1; }};
    dnssec-validation no;
    empty-zones-enable no;
    // What Knot says now counts, not what it said before.
    max-cache-ttl 1;
    max-ncache-ttl 1;
    forward only;
    forwarders {{ }};
}};
controls {{ }};
key "certbus-bind" {{ algorithm hmac-sha256; secret "{secret}"; }};
zone "bind.test" {{
    type primary;
    file "bind.test.zone";
    update-policy {{ grant certbus-bind zonesub ANY; }};
}};
zone "http.test" {{ type primary; file "http.test.zone"; }};
zone "alias.test" {{ type primary; file "alias.test.zone"; }};
zone "knot.test" {{ type forward; forward only; forwarders {{ 127.0.0.1 port {knot_port}; }}; }};
// Nothing else is asked for outside this machine.
zone "." {{ type primary; file "root.zone"; }};
""")
        (home / "root.zone").write_text(
            "$TTL 1\n@ SOA ns.invalid. root.invalid. 1 60 60 3600 1\n@ NS ns.invalid.\nns.invalid. A 127.0.0.1\n"
            # A forward zone is used only below a delegation.
            "knot.test. NS ns.knot.test.\nns.knot.test. A 127.0.0.1\n"
        )
        self.start("bind", [named, "-c", str(home / "named.conf"), "-g"], lambda: dns_answers(port, "bind.test"))
        self.counterparty("BIND", version([named, "-v"], 1))
        self.environment["CERTBUS_TEST_BIND"] = f"127.0.0.1:{port}"
        self.environment["CERTBUS_TEST_BIND_KEY"] = f"certbus-bind:{secret}"
        return port

    def knot(self):
        knotd = self.program("knotd")
        port, home, secret = free_port(), self.folder / "knot", tsig_secret()
        home.mkdir()
        (home / "knot.test.zone").write_text(
            "$TTL 1\n@ SOA ns.knot.test. root.knot.test. 1 60 60 3600 1\n@ NS ns.knot.test.\nns A 127.0.0.1\n"
        )
        (home / "knot.conf").write_text(f"""
server:
    rundir: "{home}"
    listen: 127.0.0.1@{port}
    udp-workers: 1
    tcp-workers: 1
    background-workers: 1
log:
  - target: stderr
    any: info
database:
    storage: "{home}"
key:
  - id: certbus-knot
    algorithm: hmac-sha256
    secret: {secret}
acl:
  - id: update
    key: certbus-knot
    action: [update, transfer]
zone:
  - domain: knot.test
    storage: "{home}"
    file: knot.test.zone
    zonefile-load: difference
    zonefile-sync: -1
    journal-content: all
    acl: update
""")
        self.start("knot", [knotd, "-c", str(home / "knot.conf")], lambda: dns_answers(port, "knot.test"))
        self.counterparty("Knot", version([knotd, "--version"], -1))
        self.environment["CERTBUS_TEST_KNOT"] = f"127.0.0.1:{port}"
        self.environment["CERTBUS_TEST_KNOT_KEY"] = f"certbus-knot:{secret}"
        return port

    # Amazon's S3 and Route 53, in memory.
    def moto(self, cache: Path):
        python, port = cache / "moto" / "bin" / "python", free_port()
        if not python.exists():
            raise Failed("moto is not installed; run ci/install-counterparties")
        server = [str(python), "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.start("moto", server, lambda: connects(port))
        self.counterparty("moto", version([str(python), "-c", "import moto; print(moto.__version__)"], 0))
        self.environment["CERTBUS_TEST_MOTO"] = f"http://127.0.0.1:{port}"

    # The engines of the log. PostgreSQL refuses to run as root.
    def postgresql(self):
        port, home = free_port(), Path(tempfile.mkdtemp(prefix="certbus-postgresql-"))
        self.homes.append(home)
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if user:
            shutil.chown(home, "postgres")
        tools = Path(postgres()).parent
        made = subprocess.run(
            [*user, str(tools / "initdb"), "-D", str(home / "data"), "-A", "trust", "-U", "certbus", "-E", "UTF8", "--no-sync"],
            capture_output=True, text=True, cwd="/",
        )
        if made.returncode:
            raise Failed(f"initdb: {made.stderr}")
        options = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={home}", "max_connections=400"]
        words = [word for option in options for word in ("-c", option)]
        self.start("postgresql", [*user, postgres(), "-D", str(home / "data"), *words], lambda: connects(port))
        self.environment["CERTBUS_TEST_POSTGRES"] = f"postgres://certbus@127.0.0.1:{port}/postgres"

    def mariadb(self):
        port, home = free_port(), self.folder / "mariadb"
        home.mkdir()
        user = ["--user=root"] if os.geteuid() == 0 else []
        made = subprocess.run(
            [self.program("mariadb-install-db"), "--no-defaults", *user, f"--datadir={home}/data",
             "--auth-root-authentication-method=normal", "--skip-test-db"],
            capture_output=True, text=True, cwd=home,
        )
        if made.returncode:
            raise Failed(f"mariadb-install-db: {made.stdout}{made.stderr}")
        (home / "init.sql").write_text(
            "CREATE DATABASE certbus;\nCREATE USER certbus@'127.0.0.1' IDENTIFIED BY 'certbus';\n"
            "GRANT ALL ON *.* TO certbus@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        server = [self.program("mariadbd"), "--no-defaults", *user, f"--datadir={home}/data", f"--socket={home}/socket",
                  "--bind-address=127.0.0.1", f"--port={port}", f"--pid-file={home}/pid", f"--init-file={home}/init.sql",
                  "--max-connections=400"]
        self.start("mariadb", server, lambda: connects(port))
        self.environment["CERTBUS_TEST_MARIADB"] = f"mariadb://certbus:certbus@127.0.0.1:{port}/certbus"

    def nats(self):
        server, port = self.program("nats-server"), free_port()
        words = ["-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(self.folder / "nats")]
        self.start("nats", [server, *words], lambda: connects(port))
        self.counterparty("NATS", version([server, "--version"], -1))
        self.environment["CERTBUS_TEST_NATS"] = f"nats://127.0.0.1:{port}"

    # Amazon's own, as a program.
    def dynamodb(self, cache: Path):
        home, port = cache / "dynamodb", free_port()
        if not (home / "lib").exists():
            raise Failed("DynamoDB Local is not installed; run ci/install-counterparties")
        command = [self.program("java"), "-Xmx256m", f"-Djava.library.path={home}/lib", "-cp", f"{home}/lib/*",
                   "com.amazonaws.services.dynamodbv2.local.main.ServerRunner", "-inMemory", "-sharedDb",
                   "-disableTelemetry", "-port", str(port)]
        self.start("dynamodb", command, lambda: connects(port))
        jar = next((home / "lib").glob("DynamoDBLocal-*.jar"))
        self.counterparty("DynamoDB", jar.stem.removeprefix("DynamoDBLocal-"))
        self.environment["CERTBUS_TEST_DYNAMODB"] = f"dynamodb://certbus?region=eu-central-1&endpoint=http://127.0.0.1:{port}"
        self.environment["CERTBUS_TEST_DYNAMODB_HOME"] = str(home / "lib")
        self.environment.update(AWS_ACCESS_KEY_ID="certbus", AWS_SECRET_ACCESS_KEY="certbus")

    # What looks at the web: a browser and a tester of APIs.
    def web(self, cache: Path):
        chromium, modules = self.program("chromium"), cache / "web" / "node_modules"
        tester = cache / "schemathesis" / "bin" / "st"
        for place in (modules / "axe-core" / "axe.min.js", tester):
            if not place.exists():
                raise Failed(f"{place} is not there; run ci/install-counterparties")
        self.counterparty("Chromium", version([chromium, "--version"], 1))
        axe = json.loads((modules / "axe-core" / "package.json").read_text())["version"]
        self.counterparty("axe", axe)
        self.counterparty("schemathesis", version([str(tester), "--version"], -1))
        self.environment["CERTBUS_CHROMIUM"] = chromium
        self.environment["CERTBUS_NODE_MODULES"] = str(modules)
        self.environment["CERTBUS_TEST_SCHEMATHESIS"] = str(tester)

    # Mail servers are started by their tests, each on a port of its own.
    def aiosmtpd(self):
        python = self.cache / "aiosmtpd" / "bin" / "python"
        if not python.exists():
            raise Failed("aiosmtpd is not installed; run ci/install-counterparties")
        self.counterparty("aiosmtpd", version([str(python), "-c", "import aiosmtpd; print(aiosmtpd.__version__)"], 0))
        self.environment["CERTBUS_TEST_AIOSMTPD"] = str(python)

    # Pebble ships no certificate for its own API.
    def api_certificate(self):
        openssl = self.program("openssl")
        home = self.folder / "api"
        home.mkdir()

        def run(*arguments):
            made = subprocess.run([openssl, *arguments], cwd=home, capture_output=True, text=True)
            if made.returncode:
                raise Failed(f"openssl {arguments[0]}: {made.stderr}")

        key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        run("req", "-x509", *key, "-keyout", "root.key", "-out", "root.pem", "-days", "3650",
            "-subj", "/CN=CertBus test API root", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
        run("req", *key, "-keyout", "server.key", "-out", "server.csr", "-subj", "/CN=localhost")
        (home / "server.ext").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        run("x509", "-req", "-in", "server.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial",
            "-days", "3650", "-extfile", "server.ext", "-out", "server.pem")
        self.environment["CERTBUS_TEST_PEBBLE_ROOT"] = str(home / "root.pem")
        return home

    def pebble(self, name: str, api: Path, resolver: int, environment=None, **settings):
        pebble = self.program("pebble")
        port, management, http_port = free_port(), free_port(), free_port()
        config = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{management}",
            "certificate": str(api / "server.pem"),
            "privateKey": str(api / "server.key"),
            "httpPort": http_port,
            "tlsPort": free_port(),
            "domainBlocklist": ["blocked.http.test"],
            "keyAlgorithm": "ecdsa",
            "profiles": {
                "default": {"description": "ninety days", "validityPeriod": 7776000},
                "shortlived": {"description": "six days", "validityPeriod": 518400},
            },
            **settings,
        }
        file = self.folder / f"{name}.json"
        file.write_text(json.dumps({"pebble": config}))
        self.start(
            name,
            [pebble, "-config", str(file), "-dnsserver", f"127.0.0.1:{resolver}"],
            lambda: connects(port) and connects(management),
            {"PEBBLE_VA_NOSLEEP": "1", **(environment or {})},
        )
        return f"https://127.0.0.1:{port}/dir", f"https://127.0.0.1:{management}", str(http_port)

    def start_all(self):
        knot_port = self.knot()
        bind_port = self.bind(knot_port)
        self.moto(self.cache)
        self.postgresql()
        self.mariadb()
        self.nats()
        self.dynamodb(self.cache)
        self.web(self.cache)
        self.aiosmtpd()
        api = self.api_certificate()
        # Authorizations are used again by half by default; tests want every challenge to be met.
        no_reuse = {"PEBBLE_AUTHZREUSE": "0", "PEBBLE_WFE_NONCEREJECT": "0"}
        url, management, http_port = self.pebble("pebble", api, bind_port, no_reuse)
        self.environment["CERTBUS_TEST_PEBBLE"] = url
        self.environment["CERTBUS_TEST_PEBBLE_MANAGEMENT"] = management
        self.environment["CERTBUS_TEST_PEBBLE_LOG"] = str(self.folder / "pebble.log")
        self.environment["CERTBUS_TEST_HTTP01_PORT"] = http_port
        refusing = {"PEBBLE_AUTHZREUSE": "0", "PEBBLE_WFE_NONCEREJECT": "20"}
        url, management, http_port = self.pebble("pebble-nonce", api, bind_port, refusing)
        self.environment["CERTBUS_TEST_PEBBLE_NONCE"] = url
        self.environment["CERTBUS_TEST_PEBBLE_NONCE_MANAGEMENT"] = management
        self.environment["CERTBUS_TEST_NONCE_HTTP01_PORT"] = http_port
        half = {"PEBBLE_AUTHZREUSE": "0", "PEBBLE_WFE_NONCEREJECT": "50"}
        url, management, http_port = self.pebble("pebble-half", api, bind_port, half)
        self.environment["CERTBUS_TEST_PEBBLE_HALF"] = url
        self.environment["CERTBUS_TEST_PEBBLE_HALF_MANAGEMENT"] = management
        self.environment["CERTBUS_TEST_HALF_HTTP01_PORT"] = http_port
        key_id, mac = "certbus-eab", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
        url, _, _ = self.pebble(
            "pebble-eab", api, bind_port, no_reuse,
            externalAccountBindingRequired=True, externalAccountMACKeys={key_id: mac},
        )
        self.environment["CERTBUS_TEST_PEBBLE_EAB"] = url
        self.environment["CERTBUS_TEST_PEBBLE_EAB_KEY"] = f"{key_id}:{mac}"
        self.counterparty("Pebble", pebble_version(self.program("pebble")))
        self.counterparty("OpenSSL", version([self.program("openssl"), "version"], 1))
        self.counterparty("Alertmanager", version([self.program("prometheus-alertmanager"), "--version"], 2))
        self.counterparty("Prometheus", version([self.program("promtool"), "--version"], 2))
        self.counterparty("curl", version([self.program("curl"), "--version"], 1))
        # Started by their tests, each with a configuration of its own.
        self.counterparty("nginx", version([self.program("nginx"), "-v"], -1))
        self.counterparty("HAProxy", version([self.program("haproxy"), "-v"], 2))
        self.counterparty("Postfix", version([self.program("postconf"), "-d", "mail_version"], -1))
        self.counterparty("PostgreSQL", version([postgres(), "--version"], 2))
        self.counterparty("pgbouncer", version([self.program("pgbouncer"), "--version"], 1))
        self.counterparty("Dovecot", version([self.program("dovecot"), "--version"], 0))
        self.counterparty("vsftpd", packaged("vsftpd", self.program("vsftpd")))
        self.counterparty("slapd", packaged("slapd", self.program("slapd")))
        self.counterparty("INN", packaged("inn2", "/usr/lib/news/bin/nnrpd"))
        self.counterparty("MariaDB", version([self.program("mariadbd"), "--version"], 2))
        self.counterparty("Prosody", packaged("prosody", self.program("prosody")))
        self.counterparty("GnuTLS", version([self.program("gnutls-serv"), "--version"], 1))
        self.counterparty("Caddy", version([self.program("caddy"), "version"], 0))
        self.counterparty("golang", version([self.program("go"), "env", "GOVERSION"], 0))
        self.counterparty("Java", version([self.program("java"), "--version"], 1))
        file = self.folder / "counterparties"
        file.write_text("".join(f"{line}\n" for line in self.versions))
        self.environment["CERTBUS_TEST_COUNTERPARTIES"] = str(file)


def main() -> int:
    arguments = sys.argv[1:]
    cache = Path(
        os.environ.get("CERTBUS_CACHE")
        or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "certbus-ci"
    )
    if arguments[:1] == ["--cache"] and len(arguments) > 1:
        cache, arguments = Path(arguments[1]), arguments[2:]
    if arguments[:1] == ["--"]:
        arguments = arguments[1:]
    if not arguments or arguments[0].startswith("-"):
        print(__doc__, file=sys.stderr)
        return 2

    command = None

    def interrupted(number, _frame):
        raise KeyboardInterrupt(number)

    signal.signal(signal.SIGTERM, interrupted)
    signal.signal(signal.SIGINT, interrupted)
    folder = Path(tempfile.mkdtemp(prefix="certbus-services-"))
    services = Services(folder, cache.resolve())
    try:
        services.start_all()
        command = subprocess.Popen(arguments, env={**os.environ, **services.environment}, start_new_session=True)
        status = command.wait()
        return 128 - status if status < 0 else status
    except Failed as failed:
        print(f"services.py: {failed}", file=sys.stderr)
        return 1
    except FileNotFoundError as missing:
        print(f"services.py: cannot run {arguments[0]}: {missing}", file=sys.stderr)
        return 127
    except KeyboardInterrupt as signalled:
        return 128 + (signalled.args[0] if signalled.args else signal.SIGINT)
    finally:
        # A second signal must not leave services behind.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if command is not None and command.poll() is None:
            signal_group(command, signal.SIGTERM)
            try:
                command.wait(timeout=10)
            except subprocess.TimeoutExpired:
                signal_group(command, signal.SIGKILL)
                command.wait()
        services.stop()
        shutil.rmtree(folder, ignore_errors=True)


def signal_group(process, number):
    """The process was started as leader of a session of its own, so its group is its own too."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        pass


used_ports = set()


def free_port() -> int:
    """A port free for TCP and UDP, given out once."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp, \
                socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in used_ports:
                used_ports.add(port)
                return port


def connects(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def dns_answers(port: int, zone: str) -> bool:
    """Asks for the zone's SOA record; ready when it is answered with authority and without error."""
    name = b"".join(bytes([len(label)]) + label.encode() for label in zone.split(".")) + b"\0"
    query = b"\x12\x34\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00" + name + b"\x00\x06\x00\x01"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(0.3)
        try:
            udp.sendto(query, ("127.0.0.1", port))
            answer = udp.recv(512)
        except OSError:
            return False
    return answer[:2] == query[:2] and answer[2] & 0x04 != 0 and answer[3] & 0x0F == 0


def tsig_secret() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()


def tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines()
    return "\n".join(lines[-LINES_OF_LOG:])


def version(command: list, word: int) -> str:
    said = subprocess.run(command, capture_output=True, text=True)
    words = (said.stdout + said.stderr).split()
    return words[word] if words else "unknown"


def packaged(package: str, program: str) -> str:
    """Of a program that does not say its version, the version of its Debian package."""
    if not os.access(program, os.X_OK):
        raise Failed(f"{program} is not installed; run ci/install-counterparties")
    return version(["dpkg-query", "-W", "-f", "${Version}", package], 0)


def postgres() -> str:
    """Debian keeps its servers out of the PATH, one folder for each version."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise Failed("postgres is not installed; run ci/install-counterparties")
    return str(found[-1])


def pebble_version(program: str) -> str:
    """A build from changed sources does not know its version: ci/pebble.sh writes it beside."""
    beside = Path(program + ".version")
    if beside.exists():
        return beside.read_text().strip()
    return version([program, "-version"], -1)


if __name__ == "__main__":
    sys.exit(main())
