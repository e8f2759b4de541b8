"""Which files of a repository are fetched."""

import pytest

from llmop.artifacts import selection
from llmop.domain import artifact
from llmop.domain.errors import NeedsUser


def chosen(uri: str, *paths: str) -> list[str]:
    files = [selection.File(path=path, size=1, checksum="") for path in paths]
    return [each.path for each in selection.choose(artifact.parse_model(uri, ""), files)]


def test_other_formats_are_left_out_only_where_there_are_safetensors() -> None:
    others = ["pytorch_model.bin", "original/consolidated.00.pth", "tf_model.h5", "onnx/model.onnx", "q.gguf"]

    assert ["config.json", "model.safetensors", "sub/a.json"] == chosen(
        "hf://a/b", "sub/a.json", "config.json", "model.safetensors", ".gitattributes", ".cache/x", *others
    )
    assert ["config.json", "pytorch_model.bin"] == chosen("hf://a/b", "config.json", "pytorch_model.bin")
    assert ["original/model.safetensors", "pytorch_model.bin"] == chosen(
        "hf://a/b", "pytorch_model.bin", "original/model.safetensors"
    )


def test_one_file_is_that_file_with_its_parts() -> None:
    assert ["q/x.gguf"] == chosen("hf://a/b/q/x.gguf", "q/x.gguf", "q/y.gguf")
    parts = [f"x-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
    assert parts == chosen(f"hf://a/b/{parts[0]}", *reversed(parts))
    with pytest.raises(NeedsUser, match=r"has no file x-00003-of-00003\.gguf"):
        chosen(f"hf://a/b/{parts[0]}", *parts[:2])


def test_what_is_not_there_is_told_with_what_is() -> None:
    many = [f"{number:02d}.gguf" for number in range(12)]
    with pytest.raises(NeedsUser, match=r"it has 00.gguf, .*07.gguf and 4 more$"):
        chosen("hf://a/b/x.gguf", *many, "README.md")
    with pytest.raises(NeedsUser, match="the repository has no files"):
        chosen("hf://a/b", ".gitattributes")


def test_space_is_compared_with_figures() -> None:
    selection.check_space("x", 100, 100, "/shared")
    with pytest.raises(NeedsUser, match=r"x needs at least 2.0 GB more in /shared, and 1.5 kB are free"):
        selection.check_space("x", 2_000_000_000, 1500, "/shared")
