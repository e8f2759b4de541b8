"""Manifests named by -f: files, folders and stdin become documents; everything wrong with them is said at once."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmop.cli.errors import CliError, ConfigError, ExitCode, UsageError
from llmop.domain import os_errors, resources

if TYPE_CHECKING:
    from llmop.manifest.load import Document

_SUFFIXES = (".yaml", ".yml", ".json")
_RANK = (
    resources.CLUSTER,
    resources.SERVING_RUNTIME,
    resources.RESOURCE_PROFILE,
    resources.MODEL_DEPLOYMENT,
)


def read(names: Sequence[str], *, recursive: bool, namespace: str | None) -> "list[Document]":
    """All documents, in the order in which they have to be applied: what others refer to comes first.

    `namespace` is what the user gave by flag; a document that names another one is refused.
    """
    from llmop.manifest import lists, load

    if not names:
        raise UsageError("name what to read: -f FILE, -f FOLDER or -f -")
    documents: list[Document] = []
    problems: list[str] = []
    for source, data in _contents(names, recursive=recursive):
        try:
            for document in load.load(load.decode(data, source), source):
                documents += lists.expand(document)
        except load.ManifestError as error:
            problems += [str(problem) for problem in error.problems]
    if problems:
        raise CliError("\n".join(problems), ExitCode.BAD_REQUEST)
    if not documents:
        read = ", ".join("<stdin>" if name == "-" else name for name in names)
        raise CliError(f"error: no objects in {read}", ExitCode.BAD_REQUEST)
    if namespace is not None:
        _require_namespace(documents, namespace)
    _require_unique(documents, namespace)
    return sorted(documents, key=lambda each: rank(str(each.data.get("kind"))))


def rank(kind: str) -> int:
    return _RANK.index(kind) if kind in _RANK else len(_RANK)


def key(document: "Document", namespace: str | None) -> tuple[str, str, str]:
    """(kind, namespace, name) of a document, as far as it says them."""
    metadata: Any = document.data.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    kind = str(document.data.get("kind", ""))
    info = resources.KINDS.get(kind)
    namespaced = info is None or info.namespaced
    return (
        kind,
        str(metadata.get("namespace") or namespace or "default") if namespaced else "",
        str(metadata.get("name", "")),
    )


def _contents(names: Sequence[str], *, recursive: bool) -> list[tuple[str, bytes]]:
    found = []
    for name in names:
        if name == "-":
            found.append(("<stdin>", sys.stdin.buffer.read()))
        elif "://" in name:
            raise UsageError(
                f'"{name}": addresses are not supported in this version; download the file first'
            )
        else:
            found += [(str(path), _content(path)) for path in _paths(Path(name), recursive=recursive)]
    return found


def _paths(path: Path, *, recursive: bool) -> list[Path]:
    if not path.is_dir():
        return [path]
    inside = path.rglob("*") if recursive else path.iterdir()
    found = sorted(each for each in inside if each.suffix in _SUFFIXES and each.is_file())
    if not found:
        advice = "" if recursive else "; -R looks into its folders too"
        raise CliError(f"error: {path}: no {', '.join(_SUFFIXES)} files in it{advice}", ExitCode.BAD_REQUEST)
    return found


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(os_errors.sentence(error, path)) from error


def _require_namespace(documents: "list[Document]", namespace: str) -> None:
    for document in documents:
        metadata = document.data.get("metadata")
        written = metadata.get("namespace") if isinstance(metadata, dict) else None
        if written is not None and written != namespace:
            line, column = document.position("metadata.namespace")
            raise CliError(
                f'{document.source}:{line}:{column}: the document is for namespace "{written}", and you said'
                f' -n {namespace}; leave -n out, or write "{namespace}" there',
                ExitCode.BAD_REQUEST,
            )


def _require_unique(documents: "list[Document]", namespace: str | None) -> None:
    seen: dict[tuple[str, str, str], Document] = {}
    for document in documents:
        known = seen.setdefault(key(document, namespace), document)
        if known is not document:
            first, second = known.position("metadata.name"), document.position("metadata.name")
            raise CliError(
                f"{document.source}:{second[0]}:{second[1]}: {document.data.get('kind')}"
                f' "{key(document, namespace)[2]}" stands at {known.source}:{first[0]}:{first[1]} already',
                ExitCode.BAD_REQUEST,
            )
