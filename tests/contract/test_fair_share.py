"""What every JobStore does so that tenants share workers by their weights."""

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest

from jobs.job import AttemptEnd, BatchLine, Job, JobState, Origin, Outcome, Priority, Token, Usage
from jobs.ports import JobStore
from jobs.queue_place import QueuePlace
from tests.fixtures.jobs import TimedStore, new_job

pytestmark = pytest.mark.contract


def queue(store: JobStore, tenant: str, count: int = 1, cost: int = 10, **values: object) -> list[str]:
    return [store.insert(new_job(tenant=tenant, cost=cost, **values)).id for _ in range(count)]


def claim(store: JobStore, lowest: Priority = Priority.BATCH) -> Job:
    job = store.claim("tiny", "w", lowest)
    assert job is not None
    return job


def order(store: JobStore, count: int) -> str:
    """The tenants of the next claims, by their initials."""
    return "".join(claim(store).tenant[0] for _ in range(count))


def finish(store: JobStore, job: Job, tokens: int) -> None:
    outcome = Outcome(JobState.COMPLETED, (), Usage(prompt_tokens=tokens, completion_tokens=0))
    store.finish(job.id, job.attempt, outcome)


def test_tenants_take_turns_however_much_one_has_queued(store: JobStore) -> None:
    queue(store, "acme", 50)
    queue(store, "bolt", 3)
    assert order(store, 8) == "abababaa"


def test_a_tenant_of_twice_the_weight_goes_twice_as_often(timed_store: TimedStore) -> None:
    timed_store.weigh("bolt", 2)
    for tenant in ("acme", "bolt"):
        queue(timed_store.store, tenant, 20)
    assert Counter(order(timed_store.store, 12)) == {"a": 4, "b": 8}


def test_costly_jobs_are_served_more_rarely(store: JobStore) -> None:
    queue(store, "acme", 20, cost=40)
    queue(store, "bolt", 20, cost=10)
    assert Counter(order(store, 10)) == {"a": 2, "b": 8}


def test_jobs_of_one_tenant_go_by_age(store: JobStore) -> None:
    ids = queue(store, "acme", 3)
    assert [claim(store).id for _ in ids] == ids


def test_an_earlier_lane_goes_first_whatever_its_tenants_have_had(store: JobStore) -> None:
    queue(store, "acme", 3, cost=1000, priority=Priority.INTERACTIVE)
    queue(store, "bolt", 3, priority=Priority.BATCH)
    assert order(store, 6) == "aaabbb"


def test_lanes_and_models_have_counters_of_their_own(store: JobStore) -> None:
    queue(store, "acme", 5, cost=1000, priority=Priority.BATCH)
    queue(store, "acme", 5, cost=1000, model="large")
    assert order(store, 5) == "aaaaa"
    queue(store, "acme", 2)
    queue(store, "bolt", 2)
    assert order(store, 4) == "abab"


def test_claim_down_to_a_lane_leaves_later_lanes_alone(store: JobStore) -> None:
    queue(store, "acme", priority=Priority.BATCH)
    queue(store, "acme", priority=Priority.BACKGROUND)
    assert store.claim("tiny", "w", Priority.INTERACTIVE) is None
    assert claim(store, Priority.BACKGROUND).priority is Priority.BACKGROUND
    assert store.claim("tiny", "w", Priority.BACKGROUND) is None
    assert claim(store).priority is Priority.BATCH


def test_a_tenant_that_was_idle_brings_no_credit(store: JobStore) -> None:
    queue(store, "bolt")
    queue(store, "acme", 100)
    order(store, 90)
    queue(store, "bolt", 20)
    assert order(store, 8).count("b") in (4, 5)


def test_a_new_tenant_starts_where_the_others_are_also_when_nobody_waits(store: JobStore) -> None:
    queue(store, "acme", 50)
    order(store, 50)
    queue(store, "bolt", 10)
    queue(store, "acme", 10)
    assert Counter(order(store, 10)) == {"a": 5, "b": 5}


