"""One run: the undisturbed answers, then load and faults together, then peace, then the audit."""

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil

from tests.chaos.audit import Evidence, audit
from tests.chaos.cancelling import WITHIN_S as CANCELLED_WITHIN_S
from tests.chaos.cancelling import stops_in_s
from tests.chaos.client import TERMINAL, Seen
from tests.chaos.cluster import ROOT, Cluster, Times, cluster
from tests.chaos.faults import FAULTS, bar_s, schedule
from tests.chaos.history import History
from tests.chaos.ledger import Ledger
from tests.chaos.leftovers import memory
from tests.chaos.load import Load, turns
from tests.chaos.process_faults import start_engine
from tests.chaos.receiver import Receiver
from tests.chaos.requests import Answer, Request, all_requests, long_request
from tests.chaos.stage import NotHere, Stage
from tests.chaos.timeline import Attempts, attempts_of, continued, losses

ANSWER_S = 180.0
OPERATIONS_PER_FAULT = 400
"""More than any client gets to: the faults end a run, not the load."""

WARMING = 2
"""Rounds of twice as many requests as there are."""

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
    requests: tuple[str, ...] = ()
    """Names of those that may be asked for; all when there are none."""
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
    bars: dict[str, list[float]] = field(default_factory=dict)
    """The longest recovery that is promised, one for each recovery of the faults that have such a promise."""
    not_here: dict[str, str] = field(default_factory=dict)
    network: str = ""
    """What the far host's is made of."""
    engine_start_s: float = 0.0
    cancelled_s: list[float] = field(default_factory=list)
    """How long cancelled jobs went on costing the engine."""
    continued: dict[str, int] = field(default_factory=dict)
    """Jobs that went on in another attempt from the tokens that were published."""
    operations: int = 0
    retries: int = 0

    def late(self) -> list[str]:
        """The recoveries that took longer than is promised. Apart from the findings: how long something takes is also
        a matter of what else the machine does."""
        return [
            f"{fault}: recovered in {took_s:.1f} s, later than {bar:.1f} s"
            for fault, bars in self.bars.items()
            for took_s, bar in zip(self.recoveries[fault], bars, strict=True)
            if took_s > bar
        ]


def run(plan: Plan, folder: Path, say: Say) -> Result:
    result = Result(faults=schedule(plan.seed, plan.faults, plan.only))
    say(f"seed {plan.seed}: {plan.clients} clients, {len(result.faults)} faults: {', '.join(result.faults)}")
    times = Times(lease_s=plan.lease_s, heartbeat_s=plan.lease_s / 5)
    with Receiver(plan.seed) as receiver, cluster(folder, times, plan.root, receiver.port, plan.device) as it:
        stage = Stage(it, Ledger(it.settings.database_url))
        history = History(stage.ledger)
        receiver.ledger = stage.ledger
        history.begin()
        result.network = it.far.what
        say(f"host b: {it.far.what}")
        it.start_all()
        try:
            _measure_in_peace(stage, result, say)
            answers = _warmed(it, result)
        except AssertionError as exc:
            result.findings += losses(history.read(), attempts_of(stage.ledger))
            result.findings.append(f"while nothing happened: {exc}")
            return result
        level = _resident(it)
        seen = _under_load(plan, stage, history, receiver, result, say)
        _cancel(stage, result)
        attempts = attempts_of(stage.ledger)
        evidence = Evidence(seen, answers, receiver.deliveries, history.read(), attempts)
        result.findings += audit(it, stage.ledger, evidence)
        result.findings += memory(level, _resident(it))
        _count_continued(seen, attempts, result)
        say(f"cancelled jobs cost the engine {result.cancelled_s} s; went on from published tokens: {result.continued}")
    return result


def _under_load(plan: Plan, stage: Stage, history: History, receiver: Receiver, result: Result, say: Say) -> list[Seen]:
    """Load and faults together, then peace. What the clients saw."""
    count = len(result.faults) * OPERATIONS_PER_FAULT
    requests = [each for each in all_requests() if not plan.requests or each.name in plan.requests]
    load = Load(stage.cluster.urls, turns(plan.seed, count, requests, receiver.url, plan.kinds), plan.clients)
    load.start()
    try:
        _strike_all(stage, history, random.Random(plan.seed), result, say)
        load.finish(plan.peace_s)
    finally:
        load.abandon()
    result.operations, result.retries = load.done, sum(one.retries for one in load.seen)
    result.findings += load.faults
    say(f"{result.operations} operations done, {result.retries} retries; audit")
    return load.seen


