"""A service by lego's convention for `httpreq`, on a real zone of BIND. It is strict: what is not in the convention is noted
as a breach.

    httpreq.py FOLDER BIND_ADDRESS BIND_KEY DEFAULT|RAW      prints its URL
"""

import base64
import hashlib
import http.server
import json
import subprocess
import sys
from pathlib import Path

folder, (host, port), key, mode = Path(sys.argv[1]), sys.argv[2].split(":"), sys.argv[3], sys.argv[4]
LOGIN = "Basic " + base64.b64encode(b"shop:hush-hush").decode()


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def end(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        with open(folder / "asked", "a") as out:
            out.write(f"{self.path} {body}\n")
        if self.headers.get("authorization") != LOGIN:
            return self.end(401, f"who is {self.headers.get('authorization')}? not hush-hush's friend")
        said = json.loads(body)
        wanted = {"fqdn", "value"} if mode == "DEFAULT" else {"domain", "token", "keyAuth"}
        json_said = (self.headers.get("content-type") or "").startswith("application/json")
        if self.path not in ("/acme/present", "/acme/cleanup") or set(said) != wanted or not json_said:
            with open(folder / "breaches", "a") as out:
                out.write(f"{self.path} {body}\n")
            return self.end(400, "not in the convention")
        if mode == "RAW":
            digest = hashlib.sha256(said["keyAuth"].encode()).digest()
            name, value = f"_acme-challenge.{said['domain']}.", base64.urlsafe_b64encode(digest).decode().rstrip("=")
        else:
            name, value = said["fqdn"], said["value"]
        what = "add" if self.path.endswith("present") else "delete"
        line = f'update {what} {name} {"1" if what == "add" else ""} TXT "{value}"'
        made = subprocess.run(
            ["nsupdate", "-y", f"hmac-sha256:{key}"], input=f"server {host} {port}\n{line}\nsend\n",
            capture_output=True, text=True,
        )
        if made.returncode:
            return self.end(500, made.stderr)
        self.end(200, "")


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service)
print(f"http://127.0.0.1:{server.server_address[1]}/acme", flush=True)
server.serve_forever()
