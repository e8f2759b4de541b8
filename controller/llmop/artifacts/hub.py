"""Weights from a hub, through huggingface_hub (the only module that imports it).

The library resumes what was cut and follows redirects to storage; it compares sizes, not content. Content is compared here, with the
checksums that the hub gives for the pinned commit: SHA-256 of large files, git's blob id of small ones.
"""

import concurrent.futures
import contextlib
import errno
import hashlib
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from llmop.artifacts import layout, selection
from llmop.domain import artifact
from llmop.domain.errors import NeedsUser, Unavailable

WORKERS = 4  # files at a time
TIMEOUT_S = 30.0
ATTEMPTS = 3  # for one file, before the controller waits longer
PAUSE_S = 1.0
_CHUNK = 1024 * 1024
# The library refuses to fetch larger files over plain HTTP (constants.MAX_HTTP_DOWNLOAD_SIZE); then its Xet client does it.
_NEEDS_XET = 50 * 1000**3
FULL = (errno.ENOSPC, errno.EDQUOT)
_VERIFIED = "verified.json"


def prepare_environment(home: Path) -> None:
    """Before the library is imported, which reads these once: nothing of the account's own cache and tokens is used."""
    os.environ.update(
        {
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": f"{TIMEOUT_S:.0f}",
        }
    )
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_ENABLE_HF_TRANSFER", "HF_ENDPOINT"):
        os.environ.pop(name, None)


