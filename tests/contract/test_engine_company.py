"""Generations beside each other: in one batch, cancelled, reusing what others computed, counted. Every backend: the
torch engine, and TensorRT-LLM's executor over the fake, on the same checkpoint."""

import random

import msgspec
import pytest

from tests.fixtures.engines import (
    ENDS,
    OBJECT,
    SLOTS,
    EngineKind,
    Outputs,
    answer,
    ask,
    drive,
    finishes_of,
    picture,
    running,
    schema,
    step_until,
    tokens_of,
    words,
)
from tests.fixtures.models import Reference, random_tiles
from worker.engine.generation import Finish, Sampling
from worker.engine.protocol import Rejected
from worker.engine.server import ServedEngine

pytestmark = pytest.mark.contract


# -- company


COMPANY = [
    ask("greedy", 20, 30),
    ask("drawn", 21, 5, sampling=Sampling(seed=3, temperature=1.2)),
    ask("picture", 22, 6, [picture(61, 2)]),
    ask("album", 23, 7, [picture(61, 2), picture(62, 3)], sampling=Sampling(seed=9, temperature=0.8, top_p=0.9)),
    ask("penalised", 24, 17, sampling=Sampling(repetition_penalty=1.5, frequency_penalty=0.7), max_tokens=20),
    ask("short", 25, 1, max_tokens=1),
    ask("long", 26, 400, max_tokens=30),
    ask("object", 27, stop_ids=ENDS, grammar=schema(OBJECT), max_tokens=60),
]


def test_answers_in_company_are_those_given_alone_and_share_batches(engine: ServedEngine) -> None:
    alone = {generation.id: answer(engine, generation) for generation in COMPANY}
    before = engine.stats().steps_by_batch
    outputs = drive(engine, *COMPANY)
    assert {name: tokens_of(each) for name, each in outputs.items()} == alone
    now = engine.stats().steps_by_batch
    grown = {size for size, steps in now.items() if steps > before.get(size, 0)}
    assert max(grown) == SLOTS and len(grown) > 1


def test_smaller_lane_goes_first_among_those_that_wait(engine: ServedEngine) -> None:
    outputs: Outputs = {}
    for n in range(SLOTS):
        engine.submit(ask(f"running{n}", 30 + n, max_tokens=30))
    step_until(engine, outputs, lambda: len(outputs) == SLOTS)
    for name, lane in (("late", 2), ("soon", 1), ("first", 0)):
        for n in range(SLOTS):
            engine.submit(ask(f"{name}{n}", 30 + n, lane=lane, max_tokens=2))
    step_until(engine, outputs, lambda: not engine.has_work())
    began = [name for name in outputs if not name.startswith("running")]
    assert [name[:-1] for name in began] == ["first"] * SLOTS + ["soon"] * SLOTS + ["late"] * SLOTS


@pytest.mark.parametrize("seed", range(6))
def test_any_arrivals_and_cancels_leave_each_survivor_its_own_answer(seed: int, engine: ServedEngine) -> None:
    rng = random.Random(seed)
    kinds = [ask(str(n), 40 + n, 3 + 9 * n, [picture(63, n)] if n else [], max_tokens=6 + n) for n in range(4)]
    alone = [answer(engine, generation) for generation in kinds]
    asked = {f"{seed}.{n}": rng.randrange(4) for n in range(14)}
    outputs: Outputs = {name: [] for name in asked}
    for name, which in asked.items():
        engine.submit(msgspec.structs.replace(kinds[which], id=name))
        for _ in range(rng.randrange(4)):
            for output in engine.step():
                outputs[output.id].append(output)
        if rng.random() < 0.3:
            engine.cancel(rng.choice(list(asked)))
    step_until(engine, outputs, lambda: not engine.has_work())
    engine.check_integrity()
    for name, finish in finishes_of(outputs).items():
        got, whole = tokens_of(outputs[name]), alone[asked[name]]
        assert got == (whole[: len(got)] if finish is Finish.CANCELLED else whole)
        assert finish in (Finish.LENGTH, Finish.CANCELLED)


# -- cancel


def test_cancel_of_who_runs_is_told_by_the_next_step_and_frees_its_slot(engine: ServedEngine) -> None:
    outputs: Outputs = {}
    for n in range(SLOTS):
        engine.submit(ask(f"long{n}", 50 + n, max_tokens=900))
    engine.submit(ask("next", 59))
    step_until(engine, outputs, lambda: len(outputs) == SLOTS)
    engine.cancel("long0")
    told = [output for output in engine.step() if output.id == "long0"]
    assert [(output.tokens, output.finish) for output in told] == [([], Finish.CANCELLED)]
    step_until(engine, outputs, lambda: "next" in outputs and outputs["next"][-1].finish is not None)
    assert engine.stats().running == SLOTS - 1 and "long0" not in {output.id for output in engine.step()}
    for n in range(SLOTS):
        engine.cancel(f"long{n}")
    drive(engine)


def test_cancel_of_who_waits_is_told_by_the_next_step_and_runs_nothing(engine: ServedEngine) -> None:
    outputs: Outputs = {}
    for n in range(SLOTS):
        engine.submit(ask(f"long{n}", 50 + n, max_tokens=60))
    step_until(engine, outputs, lambda: len(outputs) == SLOTS)
    before = engine.stats()
    engine.submit(ask("waiting", 59, images=[picture(64)]))
    engine.cancel("waiting")
    assert [output.finish for output in engine.step() if output.id == "waiting"] == [Finish.CANCELLED]
    outputs |= drive(engine)
    assert "waiting" not in outputs and engine.stats().tiles_encoded == before.tiles_encoded
    assert engine.stats().prompt_tokens == before.prompt_tokens


