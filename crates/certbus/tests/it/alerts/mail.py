"""A mail server: mail.py PORT [CERTIFICATE KEY USER PASSWORD]. Prints its port, then each mail that it took as a line of JSON.
With a certificate it wants STARTTLS and a login. Mailboxes called `refused` are not there."""

import asyncio
import email
import email.policy
import json
import ssl
import sys

from aiosmtpd.smtp import SMTP, AuthResult


class Handler:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("refused@"):
            return "550 no such mailbox"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        mail = email.message_from_bytes(envelope.content, policy=email.policy.default)
        print(json.dumps({
            "id": mail["message-id"], "subject": mail["subject"], "from": mail["from"], "to": envelope.rcpt_tos,
            "body": mail.get_content(), "tls": session.ssl is not None, "user": getattr(session, "auth_data", None),
        }), flush=True)
        return "250 OK"


async def main(port, secure):
    options = {}
    if secure:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(secure[0], secure[1])

        def login(server, session, envelope, mechanism, data):
            good = (data.login.decode(), data.password.decode()) == tuple(secure[2:])
            return AuthResult(success=good, handled=False, auth_data=data.login.decode())

        options = {"tls_context": context, "require_starttls": True, "authenticator": login, "auth_required": True}
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: SMTP(Handler(), **options), "127.0.0.1", port)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


asyncio.run(main(int(sys.argv[1]), sys.argv[2:]))
