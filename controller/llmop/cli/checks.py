"""Checks as a table, as JSON, and as an exit code: what preflight and doctor share."""

from collections.abc import Iterable, Sequence
from typing import Any

from llmop.cli import printing
from llmop.cli.errors import CliError, ExitCode, UsageError
from llmop.cli.session import out

OUTPUTS = ("table", "json")
_WORDS = {1: "PASS", 2: "WARN", 3: "FAIL"}


def show(checks: Iterable[Any], output: str) -> None:
    """Prints all checks. Raises CliError when one of them failed."""
    seen: list[Any] = list(checks)
    if output == "json":
        out(printing.to_json({"checks": [_document(each) for each in seen]}))
    elif output == "table":
        out("\n".join(_table(seen)))
    else:
        raise UsageError(f"-o {output}: known are {', '.join(OUTPUTS)}")
    failures = [each for each in seen if word(each) == "FAIL"]
    if failures:
        noun = "check" if len(failures) == 1 else "checks"
        raise CliError(f"{len(failures)} {noun} failed", ExitCode.UNEXPECTED)


def _table(checks: Sequence[Any]) -> list[str]:
    rows = [["RESULT", "SUBJECT", "CHECK", "MESSAGE"]]
    rows += [[word(each), each.subject, each.name, each.message] for each in checks]
    lines = printing.table(rows)
    fixes = [each for each in checks if each.fix]
    if fixes:
        lines += ["", "What to do:"]
        lines += [
            f"  {word(each)} {each.subject}: {each.name}: {printing.multi_line(each.fix)}" for each in fixes
        ]
    return lines


def _document(check: Any) -> dict[str, str]:
    return {
        "subject": check.subject,
        "name": check.name,
        "result": word(check),
        "message": check.message,
        "fix": check.fix,
    }


def word(check: Any) -> str:
    """A result that a newer controller knows is not hidden as a success."""
    return _WORDS.get(check.result, "WARN")
