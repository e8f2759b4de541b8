"""Durations and amounts of memory as they stand in manifests."""

import functools
import re

MAX_SECONDS = 10 * 365 * 86400

_DURATION = re.compile(
    r"(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m(?!s))?(?:(\d{1,9})s)?(?:(\d{1,9})ms)?", re.ASCII
)
_SLURM = re.compile(
    r"(?:(\d{1,5})-)?(\d{1,5}):([0-5]\d):([0-5]\d)|(\d{1,5})-(\d{1,2})(?::([0-5]\d))?", re.ASCII
)
_MEMORY = re.compile(r"([1-9]\d{0,9})(Mi|Gi|Ti)", re.ASCII)
_MEBIBYTES = {"Mi": 1, "Gi": 1024, "Ti": 1024 * 1024}


@functools.lru_cache(maxsize=2048)  # most objects say the same few
def seconds(text: str, *, slurm: bool = False) -> float:
    """The seconds of `90s`, `10m`, `1h30m`, `2d`, `500ms`; with `slurm` also of `HH:MM:SS`, `D-HH`, `D-HH:MM`, `D-HH:MM:SS`.

    The Slurm forms are those of sbatch(1) `--time` that cannot be mistaken: a bare number would be minutes there.
    Raises ValueError with a sentence that starts with the value.
    """
    value = _slurm_seconds(text) if slurm else None
    if value is None:
        match = _DURATION.fullmatch(text)
        if match is None or not text:
            raise ValueError(f"{text!r} is not a duration{_advice(text, slurm=slurm)}")
        days, hours, minutes, whole, thousandths = (int(part or 0) for part in match.groups())
        value = days * 86400 + hours * 3600 + minutes * 60 + whole + thousandths / 1000
    if value > MAX_SECONDS:
        raise ValueError(f"{text!r} is more than ten years")
    return value


def whole_seconds(text: str, *, slurm: bool = False) -> int:
    """`seconds`, refusing fractions."""
    value = seconds(text, slurm=slurm)
    if value != int(value):
        raise ValueError(f"{text!r} is not a whole number of seconds")
    return int(value)


def mebibytes(text: str) -> int:
    """The mebibytes of `512Mi`, `64Gi`, `1Ti`. Raises ValueError with a sentence that starts with the value."""
    match = _MEMORY.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not an amount of memory; write it like 512Mi or 64Gi")
    return int(match[1]) * _MEBIBYTES[match[2]]


def write_seconds(value: int) -> str:
    """The one way we write a duration."""
    return f"{value}s"


def write_mebibytes(value: int) -> str:
    """The one way we write an amount of memory."""
    return f"{value}Mi"


def _slurm_seconds(text: str) -> float | None:
    match = _SLURM.fullmatch(text)
    if match is None:
        return None
    days, hours, minutes, whole, only_days, only_hours, only_minutes = match.groups()
    if only_days is not None:
        return int(only_days) * 86400 + int(only_hours) * 3600 + int(only_minutes or 0) * 60
    return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + int(whole)


def _advice(text: str, *, slurm: bool) -> str:
    if text.isascii() and text.isdigit():
        return f"; add a unit, like {text}s or {text}m"
    return "; write it like 90s, 10m or 1h30m" + (", or as Slurm's D-HH:MM:SS" if slurm else "")
