"""One run: the undisturbed answers, then load and faults together, then peace, then the audit."""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from tests.chaos.audit import audit, memory
from tests.chaos.client import TERMINAL
from tests.chaos.cluster import ROOT, Cluster, Times, cluster
from tests.chaos.faults import FAULTS, bar_s, schedule
from tests.chaos.ledger import Ledger
from tests.chaos.load import Load, turns
from tests.chaos.process_faults import engine_start_s
from tests.chaos.receiver import Receiver
from tests.chaos.requests import Answer, Request, all_requests, long_request
from tests.chaos.stage import NotHere, Stage

ANSWER_S = 180.0
OPERATIONS_PER_FAULT = 400
"""More than any client gets to: the faults end a run, not the load."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is made of. Two runs of one plan have the same operations and the same faults in the same order;
    what meets what is up to the machine."""

    seed: int
    faults: int
    clients: int = 12
    lease_s: float = 10.0
    only: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    root: Path = ROOT
    peace_s: float = 240.0
    """How long after the last fault everything may take to come to its end."""
    device: str = "cpu"


@dataclass
class Result:
    findings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """In the order of the schedule."""
    recoveries: dict[str, list[float]] = field(default_factory=dict)
    bars: dict[str, float] = field(default_factory=dict)
    """The longest recovery that is promised, of the faults that have one."""
    not_here: dict[str, str] = field(default_factory=dict)
    engine_start_s: float = 0.0
    operations: int = 0
    retries: int = 0


def run(plan: Plan, folder: Path, say: Say) -> Result:
    result = Result(faults=schedule(plan.seed, plan.faults, plan.only))
    say(f"seed {plan.seed}: {plan.clients} clients, {len(result.faults)} faults: {', '.join(result.faults)}")
    times = Times(lease_s=plan.lease_s, heartbeat_s=plan.lease_s / 5)
    with Receiver(plan.seed) as receiver, cluster(folder, times, plan.root, receiver.port, plan.device) as it:
        stage = Stage(it, Ledger(it.settings.database_url))
        receiver.ledger = stage.ledger
        it.start_all()
        answers = undisturbed(it, [*all_requests(), long_request()])
        result.engine_start_s = engine_start_s(stage, "worker-a")
        say(f"an engine starts in {result.engine_start_s:.1f} s")
        stage.canary()
        level = it.memory()
        operations = turns(
            plan.seed, len(result.faults) * OPERATIONS_PER_FAULT, all_requests(), receiver.url, plan.kinds
        )
        load = Load(it.urls, operations, plan.clients)
        load.start()
        try:
            pids = {name: process.popen.pid for name, process in it.running.items()}
            _strike_all(stage, random.Random(plan.seed), result, say)
            load.finish(plan.peace_s)
        finally:
            load.abandon()
        result.operations, result.retries = load.done, sum(one.retries for one in load.seen)
        say(f"{result.operations} operations done, {result.retries} retries; audit")
        result.findings += load.faults
        result.findings += audit(it, stage.ledger, load.seen, answers, receiver.deliveries)
        lived = {name for name, process in it.running.items() if process.popen.pid == pids[name]}
        after = {name: size for name, size in it.memory().items() if name in lived}
        result.findings += memory(level, after)
    return result


def undisturbed(cluster: Cluster, requests: Sequence[Request]) -> dict[str, Answer]:
    """What each request is answered while nothing happens. All at once: an answer does not depend on its company."""
    url = cluster.urls[0]
    ids = {}
    for request in requests:
        answer = httpx2.post(f"{url}/v1/jobs", json=request.chat(), timeout=30)
        assert answer.status_code == 201, answer.text
        ids[request.name] = answer.json()["id"]
    answers = {}
    end = time.monotonic() + ANSWER_S
    for name, job_id in ids.items():
        job = httpx2.get(f"{url}/v1/jobs/{job_id}?wait=60", timeout=90).json()
        while job["status"] not in TERMINAL and time.monotonic() < end:
            job = httpx2.get(f"{url}/v1/jobs/{job_id}?wait=60", timeout=90).json()
        assert job["status"] in ("completed", "incomplete"), job
        answers[name] = Answer(job["status"], job["output"], job["usage"]["completion_tokens"])
    return answers


def _strike_all(stage: Stage, dice: random.Random, result: Result, say: Say) -> None:
    for name in result.faults:
        time.sleep(dice.uniform(0.5, 3))
        own = random.Random(dice.getrandbits(32))
        began = time.monotonic()
        try:
            recovered = FAULTS[name](stage, own)
        except NotHere as exc:
            result.not_here[name] = str(exc)
            say(f"  {name}: not here: {exc}")
            continue
        except AssertionError as exc:
            result.findings.append(f"{name}: {exc}")
            say(f"  {name}: {str(exc)[:300]}")
            continue
        say(f"  {name}: {_told(stage, name, recovered, result)} (took {time.monotonic() - began:.1f} s)")


def _told(stage: Stage, name: str, recovered: float | None, result: Result) -> str:
    """What came of a fault, which is written down."""
    bar = bar_s(name, stage.cluster.times, result.engine_start_s)
    if recovered is None:
        return "nothing to recover"
    result.recoveries.setdefault(name, []).append(recovered)
    if bar is None:
        return f"recovered in {recovered:.1f} s"
    result.bars[name] = bar
    return f"recovered in {recovered:.1f} s, {'within' if recovered <= bar else 'LATER THAN'} {bar:.1f} s"
