"""A replica.json for the unit tests, small and complete."""

from __future__ import annotations

import datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


def _certificate() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "unit test CA")])
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    builder = builder.serial_number(1).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )
    builder = builder.not_valid_before(datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC))
    builder = builder.not_valid_after(datetime.datetime(2120, 1, 1, tzinfo=datetime.UTC))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


CA = _certificate()


def replica_json(**engine: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "installation": "k3v9qd",
        "replica": {
            "uid": "0b6c",
            "name": "llama-x7k2p",
            "namespace": "default",
            "jobName": "llmop-k3v9qd-llama",
        },
        "sharedDir": "/shared",
        "dir": "/shared/replicas/llama-x7k2p",
        "token": "the-token",
        "apiKey": "the-key",
        "ca": CA,
        "engine": {
            "argv": ["engine", "--port", "{port}"],
            "health": {"path": "/health"},
            "startupTimeout": 60,
            "maxRestarts": 3,
            **engine,
        },
    }
