"""Whether the replicas that run can report to this controller: they trust one certificate authority and no other.

Each shared directory says which one in controllers.json. A second controller with another one would take the installation over and
hear of nobody, and every replica would be replaced for its silence.
"""

import asyncio
from pathlib import Path

from llmop.cluster import file_threads
from llmop.domain import errors, resources
from llmop.manifest import convert, stored
from llmop.reconciler import shared
from llmop.store import interface

PATIENCE_S = 10.0  # for all shared file systems together; network file systems hang rather than fail


async def require(store: interface.Store, authority: Path, ca: str) -> None:
    """Raises NeedsUser when there are replicas that are not over and trust another CA than `ca`, which lies in `authority`.

    What cannot be read says nothing: a shared directory that is away must not keep a controller from starting.
    """
    used = {
        str(each.spec.get("cluster"))
        for each in (await store.list(resources.REPLICA)).items
        if not each.status.get("end")
    }
    clusters = [each for each in (await store.list(resources.CLUSTER)).items if each.name in used]
    sites = stored.by_name(clusters, convert.site).values()
    wanted = shared.fingerprint(ca)
    thread = file_threads.FileThreads("authority")
    try:
        async with asyncio.timeout(PATIENCE_S):
            found = [
                (where, await thread.run_long(shared.DiskDirectory(Path(where.shared_dir)).authority))
                for where in sites
            ]
    except TimeoutError:
        return
    for where, known in found:
        if known and known != wanted:
            raise errors.NeedsUser(
                "AnotherAuthority",
                f"the replicas on cluster {where.name} trust another CA than {authority}/ca.pem and could not report to this"
                " controller: name the directory of theirs with --tls-dir, or copy its ca.pem and ca.key there; to give these"
                f" replicas up instead, remove {where.shared_dir}/controllers.json: they are replaced then",
            )
