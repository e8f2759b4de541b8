"""The installation's own certificate authority: agents trust it and nothing else.

The authority belongs to the installation and may lie where several machines see it; the listener's certificate belongs to one
controller. Whoever can read the authority's key can pose as the controller: it is for the installation's account alone.
"""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from llmop import statedir
from llmop.domain import errors
from llmop.files import whole

_VALID = datetime.timedelta(days=3650)
_EARLIER = datetime.timedelta(days=1)  # clocks of nodes may be behind


def ensure(authority: Path, own: Path, now: float) -> tuple[str, Path, Path]:
    """The CA of the directory `authority` as PEM text, and the paths of the listener's certificate and key in `own`.

    Both are made private (0700, files 0600), the CA only once: of several controllers that start at the same time all get the same.
    A new server certificate is made at every start from the CA's key, so that it never expires under a controller that is
    restarted once in ten years. Raises NeedsUser for files that cannot be used: a CA is never replaced by itself, because every agent
    that runs trusts the old one only.
    """
    for directory in (authority, own):
        statedir.ensure(directory, "directory of certificates")
    ca_path, ca_key_path = authority / "ca.pem", authority / "ca.key"
    at = datetime.datetime.fromtimestamp(now, datetime.UTC)
    if not ca_path.exists():
        # The key first: one without a certificate is what a start that was cut short leaves, and gets its certificate now.
        _write(ca_key_path, _private(ec.generate_private_key(ec.SECP256R1())), once=True)
        ca_key = _load_key(ca_key_path)
        ca = _certificate("llmop agent channel CA", ca_key.public_key(), None, ca_key, at, is_ca=True)
        _write(ca_path, ca.public_bytes(serialization.Encoding.PEM), once=True)
    ca, ca_key = _load(ca_path, ca_key_path)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate("llmop controller", key.public_key(), ca, ca_key, at, is_ca=False)
    certificate_path, key_path = own / "listener.pem", own / "listener.key"
    _write(key_path, _private(key))
    _write(certificate_path, certificate.public_bytes(serialization.Encoding.PEM))
    return ca.public_bytes(serialization.Encoding.PEM).decode(), certificate_path, key_path


def _load(ca_path: Path, ca_key_path: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        ca = x509.load_pem_x509_certificate(ca_path.read_bytes())
    except ValueError as error:
        raise _unusable(ca_path, "is no certificate") from error
    ca_key = _load_key(ca_key_path)
    if ca_key.public_key() != ca.public_key():
        raise _unusable(ca_key_path, f"is not the key of {ca_path}")
    return ca, ca_key


def _load_key(ca_key_path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        mode = ca_key_path.stat().st_mode & 0o777
        ca_key = serialization.load_pem_private_key(ca_key_path.read_bytes(), password=None)
    except FileNotFoundError as error:
        raise _unusable(ca_key_path, "is missing") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _unusable(ca_key_path, "is no private key") from error
    if mode & 0o077:
        raise _unusable(
            ca_key_path, f"can be read or changed by others (mode {mode:04o}): chmod 600 it if you trust them"
        )
    if not isinstance(ca_key, ec.EllipticCurvePrivateKey):
        raise _unusable(ca_key_path, "is the key of something else")
    return ca_key


def _unusable(path: Path, problem: str) -> errors.NeedsUser:
    return errors.NeedsUser(
        "BadCertificates",
        f"{path} {problem}; restore it from a backup, or move {path.parent} away to get a new CA, which replicas that run now"
        " do not trust",
    )


def _certificate(
    name: str,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Certificate | None,
    signer: ec.EllipticCurvePrivateKey,
    at: datetime.datetime,
    *,
    is_ca: bool,
) -> x509.Certificate:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.subject if issuer is not None else subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(at - _EARLIER)
        .not_valid_after(at + _VALID)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=0 if is_ca else None), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_ca,
                crl_sign=is_ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False
        )
    )
    if not is_ca:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("llmop-controller")]), critical=False
        )
    return builder.sign(signer, hashes.SHA256())


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(path: Path, content: bytes, *, once: bool = False) -> None:
    """`once` leaves a file that is there as it is."""
    try:
        (whole.create if once else whole.write)(path, content, 0o600)
    except OSError as error:
        raise errors.NeedsUser("BadCertificates", f"{path} cannot be written: {error.strerror}") from error
