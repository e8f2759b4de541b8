"""`kind: List`, the form in which several objects are printed: each of its items is a document of its own."""

import dataclasses
from collections.abc import Iterator, Mapping

from llmop.domain import resources
from llmop.manifest import load, paths

KIND = "List"
_TOP = ("apiVersion", "kind", "metadata", "items")


def expand(document: load.Document) -> tuple[load.Document, ...]:
    """The documents in `document`, each with its places in the text: its items when it is a List, else itself.

    Raises load.ManifestError with everything that is wrong with the List itself.
    """
    if document.data.get("kind") != KIND:
        return (document,)
    problems = tuple(_problems(document))
    if problems:
        raise load.ManifestError(problems)
    return tuple(_item(document, index) for index in range(len(document.data["items"])))


def _problems(document: load.Document) -> Iterator[load.Problem]:
    def problem(path: str, message: str) -> load.Problem:
        line, column = document.position(path)
        return load.Problem(source=document.source, line=line, column=column, message=f"{path}: {message}")

    version = document.data.get("apiVersion")
    if version != resources.API_VERSION:
        yield problem("apiVersion", f"{version!r} is not known; write {resources.API_VERSION}")
    for key in document.data:
        if key not in _TOP:
            yield problem(paths.join("", key), f"unknown field; a List has {', '.join(_TOP)}")
    items = document.data.get("items")
    if not isinstance(items, list):
        yield problem("items", "is required; a list of manifests")
        return
    for index, item in enumerate(items):
        path = paths.join("items", index)
        if not isinstance(item, Mapping):
            yield problem(path, "a manifest is a mapping with apiVersion, kind, metadata and spec")
        elif item.get("kind") == KIND:
            yield problem(path, "a List within a List; write its items here")


def _item(document: load.Document, index: int) -> load.Document:
    """Its positions are those below `items[index]`, under the paths that the item's own fields have."""
    prefix = paths.split(paths.join("items", index))
    positions = {}
    for path, position in document.positions.items():
        steps = paths.split(path)
        if steps[: len(prefix)] == prefix:
            positions[paths.build(steps[len(prefix) :])] = position
    return dataclasses.replace(document, data=document.data["items"][index], positions=positions)
