"""Images and weights that are brought to a cluster before a replica starts: how people write them, what they are called on disk.

`docker://[registry/]repository[:tag|@sha256:...]`, `oras://` the same, and `hf://[organisation/]name[/file.gguf]` with a revision
beside it. A moving name (a tag, a branch) is resolved once per revision of a deployment; from then on the digest says what runs.
Paths of files and directories that are there already are not artifacts: they are used where they lie.
"""

import dataclasses
import enum
import hashlib
import re

IMAGE_SCHEMES = ("docker://", "oras://")
MODEL_SCHEMES = ("hf://",)
DEFAULT_REVISION = "main"

_DOCKER_HUB = "docker.io"
# As in github.com/distribution/reference (regexp.go), for names and IPv4 addresses.
_REGISTRY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-.]*[A-Za-z0-9])?(:[0-9]{1,5})?", re.ASCII)
_REPOSITORY = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_IMAGE_DIGEST = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)
# As in huggingface_hub/utils/_validators.py (validate_repo_id).
_HUB_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?", re.ASCII)
_HUB_FILE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=@-]*(/[A-Za-z0-9_][A-Za-z0-9_.+=@-]*)*", re.ASCII)
_HUB_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_.-]+)*", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
_PREFIX = re.compile(
    r"[A-Za-z0-9_][A-Za-z0-9_.-]*(:[0-9]{1,5})?(/[A-Za-z0-9_][A-Za-z0-9_.+=@-]*)*/?", re.ASCII
)
_SPLIT_GGUF = re.compile(r"(?P<stem>.+)-(?P<part>[0-9]{5})-of-(?P<parts>[0-9]{5})\.gguf", re.ASCII)


class Kind(enum.StrEnum):
    IMAGE = "Image"
    MODEL = "Model"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What somebody wrote, in one form whatever the spelling. `version` is a tag, a digest, or a revision of the hub."""

    scheme: str  # docker, oras, hf
    registry: str  # "" for hf
    repository: str
    version: str
    file: str = ""  # hf: one file of the repository; "" = all that an engine needs

    @property
    def kind(self) -> Kind:
        return Kind.MODEL if self.scheme == "hf" else Kind.IMAGE

    @property
    def name(self) -> str:
        """Without the version, as `Cluster.spec.allowed` compares it."""
        parts = [each for each in (self.registry, self.repository, self.file) if each]
        return f"{self.scheme}://{'/'.join(parts)}"

    @property
    def text(self) -> str:
        """The same for the same thing: the key under which a revision remembers its digest."""
        return f"{self.name}{':' if self._has_tag else '@'}{self.version}"

    @property
    def _has_tag(self) -> bool:
        return self.scheme != "hf" and not _IMAGE_DIGEST.fullmatch(self.version)

    @property
    def pinned(self) -> str:
        """The digest or commit that `version` already is; "" for a name that can move."""
        pattern = _COMMIT if self.scheme == "hf" else _IMAGE_DIGEST
        return self.version if pattern.fullmatch(self.version) else ""


def parse_image(text: str) -> Reference:
    """The image that `text` (`docker://...` or `oras://...`) names. Raises ValueError with a sentence."""
    scheme, _, rest = text.partition("://")
    registry, repository, version = _split_image(rest, default_registry=scheme == "docker")
    hint = f"write it like {scheme}://ghcr.io/organisation/name:tag"
    if "@" in rest and "@sha256:" not in rest:
        raise ValueError(
            f"{text!r}: after @ there can be a digest only; credentials go into a file of spec.envFrom"
        )
    if not registry:
        raise ValueError(f"{text!r} names no registry; {hint}")
    if not _REGISTRY.fullmatch(registry):
        raise ValueError(f"{text!r}: {registry!r} is not a registry; {hint}")
    if not _REPOSITORY.fullmatch(repository) or len(repository) > 255:
        raise ValueError(f"{text!r}: {repository!r} is not the name of a repository (lower-case); {hint}")
    if not (_IMAGE_DIGEST.fullmatch(version) or _TAG.fullmatch(version)):
        raise ValueError(f"{text!r}: {version!r} is neither a tag nor sha256: and 64 hexadecimal digits")
    return Reference(scheme=scheme, registry=registry, repository=repository, version=version)


def _split_image(rest: str, *, default_registry: bool) -> tuple[str, str, str]:
    """(registry, repository, version) by Docker's rules: a first part with a dot or a colon, or localhost, is a registry."""
    rest, at, digest = rest.partition("@")
    first, slash, others = rest.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        registry, path = first, others
    else:
        registry, path = (_DOCKER_HUB if default_registry else ""), rest
    head, slash, last = path.rpartition("/")
    last, colon, tag = last.partition(":")
    repository = f"{head}{slash}{last}"
    if registry == _DOCKER_HUB and repository and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository, digest if at else tag if colon else "latest"


