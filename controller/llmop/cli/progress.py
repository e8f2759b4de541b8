"""How something that takes a while is getting on, on stderr."""

import sys
from typing import TYPE_CHECKING

from llmop.cli import printing
from llmop.cli.session import say

if TYPE_CHECKING:
    import rich.live


class Lines:
    """Progress where nobody watches: one line on stderr whenever one changes."""

    is_live = False  # whether lines are rewritten, so that counters may run in them

    def __init__(self) -> None:
        self._shown: dict[str, str] = {}

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *exception: object) -> None:
        self.clear()

    def show(self, lines: dict[str, str]) -> None:
        for label, text in lines.items():
            if self._shown.get(label) != text:
                say(f"{label}: {text}")
        self._shown.update(lines)

    def clear(self) -> None:
        """Takes away what should not stand among the lines that follow."""


class _Live(Lines):
    """Progress on a terminal: lines that are rewritten in place."""

    is_live = True

    def __init__(self) -> None:
        super().__init__()
        from rich.text import Text

        self._text = Text
        self._live = live()

    def __enter__(self) -> "_Live":
        self._live.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._live.stop()

    def show(self, lines: dict[str, str]) -> None:
        text = "\n".join(f"{label}: {line}" for label, line in lines.items())
        self._live.update(self._text(printing.multi_line(text)), refresh=True)

    def clear(self) -> None:
        self._live.update(self._text(""), refresh=True)


def live() -> "rich.live.Live":
    """Lines on stderr that are rewritten in place and gone at the end."""
    from rich.console import Console
    from rich.live import Live

    return Live(
        console=Console(stderr=True, highlight=False),
        transient=True,
        auto_refresh=False,
        redirect_stdout=False,  # data stays data when only the messages go to a terminal
        redirect_stderr=False,
    )


def shown() -> Lines:
    """What suits stderr; use it in `with`."""
    return _Live() if sys.stderr.isatty() else Lines()
