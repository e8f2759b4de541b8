"""llmctl config."""

import dataclasses
import os
from typing import Any

import click

from llmop.cli import contexts
from llmop.cli.errors import ConfigError, UsageError
from llmop.cli.session import out, say


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from llmop.cli import completing

    return completing.contexts(incomplete)


@click.group("config")
def command() -> None:
    """Show and choose contexts: which controller, which gateway, which key, which namespace.

    They stand in ~/.config/llmop/contexts.yaml.
    """


@command.command("get-contexts")
@click.option("-o", "--output", type=click.Choice(["name"]), help="Names only.")
@click.option("--no-headers", is_flag=True, help="The table without its first line.")
def get_contexts(output: str | None, no_headers: bool) -> None:
    """List the contexts; the current one has a star."""
    from llmop.cli import printing

    known = contexts.load(contexts.default_path(os.environ))
    current = os.environ.get("LLMOP_CONTEXT") or known.current
    if output == "name":
        for each in known.contexts:
            out(each.name)
        return
    rows = [] if no_headers else [["CURRENT", "NAME", "CONTROLLER", "GATEWAY", "NAMESPACE"]]
    for each in known.contexts:
        fields = (each.name, each.controller, each.gateway, each.namespace)
        rows.append(["*" if each.name == current else "", *(field or "<none>" for field in fields)])
    if rows:
        out("\n".join(printing.table(rows)))


@command.command("current-context")
def current_context() -> None:
    """Print the name of the current context."""
    known = contexts.load(contexts.default_path(os.environ))
    current = os.environ.get("LLMOP_CONTEXT") or known.current
    if not current:
        raise ConfigError("current-context is not set")
    out(current)


@command.command("use-context")
@click.argument("name", shell_complete=_complete)
def use_context(name: str) -> None:
    """Make a context the current one."""

    def use(known: contexts.Contexts) -> contexts.Contexts:
        if known.find(name) is None:
            names = ", ".join(each.name for each in known.contexts) or "none"
            raise ConfigError(f'no context exists with the name: "{name}"; there are: {names}')
        return dataclasses.replace(known, current=name)

    contexts.change(contexts.default_path(os.environ), use)
    out(f'Switched to context "{name}".')
    if os.environ.get("LLMOP_CONTEXT", name) != name:
        say(f"LLMOP_CONTEXT is set to {os.environ['LLMOP_CONTEXT']}, which goes before it")


@command.command("set-context")
@click.argument("name", shell_complete=_complete)
@click.option("--controller", metavar="ADDRESS", help="Address of the control API, unix:///path.")
@click.option(
    "--gateway", metavar="URL", help="Address of a gateway, like http://127.0.0.1:8080 or unix:/path."
)
@click.option("--key-file", metavar="FILE", help="File with the key for the gateway, mode 0600.")
@click.option("--namespace", metavar="NAME", help="Namespace where nothing else names one.")
def set_context(name: str, **fields: str | None) -> None:
    """Make a context, or change what is given of one. An empty value takes a field away."""
    given: dict[str, Any] = {key: value for key, value in fields.items() if value is not None}
    _check(name, given)
    said = ""

    def put(known: contexts.Contexts) -> contexts.Contexts:
        nonlocal said
        found = known.find(name)
        said = "modified" if found is not None else "created"
        if found is None and not given.get("controller"):
            raise UsageError(f'context "{name}" is new: it needs --controller unix:///path')
        base = found or contexts.Context(name=name, controller="")
        return known.put(dataclasses.replace(base, **given))

    contexts.change(contexts.default_path(os.environ), put)
    out(f'Context "{name}" {said}.')


def _check(name: str, given: dict[str, Any]) -> None:
    """Raises UsageError."""
    if not name or name.startswith("-"):
        raise UsageError(f'"{name}" is no name for a context')
    if not given:
        raise UsageError("say what to set: --controller, --gateway, --key-file or --namespace")
    if "controller" in given and not given["controller"].startswith("unix:///"):
        raise UsageError(
            f'--controller "{given["controller"]}": only unix:///path is supported in this version'
        )
    if given.get("gateway") and not given["gateway"].startswith(("http://", "https://", "unix:/")):
        raise UsageError(
            f'--gateway "{given["gateway"]}": write http://HOST:PORT, https://HOST or unix:/path'
        )
    if given.get("key_file"):
        given["key_file"] = os.path.abspath(os.path.expanduser(given["key_file"]))  # noqa: PTH100, PTH111  (no file has to exist)
