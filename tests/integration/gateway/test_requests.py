"""What travels through the gateway, and what stops there."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime
import ipaddress
import logging
import socket
import ssl
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from tests.integration.gateway.rig import Rig
from tests.integration.gateway.upstreams import Call, model

from llmop.domain.errors import NeedsUser
from llmop.gateway.settings import Timeouts


async def test_the_clients_bytes_reach_the_engine_with_the_engines_key(rig: Rig) -> None:
    (engine,) = await rig.serve(_polite)
    body = b'{ "model":"m", "messages" :[] }'
    answer = await rig.ask(body=body, headers={"x-request-id": "mine", "traceparent": "00-1", "cookie": "c"})
    assert (200, b'{"ok":true}') == (answer.status, answer.body)
    assert ("mine", "r1") == (answer.headers["x-request-id"], answer.headers["x-llmop-replica"])
    (call,) = engine.calls
    assert ("POST /v1/chat/completions HTTP/1.1", body) == (call.line, call.body)
    assert ["Bearer replica-key"] == [value for name, value in call.headers if name == "authorization"]
    assert ("mine", "00-1", None) == tuple(call.header(h) for h in ("x-request-id", "traceparent", "cookie"))
    assert f"127.0.0.1:{engine.port}" == call.header("host")


async def _polite(call: Call) -> None:
    await call.answer(b'{"ok":true}')


async def test_connections_to_engines_are_used_again(rig: Rig) -> None:
    (engine,) = await rig.serve(_polite)
    for _ in range(5):
        await rig.ask()
    assert (1, [1, 2, 3, 4, 5]) == (engine.opened, [call.number for call in engine.calls])


async def test_a_key_is_required(rig: Rig) -> None:
    (engine,) = await rig.serve(_polite)
    for headers in (
        {"authorization": "Bearer llmop-wrong"},
        {"authorization": "Basic x"},
        {"authorization": ""},
    ):
        answer = await rig.ask(headers=headers)
        assert (401, "invalid_api_key") == (answer.status, answer.json()["error"]["code"])
    assert 401 == (await rig.ask("/generate", b"{}", {"authorization": ""})).status
    assert 401 == (await rig.ask("/metrics", b"", {"authorization": ""}, method="GET")).status
    assert 200 == (await rig.ask("/healthz", b"", {"authorization": ""}, method="GET")).status
    assert 200 == (await rig.ask(headers={"authorization": "", "x-api-key": rig.key})).status
    assert 1 == len(engine.calls)


async def test_the_engine_reads_the_name_it_knows(rig: Rig) -> None:
    (engine,) = await rig.serve(_polite, upstream_model="tgi")
    await rig.ask(body=b'{"model":"m"}')
    await rig.ask("/models/m/v1/completions", b'{"model":"other"}')
    assert [b'{"model":"tgi"}', b'{"model":"tgi"}'] == [call.body for call in engine.calls]
    assert "POST /v1/completions HTTP/1.1" == engine.calls[1].line


async def test_tgi_requests_name_their_model_by_header_or_path(rig: Rig) -> None:
    one, two = await rig.engine(_polite), await rig.engine(_polite)
    version = rig.control.publish(
        [one.endpoint(deployment="default/a"), two.endpoint(deployment="default/b")],
        [model("org/a", deployment="default/a"), model("b", deployment="default/b")],
    )
    await rig.control.acknowledged(version)
    assert "r2" == (await rig.ask("/generate", b"{}", {"x-model": "b"})).headers["x-llmop-replica"]
    for path in ("/models/org/a/generate", "/models/org%2Fa/generate_stream", "/models/org/a"):
        assert "r1" == (await rig.ask(path, b"{}")).headers["x-llmop-replica"]
    answer = await rig.ask("/generate", b"{}")
    assert (400, "validation") == (answer.status, answer.json()["error_type"])


async def test_unknown_models_and_models_without_replicas(rig: Rig) -> None:
    version = rig.control.publish([], [model("m")])
    await rig.control.acknowledged(version)
    unknown = await rig.ask(body=b'{"model":"x"}')
    assert (404, "model_not_found") == (unknown.status, unknown.json()["error"]["code"])
    assert (404, "model_not_found") == (
        (tgi := await rig.ask("/generate", b"{}", {"x-model": "x"})).status,
        tgi.json()["error_type"],
    )
    empty = await rig.ask()
    assert (503, "no_endpoint") == (empty.status, empty.headers["x-llmop-dropped-reason"])
    assert int(empty.headers["retry-after"]) > 0
    assert "no_endpoint" == (await rig.ask("/generate", b"{}")).json()["error_type"]


async def test_the_other_routes(rig: Rig) -> None:
    await rig.serve(_polite)
    models = (await rig.ask("/v1/models", b"", method="GET")).json()
    assert [("m", "model", 1_700_000_000)] == [(m["id"], m["object"], m["created"]) for m in models["data"]]
    assert "m" == (await rig.ask("/v1/models/m", b"", method="GET")).json()["id"]
    head = await rig.ask("/v1/models", b"", method="HEAD")
    assert (200, b"") == (head.status, head.body)
    not_served = await rig.ask("/v1/responses", b"{}")
    assert 404 == not_served.status
    assert "/v1/responses is not served" in not_served.json()["error"]["message"]
    wrong = await rig.ask("/generate", b"", method="GET")
    assert (405, "POST") == (wrong.status, wrong.headers["allow"])
    assert "method_not_allowed" == wrong.json()["error_type"]
    wrong = await rig.ask("/models/org%2Fx/info", b"{}", method="PUT")
    assert (405, "GET", "method_not_allowed") == (
        wrong.status,
        wrong.headers["allow"],
        wrong.json()["error_type"],
    )
    wrong = await rig.ask("/v1/embeddings", b"", method="GET")
    assert (405, "method_not_allowed") == (wrong.status, wrong.json()["error"]["code"])
    health = (await rig.ask("/healthz", b"", method="GET")).json()
    assert ("ok", "connected") == (health["status"], health["controller"])


async def test_what_tgi_tells_about_a_model_comes_from_a_replica(rig: Rig) -> None:
    (engine,) = await rig.serve(_polite)
    assert 200 == (await rig.ask("/models/m/info", b"", method="GET")).status
    assert 200 == (await rig.ask("/info", b"", method="GET")).status
    assert 200 == (await rig.ask("/tokenize", b'{"inputs":"x"}')).status
    assert 200 == (await rig.ask("/models/m/chat_tokenize", b"{}")).status
    assert ["GET /info", "GET /info", "POST /tokenize", "POST /chat_tokenize"] == [
        call.line.removesuffix(" HTTP/1.1") for call in engine.calls
    ]
    assert 401 == (await rig.ask("/info", b"", {"authorization": ""}, method="GET")).status
    assert 0.0 == await rig.metric(
        'llmop_gateway_tokens_total{kind="completion",model="m",source="estimated"}'
    )


async def test_a_dialect_that_the_engine_does_not_speak_is_refused_in_its_own_form(rig: Rig) -> None:
    one, two = await rig.engine(_polite), await rig.engine(_polite)
    version = rig.control.publish(
        [one.endpoint(deployment="default/a"), two.endpoint(deployment="default/b")],
        [model("a", "openai", deployment="default/a"), model("b", "tgi", deployment="default/b")],
    )
    await rig.control.acknowledged(version)
    tgi = await rig.ask("/models/a/info", b"", method="GET")
    assert (422, "validation") == (tgi.status, tgi.json()["error_type"])
    assert "/v1/chat/completions" in tgi.json()["error"]
    openai = await rig.ask("/v1/embeddings", b'{"model":"b"}')
    assert (422, "dialect_not_supported") == (openai.status, openai.json()["error"]["code"])
    assert [] == one.calls + two.calls


async def test_pipelined_requests_are_answered_in_order(rig: Rig) -> None:
    turn = asyncio.Event()

    async def slow_first(call: Call) -> None:
        if call.body.endswith(b'"n":0}'):
            await turn.wait()
        await call.answer(call.body)

    await rig.serve(slow_first)
    wire = await rig.wire()
    bodies = [b'{"model":"m","n":%d}' % number for number in range(4)]
    await wire.send(b"".join(rig.request(body=body) for body in bodies[:2]))
    await wire.send(rig.request("/v1/models", b"", method="GET"))
    await wire.send(rig.request(body=b"no json") + b"".join(rig.request(body=body) for body in bodies[2:]))
    turn.set()
    answers = [await wire.answer() for _ in range(6)]
    assert [200, 200, 200, 400, 200, 200] == [answer.status for answer in answers]
    assert bodies == [answers[place].body for place in (0, 1, 4, 5)]
    assert b'"list"' in answers[2].body


async def test_a_thousand_pipelined_refusals_are_answered_one_by_one(rig: Rig) -> None:
    wire = await rig.wire()
    request = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n"
    await wire.send(request * 1000)
    for _ in range(1000):
        assert 401 == (await wire.answer()).status


async def test_continue_is_said_only_to_whom_is_let_in(rig: Rig) -> None:
    await rig.serve(_polite)
    wire = await rig.wire()
    request = rig.request(headers={"expect": "100-continue"})
    head, _, body = request.partition(b"\r\n\r\n")
    await wire.send(head + b"\r\n\r\n")
    assert 100 == (await wire.head())[0]
    await wire.send(body)
    assert 200 == (await wire.answer()).status
    refused = await rig.wire()
    await refused.send(head.replace(rig.key.encode(), b"wrong") + b"\r\n\r\n")
    assert 401 == (await refused.answer()).status
    assert b"" == await refused.ended()


async def test_chunked_bodies_and_their_trailers(rig: Rig) -> None:
    (engine,) = await rig.serve(_polite)
    wire = await rig.wire()
    head = f"POST /generate HTTP/1.1\r\nhost: x\r\nx-api-key: {rig.key}\r\ntransfer-encoding: chunked\r\n\r\n"
    await wire.send(head.encode() + b'2\r\n{"\r\n7;x=y\r\ninputs"\r\n4\r\n:""}\r\n0\r\nx-trailer: 1\r\n\r\n')
    assert 200 == (await wire.answer()).status
    (call,) = engine.calls
    assert (b'{"inputs":""}', "13", None) == (
        call.body,
        call.header("content-length"),
        call.header("x-trailer"),
    )


async def test_an_http_1_0_client_gets_its_stream_until_the_end(rig: Rig) -> None:
    async def stream(call: Call) -> None:
        await call.begin_stream()
        for number in range(3):
            await call.chunk(b"data: %d\n\n" % number)
            await asyncio.sleep(0)
        await call.end_stream()

    await rig.serve(stream)
    wire = await rig.wire()
    await wire.send(rig.request().replace(b"HTTP/1.1", b"HTTP/1.0"))
    answer = await wire.answer()
    assert b"data: 0\n\ndata: 1\n\ndata: 2\n\n" == answer.body
    assert "transfer-encoding" not in answer.headers


async def test_tls(rig: Rig, folder: Path) -> None:
    await rig.serve(_polite)
    await rig.stop()
    certificate, private = make_certificate(folder)
    rig.settings = dataclasses.replace(rig.settings, tls_cert=certificate, tls_key=private)
    await rig.start()
    assert rig.address.startswith("https://")
    trusted = ssl.create_default_context(cafile=str(certificate))
    async with httpx.AsyncClient(verify=trusted, base_url=rig.address, trust_env=False) as client:
        headers = {"Authorization": f"Bearer {rig.key}"}
        assert 200 == (await client.post("/generate", content=b"{}", headers=headers)).status_code
        assert 401 == (await client.post("/generate", content=b"{}")).status_code
        assert 200 == (await client.get("/v1/models", headers=headers)).status_code


async def test_an_idle_client_does_not_hold_up_the_end(
    rig: Rig, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It does not look at its connection, so it does not answer the farewell of TLS."""
    await rig.serve(_polite)
    await rig.stop()
    certificate, private = make_certificate(folder)
    rig.settings = dataclasses.replace(
        rig.settings, tls_cert=certificate, tls_key=private, timeouts=Timeouts(linger=0.1, shutdown=60)
    )
    await rig.start()
    trusted = ssl.create_default_context(cafile=str(certificate))

    def connect() -> ssl.SSLSocket:
        plain = socket.create_connection(("127.0.0.1", rig.port), timeout=10)
        return trusted.wrap_socket(plain, server_hostname="127.0.0.1")

    with contextlib.closing(await asyncio.to_thread(connect)) as client, caplog.at_level(logging.WARNING):
        await asyncio.to_thread(client.sendall, rig.request())
        assert (await asyncio.to_thread(client.recv, 1000)).startswith(b"HTTP/1.1 200 ")
        await rig.stop()
        assert [] == caplog.messages


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gateway")])
    begin = datetime.datetime.now(datetime.UTC)  # noqa: TID251  # a certificate is valid by the machine's clock
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(begin - datetime.timedelta(days=1))
        .not_valid_after(begin + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "cert.pem", folder / "key.pem"


async def test_a_unix_socket_in_a_private_folder_asks_for_no_key(rig: Rig) -> None:
    await rig.serve(_polite)
    await rig.stop()
    door = rig.state_dir / "door.sock"
    rig.settings = dataclasses.replace(rig.settings, listen=f"unix:{door}")
    await rig.start()
    reader, writer = await asyncio.open_unix_connection(str(door))
    writer.write(b"POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
    assert (await reader.read()).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()
    await rig.stop()
    rig.state_dir.chmod(0o755)
    with pytest.raises(NeedsUser, match="chmod 700"):
        await rig.start()
