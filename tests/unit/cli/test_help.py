"""Help as it is read on a terminal of 80 columns."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from llmop.cli.main import llmctl
from llmop.main import cli as llmop

COLUMNS = 80


def groups(name: str, group: click.Group) -> Iterator[str]:
    yield name
    for word in group.list_commands(click.Context(group)):
        command = group.get_command(click.Context(group), word)
        if isinstance(command, click.Group):
            yield from groups(f"{name} {word}", command)


PROGRAMS = {"llmctl": llmctl, "llmop": llmop}
GROUPS = [name for program, group in PROGRAMS.items() for name in groups(program, group)]


@pytest.mark.parametrize("name", GROUPS)
def test_no_command_of_a_list_is_described_by_half_a_sentence(name: str) -> None:
    program, *words = name.split()
    shown = CliRunner().invoke(PROGRAMS[program], [*words, "-h"], terminal_width=COLUMNS)
    assert 0 == shown.exit_code, shown.output
    listed = shown.output.partition("\nCommands:\n")[2].splitlines()
    assert listed
    assert [] == [line for line in listed if line.endswith("...")]


def test_the_line_for_an_editor_can_be_copied() -> None:
    shown = CliRunner().invoke(llmctl, ["explain", "-h"], terminal_width=COLUMNS)
    assert "# yaml-language-server: $schema=llmop.schema.json" in map(str.strip, shown.output.splitlines())
