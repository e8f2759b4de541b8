"""References: one form for one thing, names on disk, and what is allowed."""

import pytest

from llmop.domain import artifact

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ("docker://ubuntu", "docker://docker.io/library/ubuntu:latest"),
        ("docker://docker.io/ubuntu:22.04", "docker://docker.io/library/ubuntu:22.04"),
        ("docker://team/engine", "docker://docker.io/team/engine:latest"),
        ("docker://ghcr.io/a/b/c:1", "docker://ghcr.io/a/b/c:1"),
        ("docker://localhost/x", "docker://localhost/x:latest"),
        ("docker://127.0.0.1:5000/x:y", "docker://127.0.0.1:5000/x:y"),
        (f"docker://ghcr.io/a/b:1@{DIGEST}", f"docker://ghcr.io/a/b@{DIGEST}"),
        ("oras://ghcr.io/a/b:1", "oras://ghcr.io/a/b:1"),
    ],
)
def test_images_have_one_form(written: str, text: str) -> None:
    reference = artifact.parse_image(written)

    assert text == reference.text
    assert reference == artifact.parse(text)
    assert artifact.Kind.IMAGE is reference.kind


@pytest.mark.parametrize(
    ("uri", "revision", "text"),
    [
        ("hf://gpt2", "", "hf://gpt2@main"),
        ("hf://org/name", "refs/pr/1", "hf://org/name@refs/pr/1"),
        ("hf://org/name/sub/x.Q4_K_M.gguf", "v1.0", "hf://org/name/sub/x.Q4_K_M.gguf@v1.0"),
    ],
)
def test_models_have_one_form(uri: str, revision: str, text: str) -> None:
    reference = artifact.parse_model(uri, revision)

    assert text == reference.text
    assert reference == artifact.parse(text)


def test_what_cannot_move_is_known() -> None:
    assert "" == artifact.parse_image("docker://ghcr.io/a/b:1").pinned
    assert DIGEST == artifact.parse_image(f"docker://ghcr.io/a/b@{DIGEST}").pinned
    assert "" == artifact.parse_model("hf://a/b", "abc").pinned
    assert "b" * 40 == artifact.parse_model("hf://a/b", "b" * 40).pinned


def test_names_on_disk_are_those_of_the_bytes() -> None:
    image = artifact.parse_image("docker://ghcr.io/a/b:1")
    assert f"/s/images/{'a' * 64}.sif" == artifact.location("/s", image, DIGEST)
    whole, file = artifact.parse_model("hf://a/b", ""), artifact.parse_model("hf://a/b/x.gguf", "")
    other = artifact.parse_model("hf://a/c", "")
    entries = {artifact.entry(each, "c" * 40) for each in (whole, file, other)}
    assert 3 == len(entries)
    assert artifact.entry(whole, "c" * 40) == artifact.entry(artifact.parse_model("hf://a/b", "v1"), "c" * 40)
    assert artifact.location("/s", file, "c" * 40) == f"/s/{artifact.entry(file, 'c' * 40)}/x.gguf"


def test_of_a_split_file_the_first_part_is_named() -> None:
    assert "x.gguf" == artifact.parse_model("hf://a/b/x.gguf", "").file
    with pytest.raises(ValueError, match="name the first one"):
        artifact.parse_model("hf://a/b/x-00002-of-00002.gguf", "")
