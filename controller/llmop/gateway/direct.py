"""Writing without the detour over the end of the loop's iteration.

uvloop gathers what is written and sends it when every event of the iteration was handled. With hundreds of streams an iteration is long, and
what is written early waits for all of it.
"""

import asyncio
import os


class DirectWriter:
    """Gives bytes to the socket of a plain (not TLS) transport at once; what the socket does not take is the transport's to send, and
    what stands behind it too. Whoever has written to the transport itself says so: `is_behind`.
    """

    __slots__ = ("_descriptor", "_transport", "is_behind")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._descriptor = transport.get_extra_info("socket").fileno()
        self.is_behind = False

    def write(self, data: bytes) -> None:
        transport = self._transport
        if transport.is_closing():
            return  # what is written now is lost in any case, and the descriptor's number may be somebody else's
        if self.is_behind:
            if transport.get_write_buffer_size():
                transport.write(data)
                return
            self.is_behind = False
        try:
            sent = os.write(self._descriptor, data)
        except OSError:  # full, or broken: the transport finds out and says so
            sent = 0
        if sent < len(data):
            self.is_behind = True
            transport.write(data[sent:] if sent else data)
