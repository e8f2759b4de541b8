"""Everything that has to be right before a first replica, looked at in the order in which it would go wrong."""

import dataclasses
import functools
import ipaddress
import os
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from llmop.admin import node, objects, site_checks
from llmop.artifacts import order
from llmop.clock import Clock
from llmop.cluster import driver, file_threads
from llmop.cluster.slurm import discover, process
from llmop.cluster.slurm.commands import SlurmCommands
from llmop.domain import fences, ids, job, os_errors, site
from llmop.domain.checks import Check, PreflightQuestion, failed, passed, warned
from llmop.manifest import references
from llmop.reconciler import render, staging_jobs
from llmop.runtimes import options
from llmop.runtimes import render as engines
from llmop.store.interface import Store

QUERY_TIMEOUT_S = 30.0
LEAST_FREE_MIB = 4096


class Preflight:
    """`install` makes a shared directory usable and says what is in it; `driver_of` is the driver of a site; `fences_of` what holds there."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        environ: Mapping[str, str],
        install: Callable[[site.Site], Awaitable[render.Installation]],
        driver_of: Callable[[site.Site], driver.Cluster],
        fences_of: Callable[[str], fences.Fences],
        addresses: Callable[[], tuple[str, ...]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._environ = environ
        self._install = install
        self._driver_of = driver_of
        self._fences_of = fences_of
        self._addresses = addresses
        self._threads = file_threads.FileThreads("preflight")

    async def checks(self, question: PreflightQuestion) -> AsyncIterator[Check]:
        """Raises NotFound and Invalid."""
        scope = await objects.scope(self._store, question)
        for name, subjects in sorted(scope.subjects.items()):
            where = scope.sites[name]
            async for check in self._cluster(where, subjects, scope):
                yield check
            async for check in self._controller_side(where):
                yield check
            if not question.skip_node:
                async for check in self._nodes(where, subjects, scope, question.wait_s):
                    yield check

    # What Slurm says

    async def _cluster(
        self, where: site.Site, subjects: tuple[objects.Subject, ...], scope: objects.Scope
    ) -> AsyncIterator[Check]:
        for subject in subjects:
            if subject.deployment is not None:
                broken = references.check(subject.deployment, scope.runtimes, scope.profiles, scope.sites)
                for violation in broken:
                    yield failed(
                        subject.name,
                        "References",
                        f"{violation.path}: {violation.message}",
                        "correct the manifest",
                    )
        if where.driver is not site.DriverKind.SLURM:
            yield passed(f"cluster {where.name}", "Slurm", "not used: jobs are processes of this machine")
            return
        survey = await discover.discover(process.Account.own(self._environ), QUERY_TIMEOUT_S)
        if not survey.version:
            why = "; ".join(survey.unknown) or "scontrol show config does not say SLURM_VERSION"
            fix = "start the controller where scontrol works, with PATH and SLURM_CONF set"
            yield failed(f"cluster {where.name}", "Slurm", why, fix)
            return
        yield passed(f"cluster {where.name}", "Slurm", f"{survey.version}, {survey.cluster_name}")
        if not subjects:
            fix = "llmctl discover writes them"
            yield warned(f"cluster {where.name}", "Profiles", "no ResourceProfile names this cluster", fix)
        slurm = SlurmCommands(self._clock, environ=self._environ, query_timeout_s=QUERY_TIMEOUT_S)
        for subject in subjects:
            wanted = options.options(subject.template, subject.profile)
            limit_s = options.time_limit_s(subject.template, subject.profile)
            for check in site_checks.check(subject.name, dict(wanted), limit_s, survey):
                yield check
            fix = "change the profile, or spec.slurm of the deployment, as Slurm says"
            asked = functools.partial(self._replica_job, where, subject)
            yield await self._test_only(slurm, subject.name, asked, fix)
        if where.staging.where is site.StagingPlace.JOB:
            fix = "change spec.staging of the Cluster, as Slurm says"
            asked = functools.partial(self._staging_job, where)
            yield await self._test_only(slurm, f"staging of {where.name}", asked, fix)

    def _replica_job(self, where: site.Site, subject: objects.Subject, name: str) -> job.JobRequest:
        """With the very options, limits and fences that a replica would have."""
        text, holding = "#!/bin/sh\ntrue\n", self._fences_of(where.name)
        return render.job_request(name, where.shared_dir, text, subject.template, subject.profile, holding)

    def _staging_job(self, where: site.Site, name: str) -> job.JobRequest:
        some = order.Order(reference="hf://any/model@main", digest="0" * 40, shared_dir=where.shared_dir)
        # Its own directory is made when it is submitted.
        asked = staging_jobs.request(name, some, where, self._fences_of(where.name))
        return dataclasses.replace(asked, directory=where.shared_dir)

    async def _test_only(
        self, slurm: SlurmCommands, subject: str, make: Callable[[str], job.JobRequest], fix: str
    ) -> Check:
        """`make` gives the job of this name, or raises ValueError."""
        try:
            is_taken, said = await slurm.test_only(make(ids.preflight_name("000000", self._clock.uid())))
        except ValueError as error:
            return failed(subject, "TestOnly", str(error), "correct the manifest")
        if is_taken:
            return passed(subject, "TestOnly", said or "sbatch --test-only takes it")
        return failed(subject, "TestOnly", said, fix)

    # What can be seen from here

    async def _controller_side(self, where: site.Site) -> AsyncIterator[Check]:
        subject = f"controller for {where.name}"
        try:
            await self._install(where)
            free_mib = await self._threads.run(_try_directory, Path(where.shared_dir))
        except OSError as error:
            words = os_errors.sentence(error, where.shared_dir)
            fix = "choose a sharedDir that this account may write, on a file system with hard links"
            yield failed(subject, "SharedDirectory", words, fix)
            return
        yield passed(subject, "SharedDirectory", f"{where.shared_dir} can be written, knows hard links")
        if free_mib < LEAST_FREE_MIB:
            yield warned(subject, "Space", f"{free_mib} MiB free", "make room for logs, images and models")
        else:
            yield passed(subject, "Space", f"{free_mib // 1024} GiB free")
        for check in _addresses(subject, self._addresses(), where):
            yield check
        for check in _runtime(subject, self._environ.get("PATH") or os.defpath):
            yield check

    # What a node says

    async def _nodes(
        self,
        where: site.Site,
        subjects: tuple[objects.Subject, ...],
        scope: objects.Scope,
        wait_s: float,
    ) -> AsyncIterator[Check]:
        """One job for each deployment; for profiles alone only one, of the first with GPUs."""
        deployed = [each for each in subjects if each.deployment is not None]
        first = sorted(subjects, key=lambda each: (not each.profile.gres, each.name))[:1]
        for subject in deployed or first:
            engine: Mapping[str, object] = {}
            runtime = scope.runtimes.get(subject.template.runtime)
            if runtime is not None:
                try:
                    command = engines.engine_command(runtime, subject.template, subject.profile, where)
                except ValueError as error:
                    yield failed(subject.name, "Command", str(error), "correct the runtime or the manifest")
                    continue
                engine = {"container": dict(command.container), "requires": list(command.requires)}
            try:
                installation = await self._install(where)
            except OSError:
                return  # said already
            look = node.Look(
                where,
                self._driver_of(where),
                self._clock,
                installation,
                self._fences_of(where.name),
                options.options(subject.template, subject.profile),
                engine,
                subject.template.gpus,
            )
            async for check in look.checks(wait_s):
                yield check


def _try_directory(directory: Path) -> int:
    """Free MiB. Raises OSError when files or hard links cannot be made there."""
    with tempfile.TemporaryDirectory(prefix=".preflight-", dir=directory) as place:
        first = Path(place) / "first"
        first.touch()
        (Path(place) / "second").hardlink_to(first)
    shown = os.statvfs(directory)
    return shown.f_bavail * shown.f_frsize >> 20


def _addresses(subject: str, urls: Iterable[str], where: site.Site) -> Iterable[Check]:
    hosts = [urlsplit(url).hostname or "" for url in urls]
    local = [host for host in hosts if _is_loopback(host)]
    if where.driver is site.DriverKind.SLURM and local:
        fix = "llmop controller --agent-listen 0.0.0.0:PORT --agent-advertise ADDRESS, unless all nodes are this machine"
        yield warned(subject, "AgentListener", f"nodes are told {local[0]}, which is themselves", fix)
    else:
        yield passed(subject, "AgentListener", ", ".join(urls))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _runtime(subject: str, path: str) -> Iterable[Check]:
    found = next(
        (each for name in ("apptainer", "singularity") if (each := shutil.which(name, path=path))), ""
    )
    if found:
        yield passed(subject, "Container", found)
    else:
        fix = "needed here only to build or pull images; the nodes are what counts"
        yield warned(subject, "Container", "neither apptainer nor singularity is in PATH here", fix)
