"""Stages artifacts in Slurm jobs (`planner.staging_jobs` decides), at clusters that ask for it with spec.staging.where: Job.

Every job has a directory beside what it stages, with a note of what is known of it and its log, whose last lines say how it goes. A
controller that dies leaves both: the next one finds the job by its name. Jobs that nobody wants any more are cancelled.
"""

import asyncio
import collections
import dataclasses
import hashlib
import json
import shutil
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import structlog

from llmop.artifacts import layout, order
from llmop.clock import Clock
from llmop.cluster import file_threads
from llmop.cluster.slurm import script
from llmop.domain import artifact, fences, ids, job, os_errors, replica, site, staging
from llmop.domain.errors import NeedsUser, Unavailable
from llmop.files import whole
from llmop.planner import staging_jobs as decisions
from llmop.reconciler import observe

_log = structlog.get_logger()

NOTE = "job.json"
LOG = "job.log"
LOG_READ = 64 * 1024  # bytes of the end of a log
WORDS = 300
DOOMED_S = 3600.0  # a job that was given up may still land for so long
_Step = staging.Step


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Heard:
    """What a stager has written. `last` is its last line that is no answer."""

    digest: str = ""
    error: NeedsUser | Unavailable | None = None
    progress: staging.Progress | None = None
    last: str = ""


def request(name: str, wanted: order.Order, where: site.Site, holding: fences.Fences) -> job.JobRequest:
    """The job that carries out `wanted`. Raises ValueError for what a script cannot hold."""
    given = where.staging
    options = (
        ("partition", given.partition),
        ("account", given.account),
        ("qos", given.qos),
        ("nodes", "1"),
        ("ntasks", "1"),
        ("cpus-per-task", str(given.cpus)),
        ("mem", f"{given.memory_mib}M" if given.memory_mib else ""),
    )
    return job.JobRequest(
        name=name,
        options=tuple((option, value) for option, value in options if value),
        script=script.staging_script(python=_python(where), order=wanted.dump(), prelude=where.prelude),
        directory=str(_place(wanted).job),
        time_limit_s=given.time_limit_s,
        comment=name if holding.identity is fences.Identity.COMMENT else "",
        singleton=holding.singleton,
    )


def _python(where: site.Site) -> str:
    """By default the very one that runs here: what it needs is installed with it."""
    return where.staging.python or sys.executable


def _fingerprint(wanted: order.Order, where: site.Site) -> str:
    """Of what is asked for: a job that was made for something else is not the one."""
    return hashlib.sha256(repr((where.staging, where.prelude, _python(where), wanted)).encode()).hexdigest()[
        :16
    ]


@dataclasses.dataclass(slots=True, kw_only=True)
class _Errand:
    """One order under way in jobs of `cluster`. `late_since` is when a job had ended of whose work nothing is seen yet (monotonic)."""

    cluster: str
    wanted: order.Order
    report: Callable[[staging.Progress], None]
    place: layout.Place
    note: decisions.Note | None = None
    late_since: float | None = None

    @property
    def key(self) -> tuple[str, Path]:
        return self.cluster, self.place.job

    def waits(self, why: str) -> None:
        self.report(staging.Progress(step=_Step.PENDING, message=why))


