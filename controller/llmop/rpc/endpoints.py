"""Where GatewayService gets its table from. The reconciler implements it."""

from typing import Protocol

from llmop.domain.endpoint import EndpointTable


class EndpointSource(Protocol):
    def table(self) -> EndpointTable:
        """The newest table; its version is 0 while there is none yet."""
        ...

    async def changed(self, after_version: int) -> EndpointTable:
        """Waits for a table whose version is greater than `after_version`; returns at once when there is one."""
        ...

    def acknowledge(self, gateway: str, version: int) -> None:
        """`gateway` is alive and acts on `version`."""
        ...
