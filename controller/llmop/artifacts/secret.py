"""Credentials, from the files that `envFrom` names. The same form as the agent reads: NAME=value, # begins a comment line."""

import os
from collections.abc import Sequence
from pathlib import Path

from llmop.domain.errors import NeedsUser

HUB_TOKEN = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
REGISTRY_USER, REGISTRY_PASSWORD = "DOCKER_USERNAME", "DOCKER_PASSWORD"
_WANTED = frozenset({*HUB_TOKEN, REGISTRY_USER, REGISTRY_PASSWORD})


def read(paths: Sequence[Path]) -> dict[str, str]:
    """The credentials in these files, a later file over an earlier one. Nothing else of them is kept.

    Raises NeedsUser for a file that cannot be read or is open to others; the message shows no content.
    """
    found: dict[str, str] = {}
    for path in paths:
        try:
            with path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                lines = file.read(1024 * 1024).decode("utf-8").split("\n")
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
            raise NeedsUser("SecretUnreadable", f"the secret file {path}: {words}") from error
        if mode & 0o077:
            raise NeedsUser("SecretUnreadable", f"the secret file {path} is open to others: chmod 600 {path}")
        for line in lines:
            name, equals, value = line.partition("=")
            if equals and name in _WANTED and value.strip():
                found[name] = value.strip()
    return found


def hub_token(credentials: dict[str, str]) -> str:
    return next((credentials[name] for name in HUB_TOKEN if name in credentials), "")
