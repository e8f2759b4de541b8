"""A stand-in for the controller's agent listener: HTTPS with a CA of its own, the contract's two messages, replies as the test sets them."""

from __future__ import annotations

import datetime
import ipaddress
import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Json = dict[str, Any]


class Authority:
    """A certificate authority that signs one server certificate."""

    def __init__(self, directory: Path) -> None:
        key = ec.generate_private_key(ec.SECP256R1())
        authority = self._certificate("test CA", key.public_key(), "test CA", key, authority=True)
        self.pem = authority.public_bytes(serialization.Encoding.PEM).decode()
        server_key = ec.generate_private_key(ec.SECP256R1())
        server = self._certificate("controller", server_key.public_key(), "test CA", key, authority=False)
        self.chain = directory / "server.pem"
        self.chain.write_bytes(
            server_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + server.public_bytes(serialization.Encoding.PEM)
        )

    @staticmethod
    def _certificate(
        subject: str, public: Any, issuer: str, signer: ec.EllipticCurvePrivateKey, *, authority: bool
    ) -> x509.Certificate:
        def name(text: str) -> x509.Name:
            return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

        builder = (
            x509.CertificateBuilder()
            .subject_name(name(subject))
            .issuer_name(name(issuer))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
            .not_valid_after(datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("192.0.2.1"))])
            builder = builder.add_extension(addresses, critical=False)
        return builder.sign(signer, hashes.SHA256())


class Server(ThreadingHTTPServer):
    daemon_threads = True
    # Agents that are killed leave handlers in a long poll; nobody waits for these.
    block_on_close = False

    def __init__(self, tls: ssl.SSLContext, controller: FakeController) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.tls = tls
        self.controller = controller

    def finish_request(self, request: Any, client_address: Any) -> None:
        # The handshake belongs to the connection's own thread.
        with self.tls.wrap_socket(request, server_side=True) as wrapped:
            super().finish_request(wrapped, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A refused handshake or a killed agent is part of a test."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        body = json.loads(self.rfile.read(length))
        status, reply = self.server.controller.answer(self.path, self.headers["Authorization"], body)
        content = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


class FakeController:
    """Attributes may be set at any time by `with controller.changed:` or between calls."""

    def __init__(self, authority: Authority, token: str) -> None:
        self.token = token
        self.changed = threading.Condition()
        self.verdict: Json = {"verdict": "run", "takeOver": False}
        self.orders: list[Json] = []
        self.superseded = False
        self.is_away = False
        self.period = 0.3
        self.claims: list[Json] = []
        self.beats: list[Json] = []
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(authority.chain)
        self.server = Server(tls, self)
        self.url = f"https://127.0.0.1:{self.server.server_address[1]}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def answer(self, path: str, authorization: str, body: Json) -> tuple[int, Json]:
        with self.changed:
            if self.is_away:
                return 503, {}
            if authorization != f"Bearer {self.token}":
                return 401, {}
            if path == "/agent/v1/claim":
                self.claims.append(body)
                self.changed.notify_all()
                return 200, self.verdict
            assert path == "/agent/v1/heartbeat", path
            self.beats.append(body)
            self.changed.notify_all()
            # As the real one: held back until there is an order that the agent does not know.
            acknowledged = body["phase"] in ("draining", "ended")
            self.changed.wait_for(
                lambda: self.superseded or (bool(self.orders) and not acknowledged), timeout=body["wait"]
            )
            if self.superseded:
                return 409, {"verdict": "superseded"}
            return 200, {"period": self.period, "orders": self.orders}

    def supersede(self) -> None:
        with self.changed:
            self.superseded = True
            self.changed.notify_all()

    def order(self, **order: Any) -> None:
        with self.changed:
            self.orders.append(order)
            self.changed.notify_all()

    def wait_for_beat(self, wanted: Callable[[Json], bool], *, after: int = 0, seconds: float = 60) -> Json:
        """The first heartbeat from index `after` on that is `wanted`."""

        def found() -> Json | None:
            return next((beat for beat in self.beats[after:] if wanted(beat)), None)

        with self.changed:
            beat = self.changed.wait_for(found, timeout=seconds)
            assert beat is not None, f"no such heartbeat; the last were {self.beats[-3:]}"
            return beat

    def wait_for_phase(self, phase: str, *, after: int = 0, seconds: float = 60) -> Json:
        return self.wait_for_beat(lambda beat: beat["phase"] == phase, after=after, seconds=seconds)
