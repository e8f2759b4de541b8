"""The context file: which controller and gateway a person works with. `llmop up` and `llmctl config` write it, llmctl reads it."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from llmop.cli.errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Context:
    """`controller` is unix:///path, `gateway` an HTTP address, `key_file` a 0600 file with the caller's key; "" = not known.

    `namespace` is used where neither a flag nor a manifest names one; "" = default.
    """

    name: str
    controller: str
    gateway: str = ""
    key_file: str = ""
    namespace: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Contexts:
    current: str = ""
    contexts: tuple[Context, ...] = ()

    def find(self, name: str) -> Context | None:
        return next((context for context in self.contexts if context.name == name), None)

    def put(self, context: Context) -> "Contexts":
        """With `context` in the place of the one of its name."""
        others = tuple(each for each in self.contexts if each.name != context.name)
        ordered = sorted((*others, context), key=lambda each: each.name)
        return dataclasses.replace(self, contexts=tuple(ordered))


def default_path(environ: Mapping[str, str]) -> Path:
    """`$XDG_CONFIG_HOME/llmop/contexts.yaml`, by default below ~/.config."""
    configured = environ.get("XDG_CONFIG_HOME", "")
    base = (
        Path(configured)
        if configured.startswith("/")
        else Path(environ.get("HOME") or "~").expanduser() / ".config"
    )
    return base / "llmop" / "contexts.yaml"


def load(path: Path) -> Contexts:
    """What the file holds; nothing when there is none. Raises ConfigError for a file that is not a context file."""
    import yaml

    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return Contexts()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    try:
        data = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    entries = data.get("contexts", []) if isinstance(data, dict) else None
    if not isinstance(entries, list):
        raise ConfigError(f"{path}: must hold currentContext and a list of contexts")
    return Contexts(
        current=str(data.get("currentContext") or ""),
        contexts=tuple(_context(path, index, entry) for index, entry in enumerate(entries)),
    )


def save(path: Path, context: Context) -> None:
    """Puts `context` in the place of the one of its name, makes it the current one and keeps all others."""
    change(path, lambda before: dataclasses.replace(before.put(context), current=context.name))


def change(path: Path, decide: Callable[[Contexts], Contexts]) -> None:
    """Writes what `decide` makes of what the file holds. It is replaced atomically and readable by its owner only.

    Raises what `decide` raises, and ConfigError for a file that is not a context file or cannot be written.
    """
    import yaml

    from llmop.files import whole

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _lock(path):
            known = decide(load(path))
            entries = [_entry(each) for each in known.contexts]
            text = yaml.safe_dump({"currentContext": known.current, "contexts": entries}, sort_keys=False)
            whole.write(path, text.encode(), 0o600)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def _lock(path: Path) -> Iterator[None]:
    import fcntl

    lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):  # home directories without locks: the replacement is atomic anyway
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _entry(context: Context) -> dict[str, str]:
    fields = {
        "name": context.name,
        "controller": context.controller,
        "gateway": context.gateway,
        "keyFile": context.key_file,
        "namespace": context.namespace,
    }
    return {key: value for key, value in fields.items() if value}


def _context(path: Path, index: int, entry: object) -> Context:
    if not isinstance(entry, dict):
        raise ConfigError(f"{path}: contexts[{index}]: must hold name and controller")
    values = {}
    for key in ("name", "controller", "gateway", "keyFile", "namespace"):
        value = entry.get(key, "")
        if not isinstance(value, str) or (key in ("name", "controller") and not value):
            raise ConfigError(f"{path}: contexts[{index}].{key}: must be text, got {value!r}")
        values[key] = value
    return Context(
        name=values["name"],
        controller=values["controller"],
        gateway=values["gateway"],
        key_file=values["keyFile"],
        namespace=values["namespace"],
    )
