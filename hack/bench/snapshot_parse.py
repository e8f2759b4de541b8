"""How much CPU time llmop spends on one squeue of 1,000 and of 10,000 jobs. The yardstick is json.loads of as many jobs.

Medians of several rounds, ours and the yardstick in turn.
"""

import json
import random
import statistics
import time

import bench

from llmop.cluster.slurm import parse

ROUNDS = 15


def squeue_text(jobs: int) -> str:
    """A queue as a site has it: half of the jobs run, others wait for several reasons, some have ended."""
    source = random.Random(1)
    records = []
    for number in range(1, jobs + 1):
        state = source.choices(["RUNNING", "PENDING", "COMPLETED", "FAILED"], [50, 40, 5, 5])[0]
        waits = state == "PENDING"
        submitted = 1_760_000_000 + source.randrange(100_000)
        node = "" if waits else f"gpu{source.randrange(400):03}"
        values = {
            "JobID": str(number),
            "ArrayJobID": str(number),
            "Name": f"llmop-k3v9qd-llama-{source.getrandbits(32):08x}",
            "State": state,
            "Reason": source.choice(["Priority", "Resources", "Dependency"]) if waits else "None",
            "Partition": "gpu",
            "BatchHost": node or "n/a",
            "NodeList": node,
            "SubmitTime": str(submitted),
            "StartTime": "N/A" if waits else str(submitted + source.randrange(3600)),
            "EndTime": "N/A" if waits else str(submitted + 86_400),
            "TimeLimit": "1-00:00:00",
            "PreemptTime": "N/A",
            "RestartCnt": "0",
            "exit_code": "256" if state == "FAILED" else "0",
            "Comment": f"i=k3v9qd;u={source.getrandbits(64):016x};r=7",
        }
        fields = [values.get(name, "(null)") for name in parse.SQUEUE_FIELDS]
        records.append(parse.FIELD_END.join(fields) + parse.RECORD_END + "\n")
    return "".join(records)


def cpu_ms(action: object, *arguments: object) -> float:
    assert callable(action)
    begin = time.process_time()
    action(*arguments)
    return (time.process_time() - begin) * 1000


def measure(jobs: int) -> tuple[float, float]:
    """CPU milliseconds of ours and of the yardstick."""
    text = squeue_text(jobs)
    records = [record.split(parse.FIELD_END) for record in text.split(parse.RECORD_END + "\n")[:-1]]
    as_json = json.dumps([dict(zip(parse.SQUEUE_FIELDS, record, strict=True)) for record in records])
    ours, theirs = [], []
    for _ in range(ROUNDS):
        ours.append(cpu_ms(parse.squeue, text))
        theirs.append(cpu_ms(json.loads, as_json))
    return statistics.median(ours), statistics.median(theirs)


def run() -> bench.Result:
    conditions = bench.machine()
    small, small_json = measure(1_000)
    large, large_json = measure(10_000)
    return bench.Result(
        name="snapshot_parse",
        unit="CPU ms for 1,000 jobs",
        ours=small,
        peers={"json.loads of the same fields": small_json},
        higher_is_better=False,
        more={"10,000 jobs": round(large, 2), "10,000 jobs, json.loads": round(large_json, 2)},
        conditions={**conditions, "rounds": ROUNDS},
    )
