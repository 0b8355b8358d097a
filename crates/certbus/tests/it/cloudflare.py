"""Cloudflare's API v4 as its documentation describes it, on a real zone of BIND: what a client may ask and how, and what it
is answered. Whatever is not in that contract is noted as a breach. Clients reach it as api.cloudflare.com, through the proxy
that this is.

    cloudflare.py FOLDER BIND_ADDRESS BIND_KEY ZONE      prints its proxy URL; FOLDER/root.pem is the root to trust
"""

import http.server
import json
import socketserver
import ssl
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

folder, (host, port), key, zone = Path(sys.argv[1]), sys.argv[2].split(":"), sys.argv[3], sys.argv[4]
API = "/client/v4"
ZONE_ID = "023e105f4ecef8ad9ca31a8372d0c353"
records = {}
busy = {"count": 0}


def run(*command, text=None):
    made = subprocess.run(command, cwd=folder, input=text, capture_output=True, text=True)
    if made.returncode:
        raise RuntimeError(f"{command[0]}: {made.stderr}")


def certificates():
    new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    run("openssl", "req", "-x509", *new, "-keyout", "root.key", "-out", "root.pem", "-days", "30", "-subj", "/CN=contract",
        "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    run("openssl", "req", *new, "-keyout", "api.key", "-out", "api.csr", "-subj", "/CN=api.cloudflare.com")
    (folder / "api.ext").write_text("subjectAltName=DNS:api.cloudflare.com\nextendedKeyUsage=serverAuth\n")
    run("openssl", "x509", "-req", "-in", "api.csr", "-CA", "root.pem", "-CAkey", "root.key", "-CAcreateserial", "-days", "30",
        "-extfile", "api.ext", "-out", "api.pem")


def update(what, name, content):
    line = f"update {what} {name}. {'1' if what == 'add' else ''} TXT {content}"
    run("nsupdate", "-y", f"hmac-sha256:{key}", text=f"server {host} {port}\n{line}\nsend\n")


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def note(self, file, text):
        with open(folder / file, "a") as out:
            out.write(f"{self.command} {self.path}: {text}\n")

    def answer(self, status, result, errors=(), headers=()):
        body = {"success": not errors, "errors": list(errors), "messages": [], "result": result}
        if isinstance(result, list):
            body["result_info"] = {"page": 1, "per_page": 100, "count": len(result), "total_count": len(result)}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, status, code, message, headers=()):
        self.answer(status, None, [{"code": code, "message": message}], headers)

    def breach(self, what):
        self.note("breaches", what)
        self.refuse(400, 7003, f"Could not route to {self.path}, perhaps your object identifier is invalid?")

    def admitted(self):
        kind, _, token = self.headers.get("authorization", "").partition(" ")
        if kind != "Bearer" or not token:
            self.refuse(400, 6003, "Invalid request headers")
        elif token == "busy-then-good":
            busy["count"] += 1
            if busy["count"] == 1:
                self.refuse(429, 971, "Please wait and consider throttling your request speed", [("Retry-After", "1")])
            return busy["count"] > 1
        elif token == "always-busy":
            self.refuse(429, 971, "Please wait and consider throttling your request speed", [("Retry-After", "0")])
        elif token == "no-such-token":
            self.refuse(403, 9109, f"Invalid access token {token}")
        elif token == "not-for-this":
            self.refuse(401, 10000, "Authentication error")
        elif token != "good-token":
            self.refuse(400, 6003, "Invalid request headers")
        return token == "good-token"

    def serve(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        self.note("asked", raw.decode())
        if not self.admitted():
            return
        records_at = f"{API}/zones/{ZONE_ID}/dns_records"
        if self.command == "GET" and url.path == f"{API}/zones" and set(query) == {"name"}:
            known = [{"id": ZONE_ID, "name": zone, "status": "active"}] if query["name"] == zone else []
            return self.answer(200, known)
        if self.command == "GET" and url.path == records_at and set(query) == {"name", "type", "match", "per_page"}:
            found = [r for r in records.values() if r["name"] == query["name"] and r["type"] == query["type"]]
            return self.answer(200, found)
        if self.command == "POST" and url.path == records_at:
            if self.headers.get("content-type") != "application/json":
                return self.breach("content type")
            body = json.loads(raw)
            good = set(body) <= {"type", "name", "content", "ttl", "proxied"} and body["type"] == "TXT"
            content = body.get("content", "")
            if not good or body["proxied"] or not 60 <= body["ttl"] <= 86400 or body["name"].endswith("."):
                return self.breach(f"body {raw.decode()}")
            if not (content.startswith('"') and content.endswith('"')):
                return self.breach("the content of a TXT record is to be quoted")
            if any(r["name"] == body["name"] and r["content"] == content for r in records.values()):
                return self.refuse(400, 81058, "An identical record already exists.")
            number = f"{len(records) + 1:032x}" if not records else f"{int(max(records), 16) + 1:032x}"
            records[number] = {**body, "id": number}
            update("add", body["name"], content)
            return self.answer(200, records[number])
        if self.command == "DELETE" and url.path.startswith(f"{records_at}/"):
            gone = records.pop(url.path.rsplit("/", 1)[1], None)
            if gone is None:
                return self.refuse(404, 81044, "Record does not exist.")
            update("delete", gone["name"], gone["content"])
            return self.answer(200, {"id": gone["id"]})
        self.breach("no such request in the contract")

    do_GET = do_POST = do_DELETE = do_PUT = do_PATCH = serve


class Proxy(socketserver.StreamRequestHandler):
    rbufsize = 0

    def handle(self):
        head = b""
        while b"\r\n\r\n" not in head:
            part = self.request.recv(1)
            if not part:
                return
            head += part
        if not head.startswith(b"CONNECT api.cloudflare.com:443 "):
            with open(folder / "breaches", "a") as out:
                out.write(f"{head!r}\n")
            return
        self.request.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        try:
            Api(context.wrap_socket(self.request, server_side=True), self.client_address, self.server)
        except (ssl.SSLError, ConnectionError):
            pass


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    daemon_threads = True


certificates()
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(folder / "api.pem", folder / "api.key")
server = Server(("127.0.0.1", 0), Proxy)
print(f"http://127.0.0.1:{server.server_address[1]}", flush=True)
server.serve_forever()
