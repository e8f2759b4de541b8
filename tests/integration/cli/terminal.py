"""A terminal for stdout or stderr, and what stands on it in the end: progress that was rewritten in place leaves nothing."""

import contextlib
import os
import pty
import re
import termios
import threading

_SEQUENCE = re.compile(r"\x1b\[(?P<number>[0-9;?]*)(?P<letter>[A-Za-z])")


class Side:
    """One terminal; `file` is what a program writes to."""

    def __init__(self) -> None:
        self._own, other = pty.openpty()
        attributes = termios.tcgetattr(other)
        attributes[1] &= ~termios.OPOST  # line ends stay as they are written
        termios.tcsetattr(other, termios.TCSANOW, attributes)
        termios.tcsetwinsize(other, (50, 200))
        self.file = os.fdopen(other, "w", encoding="utf-8")
        self._shown = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the other side is closed
            while data := os.read(self._own, 65536):
                self._shown += data

    def close(self) -> str:
        """What stands on it."""
        self.file.close()
        self._reader.join(20)
        os.close(self._own)
        return screen(self._shown.decode())


def screen(text: str) -> str:
    """The lines that `text` leaves on an endless terminal: line ends, returns, cursor up, erased lines. Colours are kept out."""
    lines, row, column, at = [""], 0, 0, 0
    while at < len(text):
        if found := _SEQUENCE.match(text, at):
            at = found.end()
            count = int(found["number"]) if found["number"].isdigit() else 1
            if found["letter"] == "A":
                row = max(0, row - count)
            elif found["letter"] == "K":
                lines[row] = ""
            continue
        letter = text[at]
        at += 1
        if letter == "\n":
            row, column = row + 1, 0
            if row == len(lines):
                lines.append("")
        elif letter == "\r":
            column = 0
        else:
            lines[row] = lines[row][:column].ljust(column) + letter + lines[row][column + 1 :]
            column += 1
    while len(lines) > row + 1 and not lines[-1]:  # below the cursor
        lines.pop()
    return "\n".join(lines)