class Hub:
    """One repository of the hub at `endpoint`. `token` is "" for none."""

    def __init__(self, reference: artifact.Reference, endpoint: str, token: str) -> None:
        self._reference = reference
        self._endpoint = endpoint
        self._token = token

    def commit(self) -> str:
        """The commit behind the revision. Raises NeedsUser or Unavailable."""
        return self._look(self._reference.version)[0]

    def files(self, commit: str) -> tuple[selection.File, ...]:
        """What has to be fetched at `commit`. Raises NeedsUser or Unavailable."""
        return selection.choose(self._reference, self._look(commit)[1])

    def _look(self, revision: str) -> tuple[str, list[selection.File]]:
        from huggingface_hub import HfApi

        with self._translated():
            info = HfApi(endpoint=self._endpoint).model_info(
                self._reference.repository,
                revision=revision,
                files_metadata=True,
                token=self._token or False,
                timeout=TIMEOUT_S,
            )
        if not info.sha:
            raise Unavailable(f"{self._endpoint} names no commit for {self._reference.text}")
        found = []
        for each in info.siblings or ():
            checksum = f"sha256:{each.lfs.sha256}" if each.lfs is not None else f"git:{each.blob_id or ''}"
            found.append(selection.File(path=each.rfilename, size=each.size or 0, checksum=checksum))
        return info.sha, found

    def fetch(
        self,
        commit: str,
        files: Sequence[selection.File],
        work: Path,
        verifying: Callable[[], None],
    ) -> Path:
        """Brings `files` into a directory below `work`, resuming what is there, and returns it complete and compared.

        `verifying` is called when everything was fetched once. Raises NeedsUser (NotFound, Forbidden, NoSpace, WrongDigest) or Unavailable.
        """
        if any(each.size > _NEEDS_XET for each in files):
            allow_xet()
        target = work / "files"
        target.mkdir(mode=0o700, parents=True, exist_ok=True)
        with concurrent.futures.ThreadPoolExecutor(max_workers=WORKERS) as pool:
            list(pool.map(lambda each: self._fetch_one(commit, each, target), files))
        verifying()
        checked = layout.read_json(work / _VERIFIED)
        for each in files:
            path = target / each.path
            if checked.get(each.path) != _mark(path):
                if not _is_right(path, each.checksum):
                    # Once more from the start: a part of an earlier attempt may have been damaged on this side.
                    self._fetch_one(commit, each, target, afresh=True)
                    if not _is_right(path, each.checksum):
                        path.unlink()
                        raise NeedsUser(
                            "WrongDigest",
                            f"{self._reference.text}: {each.path} arrives with another content than the hub's checksum"
                            f" {each.checksum} says, twice; it is damaged or was tampered with",
                        )
                checked[each.path] = _mark(path)
                layout.write_json(work / _VERIFIED, checked)
        _remove_others(target, {each.path for each in files})
        return target

    def _fetch_one(self, commit: str, file: selection.File, target: Path, *, afresh: bool = False) -> None:
        path = target / file.path
        if not afresh and path.is_file() and path.stat().st_size == file.size:
            return
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._download(commit, file.path, target, afresh=afresh or path.exists())
                return
            except Unavailable:
                # A connection that is cut loses what was on its way, not what is on the disk.
                if attempt == ATTEMPTS:
                    raise
                threading.Event().wait(PAUSE_S)

    def _download(self, commit: str, file: str, target: Path, *, afresh: bool) -> None:
        from huggingface_hub import hf_hub_download

        with self._translated():
            hf_hub_download(
                self._reference.repository,
                file,
                revision=commit,
                local_dir=target,
                endpoint=self._endpoint,
                token=self._token or False,
                etag_timeout=TIMEOUT_S,
                force_download=afresh,
            )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """The library's errors as ours: does somebody have to act?"""
        from huggingface_hub import errors as theirs

        what, where = self._reference.text, self._endpoint
        try:
            yield
        except theirs.LocalEntryNotFoundError as error:
            # What the library makes of a hub that does not answer.
            cause = error.__cause__
            if isinstance(cause, theirs.HfHubHTTPError):
                raise self._refused(cause) from error
            raise Unavailable(f"{where} does not answer: {_first_line(cause or error)}") from error
        except theirs.HfHubHTTPError as error:
            raise self._refused(error) from error
        except OSError as error:  # requests' errors are OSErrors too
            if error.errno in FULL:
                raise NeedsUser("NoSpace", f"{what}: {os.strerror(error.errno)}") from error
            raise Unavailable(f"{what} from {where}: {_first_line(error)}") from error

    def _refused(self, error: Exception) -> NeedsUser | Unavailable:
        from huggingface_hub import errors as theirs

        what, where = self._reference.text, self._endpoint
        code = getattr(getattr(error, "response", None), "status_code", 0)
        token = (
            "the token in spec.envFrom may not read it"
            if self._token
            else "it needs a token: write HF_TOKEN=... into a file of spec.envFrom"
        )
        if isinstance(error, theirs.GatedRepoError):
            return NeedsUser(
                "Forbidden", f"{what} is gated: accept its terms on its page at {where}; {token}"
            )
        if isinstance(error, theirs.RevisionNotFoundError):
            return NeedsUser("NotFound", f"{where} has no revision {self._reference.version} of {what}")
        if code in (401, 403):
            return NeedsUser("Forbidden", f"{where} refuses {what} ({code}): it does not exist, or {token}")
        if isinstance(error, theirs.RepositoryNotFoundError | theirs.EntryNotFoundError) or code == 404:
            return NeedsUser("NotFound", f"{where} has no {what}: check the name and the revision")
        return Unavailable(f"{where} answers {code}: {_first_line(error)}")


def allow_xet() -> None:
    """The library has read its environment by now."""
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_XET = False


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:300]


def _is_right(path: Path, checksum: str) -> bool:
    kind, _, wanted = checksum.partition(":")
    if not wanted:
        return True  # a hub that gives none: its sizes were compared
    size = path.stat().st_size
    # Git's object id: SHA-1 of a header and the content (gitformat-object). Not for security, the hub offers nothing better here.
    digest = hashlib.sha256() if kind == "sha256" else hashlib.sha1(f"blob {size}\0".encode())  # noqa: S324
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest() == wanted


def _mark(path: Path) -> list[int]:
    found = path.stat()
    return [found.st_size, found.st_mtime_ns]


def _remove_others(folder: Path, wanted: set[str]) -> None:
    """What the library keeps beside the files, and files that are not asked for any more."""
    for root, names, files in os.walk(folder, topdown=False):
        for name in files:
            path = Path(root) / name
            if path.relative_to(folder).as_posix() not in wanted:
                path.unlink()
        for name in names:
            with contextlib.suppress(OSError):
                (Path(root) / name).rmdir()