def test_what_a_tenant_has_had_is_forgotten_when_it_has_been_idle_for_long(timed_store: TimedStore) -> None:
    store = timed_store.store
    for tenant in ("acme", "bolt"):
        queue(store, tenant)
    queue(store, "acme", cost=1000)
    order(store, 3)
    timed_store.pass_time(100)
    assert store.forget_idle_shares(200) == 0
    assert [store.forget_idle_shares(50, limit=1) for _ in range(3)] == [1, 1, 0]
    for tenant in ("acme", "bolt"):
        queue(store, tenant, 10)
    assert order(store, 4) == "abab"


def test_a_tenant_that_was_idle_for_a_while_still_owes_what_it_has_had(timed_store: TimedStore) -> None:
    store = timed_store.store
    queue(store, "bolt", 10)
    queue(store, "acme", cost=50)
    order(store, 2)
    timed_store.pass_time(40)
    assert store.forget_idle_shares(50) == 0
    queue(store, "acme", 2)
    assert order(store, 4) == "bbbb"


def test_a_tenant_that_waits_however_long_keeps_its_turn(timed_store: TimedStore) -> None:
    store = timed_store.store
    queue(store, "bolt", 2)
    queue(store, "acme", 20, cost=40)
    order(store, 2)
    timed_store.pass_time(1000)
    assert store.forget_idle_shares(50) == 0
    queue(store, "acme")
    assert order(store, 2) == "ba"


def test_the_end_of_a_job_whose_share_is_forgotten_is_recorded(timed_store: TimedStore) -> None:
    store = timed_store.store
    queue(store, "acme")
    job = claim(store)
    timed_store.pass_time(1000)
    assert store.forget_idle_shares(50) == 1
    finish(store, job, 500)
    assert store.get(job.id).state is JobState.COMPLETED
    queue(store, "acme")
    assert claim(store).tenant == "acme"


def test_the_end_of_a_job_corrects_its_estimate(store: JobStore) -> None:
    queue(store, "acme", 20)
    queue(store, "bolt", 20)
    first, second = claim(store), claim(store)
    assert (first.tenant, second.tenant) == ("acme", "bolt")
    finish(store, first, 50)
    finish(store, second, 10)
    assert order(store, 5) == "bbbba"


def test_a_job_that_was_refused_before_it_ran_costs_nothing(store: JobStore) -> None:
    queue(store, "acme", 20, cost=30)
    queue(store, "bolt", 20, cost=30)
    refused = claim(store)
    store.finish(refused.id, 1, Outcome(JobState.FAILED, ()))
    assert order(store, 2) == "ab"


def test_a_job_that_is_cancelled_while_it_waits_costs_nothing(store: JobStore) -> None:
    ids = queue(store, "acme", 20)
    queue(store, "bolt", 20)
    for job_id in ids[:10]:
        store.cancel(job_id)
    assert order(store, 4) == "abab"


def test_a_job_that_is_cancelled_while_it_runs_costs_its_estimate(store: JobStore) -> None:
    queue(store, "acme", 20)
    queue(store, "bolt", 20)
    store.cancel(claim(store).id)
    assert order(store, 3) == "bab"


def test_further_attempts_are_not_charged(store: JobStore) -> None:
    (again,) = queue(store, "acme")
    for _ in range(5):
        job = claim(store)
        assert job.id == again
        store.give_back(job.id, job.attempt, AttemptEnd.DRAINED, "", (Token(1, "x"),))
    queue(store, "acme", 3)
    queue(store, "bolt", 3)
    assert order(store, 5) == "aabab"


def test_a_dead_letter_that_is_given_back_waits_its_turn(store: JobStore) -> None:
    (dead,) = queue(store, "bolt", max_attempts=1)
    job = claim(store)
    store.give_back(job.id, 1, AttemptEnd.ENGINE_DIED, "", ())
    queue(store, "acme", 30)
    order(store, 20)
    store.requeue(dead)
    assert "b" in order(store, 3)