def _measure_in_peace(stage: Stage, result: Result, say: Say) -> None:
    """What the runs' bars hang on, and what needs an installation that does nothing else."""
    start_engine(stage, "worker-a")
    result.engine_start_s = stage.engine_start_s
    say(f"an engine starts in {result.engine_start_s:.1f} s")
    stage.canary()
    _cancel(stage, result)


def _cancel(stage: Stage, result: Result) -> None:
    try:
        took_s = stops_in_s(stage)
    except AssertionError as exc:
        result.findings.append(f"cancelling: {exc}")
        return
    result.cancelled_s.append(took_s)
    if took_s > CANCELLED_WITHIN_S:
        result.findings.append(f"cancelled jobs cost the engine {took_s:.1f} s, more than {CANCELLED_WITHIN_S:g} s")


def _resident(cluster: Cluster) -> dict[str, int]:
    """Bytes by process, not by name: one that was replaced is another."""
    sizes = {}
    for name, process in cluster.processes().items():
        with contextlib.suppress(psutil.NoSuchProcess):
            sizes[f"{name} ({process.pid})"] = process.memory_info().rss
    return sizes


def _count_continued(seen: Sequence[Seen], attempts: Attempts, result: Result) -> None:
    """Which of the promises of continuation the run has put to the test."""
    requests = {request.name: request for request in (*all_requests(), long_request())}
    went_on = continued(attempts)
    asked = [requests[one.request] for one in seen for job_id in one.job_ids if job_id in went_on]
    result.continued = {
        "jobs": len(went_on),
        "with temperature and seed": sum(bool(request.options.get("temperature")) for request in asked),
        "with pictures": sum(bool(request.pictures) for request in asked),
        "published tokens": sum(went_on.values()),
    }


def _warmed(cluster: Cluster, result: Result) -> dict[str, Answer]:
    """The undisturbed answers, asked for until every engine has met everything: only then is its memory a level that
    it may come back to. Whatever drew them, and with whom, they are the same."""
    requests = [*all_requests(), long_request()]
    answers = dict(undisturbed(cluster, requests))
    for _ in range(WARMING):
        result.findings += [
            f"{name}: answered {answer.text!r:.200} and before {answers[name].text!r:.200}"
            for name, answer in undisturbed(cluster, requests * 2)
            if answer != answers[name]
        ]
    return answers


def undisturbed(cluster: Cluster, requests: Sequence[Request]) -> list[tuple[str, Answer]]:
    """What each request is answered while nothing happens. All at once: an answer does not depend on its company."""
    url = cluster.urls[0]
    ids = []
    for request in requests:
        answer = httpx2.post(f"{url}/v1/jobs", json=request.chat(), timeout=30)
        assert answer.status_code == 201, answer.text
        ids.append((request.name, answer.json()["id"]))
    answers = []
    end = time.monotonic() + ANSWER_S
    for name, job_id in ids:
        job = httpx2.get(f"{url}/v1/jobs/{job_id}?wait=60", timeout=90).json()
        while job["status"] not in TERMINAL and time.monotonic() < end:
            job = httpx2.get(f"{url}/v1/jobs/{job_id}?wait=60", timeout=90).json()
        assert job["status"] in ("completed", "incomplete"), job
        answers.append((name, Answer(job["status"], job["output"], job["usage"]["completion_tokens"])))
    return answers


def _strike_all(stage: Stage, history: History, dice: random.Random, result: Result, say: Say) -> None:
    for name in result.faults:
        time.sleep(dice.uniform(0.5, 3))
        own = random.Random(dice.getrandbits(32))
        history.mark(name)
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
    bar = bar_s(name, stage.cluster.times, stage.engine_start_s)
    if recovered is None:
        return "nothing to recover"
    result.recoveries.setdefault(name, []).append(recovered)
    if bar is None:
        return f"recovered in {recovered:.1f} s"
    result.bars.setdefault(name, []).append(bar)
    return f"recovered in {recovered:.1f} s, {'within' if recovered <= bar else 'LATER THAN'} {bar:.1f} s"
