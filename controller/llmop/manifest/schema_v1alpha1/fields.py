"""What all models share: strict fields in camelCase, and the types of values that manifests write as text."""

import re
from collections.abc import Callable
from typing import Annotated, ClassVar

import pydantic
import pydantic.alias_generators
from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from llmop.domain import artifact
from llmop.manifest import quantity

_RESERVED_ENV = ("SLURM_", "APPTAINER", "SINGULARITY")

LATER_IMAGES = ("library://", "shub://", "docker-archive:", "oci:", "oci-archive:", "docker-daemon:")

_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", re.ASCII)
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,252}", re.ASCII)
_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
_WORD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:/-]{0,254}", re.ASCII)
_LIST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:,/-]{0,1023}", re.ASCII)
_CONSTRAINT = re.compile(r"[A-Za-z0-9_(\[][A-Za-z0-9_.,=&|*()\[\]:+-]{0,1023}", re.ASCII)
_NODES = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*(\[[0-9,-]+\][A-Za-z0-9_.-]*)*", re.ASCII)
_FLAG = re.compile(r"-{1,2}[A-Za-z0-9][A-Za-z0-9_.-]*", re.ASCII)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z", re.ASCII)
_REGISTRY = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?", re.ASCII)
_HTTP_PATH = re.compile(r"/[A-Za-z0-9._~/-]*", re.ASCII)


class Fields(pydantic.BaseModel):
    """A mapping in a manifest. `unsupported` names fields that exist in our design and not in this version."""

    model_config = pydantic.ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=pydantic.alias_generators.to_camel,
        validate_default=False,
        protected_namespaces=(),
    )
    unsupported: ClassVar[frozenset[str]] = frozenset()


def invalid(message: str) -> PydanticCustomError:
    return PydanticCustomError("InvalidValue", "{problem}", {"problem": message})


def invalid_below(*problems: tuple[str, str]) -> PydanticCustomError:
    """Several problems at once, each with the path of its field below the mapping that is checked ("" = the mapping)."""
    text = "; ".join(message for _, message in problems)
    return PydanticCustomError("InvalidValue", "{problem}", {"problem": text, "problems": problems})


def unsupported(message: str) -> PydanticCustomError:
    return PydanticCustomError("Unsupported", "{problem}", {"problem": message})


def matching(pattern: re.Pattern[str], words: str, *, empty: bool = False) -> AfterValidator:
    """`words` says what is allowed, after "is not"."""

    def validate(value: str) -> str:
        if not (empty and not value) and not pattern.fullmatch(value):
            raise invalid(f"{value!r} is not {words}")
        return value

    return AfterValidator(validate)


def _duration(slurm: bool, whole: bool, least: float) -> AfterValidator:
    def validate(value: str) -> str:
        try:
            amount = (
                quantity.whole_seconds(value, slurm=slurm) if whole else quantity.seconds(value, slurm=slurm)
            )
        except ValueError as error:
            raise invalid(str(error)) from error
        if amount < least:
            raise invalid(f"{value!r} is too short; it must be at least {least:g}s")
        return value

    return AfterValidator(validate)


def _memory(value: str) -> str:
    try:
        quantity.mebibytes(value)
    except ValueError as error:
        raise invalid(str(error)) from error
    return value


def path_problem(value: str) -> str:
    """Why `value` is not a plain absolute path; "" if it is one."""
    if not value.startswith("/"):
        return f"{value!r} is not an absolute path; begin it with /"
    if any(part in ("..", ".") for part in value.split("/")):
        return f"{value!r} has . or .. in it; write the path without"
    if "//" in value:
        return f"{value!r} has // in it; write one /"
    if any(character in value for character in "\n\r\t"):
        return f"{value!r} has a line break or a tab in it"
    return ""


def _absolute(value: str) -> str:
    if problem := path_problem(value):
        raise invalid(problem)
    return value


def _bindable(value: str) -> str:
    if any(character in value for character in ":,\\"):
        raise invalid(f"{value!r} has one of : , \\ in it, which a container's bind path cannot have")
    return _absolute(value)


def _relative(value: str) -> str:
    if value.startswith("/"):
        raise invalid(f"{value!r} is absolute; give the path below the cluster's secretRoot")
    if problem := path_problem("/" + value):
        raise invalid(f"{value!r}: " + problem.partition(" ")[2])
    if not value:
        raise invalid("'' is no file")
    return value


def _image(value: str) -> str:
    if not value:
        return value
    if value.startswith(LATER_IMAGES):
        raise unsupported(
            f"{value!r}: such images are not supported in this version; write docker://, oras:// or the path of a .sif"
        )
    if artifact.is_image_reference(value):
        return _reference(value, artifact.parse_image)
    if problem := path_problem(value):
        raise invalid(problem)
    return value


