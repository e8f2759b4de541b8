"""Several watches as one queue, so that one loop can wait for all of them with a deadline and Ctrl-C ends it at once."""

import dataclasses
import queue
import threading
from collections.abc import Sequence

from llmop.cli.client import Change, Client
from llmop.cli.errors import CliError
from llmop.cli.session import say


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Interest:
    """What to watch; `name` "" = all of the kind in the namespace, `namespace` "" = everywhere."""

    kind: str
    namespace: str
    name: str = ""


class Feed:
    """The changes of all `interests`, each with the interest it belongs to."""

    def __init__(self, client: Client, interests: Sequence[Interest]) -> None:
        self._client = client
        self._queue: queue.SimpleQueue[tuple[Interest, Change | CliError]] = queue.SimpleQueue()
        self._said = threading.Event()
        for interest in interests:
            threading.Thread(target=self._read, args=(interest,), daemon=True).start()

    def next(self, timeout_s: float | None) -> tuple[Interest, Change] | None:
        """The next change, or None when there is none for `timeout_s`. Raises what ended a watch."""
        try:
            interest, item = self._queue.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if isinstance(item, CliError):
            raise item
        return interest, item

    def _read(self, interest: Interest) -> None:
        try:
            for change in self._client.watch(
                interest.kind, interest.namespace, interest.name, lost=self._lost
            ):
                self._queue.put((interest, change))
        except CliError as error:
            self._queue.put((interest, error))
        except ValueError:
            """The channel was closed under the watch: the command is over."""

    def _lost(self, sentence: str) -> None:
        if not self._said.is_set():
            self._said.set()
            say(sentence)