class StagingJobs:
    """`confirm` raises Deposed when another controller has taken over; `cancel` starts one scancel."""

    def __init__(
        self,
        clock: Clock,
        installation: str,
        watch: Callable[[str], observe.ClusterWatch | None],
        confirm: Callable[[], Awaitable[None]],
        cancel: Callable[[observe.ClusterWatch, Sequence[str]], None],
    ) -> None:
        self._clock = clock
        self._installation = installation
        self._watch = watch
        self._confirm = confirm
        self._cancel = cancel
        self._names: dict[
            tuple[str, Path], str
        ] = {}  # (cluster, job directory) -> the job that is wanted for it
        self._doomed: dict[str, float] = {}  # jobs that were given up -> when (monotonic)
        self._strays: dict[tuple[str, str], float] = {}  # (cluster, job name) -> when first seen (monotonic)
        self._waiting: dict[str, list[asyncio.Future[None]]] = collections.defaultdict(list)
        self._threads: dict[str, file_threads.FileThreads] = {}  # by shared directory

    async def run(self, cluster: str, wanted: order.Order, report: Callable[[staging.Progress], None]) -> str:
        """The digest, once `wanted` is done; `report` gets what is heard meanwhile. Raises NeedsUser, Unavailable or Deposed.

        Cancelled, it leaves the job as it is: `give_up` is for those that nobody wants.
        """
        each = _Errand(cluster=cluster, wanted=wanted, report=report, place=_place(wanted))
        try:
            each.note = await self._on(wanted).run(_read_note, each.place.job)
            while True:
                watch = self._watch(cluster)
                if watch is None:
                    raise Unavailable(f"{wanted.reference}: the cluster {cluster} is gone")
                if await self._step(each, watch):
                    self._names.pop(each.key, None)
                    return wanted.digest
                await self._next_look(cluster)
        except OSError as error:
            raise Unavailable(os_errors.sentence(error, wanted.shared_dir)) from error

    async def _step(self, each: _Errand, watch: observe.ClusterWatch) -> bool:
        """Does what is to be done now. True when the artifact is there; raises what is wrong."""
        if each.note is not None and each.note.asked != _fingerprint(each.wanted, watch.site):
            self._doomed[each.note.name] = self._clock.monotonic()  # the Cluster was changed meanwhile
            self._names.pop(each.key, None)
            each.note = None
        if each.note is not None:
            self._names[each.key] = each.note.name
        match decisions.decide(each.note, watch.view(), self._clock.now()):
            case decisions.Wait(why=why):
                if why:
                    each.waits(why)
            case decisions.Submit():
                each.waits("it is being submitted")
                await self._submit(each, watch)
            case decisions.Follow(job=seen, twins=twins):
                if twins:
                    self._cancel(watch, twins)
                return await self._follow(each, seen)
            case decisions.Over(job=ended):
                return await self._end(each, ended, watch)
        return False

    async def _submit(self, each: _Errand, watch: observe.ClusterWatch) -> None:
        reference, where = each.wanted.reference, watch.site
        fresh = ids.staging_name(self._installation, self._clock.uid())
        name = each.note.name if each.note is not None else fresh
        asked = _fingerprint(each.wanted, where)
        note = each.note = decisions.Note(name=name, attempt_at=self._clock.now(), asked=asked)
        self._names[each.key] = name
        await self._confirm()
        await self._on(each.wanted).run(_begin, Path(each.wanted.shared_dir), each.place.job, note)
        outcome: job.SubmitOutcome
        try:
            outcome = await watch.cluster.submit(request(name, each.wanted, where, watch.canary.holding))
        except ValueError as error:
            outcome = job.Rejected(reject_class=job.RejectClass.INVALID_OPTION, message=str(error))
        match outcome:
            case job.Submitted(job_id=job_id):
                note = dataclasses.replace(note, job_id=job_id, known_at=self._clock.now())
                _log.info("staging job submitted", cluster=each.cluster, artifact=reference, job=job_id)
            case job.SubmitUnknown():
                note = dataclasses.replace(note, unknown_at=self._clock.now())
            case job.Refused(message=message):
                await self._forget(each)
                raise Unavailable(f"{reference}: Slurm takes no job to stage it now: {message}")
            case job.Rejected(message=message):
                await self._forget(each)
                fix = f"correct spec.staging of the Cluster {each.cluster}"
                words = f"{reference}: Slurm rejects the job that stages it: {message}; {fix}"
                raise NeedsUser("JobRejected", words)
        await self._write(each, note)
        watch.soon()

    async def _follow(self, each: _Errand, seen: job.ObservedJob) -> bool:
        if each.note is not None and each.note.job_id != seen.job_id:
            found = dataclasses.replace(each.note, job_id=seen.job_id, known_at=self._clock.now())
            await self._write(each, found)
        if why := decisions.waiting(seen):
            each.waits(why)
            return False
        heard = await self._on(each.wanted).run(_listen, each.place.job)
        if heard.digest and await self._is_there(each):
            return True
        if heard.error is not None:
            await self._forget(each)
            raise decisions.told(heard.error, seen)
        each.report(heard.progress or staging.Progress(step=_Step.DOWNLOADING))
        return False

    async def _end(self, each: _Errand, ended: job.ObservedJob | None, watch: observe.ClusterWatch) -> bool:
        if await self._is_there(each):
            return True
        heard = await self._on(each.wanted).run(_listen, each.place.job)
        now = self._clock.monotonic()
        each.late_since = now if each.late_since is None else each.late_since
        if heard.digest and now - each.late_since < replica.FILE_LATE_S:
            return False
        await self._forget(each)
        if heard.error is not None:
            raise decisions.told(heard.error, ended)
        raise decisions.end(each.wanted.reference, ended, heard.last, watch.site, _python(watch.site))

    async def _is_there(self, each: _Errand) -> bool:
        entry = artifact.entry(artifact.parse(each.wanted.reference), each.wanted.digest)
        return await self._on(each.wanted).run(self.is_there, each.wanted.shared_dir, entry)

    async def _write(self, each: _Errand, note: decisions.Note) -> None:
        each.note = note
        await self._on(each.wanted).run(_write_note, each.place.job, note)

    async def _forget(self, each: _Errand) -> None:
        """There is no job, or it ends: the next try makes another one. The log stays until then."""
        await self._on(each.wanted).run((each.place.job / NOTE).unlink, missing_ok=True)
        self._names.pop(each.key, None)

    async def _next_look(self, cluster: str) -> None:
        looked: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[cluster].append(looked)
        await looked

    def _on(self, wanted: order.Order) -> file_threads.FileThreads:
        """One thread for each shared directory: what is asked of it is done in order."""
        if wanted.shared_dir not in self._threads:
            self._threads[wanted.shared_dir] = file_threads.FileThreads("staging")
        return self._threads[wanted.shared_dir]

    def is_there(self, shared_dir: str, entry: str) -> bool:
        """Whether the finished artifact is there; then what its job has left goes. May take as long as the file system does.

        Raises OSError.
        """
        place = layout.place(Path(shared_dir), entry)
        try:
            place.final.stat()
        except FileNotFoundError:
            return False
        shutil.rmtree(place.job, ignore_errors=True)
        return True

    # What is not wanted

    def give_up(self, cluster: str, wanted: order.Order) -> None:
        """Nobody wants it any more: its job is cancelled, now or as soon as it is seen."""
        directory = _place(wanted).job
        name = self._names.pop((cluster, directory), "")
        if not name:
            return
        self._doomed[name] = self._clock.monotonic()
        self._on(wanted).submit((directory / NOTE).unlink, missing_ok=True)
        watch = self._watch(cluster)
        if watch is not None:
            self._end_strays(cluster, watch)
            watch.soon()

    def looked(self, cluster: str) -> None:
        """There was a look at the queue of this cluster."""
        for each in self._waiting.pop(cluster, ()):
            if not each.done():
                each.set_result(None)
        watch = self._watch(cluster)
        if watch is not None:
            self._end_strays(cluster, watch)

    def _end_strays(self, cluster: str, watch: observe.ClusterWatch) -> None:
        """Cancels jobs that were given up, by us or by a controller that died before it could."""
        view = watch.view()
        if view.brake or not view.is_current:
            return
        now = self._clock.monotonic()
        self._doomed = {name: at for name, at in self._doomed.items() if now - at < DOOMED_S}
        wanted = set(self._names.values())
        strays: dict[str, list[str]] = {}
        for name, jobs in view.jobs.items():
            live = [
                each.job_id
                for each in jobs
                if each.state.is_live and each.state is not job.JobState.COMPLETING
            ]
            if live and name not in wanted and ids.is_staging(name, self._installation):
                strays[name] = live
        since = {(cluster, name): self._strays.get((cluster, name), now) for name in strays}
        self._strays = {key: at for key, at in self._strays.items() if key[0] != cluster} | since
        doomed = [
            job_id
            for name, job_ids in strays.items()
            if name in self._doomed or now - since[cluster, name] >= decisions.STRAY_S
            for job_id in job_ids
        ]
        if doomed:
            self._cancel(watch, doomed)