def test_cancel_of_who_is_unknown_or_has_ended_is_ignored(engine: ServedEngine) -> None:
    drive(engine, ask("a", 51, max_tokens=1))
    for name in ("a", "nobody"):
        engine.cancel(name)
    assert not engine.has_work() and list(engine.step()) == []


def test_id_that_is_alive_is_refused_until_its_last_output(engine: ServedEngine) -> None:
    engine.submit(ask("a", 52))
    with pytest.raises(Rejected, match="'a' is alive") as caught:
        engine.submit(ask("a", 52))
    assert caught.value.code == "duplicate_id"
    engine.cancel("a")
    with pytest.raises(Rejected, match="'a' is alive"):
        engine.submit(ask("a", 52))
    drive(engine)
    assert len(answer(engine, ask("a", 52))) == 8


# -- reuse


def test_second_round_reuses_whole_blocks_of_the_first_and_counts_them(kind: EngineKind, engine: ServedEngine) -> None:
    first = ask("one", 60, 70, [picture(65, 2)])
    told = answer(engine, first)
    before = engine.stats()
    second = msgspec.structs.replace(first, id="two", prompt_ids=[*first.prompt_ids, *told, *words(61, 9)])
    outputs = drive(engine, second)["two"]
    # The last token was drawn and never computed.
    known = (len(first.prompt_ids) + len(told) - 1) // kind.block * kind.block
    assert outputs[0].cached_tokens == known
    after = engine.stats()
    assert after.cached_tokens - before.cached_tokens == known
    assert after.prompt_tokens - before.prompt_tokens == len(second.prompt_ids)
    assert (after.tiles_encoded, after.tiles_reused - before.tiles_reused) == (before.tiles_encoded, 2)
    cold = msgspec.structs.replace(second, salt=7)
    assert tokens_of(outputs) == answer(engine, cold)


def test_another_tenant_reuses_neither_keys_nor_pictures(engine: ServedEngine) -> None:
    for salt in (1, 2, 2**64 - 1):
        before = engine.stats().tiles_encoded
        outputs = drive(engine, ask("a", 62, 70, [picture(66, 2)], salt=salt))["a"]
        assert outputs[0].cached_tokens == 0 and engine.stats().tiles_encoded == before + 2
    assert (drive(engine, ask("a", 62, 70, [picture(66, 2)], salt=2))["a"][0].cached_tokens or 0) > 0


@pytest.mark.parametrize("second", [(68, 2), (68, 3)])
def test_pictures_under_the_same_words_share_nothing(
    second: tuple[int, int], engine: ServedEngine, tiny_reference: Reference
) -> None:
    drive(engine, ask("cat", 63, 40, [picture(67, 3)], salt=8))
    dog = ask("dog", 63, 40, [picture(*second)], salt=8)
    outputs = drive(engine, dog)["dog"]
    assert outputs[0].cached_tokens == 0
    assert tokens_of(outputs) == tiny_reference.generate(dog.prompt_ids, random_tiles(*second), 8)


# -- statistics and the end


def test_statistics_count_what_waits_and_runs_and_what_was_drawn(engine: ServedEngine) -> None:
    before = engine.stats()
    outputs: Outputs = {}
    asked = [ask(str(n), 90 + n, max_tokens=100 + n) for n in range(SLOTS + 3)]
    for generation in asked:
        engine.submit(generation)
    step_until(engine, outputs, lambda: len(outputs) >= SLOTS)
    busy = engine.stats()
    assert busy.slots == SLOTS and 0 < busy.running <= SLOTS
    assert busy.running + busy.waiting + sum(each[-1].finish is not None for each in outputs.values()) == len(asked)
    step_until(engine, outputs, lambda: not engine.has_work())
    idle = engine.stats()
    assert (idle.running, idle.waiting) == (0, 0)
    assert idle.generated_tokens - before.generated_tokens == sum(g.max_tokens for g in asked)
    assert idle.prompt_tokens - before.prompt_tokens == sum(len(g.prompt_ids) for g in asked)
    assert idle.steps > before.steps and idle.tokens_per_s > 0 and idle.served_per_s > 0


def test_idle_engine_holds_no_block_and_steps_at_once(engine: ServedEngine) -> None:
    outputs: Outputs = {}
    drive(engine, ask("a", 95, 300, max_tokens=40))

    def all_given_back() -> bool:
        stats = engine.stats()
        return stats.pages_free + stats.pages_cached == stats.pages_total > 0

    # An executor tells of its last iteration a moment later.
    step_until(engine, outputs, all_given_back)
    assert outputs == {} and not engine.has_work()


def test_engine_that_is_closed_in_mid_work_ends(kind: EngineKind) -> None:
    outputs: Outputs = {}
    with running(kind) as engine:
        for n in range(SLOTS + 2):
            engine.submit(ask(str(n), 97, images=[picture(70, 3)], max_tokens=900))
        step_until(engine, outputs, lambda: len(outputs) == SLOTS)
