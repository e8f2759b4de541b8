"""A model hub on loopback: the endpoints of huggingface.co that huggingface_hub uses to look at and fetch a repository.

What it answers follows the library's source (hf_api.py, file_download.py, utils/_http.py): repository info with blobs; HEAD and GET of
`resolve`, small files at once, large ones by a redirect to storage under another name; the headers and error codes it reads.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from tests.rigs.loopback import Answer, Service

LARGE = 1024  # bytes; from here on a file is in large file storage


class HubServer(Service):
    """Repositories are lists of commits; `main` is the last one. Files are their contents."""

    def __init__(self) -> None:
        super().__init__()
        self._commits: dict[str, dict[str, dict[str, bytes]]] = {}
        self.branches: dict[tuple[str, str], str] = {}
        self.tokens: dict[str, str] = {}  # repository -> the token that may read it
        self.gated: set[str] = set()
        self.damaged: dict[str, bytes] = {}  # file -> what arrives instead

    @property
    def endpoint(self) -> str:
        return f"http://{self.address}"

    def commit(self, repository: str, files: Mapping[str, bytes]) -> str:
        """The name of a new commit on main."""
        history = self._commits.setdefault(repository, {})
        name = hashlib.sha1(f"{repository} {len(history)}".encode()).hexdigest()
        history[name] = dict(files)
        self.branches[(repository, "main")] = name
        return name

    def answer(self, method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]) -> None:
        if path.startswith("/storage/"):
            self._storage(path.removeprefix("/storage/"), headers)
        for repository in self._commits:
            if path.startswith(f"/api/models/{repository}/revision/"):
                self._may_read(repository, headers)
                self._info(repository, path.rpartition("/revision/")[2], blobs="blobs" in query)
            if path.startswith(f"/{repository}/resolve/"):
                self._may_read(repository, headers)
                revision, _, file = path.removeprefix(f"/{repository}/resolve/").partition("/")
                self._resolve(repository, revision, file)
        # The hub does not tell strangers what exists.
        raise Answer(404 if headers.get("Authorization") else 401, {"X-Error-Code": "RepoNotFound"})

    def _may_read(self, repository: str, headers: Mapping[str, str]) -> None:
        given = headers.get("Authorization", "").removeprefix("Bearer ")
        if repository in self.gated:
            raise Answer(403 if given else 401, {"X-Error-Code": "GatedRepo"})
        if given != self.tokens.get(repository, given):
            raise Answer(404 if given else 401, {"X-Error-Code": "RepoNotFound"})

    def _commit_of(self, repository: str, revision: str) -> str:
        name = self.branches.get((repository, revision), revision)
        if name not in self._commits[repository]:
            raise Answer(404, {"X-Error-Code": "RevisionNotFound"})
        return name

    def _info(self, repository: str, revision: str, *, blobs: bool) -> None:
        name = self._commit_of(repository, revision)
        siblings = []
        for file, content in self._commits[repository][name].items():
            entry: dict[str, object] = {"rfilename": file}
            if blobs:
                entry |= {"size": len(content), "blobId": _blob_id(content)}
                if len(content) >= LARGE:
                    entry["lfs"] = {"sha256": _sha256(content), "size": len(content), "pointerSize": 130}
            siblings.append(entry)
        body = json.dumps({"id": repository, "modelId": repository, "sha": name, "siblings": siblings})
        raise Answer(200, {"Content-Type": "application/json"}, body.encode())

    def _resolve(self, repository: str, revision: str, file: str) -> None:
        name = self._commit_of(repository, revision)
        content = self._commits[repository][name].get(file)
        if content is None:
            raise Answer(404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": name})
        if len(content) < LARGE:
            headers = {"X-Repo-Commit": name, "ETag": f'"{_blob_id(content)}"'}
            raise Answer(200, headers, self.damaged.get(file, content))
        raise Answer(
            302,
            {
                "X-Repo-Commit": name,
                "ETag": f'"{_blob_id(content)}"',
                "X-Linked-ETag": f'"{_sha256(content)}"',
                "X-Linked-Size": str(len(content)),
                # Another name for the same machine: credentials must not follow there.
                "Location": f"http://localhost:{self.port}/storage/{repository}/{name}/{file}",
            },
        )

    def _storage(self, path: str, headers: Mapping[str, str]) -> None:
        if headers.get("Authorization"):
            raise Answer(400)  # as S3 does with a signed address and a second credential
        for repository, history in self._commits.items():
            for name, files in history.items():
                for file, content in files.items():
                    if path == f"{repository}/{name}/{file}":
                        raise Answer(200, {"ETag": f'"{_sha256(content)}"'}, self.damaged.get(file, content))
        raise Answer(404)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _blob_id(content: bytes) -> str:
    return hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