def _reference(value: str, parse: Callable[[str], artifact.Reference]) -> str:
    try:
        parse(value)
    except ValueError as error:
        raise invalid(str(error)) from error
    return value


def prefix(schemes: tuple[str, ...], path: Callable[[str], str]) -> AfterValidator:
    """What `path` takes, or the beginning of a reference with one of `schemes`."""

    def validate(value: str) -> str:
        if "://" not in value:
            return path(value)
        if problem := artifact.prefix_problem(value, schemes):
            raise invalid(problem)
        return value

    return AfterValidator(validate)


def _address(value: str) -> str:
    if not re.fullmatch(
        r"https?://[A-Za-z0-9][A-Za-z0-9.-]*(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?", value, re.ASCII
    ):
        raise invalid(f"{value!r} is not an address like https://hub.example.org")
    return value.rstrip("/")


def _env_name(value: str) -> str:
    if not _ENV_NAME.fullmatch(value):
        raise invalid(
            f"{value!r} is not the name of an environment variable: letters, digits and _, no digit first"
        )
    if value.startswith(_RESERVED_ENV):
        raise invalid(f"{value!r} belongs to the scheduler or the container; choose another name")
    return value


def _one_line(value: str) -> str:
    if "\n" in value or "\r" in value:
        raise invalid(f"{value!r} has a line break in it; write one item per line")
    return value


def _gres(value: str) -> str:
    if value and not re.fullmatch(r"gpu(:[A-Za-z0-9_.-]+)?(:[1-9][0-9]{0,3})?", value, re.ASCII):
        raise invalid(f"{value!r} is not a GPU request; write it like gpu:a100 or gpu:a100:2")
    return value


def _gres_type(value: str) -> str:
    if value and not re.fullmatch(
        r"gpu(:[A-Za-z_.-][A-Za-z0-9_.-]*|:[0-9]+[A-Za-z_.-][A-Za-z0-9_.-]*)?", value, re.ASCII
    ):
        raise invalid(f"{value!r} is not a kind of GPU; write it like gpu:a100, deployments add the count")
    return value


Name = Annotated[
    str, matching(_LABEL, "a name: lower-case letters, digits and -, at most 63, no - at either end")
]
OptionalName = Annotated[
    str,
    matching(_LABEL, "a name: lower-case letters, digits and -, at most 63, no - at either end", empty=True),
]
ModelName = Annotated[
    str,
    matching(_MODEL_NAME, "a model name: letters, digits and ._:/@+-, at most 253, a letter or digit first"),
]
Duration = Annotated[str, _duration(slurm=False, whole=True, least=0)]
PositiveDuration = Annotated[str, _duration(slurm=False, whole=True, least=1)]
FineDuration = Annotated[str, _duration(slurm=False, whole=False, least=0.01)]
SlurmDuration = Annotated[str, _duration(slurm=True, whole=True, least=60)]
Memory = Annotated[str, AfterValidator(_memory)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
BindablePath = Annotated[str, AfterValidator(_bindable)]
RelativePath = Annotated[str, AfterValidator(_relative)]
Image = Annotated[str, AfterValidator(_image)]
EnvName = Annotated[str, AfterValidator(_env_name)]
Env = dict[EnvName, str]
OneLine = Annotated[str, AfterValidator(_one_line)]
Gres = Annotated[str, AfterValidator(_gres)]
GresType = Annotated[str, AfterValidator(_gres_type)]
SlurmWord = Annotated[str, matching(_WORD, "a name that Slurm takes", empty=True)]
SlurmList = Annotated[str, matching(_LIST, "a name, or names joined by commas", empty=True)]
Constraint = Annotated[str, matching(_CONSTRAINT, "a feature expression like a100&ib", empty=True)]
Nodes = Annotated[str, matching(_NODES, "a node or nodes like n[1-4]")]
Flag = Annotated[str, matching(_FLAG, "a flag like --exclusive")]
Time = Annotated[str, matching(_TIME, "a time like 2026-01-31T08:15:00Z")]
HttpAddress = Annotated[str, AfterValidator(_address)]
ImagePrefix = Annotated[str, prefix(artifact.IMAGE_SCHEMES, _absolute)]
ModelPrefix = Annotated[str, prefix(artifact.MODEL_SCHEMES, _bindable)]
Registry = Annotated[str, matching(_REGISTRY, "a registry like localhost:5000")]
HttpPath = Annotated[str, matching(_HTTP_PATH, "a path of a URL like /health")]
