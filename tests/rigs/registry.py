"""A container registry on loopback: the pull side of the OCI distribution specification, without TLS.

Images are made on the spot from a directory; a SIF can be pushed as it is, the way `apptainer push oras://` does it.
"""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib
import io
import json
import platform
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.rigs.loopback import Answer, Service


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Types:
    """The media types of one kind of image."""

    index: str
    manifest: str
    config: str
    layer: str


OCI = Types(
    index="application/vnd.oci.image.index.v1+json",
    manifest="application/vnd.oci.image.manifest.v1+json",
    config="application/vnd.oci.image.config.v1+json",
    layer="application/vnd.oci.image.layer.v1.tar+gzip",
)
DOCKER = Types(
    index="application/vnd.docker.distribution.manifest.list.v2+json",
    manifest="application/vnd.docker.distribution.manifest.v2+json",
    config="application/vnd.docker.container.image.v1+json",
    layer="application/vnd.docker.image.rootfs.diff.tar.gzip",
)
_ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


class RegistryServer(Service):
    def __init__(self) -> None:
        super().__init__()
        self._blobs: dict[str, bytes] = {}
        self._manifests: dict[tuple[str, str], tuple[str, bytes]] = {}  # (repository, tag or digest)
        self.account: tuple[str, str] | None = None  # user and password; with one, tokens are needed

    def push(self, repository: str, tag: str, tree: Path, *, layers: int = 1, is_docker: bool = False) -> str:
        """An image with the files of `tree`, under an index as build tools make it. Returns the index's digest."""
        types = DOCKER if is_docker else OCI
        names = sorted(tree.iterdir())
        contents = [
            _layer([name for at, name in enumerate(names) if at % layers == part]) for part in range(layers)
        ]
        config = {
            "architecture": _ARCHITECTURE,
            "os": "linux",
            "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": [_digest(each) for each in contents]},
        }
        packed = [gzip.compress(each, compresslevel=1, mtime=0) for each in contents]
        manifest = {
            "schemaVersion": 2,
            "mediaType": types.manifest,
            "config": self._put(json.dumps(config).encode(), types.config),
            "layers": [self._put(each, types.layer) for each in packed],
        }
        digest, size = self._tag(repository, "", types.manifest, manifest)
        here = {"architecture": _ARCHITECTURE, "os": "linux"}
        index = {
            "schemaVersion": 2,
            "mediaType": types.index,
            "manifests": [{"mediaType": types.manifest, "digest": digest, "size": size, "platform": here}],
        }
        return self._tag(repository, tag, types.index, index)[0]

    def push_sif(self, repository: str, tag: str, image: Path) -> str:
        config = self._put(b"{}", "application/vnd.sylabs.sif.config.v1+json")
        layer = self._put(image.read_bytes(), "application/vnd.sylabs.sif.layer.v1.sif")
        layer["annotations"] = {"org.opencontainers.image.title": image.name}
        manifest = {"schemaVersion": 2, "mediaType": OCI.manifest, "config": config, "layers": [layer]}
        return self._tag(repository, tag, OCI.manifest, manifest)[0]

    def damage_largest_blob(self) -> None:
        """Changes one byte in it; sizes and names stay."""
        digest = self.largest_blob()
        content = bytearray(self._blobs[digest])
        content[len(content) // 2] ^= 0xFF
        self._blobs[digest] = bytes(content)

    def lie_about(self, repository: str, digest: str, tag: str) -> None:
        """Gives the manifest of `tag` for another digest."""
        self._manifests[(repository, digest)] = self._manifests[(repository, tag)]

    def largest_blob(self) -> str:
        """Its digest."""
        return max(self._blobs, key=lambda each: len(self._blobs[each]))

    def _put(self, content: bytes, media_type: str) -> dict[str, Any]:
        self._blobs[_digest(content)] = content
        return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}

    def _tag(
        self, repository: str, tag: str, media_type: str, manifest: Mapping[str, Any]
    ) -> tuple[str, int]:
        body = json.dumps(manifest).encode()
        for name in filter(None, (_digest(body), tag)):
            self._manifests[(repository, name)] = (media_type, body)
        return _digest(body), len(body)

    def answer(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> None:
        if path == "/token":
            self._token(headers)
        if self.account is not None and headers.get("Authorization") != "Bearer let-me-in":
            realm = f'Bearer realm="http://{self.address}/token",service="loopback",scope="repository:x:pull"'
            raise Answer(401, {"WWW-Authenticate": realm})
        if path in ("/v2", "/v2/"):
            raise Answer(200, {"Docker-Distribution-API-Version": "registry/2.0"}, b"{}")
        repository, kind, name = ([*path.removeprefix("/v2/").rsplit("/", 2), "", ""])[:3]
        if kind == "manifests" and (repository, name) in self._manifests:
            media_type, body = self._manifests[(repository, name)]
            raise Answer(200, {"Content-Type": media_type, "Docker-Content-Digest": _digest(body)}, body)
        if kind == "blobs" and name in self._blobs:
            raise Answer(200, {"Content-Type": "application/octet-stream"}, self._blobs[name])
        error = {"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}
        raise Answer(404, {"Content-Type": "application/json"}, json.dumps(error).encode())

    def _token(self, headers: Mapping[str, str]) -> None:
        wanted = base64.b64encode(":".join(self.account or ("", "")).encode()).decode()
        if headers.get("Authorization") != f"Basic {wanted}":
            raise Answer(401)
        raise Answer(200, {"Content-Type": "application/json"}, b'{"token": "let-me-in"}')


def _layer(paths: list[Path]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in paths:
            archive.add(path, arcname=path.name)
    return buffer.getvalue()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
