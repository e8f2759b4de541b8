"""The `{name}` marks in the templates of a ServingRuntime, and how braces are kept from being taken for one.

Ours are filled when a replica is made, the agent's on the node (docs/reference/agent-channel.md). `{{` and `}}` are braces.
"""

import dataclasses
import functools
import re

AGENT = frozenset({"port", "host", "scratch", "sockets", "apiKeyFile"})
OURS = frozenset(
    {
        "model",
        "servedName",
        "tensorParallel",
        "pipelineParallel",
        "maxTokens",
        "startupTimeout",
        "stopTimeout",
        "python",
        "sharedDir",
    }
)

_TOKEN = re.compile(r"\{\{|\}\}|\{(?P<name>[A-Za-z]+)(?::(?P<argument>[a-z][a-z0-9-]*))?\}|[{}]")


@dataclasses.dataclass(frozen=True, slots=True)
class Placeholder:
    """`{name}`, or `{name:argument}` (ports only)."""

    name: str
    argument: str = ""


def parse(text: str) -> tuple[str | Placeholder, ...]:
    """The plain parts (braces unescaped) and placeholders of `text`. Raises ValueError for a brace that is neither."""
    parts: list[str | Placeholder] = []
    at = 0
    for match in _TOKEN.finditer(text):
        if match.start() > at:
            parts.append(text[at : match.start()])
        if match["name"] is not None:
            parts.append(Placeholder(match["name"], match["argument"] or ""))
        elif len(match[0]) == 2:
            parts.append(match[0][0])
        else:
            raise ValueError(f"{text!r} has a single {match[0]!r}; write {match[0] * 2!r} for a brace")
        at = match.end()
    if at < len(text):
        parts.append(text[at:])
    return tuple(parts)


@functools.lru_cache(maxsize=2048)  # every deployment that is checked asks for those of its runtime
def names(text: str) -> frozenset[str]:
    """The placeholders in the template `text`, without arguments. Raises ValueError as `parse` does."""
    return frozenset(part.name for part in parse(text) if isinstance(part, Placeholder))


def escape(text: str) -> str:
    """`text` so that `parse` gives it back as plain text."""
    return text.replace("{", "{{").replace("}", "}}")


def problem(text: str, *, known: frozenset[str], ports: tuple[str, ...] = ()) -> str:
    """What is wrong with the template `text`, as a sentence; "" if nothing. `{port:NAME}` must name one of `ports`."""
    try:
        parts = parse(text)
    except ValueError as error:
        return str(error)
    for part in parts:
        if isinstance(part, str):
            continue
        if part.name not in known:
            names = ", ".join(f"{{{name}}}" for name in sorted(known))
            return f"{text!r} has the placeholder {{{part.name}}}; there are {names}"
        if part.argument and (part.name != "port" or part.argument not in ports):
            return (
                f"{text!r} names {{{part.name}:{part.argument}}}; the ports are {', '.join(ports) or 'none'}"
            )
    return ""
