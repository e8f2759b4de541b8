"""What is seen of plans: told in the film, counted, and judged."""

import collections
from collections.abc import Callable

from llmop.planner import values
from llmop.testing import invariants, leaders


class Plans:
    """`last` is the last plan since somebody cleared it. `acting` counts plans with an action that had not been planned before."""

    def __init__(self, note: Callable[[str], None], judge: invariants.Judge) -> None:
        self.last: values.Plan | None = None
        self.acting = 0
        self.actions: collections.Counter[str] = collections.Counter()
        self.transitions: collections.Counter[tuple[str, str]] = collections.Counter()
        self.reasons: collections.Counter[str] = collections.Counter()
        self._note = note
        self._judge = judge
        self._ordered: set[tuple[str, str]] = set()

    def seen(
        self, leader: leaders.Leader, desired: values.Desired, seen: values.Observed, plan: values.Plan
    ) -> None:
        self.last = plan
        fresh = 0
        for action in plan.actions:
            name = type(action).__name__
            if isinstance(action, values.OrderDrain | values.CancelJobs | values.SubmitJob):
                subject = (
                    name,
                    action.replica.uid
                    + ("/".join(action.job_ids) if isinstance(action, values.CancelJobs) else "")
                    + (str(action.round) if isinstance(action, values.SubmitJob) else ""),
                )
                if subject in self._ordered:
                    continue
                self._ordered.add(subject)
            fresh += 1
            self.actions[name] += 1
            self._describe(leader, action)
        self.acting += fresh > 0
        known = {each.uid: each for each in desired.replicas}
        for shown in plan.replicas:
            before = known[shown.replica.uid].phase if shown.replica.uid in known else None
            if before != shown.phase:
                self.transitions[(str(before), str(shown.phase))] += 1
        self._judge.planned(leader, desired, seen, plan)

    def _describe(self, leader: leaders.Leader, action: values.Action) -> None:
        match action:
            case values.Announce():
                return
            case values.RecordEnd(replica=each, end=end):
                self.reasons[str(end.reason)] += 1
                self._note(f"{leader.name}: {each.name} has ended: {end.reason} ({end.message})")
            case values.StartDrain(replica=each, why=why):
                self._note(f"{leader.name}: drains {each.name}: {why}")
            case values.CancelJobs(replica=each, job_ids=job_ids, why=why):
                self._note(f"{leader.name}: cancels {','.join(job_ids)} of {each.name}: {why}")
            case values.SubmitJob(replica=each, round=number):
                self._note(
                    f"{leader.name}: submits {each.name} as {each.submission.job_name}, round {number}"
                )
            case values.AdoptJob(replica=each, job_id=job_id, why=why):
                self._note(f"{leader.name}: adopts job {job_id} for {each.name}: {why}")
            case values.CreateReplica(replica=each) | values.RemoveReplica(replica=each):
                self._note(f"{leader.name}: {type(action).__name__} {each.name}")
            case values.OrderDrain(replica=each):
                self._note(f"{leader.name}: orders {each.name} to drain")
            case values.CreateRevision(revision=revision) | values.RemoveRevision(revision=revision):
                self._note(f"{leader.name}: {type(action).__name__} {revision.name}")
            case values.FinishDeletion():
                self._note(f"{leader.name}: the deployment is gone")

    def last_words(self) -> str:
        return "" if self.last is None else f"last plan: {self.last.actions}"
