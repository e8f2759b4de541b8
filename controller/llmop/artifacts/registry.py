"""Images of a registry: the digest behind a tag, and the blobs of an image, resumed where they were cut and compared.

The protocol is the OCI distribution specification (pull) and Docker's token authentication
(https://distribution.github.io/distribution/spec/auth/token/).
"""

import base64
import dataclasses
import hashlib
import http.client
import json
import platform
import re
import ssl
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

from llmop.domain import artifact
from llmop.domain.errors import NeedsUser, Unavailable

TIMEOUT_S = 30.0
ATTEMPTS = 3  # for one blob, before the controller waits longer
PAUSE_S = 1.0
_CHUNK = 1024 * 1024
MANIFEST_LIMIT = 4 * 1024 * 1024  # bytes; the specification asks registries to take at least that much
_DOCKER_HUB_API = "registry-1.docker.io"
_MEDIA_TYPES = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "ppc64le": "ppc64le", "s390x": "s390x"}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
_PARAMETER = re.compile(r'(\w+)="([^"]*)"')


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Blob:
    """A file of an image. `size` is bytes."""

    digest: str
    size: int
    media_type: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Image:
    """The image for this machine behind `digest`, which may be that of an index of several. `manifest` is its JSON, verbatim."""

    digest: str
    manifest: bytes
    media_type: str
    config: Blob
    layers: tuple[Blob, ...]

    @property
    def size(self) -> int:
        return self.config.size + sum(each.size for each in self.layers)


