"""A CA that is not always right: passes everything on to Pebble, but for what it was told to do otherwise.

    ca_proxy.py PEBBLE_DIRECTORY CERTIFICATE KEY      prints its own directory URL

POST /fault with one of these, and `at` (a step of STEPS) and `times` (absent: always); POST /fault {} ends them all.
    {"problem": KIND, "status": 403, "retry_after": 60, "about": NAME}    a problem document of RFC 8555
    {"answer": TEXT, "status": 200, "type": "text/html"}   something else
    {"redirect": URL}    {"hang": true}    {"cut": true}   half an answer, then the connection ends
    {"same": true}       for newOrder: the same names are given the same order while it is open, as Boulder does
    {"chain": WHAT}      for certificate: `before` (that of the order before), `text`, `half`, `reversed`, `stranger` (an
                         issuer that did not sign it), or made anew for the order's request: `names` (for other names),
                         `future` and `past` (validity),
                         `p521` (all well, by a CA with such a key)
"""

import base64
import http.client
import http.server
import json
import re
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

pebble = urlsplit(sys.argv[1])
STEPS = {
    "/dir": "directory", "/nonce-plz": "newNonce", "/sign-me-up": "newAccount", "/order-plz": "newOrder",
    "/my-order": "order", "/authZ": "authorization", "/chalZ": "challenge", "/finalize-order": "finalize",
    "/certZ": "certificate", "renewal": "renewalInfo",
}  # fmt: skip
folder = Path(tempfile.mkdtemp(prefix="ca-proxy-"))
lock = threading.Lock()
faults, orders, state = [], {}, {"csr": b"", "chain": b"", "before": b""}


def unpack(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def openssl(*args):
    return subprocess.run(["openssl", *args], cwd=folder, check=True, capture_output=True).stdout


def made_anew(what):
    """The order's request, signed by a CA of this proxy's own."""
    days = {"names": (0, 30), "future": (10, 40), "past": (-40, -10), "p521": (0, 30)}[what]
    date = lambda day: time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + day * 86400))
    (folder / "csr.der").write_bytes(state["csr"])
    openssl("req", "-inform", "DER", "-in", "csr.der", "-out", "csr.pem")
    if what == "p521" or not (folder / "ca.pem").exists():
        curve = "P-521" if what == "p521" else "P-256"
        openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:" + curve, "-nodes", "-keyout", "ca.key",
                "-out", "ca.pem", "-subj", "/CN=not always right", "-days", "100")  # fmt: skip
    names = re.findall(r"DNS:[^\s,]+", openssl("req", "-in", "csr.pem", "-noout", "-text").decode())
    names = ["DNS:another.example"] if what == "names" else names
    (folder / "index.txt").write_text("")
    (folder / "serial").write_text("%016X\n" % time.time_ns())
    (folder / "ca.cnf").write_text(
        "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n"
        "[p]\ncommonName=optional\n[x]\nsubjectAltName=" + ",".join(names) + "\nauthorityKeyIdentifier=keyid\n"
    )
    openssl("ca", "-config", "ca.cnf", "-batch", "-in", "csr.pem", "-cert", "ca.pem", "-keyfile", "ca.key", "-out",
            "leaf.pem", "-extensions", "x", "-subj", "/", "-notext", "-startdate", date(days[0]), "-enddate",
            date(days[1]))  # fmt: skip
    return (folder / "leaf.pem").read_bytes() + (folder / "ca.pem").read_bytes()


def chain(what, text):
    blocks = re.findall(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", text, re.S)
    return {
        "before": lambda: state["before"],
        "text": lambda: b"no certificate today\n",
        "half": lambda: text[: len(blocks[0]) // 2],
        "reversed": lambda: b"".join(reversed(blocks)),
        "stranger": lambda: blocks[0] + Path(sys.argv[2]).read_bytes(),
    }.get(what, lambda: made_anew(what))()


def fault_at(step):
    with lock:
        for fault in faults:
            if fault["at"] == step and fault.get("times", 1) > 0:
                if "times" in fault:
                    fault["times"] -= 1
                return fault
    return {}


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, text, headers):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def ask(self, method, path, body=None):
        connection = http.client.HTTPSConnection(pebble.hostname, pebble.port, context=ssl._create_unverified_context())
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        connection.request(method, path, body, headers if body is not None or method == self.command else {})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.getheaders()

    def nonce(self):
        return [(name, value) for name, value in self.ask("HEAD", "/nonce-plz")[2] if name == "Replay-Nonce"]

    def forward(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        if self.path == "/fault":
            with lock:
                faults[:] = [fault] if (fault := json.loads(body)) else []
            return self.answer(200, b"", [])
        step = next((step for part, step in STEPS.items() if part in self.path), "else")
        fault = fault_at(step)
        payload = unpack(json.loads(body)["payload"]) if body else b""
        if step == "finalize" and payload:
            state["csr"] = unpack(json.loads(payload)["csr"])
        if "problem" in fault:
            problem = {"type": "urn:ietf:params:acme:error:" + fault["problem"], "detail": ("a word of the CA " * fault.get("words", 1) + fault.get("about", "")).strip()}
            wait = [("Retry-After", str(fault["retry_after"]))] if "retry_after" in fault else []
            kind = [("Content-Type", "application/problem+json")]
            return self.answer(fault.get("status", 403), json.dumps(problem).encode(), kind + wait + self.nonce())
        if "answer" in fault:
            kind = [("Content-Type", fault.get("type", "text/html"))]
            return self.answer(fault.get("status", 200), fault["answer"].encode(), kind + self.nonce())
        if "redirect" in fault:
            return self.answer(307, b"", [("Location", fault["redirect"])] + self.nonce())
        if "hang" in fault:
            time.sleep(120)
            self.close_connection = True
            return None
        repeated = None
        if fault.get("same") and payload:
            # `replaces` may be given with one of them: it is the names that count.
            names = sorted(i["value"] for i in json.loads(payload)["identifiers"])
            repeated = (json.loads(unpack(json.loads(body)["protected"]))["kid"], *names)
        if repeated in orders:
            status, text, given = orders[repeated]
            return self.answer(status, text, [h for h in given if h[0].lower() != "replay-nonce"] + self.nonce())
        status, text, given = self.ask(self.command, self.path, body)
        if repeated and status == 201:
            orders[repeated] = (status, text, given)
        if "cut" in fault:
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text[: len(text) // 2])
            self.close_connection = True
            return None
        if step == "certificate" and status == 200:
            if text != state["chain"]:
                state["before"], state["chain"] = state["chain"], text
            text = chain(fault["chain"], text) if "chain" in fault else text
        return self.answer(status, text, given)

    do_GET = do_POST = do_HEAD = forward


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(f"https://127.0.0.1:{server.server_address[1]}{pebble.path}", flush=True)
server.serve_forever()