def die(store: JobStore, tokens: tuple[Token, ...] = ()) -> Job:
    """Ends the next job as a dead letter, if it may be lost once only, and gives it back."""
    job = claim(store)
    assert store.give_back(job.id, job.attempt, AttemptEnd.ENGINE_DIED, "", tokens).state is JobState.FAILED
    return store.requeue(job.id)


def test_a_dead_letter_that_is_given_back_is_charged_its_estimate_when_it_is_claimed(store: JobStore) -> None:
    queue(store, "acme", max_attempts=1, cost=40)
    die(store)
    queue(store, "bolt", 20)
    queue(store, "acme", 20)
    assert order(store, 8) == "abbbbaba"


@pytest.mark.parametrize("deaths", [0, 1, 3])
def test_a_dead_letter_comes_to_what_it_used_however_often_it_was_given_back(store: JobStore, deaths: int) -> None:
    queue(store, "cord", 20)
    queue(store, "bolt", max_attempts=1, cost=40)
    for _ in range(deaths):
        die(store)
    finish(store, claim(store), 30)
    queue(store, "bolt", 5)
    assert order(store, 6) == "cccbcb"


def test_a_dead_letter_with_tokens_keeps_its_charge_and_is_not_charged_again(store: JobStore) -> None:
    queue(store, "cord", 20)
    queue(store, "bolt", max_attempts=1, cost=40)
    die(store, (Token(1, "x"),))
    queue(store, "bolt", 5)
    assert order(store, 4) == "cccc"
    finish(store, claim(store), 40)
    assert order(store, 2) == "bc"


def test_a_dead_letter_that_drew_more_than_its_estimate_is_settled_once(store: JobStore) -> None:
    queue(store, "cord", 20)
    queue(store, "bolt", max_attempts=1, cost=10)
    die(store, tuple(Token(k, "x") for k in range(30)))
    assert order(store, 1) == "c"
    finish(store, claim(store), 40)
    queue(store, "bolt", 5)
    assert order(store, 6) == "cccbcb"


def test_a_dead_letter_that_is_cancelled_while_it_waits_again_costs_nothing(store: JobStore) -> None:
    queue(store, "acme", max_attempts=1, cost=40)
    dead = die(store)
    queue(store, "bolt", 20)
    queue(store, "acme", 20)
    store.cancel(dead.id)
    assert order(store, 6) == "ababab"


def test_queue_place_follows_the_fair_order(timed_store: TimedStore) -> None:
    store = timed_store.store
    queue(store, "acme", 30, cost=10)
    mine = queue(store, "bolt", 3, cost=10)
    assert [store.queue_place(store.get(job_id)) for job_id in mine] == [
        QueuePlace(1, 10),
        QueuePlace(3, 30),
        QueuePlace(5, 50),
    ]
    timed_store.weigh("bolt", 10)
    assert store.queue_place(store.get(mine[2])) == QueuePlace(3, 30)


def test_lines_count_what_waits_by_tenant(store: JobStore) -> None:
    queue(store, "acme", 3, cost=10)
    for line in (1, 2):
        queue(store, "acme", cost=7, priority=Priority.BATCH, origin=Origin(batch=BatchLine("batch_1", line)))
    queue(store, "bolt", cost=5, model="large")
    claim(store)
    lines = store.lines()
    counted = {
        (line.model, line.priority, line.waiting.tenant): (line.waiting.jobs, line.waiting.tokens)
        for line in lines.lines
    }
    assert counted == {
        ("tiny", Priority.BACKGROUND, "acme"): (2, 20),
        ("tiny", Priority.BATCH, "acme"): (2, 14),
        ("large", Priority.BACKGROUND, "bolt"): (1, 5),
    }
    assert sorted((line.alone, line.alone_tokens) for line in lines.lines) == [(0, 0), (1, 5), (2, 20)]
    assert lines.until_free == {"tiny": 10}