class _NoForward(urllib.request.HTTPRedirectHandler):
    """Credentials are for the registry that they were given for, not for where it points to."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and urllib.parse.urlsplit(newurl)[:2] != urllib.parse.urlsplit(req.full_url)[:2]:
            new.remove_header("Authorization")
        return new


class Registry:
    """The registry of `reference`. `insecure` lists those that are asked over plain HTTP; `user` is "" without credentials."""

    def __init__(
        self,
        reference: artifact.Reference,
        *,
        insecure: frozenset[str] = frozenset(),
        user: str = "",
        password: str = "",
    ) -> None:
        self._reference = reference
        host = _DOCKER_HUB_API if reference.registry == "docker.io" else reference.registry
        scheme = "http" if reference.registry in insecure else "https"
        self._base = f"{scheme}://{host}/v2/{reference.repository}/"
        self._user, self._password = user, password
        self._authorization = ""
        self._opener = _opener()

    def digest_of(self, version: str) -> str:
        """Of the manifest or index behind a tag. Raises NeedsUser or Unavailable."""
        return digest_of(self._manifest(version))

    def image(self, digest: str) -> Image:
        """The image for this machine. Raises NeedsUser (NotFound, Forbidden, WrongDigest, Unsupported) or Unavailable."""
        body = self._right(digest)
        document = self._parse(body)
        if "manifests" in document:
            here = _for_this_machine(document["manifests"])
            if not here:
                raise NeedsUser(
                    "Unsupported", f"{self._reference.text} has no image for linux on {platform.machine()}"
                )
            body = self._right(here)
            document = self._parse(body)
        try:
            return Image(
                digest=digest,
                manifest=body,
                media_type=str(document.get("mediaType", _MEDIA_TYPES[2])),
                config=_blob(document["config"]),
                layers=tuple(_blob(each) for each in document["layers"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise NeedsUser(
                "Unsupported", f"{self._reference.text}: its manifest is not one of an image: {error}"
            ) from error

    def fetch(self, blob: Blob, path: Path) -> None:
        """Brings `blob` to `path`, going on where an earlier attempt was cut. Raises NeedsUser (WrongDigest), Unavailable or OSError."""
        part = path.with_name(f"{path.name}.part")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._fetch(blob, part)
                break
            except Unavailable:
                if attempt == ATTEMPTS:
                    raise
                threading.Event().wait(PAUSE_S)
        if not _is_right(part, blob):
            # Once more from the start: a part of an earlier attempt may have been damaged on this side.
            part.unlink()
            self._fetch(blob, part)
            if not _is_right(part, blob):
                part.unlink()
                raise NeedsUser(
                    "WrongDigest",
                    f"{self._reference.text}: {blob.digest} arrives with another content, twice;"
                    " it is damaged or was tampered with",
                )
        part.rename(path)

    def _fetch(self, blob: Blob, part: Path) -> None:
        there = part.stat().st_size if part.exists() else 0
        if there >= blob.size and there:
            return
        with part.open("ab") as file, self._open(f"blobs/{blob.digest}", there) as answer:
            if there and answer.status != 206:
                file.truncate(0)
            try:
                while file.tell() <= blob.size and (chunk := answer.read(_CHUNK)):
                    file.write(chunk)
            except (http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
                raise Unavailable(f"{self._reference.registry} was cut off: {error}") from error
        if part.stat().st_size < blob.size:
            raise Unavailable(f"{self._reference.registry} was cut off before the end of {blob.digest}")

    def _right(self, digest: str) -> bytes:
        body = self._manifest(digest)
        if digest_of(body) != digest:
            raise NeedsUser(
                "WrongDigest",
                f"{self._reference.text}: the registry gave a manifest with the digest {digest_of(body)} for {digest};"
                " it is damaged or was tampered with",
            )
        return body

    def _parse(self, body: bytes) -> dict[str, Any]:
        try:
            document = json.loads(body)
        except ValueError as error:
            raise Unavailable(
                f"{self._reference.text}: the registry's answer is not a manifest: {error}"
            ) from error
        if not isinstance(document, dict):
            raise Unavailable(f"{self._reference.text}: the registry's answer is not a manifest")
        return document

    def _manifest(self, version: str) -> bytes:
        with self._open(f"manifests/{version}") as answer:
            try:
                body = bytes(answer.read(MANIFEST_LIMIT + 1))
            except (http.client.HTTPException, OSError) as error:
                raise Unavailable(f"{self._reference.registry} was cut off: {error}") from error
        if len(body) > MANIFEST_LIMIT:
            raise NeedsUser(
                "Unsupported", f"{self._reference.text}: its manifest is larger than {MANIFEST_LIMIT} bytes"
            )
        return body

    def _open(self, path: str, start: int = 0) -> http.client.HTTPResponse:
        """The answer to GET below the repository; asks for a token when it has to, which may be again: they expire."""
        try:
            return self._get(path, start)
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise self._problem(error) from error
            challenge = error.headers.get("WWW-Authenticate", "")
        self._authorization = self._answer(challenge)
        try:
            return self._get(path, start)
        except urllib.error.HTTPError as error:
            raise self._problem(error) from error

    def _get(self, path: str, start: int) -> http.client.HTTPResponse:
        request = urllib.request.Request(  # noqa: S310  (http or https)
            self._base + path, headers={"Accept": ", ".join(_MEDIA_TYPES)}
        )
        if self._authorization:
            request.add_header("Authorization", self._authorization)
        if start:
            request.add_header("Range", f"bytes={start}-")
        return self._ask(request)

    def _ask(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        try:
            answer: http.client.HTTPResponse = self._opener.open(request, timeout=TIMEOUT_S)
        except urllib.error.HTTPError:
            raise
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise Unavailable(f"{self._reference.registry} does not answer: {reason}") from error
        return answer

    def _answer(self, challenge: str) -> str:
        """What goes into Authorization after a 401 with this WWW-Authenticate. Raises NeedsUser or Unavailable."""
        kind, _, rest = challenge.partition(" ")
        basic = base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        if kind.lower() == "basic":
            if not self._user:
                raise self._forbidden()
            return f"Basic {basic}"
        parameters = dict(_PARAMETER.findall(rest))
        realm = urllib.parse.urlsplit(parameters.get("realm", ""))
        if kind.lower() != "bearer" or realm.scheme not in ("http", "https") or not realm.netloc:
            raise self._forbidden()
        is_plain = realm.scheme == "http"
        if is_plain and self._base.startswith("https:"):
            raise NeedsUser(
                "Forbidden", f"{self._reference.registry} wants credentials over plain HTTP at {realm.netloc}"
            )
        query = {name: parameters[name] for name in ("service", "scope") if name in parameters}
        address = urllib.parse.urlunsplit(realm._replace(query=urllib.parse.urlencode(query)))
        request = urllib.request.Request(address)  # noqa: S310  (http or https)
        if self._user:
            request.add_header("Authorization", f"Basic {basic}")
        try:
            with self._ask(request) as heard:
                answer = json.loads(heard.read(MANIFEST_LIMIT))
            return f"Bearer {answer.get('token') or answer['access_token']}"
        except urllib.error.HTTPError as error:
            raise self._problem(error) from error
        except (ValueError, KeyError, AttributeError) as error:
            raise Unavailable(f"{realm.netloc} gave no token") from error

    def _forbidden(self) -> NeedsUser:
        return NeedsUser(
            "Forbidden",
            f"{self._reference.registry} refuses {self._reference.text}: it does not exist, or needs credentials; "
            "give DOCKER_USERNAME and DOCKER_PASSWORD in a file of spec.envFrom",
        )

    def _problem(self, error: urllib.error.HTTPError) -> NeedsUser | Unavailable:
        if error.code in (401, 403):
            return self._forbidden()
        if error.code == 404:
            return NeedsUser(
                "NotFound",
                f"{self._reference.registry} has no image {self._reference.text}: check its name and tag",
            )
        return Unavailable(f"{self._reference.registry} answers {error.code} {error.reason}")


def _opener() -> urllib.request.OpenerDirector:
    """Speaks HTTP and HTTPS, through the site's proxies, and nothing else: where a registry points to is not trusted."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _NoForward(),
    ):
        opener.add_handler(handler)
    return opener


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _blob(descriptor: Mapping[str, Any]) -> Blob:
    """Raises KeyError, TypeError or ValueError."""
    digest = str(descriptor["digest"])
    if not _DIGEST.fullmatch(digest):
        raise ValueError(f"{digest!r} is not a digest")
    return Blob(digest=digest, size=int(descriptor["size"]), media_type=str(descriptor.get("mediaType", "")))


def _is_right(path: Path, blob: Blob) -> bool:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}" == blob.digest


def _for_this_machine(manifests: Any) -> str:
    """The digest of the manifest for Linux on this machine's architecture; "" when there is none."""
    wanted = _ARCHITECTURES.get(platform.machine(), platform.machine())
    for each in manifests if isinstance(manifests, list) else ():
        about = each.get("platform") if isinstance(each, Mapping) else None
        if isinstance(about, Mapping) and about.get("architecture") == wanted and about.get("os") == "linux":
            digest = str(each.get("digest", ""))
            return digest if _DIGEST.fullmatch(digest) else ""
    return ""
