"""A CA that gives the same order to whoever orders the same names again while it is open, as Boulder does and Pebble does
not: passes everything on to Pebble and answers a repeated newOrder with the first answer.

    same_order.py PEBBLE_DIRECTORY CERTIFICATE KEY      prints its own directory URL
"""

import base64
import http.client
import http.server
import json
import ssl
import sys
from urllib.parse import urlsplit

pebble = urlsplit(sys.argv[1])
orders = {}


def unpack(text):
    return json.loads(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) or b"{}")


class Proxy(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def forward(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        repeated = None
        if "order-plz" in self.path and body:
            jws = json.loads(body)
            # `replaces` may be given with one of them: it is the names that count.
            names = sorted(i["value"] for i in unpack(jws["payload"])["identifiers"])
            repeated = (unpack(jws["protected"])["kid"], *names)
        connection = http.client.HTTPSConnection(pebble.hostname, pebble.port, context=ssl._create_unverified_context())
        headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        known = orders.get(repeated) if repeated else None
        if known:
            connection.request("HEAD", "/nonce-plz")
            answer = connection.getresponse()
            answer.read()
            status, text = known[0], known[1]
            given = [(n, v) for n, v in known[2] if n.lower() != "replay-nonce"]
            given.append(("Replay-Nonce", answer.headers["Replay-Nonce"]))
            print("repeated", file=sys.stderr, flush=True)
        else:
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            status, text, given = answer.status, answer.read(), answer.getheaders()
            if repeated and status == 201:
                orders[repeated] = (status, text, given)
        self.send_response(status)
        for name, value in given:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    do_GET = do_POST = do_HEAD = forward


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2], sys.argv[3])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(f"https://127.0.0.1:{server.server_address[1]}{pebble.path}", flush=True)
server.serve_forever()
