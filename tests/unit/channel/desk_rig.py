"""A desk over a store in memory, with one replica per `Wanted`, and the words of agents."""

import asyncio
import dataclasses
from collections.abc import Sequence
from typing import Any

from llmop.channel import desk
from llmop.clock import SystemClock
from llmop.domain import ids, replica, resources
from llmop.store import interface
from llmop.testing.clock import FakeClock
from llmop.testing.memory_store import MemoryStore

INSTALLATION = "k3v9qd"
NAMESPACE = "default"
CLUSTER = "main"


class YieldingStore(MemoryStore):
    """Every call lets others run first, as a database does."""

    async def ledgers(self, replica_uids: Sequence[str] | None = None) -> tuple[interface.Ledger, ...]:
        await asyncio.sleep(0)
        found = await super().ledgers(replica_uids)
        await asyncio.sleep(0)
        return found

    async def commit(
        self, writes: Sequence[interface.Write], *, epoch: int | None = None, durable: bool = False
    ) -> interface.Committed:
        await asyncio.sleep(0)
        return await super().commit(writes, epoch=epoch, durable=durable)


def uid_of(number: int) -> str:
    return f"{number:08x}-0000-4000-8000-000000000000"


def token_of(number: int) -> str:
    return f"token-{number}"


def job_name_of(number: int) -> str:
    return ids.job_name(INSTALLATION, f"chat-r{number}", uid_of(number))


class Rig:
    """`heard` lists what the desk reported; `over` holds the ids of jobs that are known to have ended."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.store = store or YieldingStore(INSTALLATION)
        self.clock = FakeClock()
        self.heard: list[str] = []
        self.over: set[str] = set()
        self.desk: desk.Desk

    @staticmethod
    def wall_clock() -> float:
        """TLS looks at the machine's clock, so certificates have to."""
        return SystemClock().now()

    async def start(self) -> None:
        """A controller starts; an earlier one of this store is deposed."""
        epoch = await self.store.take_over("test", 0.0)
        self.desk = desk.Desk(
            self.store,
            self.clock,
            epoch,
            lambda _namespace, name: self.heard.append(name),
            lambda _cluster, _job_name, job_id: job_id in self.over,
        )

    async def add(self, number: int = 1, **submission: Any) -> None:
        """Stores replica `chat-r<number>`, whose sbatch has brought no id yet unless `submission` says otherwise."""
        name = f"chat-r{number}"
        facts = replica.Submission(
            state=replica.SubmissionState.UNKNOWN, job_name=job_name_of(number), intent_at=self.clock.now()
        )
        ledger = interface.Ledger(
            replica_uid=uid_of(number),
            namespace=NAMESPACE,
            replica_name=name,
            cluster=CLUSTER,
            submission=dataclasses.replace(facts, **submission),
            secrets=interface.Secrets(api_key=f"key-{number}", agent_token=token_of(number)),
        )
        made = resources.Resource(
            kind=resources.REPLICA,
            namespace=NAMESPACE,
            name=name,
            uid=uid_of(number),
            created_at=self.clock.now(),
            spec={"cluster": CLUSTER},
        )
        await self.store.commit([interface.Create(resource=made, ledger=ledger)])

    async def bury(self, number: int = 1) -> None:
        """The replica's object is gone, its ledger stays as a tombstone."""
        await self.store.commit(
            [
                interface.Remove(
                    kind=resources.REPLICA,
                    namespace=NAMESPACE,
                    name=f"chat-r{number}",
                    uid=uid_of(number),
                    tombstoned_at=self.clock.now(),
                )
            ]
        )

    async def drain(self, number: int = 1) -> None:
        """It is decided that the replica ends."""
        stored = await self.store.get(resources.REPLICA, NAMESPACE, f"chat-r{number}")
        drained = dataclasses.replace(stored, spec={**stored.spec, "drain": {"reason": "ScaledDown"}})
        await self.store.commit(
            [interface.Update(resource=drained, expected_version=stored.resource_version)]
        )

    async def ledger(self, number: int = 1) -> interface.Ledger:
        return (await self.store.ledgers([uid_of(number)]))[0]

    async def record(self, number: int = 1, **submission: Any) -> None:
        """The reconciler learns something about the job."""
        before = (await self.ledger(number)).submission
        write = interface.RecordSubmission(
            replica_uid=uid_of(number),
            states=frozenset(replica.SubmissionState),
            submission=dataclasses.replace(before, **submission),
        )
        await self.store.commit([write])

    async def claim(
        self,
        job_id: str = "5",
        *,
        number: int = 1,
        restart_count: int = 0,
        holder: tuple[str, int] | None = None,
        token: str | None = None,
        job_name: str | None = None,
    ) -> tuple[str, bool]:
        """Verdict and takeOver. The job holds the link itself unless `holder` names another one."""
        reply = await self.desk.claim(
            desk.Claim(
                replica_uid=uid_of(number),
                job_name=job_name or job_name_of(number),
                job_id=job_id,
                restart_count=restart_count,
                holder=holder or (job_id, restart_count),
            ),
            token if token is not None else token_of(number),
        )
        return reply["verdict"], reply["takeOver"]

    def beat(
        self, job_id: str = "5", *, number: int = 1, seq: int = 1, phase: str = "ready", **fields: Any
    ) -> replica.Heartbeat:
        base = replica.Heartbeat(
            replica_uid=uid_of(number),
            job_id=job_id,
            restart_count=0,
            phase=replica.AgentPhase(phase),
            received_at=self.clock.now(),
            seq=seq,
            node="n1",
            host="h1",
            port=8000,
        )
        return dataclasses.replace(base, **fields)

    async def say(self, job_id: str = "5", *, number: int = 1, **fields: Any) -> None:
        await self.desk.heartbeat(self.beat(job_id, number=number, **fields), token_of(number))

    def known(self, number: int = 1) -> replica.Heartbeat | None:
        return self.desk.heartbeats.get(uid_of(number))