def parse_model(text: str, revision: str) -> Reference:
    """The weights that `text` (`hf://...`) names at `revision` ("" = main). Raises ValueError with a sentence."""
    hint = "write it like hf://organisation/name, or hf://organisation/name/file.gguf for one file"
    parts = text.removeprefix("hf://").split("/", 2)
    repository, file = "/".join(parts[:2]), "".join(parts[2:])
    if len(parts) > 2 and not file:
        raise ValueError(f"{text!r} ends with /; {hint}")
    for part in parts[:2]:
        if not _HUB_NAME.fullmatch(part) or "--" in part or ".." in part:
            raise ValueError(f"{text!r}: {part!r} is not a name of the hub; {hint}")
    if file and (not _HUB_FILE.fullmatch(file) or ".." in file):
        raise ValueError(f"{text!r}: {file!r} is not the path of a file; {hint}")
    split = _SPLIT_GGUF.fullmatch(file)
    if split is not None and int(split["part"]) != 1:
        raise ValueError(
            f"{text!r} names a later part of a split file; name the first one, ...-00001-of-{split['parts']}.gguf"
        )
    problem = revision_problem(revision) if revision else ""
    if problem:
        raise ValueError(problem)
    return Reference(
        scheme="hf",
        registry="",
        repository=repository,
        version=revision or DEFAULT_REVISION,
        file=file,
    )


def revision_problem(revision: str) -> str:
    """Why `revision` cannot be one of the hub's; "" if it can."""
    if len(revision) > 255 or ".." in revision or not _HUB_REVISION.fullmatch(revision):
        return f"{revision!r} is not a revision; write a commit, a branch or a tag"
    return ""


def is_image_reference(text: str) -> bool:
    """Whether `text` names an image of a registry, and not a path."""
    return text.startswith(IMAGE_SCHEMES)


def is_model_reference(text: str) -> bool:
    """Whether `text` names weights of a hub, and not a path."""
    return text.startswith(MODEL_SCHEMES)


def parse(text: str) -> Reference:
    """What `Reference.text` gave. Raises ValueError."""
    if not is_model_reference(text):
        return parse_image(text)
    name, _, revision = text.rpartition("@")
    return parse_model(name, revision)


def prefix_problem(text: str, schemes: tuple[str, ...]) -> str:
    """Why `text` cannot stand in a list of what is allowed, as in `docker://ghcr.io/organisation`; "" if it can."""
    scheme = next((each for each in schemes if text.startswith(each)), None)
    if scheme is None:
        return f"{text!r} begins with none of {', '.join(schemes)}"
    rest = text.removeprefix(scheme)
    if rest and not _PREFIX.fullmatch(rest):
        return (
            f"{text!r} is not the beginning of a reference without a version;"
            f" write it like {scheme}organisation, or {scheme} for all"
        )
    return ""


def is_below(reference: Reference, prefix: str) -> bool:
    """Whether `prefix` allows `reference`: its first parts, whole names each, without a version.

    `docker://ubuntu` and `docker://docker.io/library/ubuntu` are the same prefix.
    """
    scheme, _, rest = prefix.partition("://")
    if scheme != reference.scheme:
        return False
    rest = rest.rstrip("/")
    spellings = {rest}
    if scheme == "docker" and "." not in rest.split("/")[0] and ":" not in rest.split("/")[0]:
        spellings |= {f"{_DOCKER_HUB}/{rest}", f"{_DOCKER_HUB}/library/{rest}"} if rest else set()
    name = reference.name.partition("://")[2]
    return any(not each or name == each or name.startswith(f"{each}/") for each in spellings)


# On disk


def entry(reference: Reference, digest: str) -> str:
    """Its path below the cluster's shared directory: `images/<hex>.sif`, or `models/<hex>` of a directory.

    An image is called by its manifest's digest; weights by repository, commit and file, because two repositories may share a commit
    and one file may be wanted without the others.
    """
    if reference.kind is Kind.IMAGE:
        return f"images/{digest.removeprefix('sha256:')}.sif"
    text = f"hf\n{reference.repository}\n{digest}\n{reference.file}"
    return f"models/{hashlib.sha256(text.encode()).hexdigest()}"


def location(shared_dir: str, reference: Reference, digest: str) -> str:
    """The absolute path that an engine is given: the .sif, the model's directory, or the one file in it."""
    path = f"{shared_dir}/{entry(reference, digest)}"
    return f"{path}/{reference.file}" if reference.file else path


def parts_of(file: str) -> tuple[str, ...]:
    """`file` and, when it is the first of a split GGUF (`x-00001-of-00003.gguf`), the parts that llama.cpp opens beside it."""
    match = _SPLIT_GGUF.fullmatch(file)
    if match is None:
        return (file,)
    total = int(match["parts"])
    return tuple(f"{match['stem']}-{number:05d}-of-{total:05d}.gguf" for number in range(1, total + 1))