def _place(wanted: order.Order) -> layout.Place:
    return layout.place(
        Path(wanted.shared_dir), artifact.entry(artifact.parse(wanted.reference), wanted.digest)
    )


# On the disk; everything raises OSError.


def _begin(shared_dir: Path, directory: Path, note: decisions.Note) -> None:
    layout.require(shared_dir)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    known = _read_note(directory)
    if known is None or known.name != note.name:
        (directory / LOG).unlink(missing_ok=True)
    _write_note(directory, note)


def _write_note(directory: Path, note: decisions.Note) -> None:
    whole.write(directory / NOTE, json.dumps(dataclasses.asdict(note)).encode(), 0o600)


def _read_note(directory: Path) -> decisions.Note | None:
    try:
        data: Any = json.loads((directory / NOTE).read_bytes())
        return decisions.Note(
            name=str(data["name"]),
            attempt_at=float(data["attempt_at"]),
            asked=str(data["asked"]),
            unknown_at=None if data["unknown_at"] is None else float(data["unknown_at"]),
            job_id=str(data["job_id"]),
            known_at=float(data["known_at"]),
        )
    except (FileNotFoundError, NotADirectoryError, ValueError, KeyError, TypeError, RecursionError):
        return None  # nothing was submitted; a damaged note says nothing, and the job's own lock keeps order


def _listen(directory: Path) -> Heard:
    try:
        with (directory / LOG).open("rb") as file:
            file.seek(0, 2)
            begin = max(0, file.tell() - LOG_READ)
            file.seek(begin)
            lines = file.read(LOG_READ).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return Heard()
    heard = Heard()
    for line in lines[1 if begin else 0 :]:
        text = line.strip()
        try:
            answer = order.read_line(text)
        except (NeedsUser, Unavailable) as error:
            heard = dataclasses.replace(heard, error=error)
            continue
        if isinstance(answer, str):
            heard = dataclasses.replace(heard, digest=answer)
        elif answer is not None:
            heard = dataclasses.replace(heard, progress=answer)
        elif text:
            heard = dataclasses.replace(heard, last=text[:WORDS])
    return heard