def test_lines_tell_the_place_of_the_job_that_came_last(timed_store: TimedStore) -> None:
    store, chance = timed_store.store, random.Random(5)
    timed_store.weigh("bolt", 3)
    for _ in range(60):
        before = store.lines()
        values = {"cost": chance.randint(1, 40), "priority": chance.choice(list(Priority))}
        job = store.get(queue(store, chance.choice(["acme", "bolt", "cord"]), **values)[0])
        asked = (job.model, job.priority, job.tenant, job.cost)
        place = store.queue_place(job)
        assert place == store.lines().place_of_last(*asked)
        # The counter of a tenant that comes anew is only known to be no less than that of the others.
        if any(line.waiting.tenant == job.tenant and line.priority == job.priority for line in before.lines):
            assert place == before.plus(*asked).place_of_last(*asked)
        if chance.random() < 0.3:
            claim(store)


def test_queue_place_agrees_with_what_is_then_claimed(store: JobStore) -> None:
    chance = random.Random(4)
    for _ in range(40):
        queue(store, chance.choice(["acme", "bolt", "cord"]), cost=20, priority=chance.choice(list(Priority)))
    last = store.get(queue(store, "bolt", cost=20, priority=Priority.BATCH)[0])
    place = store.queue_place(last)
    assert place is not None
    before = 0
    while claim(store).id != last.id:
        before += 1
    assert abs(place.jobs - before) <= 2


@dataclass
class Saturated:
    """Workers that never rest: everybody always has jobs waiting. `had`: tokens that each tenant came to."""

    store: JobStore
    chance: random.Random
    lengths: dict[str, tuple[int, int]]
    had: Counter[str] = field(default_factory=Counter)
    waiting: Counter[str] = field(default_factory=Counter)
    running: list[Job] = field(default_factory=list)

    def serve(self, claims: int, slots: int) -> None:
        for _ in range(claims):
            self._fill()
            job = claim(self.store)
            self.waiting[job.tenant] -= 1
            self.running.append(job)
            if len(self.running) == slots:
                self._end(self.running.pop(self.chance.randrange(slots)))

    def _fill(self) -> None:
        for tenant in self.lengths:
            while self.waiting[tenant] < 3:
                queue(self.store, tenant, cost=self.chance.randint(50, 150))
                self.waiting[tenant] += 1

    def _end(self, job: Job) -> None:
        draw = self.chance.random()
        if draw < 0.1:
            self.store.give_back(job.id, job.attempt, AttemptEnd.DRAINED, "", ())
            self.waiting[job.tenant] += 1
        elif draw < 0.15:
            self.store.finish(job.id, job.attempt, Outcome(JobState.FAILED, ()))
        elif draw < 0.2:
            self.store.cancel(job.id)
            self.had[job.tenant] += job.cost
        else:
            tokens = self.chance.randint(*self.lengths[job.tenant])
            finish(self.store, job, tokens)
            self.had[job.tenant] += tokens


def test_shares_of_tokens_keep_the_weights_whatever_answers_come_to(timed_store: TimedStore) -> None:
    weights = {"acme": 1.0, "bolt": 2.0, "cord": 4.0}
    for tenant, weight in weights.items():
        timed_store.weigh(tenant, weight)
    # Estimates are about 100: too low for one, too high for another.
    lengths = {"acme": (100, 500), "bolt": (10, 60), "cord": (50, 150)}
    saturated = Saturated(timed_store.store, random.Random(11), lengths)
    saturated.serve(claims=500, slots=6)
    total = sum(saturated.had.values())
    shares = {tenant: saturated.had[tenant] / total * sum(weights.values()) / weights[tenant] for tenant in weights}
    assert all(0.9 < share < 1.1 for share in shares.values()), shares
