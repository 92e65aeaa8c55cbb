"""What every backend does with a generation, and what it refuses: the torch engine, and TensorRT-LLM's executor over
the fake, on the same checkpoint."""

import json
import math
import random
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest

from api.errors import REQUEST_FAULTS
from tests.fixtures.engines import (
    ENDS,
    SLOTS,
    VOCAB,
    EngineKind,
    Outputs,
    answer,
    ask,
    drive,
    finishes_of,
    picture,
    running,
    step_until,
    tokens_of,
    words,
)
from tests.fixtures.models import Reference, random_tiles
from worker.engine.generation import Finish, Grammar, GrammarKind, Image, Sampling, TokenOutput
from worker.engine.protocol import Rejected
from worker.engine.server import ServedEngine
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.contract

OBJECT = {
    "type": "object",
    "properties": {"colour": {"enum": ["red", "blue"]}, "count": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["colour", "count"],
    "additionalProperties": False,
}


def schema(text: Any) -> Grammar:
    return Grammar(GrammarKind.JSON_SCHEMA, text if isinstance(text, str) else json.dumps(text))


# -- answers


@pytest.mark.parametrize("tiles", [(), (3,), (1, 2), (4, 1, 1)])
def test_greedy_answer_is_transformers_own(
    tiles: tuple[int, ...], engine: ServedEngine, tiny_reference: Reference
) -> None:
    asked = ask("a", 1, 20, [picture(50 + n, count) for n, count in enumerate(tiles)], max_tokens=16)
    shown = np.concatenate([random_tiles(50 + n, count) for n, count in enumerate(tiles)]) if tiles else None
    assert answer(engine, asked) == tiny_reference.generate(asked.prompt_ids, shown, 16)


def test_tokens_come_as_they_are_generated_and_the_last_output_tells_the_end(engine: ServedEngine) -> None:
    outputs = drive(engine, ask("a", 2, max_tokens=40))["a"]
    assert len(tokens_of(outputs)) == 40 and len(outputs) >= 10
    assert [output.finish for output in outputs] == [None] * (len(outputs) - 1) + [Finish.LENGTH]
    assert [output.cached_tokens for output in outputs] == [0] + [None] * (len(outputs) - 1)


@pytest.mark.parametrize("place", [0, 1])
def test_any_stop_id_ends_the_answer_and_is_its_last_token(place: int, engine: ServedEngine) -> None:
    whole = answer(engine, ask("a", 3, 30))
    end = next(token for n, token in enumerate(whole) if n > 1 and token not in whole[:n])
    never = next(token for token in range(5, 99) if token not in whole)
    stop_ids = [end, never] if place == 0 else [never, end]
    outputs = drive(engine, ask("a", 3, 30, stop_ids=stop_ids))["a"]
    assert tokens_of(outputs) == whole[: whole.index(end) + 1]
    assert outputs[-1].finish is Finish.STOP


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(seed=4, temperature=1.5)])
@pytest.mark.parametrize("known", [0, 2])
def test_no_stop_id_is_among_the_first_min_tokens(known: int, sampling: Sampling, engine: ServedEngine) -> None:
    asked = ask("a", 4, max_tokens=12, sampling=sampling)
    stop_ids = sorted({token for seed in range(3) for token in answer(engine, ask("a", 4, 12 + seed, max_tokens=12))})
    whole = answer(engine, msgspec.structs.replace(asked, stop_ids=stop_ids, min_tokens=9))
    assert len(whole) >= 9 and not set(whole[:9]) & set(stop_ids)
    rest = msgspec.structs.replace(asked, stop_ids=stop_ids, min_tokens=9, generated=whole[:known])
    assert not set(answer(engine, rest)[: 9 - known]) & set(stop_ids)


@pytest.mark.parametrize("images", [(), (picture(60, 2),)], ids=["text", "picture"])
def test_answer_goes_on_behind_the_tokens_of_an_earlier_attempt(
    images: tuple[Image, ...], engine: ServedEngine
) -> None:
    whole = answer(engine, ask("a", 5, images=images))
    for split in (1, 4, 7):
        assert answer(engine, ask("a", 5, images=images, generated=whole[:split])) == whole[split:]


def test_drawn_answer_goes_on_behind_the_tokens_of_an_earlier_attempt(kind: EngineKind, engine: ServedEngine) -> None:
    asked = ask("a", 6, sampling=Sampling(seed=2, temperature=1.5))
    whole = answer(engine, asked)
    rest = answer(engine, msgspec.structs.replace(asked, generated=whole[:3]))
    assert len(rest) == 5
    assert (rest == whole[3:]) is kind.draws_on


def test_answer_that_had_ended_ends_at_once_without_tokens(engine: ServedEngine) -> None:
    asked = [ask("full", 7, generated=[9] * 8), ask("stopped", 7, generated=[9, 7], stop_ids=[8, 7])]
    outputs = drive(engine, *asked)
    assert outputs == {
        "full": [TokenOutput("full", finish=Finish.LENGTH, cached_tokens=0)],
        "stopped": [TokenOutput("stopped", finish=Finish.STOP, cached_tokens=0)],
    }


def test_longest_prompt_gets_one_token_and_a_longer_one_is_refused_by_its_length(engine: ServedEngine) -> None:
    longest = engine.context_length - 1
    outputs = drive(engine, ask("a", 8, longest, max_tokens=100))["a"]
    assert (len(tokens_of(outputs)), outputs[-1].finish) == (1, Finish.LENGTH)
    with pytest.raises(Rejected, match=f"{longest + 1} tokens.*{longest + 1}") as caught:
        engine.submit(ask("b", 8, longest + 1))
    assert caught.value.code == "context_length_exceeded"


# -- sampling


def test_seed_gives_the_same_answer_again_and_another_seed_another_one(engine: ServedEngine) -> None:
    drawn = [answer(engine, ask("a", 9, sampling=Sampling(seed, temperature=1.5))) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
    assert answer(engine, ask("a", 9)) not in drawn


@pytest.mark.parametrize("seed", [-1, 0, 2**63, 2**64 + 5])
def test_any_integer_is_a_seed(seed: int, engine: ServedEngine) -> None:
    sampling = Sampling(seed=seed, temperature=2.0)
    assert answer(engine, ask("a", 10, sampling=sampling)) == answer(engine, ask("b", 10, sampling=sampling))


GREEDY_IN_EFFECT = [
    Sampling(top_p=0.9, top_k=50),
    Sampling(temperature=1e-5),
    Sampling(temperature=1e-45),
    Sampling(temperature=1e-300, top_p=0.5),
    Sampling(temperature=1e-30, top_p=0.5, top_k=3, min_p=0.1),
    Sampling(temperature=5.0, top_p=0.0),
    Sampling(temperature=5.0, top_p=1e-300),
    Sampling(temperature=5.0, top_k=1),
    Sampling(temperature=5.0, min_p=1.0),
]


@pytest.mark.parametrize("sampling", GREEDY_IN_EFFECT, ids=str)
def test_sampling_with_one_token_left_is_greedy(sampling: Sampling, engine: ServedEngine) -> None:
    assert answer(engine, ask("a", 11, sampling=sampling)) == answer(engine, ask("a", 11))


def test_bias_decides_and_penalties_keep_what_was_drawn_away(engine: ServedEngine) -> None:
    biased = Sampling(seed=1, temperature=1.0, logit_bias={77: 100.0})
    assert answer(engine, ask("a", 12, sampling=biased)) == [77] * 8
    alike = dict.fromkeys(range(70, 82), 100.0)
    plain = answer(engine, ask("a", 12, sampling=Sampling(logit_bias=alike), max_tokens=12))
    for penalty in ({"frequency_penalty": 2.0}, {"presence_penalty": 2.0}, {"repetition_penalty": 50.0}):
        sampling = Sampling(logit_bias=alike, **penalty)  # type: ignore[arg-type]
        kept = answer(engine, ask("a", 12, sampling=sampling, max_tokens=12))
        assert len(set(kept)) > len(set(plain)) and set(kept) <= alike.keys(), penalty


def test_logprobs_come_with_the_tokens_or_are_refused_by_name(kind: EngineKind, engine: ServedEngine) -> None:
    asked = ask("a", 13, sampling=Sampling(logprobs=2))
    if not kind.logprobs:
        with pytest.raises(Rejected, match="logprobs = 2 cannot be had"):
            engine.submit(asked)
        return
    for output in drive(engine, asked)["a"]:
        (token,) = output.tokens
        assert token.logprob is not None and token.top[0].id == token.id and len(token.top) == 2


def test_top_k_is_kept_up_to_the_most_that_is_taken(kind: EngineKind, engine: ServedEngine) -> None:
    answer(engine, ask("a", 14, sampling=Sampling(temperature=1.0, top_k=kind.top_k)))
    with pytest.raises(Rejected, match=f"top_k is {kind.top_k + 1}") as caught:
        engine.submit(ask("b", 14, sampling=Sampling(temperature=1.0, top_k=kind.top_k + 1)))
    assert caught.value.code == "invalid_sampling"


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


# -- grammars


def test_json_schema_is_kept_at_any_temperature(engine: ServedEngine, tiny_model: Any) -> None:
    tokenizer = ChatTokenizer.load(tiny_model)
    asked = [
        ask(
            str(n),
            70 + n,
            sampling=Sampling(n, temperature=0.5 + n / 2),
            max_tokens=200,
            stop_ids=ENDS,
            grammar=schema(OBJECT),
        )
        for n in range(5)
    ]
    for outputs in drive(engine, *asked).values():
        assert outputs[-1].finish is Finish.STOP
        text = tokenizer.whole.decode(tokens_of(outputs), skip_special_tokens=True)
        jsonschema.validate(json.loads(text), OBJECT)


def test_json_object_is_one_as_far_as_it_goes(engine: ServedEngine, tiny_model: Any) -> None:
    """Random weights rarely close their brackets; what they give may go on to be an object."""
    grammar = Grammar(GrammarKind.JSON_OBJECT)
    outputs = drive(engine, ask("a", 75, sampling=Sampling(1, 1.0), max_tokens=60, stop_ids=ENDS, grammar=grammar))["a"]
    text = ChatTokenizer.load(tiny_model).whole.decode(tokens_of(outputs), skip_special_tokens=True)
    assert text.lstrip().startswith("{")
    assert outputs[-1].finish is Finish.LENGTH or isinstance(json.loads(text), dict)


def test_answer_under_a_grammar_goes_on_behind_the_tokens_of_an_earlier_attempt(engine: ServedEngine) -> None:
    asked = ask("a", 76, max_tokens=80, stop_ids=ENDS, grammar=schema(OBJECT))
    whole = answer(engine, asked)
    for split in (1, len(whole) // 2, len(whole) - 1):
        assert answer(engine, msgspec.structs.replace(asked, generated=whole[:split])) == whole[split:]


def test_rules_are_kept_or_refused_by_name(kind: EngineKind, engine: ServedEngine) -> None:
    asked = ask("a", 77, stop_ids=ENDS, grammar=Grammar(GrammarKind.LARK, rules='start: "a" "b"'))
    if not kind.rules:
        with pytest.raises(Rejected, match="it cannot be held to rules") as caught:
            engine.submit(asked)
        assert caught.value.code == "invalid_json_schema"
        return
    assert drive(engine, asked)["a"][-1].finish is Finish.STOP


def test_grammar_is_made_ready_beside_the_steps_and_nothing_else_needs_to_be(engine: ServedEngine) -> None:
    assert engine.prepare(ask("a", 78)) is None
    asked = ask("a", 78, max_tokens=80, stop_ids=ENDS, grammar=schema({"enum": [12, 345]}))
    preparing = engine.prepare(asked)
    assert preparing is not None
    preparing.result(60)
    assert drive(engine, asked)["a"][-1].finish is Finish.STOP
    refused = engine.prepare(ask("b", 78, stop_ids=ENDS, grammar=schema("{")))
    assert refused is not None
    with pytest.raises(Rejected):
        refused.result(60)


# -- refusals


_SHORT = Image(b"x" * 32, 1, b"12345")
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"prompt_ids": []}, "invalid_prompt", "no tokens"),
    ({"prompt_ids": [1, -1]}, "invalid_prompt", r"prompt_ids\[1\] is -1"),
    ({"prompt_ids": [1, VOCAB]}, "invalid_prompt", rf"prompt_ids\[1\] is {VOCAB}"),
    ({"prompt_ids": [2**62]}, "invalid_prompt", r"prompt_ids\[0\]"),
    ({"prompt_ids": [1, *range(VOCAB, VOCAB + 3)], "images": [picture(1)]}, "invalid_prompt", "3 visual tokens"),
    ({"prompt_ids": [1, VOCAB + 1, VOCAB], "images": [picture(1)]}, "invalid_prompt", rf"is {VOCAB + 1}"),
    ({"max_tokens": 0}, "invalid_prompt", "max_tokens is 0"),
    ({"generated": [VOCAB]}, "invalid_prompt", r"generated\[0\]"),
    ({"stop_ids": [-5]}, "invalid_prompt", r"stop_ids\[0\] is -5"),
    ({"min_tokens": -1}, "invalid_sampling", "min_tokens is -1"),
    ({"images": [Image(b"x" * 32, 0, b"")]}, "invalid_image", "0 tiles"),
    ({"images": [_SHORT]}, "invalid_image", "5 bytes.* 37632"),
    ({"images": [Image(b"x", 1, b"x" * 37632)]}, "invalid_image", "1 bytes, not 32"),
    ({"sampling": Sampling(temperature=math.nan)}, "invalid_sampling", "temperature is nan"),
    ({"sampling": Sampling(temperature=-1)}, "invalid_sampling", "temperature is -1"),
    ({"sampling": Sampling(top_p=1.5)}, "invalid_sampling", "top_p is 1.5"),
    ({"sampling": Sampling(min_p=-0.1)}, "invalid_sampling", "min_p is -0.1"),
    ({"sampling": Sampling(top_k=-1)}, "invalid_sampling", "top_k is -1"),
    ({"sampling": Sampling(top_k=2**63)}, "invalid_sampling", f"top_k is {2**63}"),
    ({"sampling": Sampling(repetition_penalty=0.0)}, "invalid_sampling", "repetition_penalty is 0"),
    ({"sampling": Sampling(presence_penalty=3)}, "invalid_sampling", "presence_penalty is 3"),
    ({"sampling": Sampling(frequency_penalty=math.inf)}, "invalid_sampling", "frequency_penalty is inf"),
    ({"sampling": Sampling(logprobs=21)}, "invalid_sampling", "logprobs is 21"),
    ({"sampling": Sampling(logit_bias={VOCAB: 1.0})}, "invalid_sampling", f"token {VOCAB}"),
    ({"sampling": Sampling(logit_bias={1: math.nan})}, "invalid_sampling", "of 1 is nan"),
    ({"grammar": schema("{"), "stop_ids": ENDS}, "invalid_json_schema", "EOF|JSON"),
    (
        {"grammar": schema({"type": "array", "uniqueItems": True}), "stop_ids": ENDS},
        "invalid_json_schema",
        "uniqueItems",
    ),
    ({"grammar": schema(OBJECT), "stop_ids": ENDS, "min_tokens": 3}, "invalid_sampling", "min_tokens"),
]


@pytest.mark.parametrize(("change", "code", "named"), REFUSED)
def test_what_can_never_run_is_refused_by_name_and_who_runs_does_not_notice(
    change: dict[str, Any], code: str, named: str, engine: ServedEngine
) -> None:
    expected = answer(engine, ask("good", 80, images=[picture(69)], max_tokens=12))
    engine.submit(ask("good", 80, images=[picture(69)], max_tokens=12))
    engine.step()
    with pytest.raises(Rejected, match=named) as caught:
        engine.submit(ask("bad", 81, **change))
    assert caught.value.code == code and code in REQUEST_FAULTS
    assert tokens_of(drive(engine)["good"])[-8:] == expected[-8:]


# -- statistics and the end


def test_statistics_count_what_waits_and_runs_and_what_was_drawn(engine: ServedEngine) -> None:
    before = engine.stats()
    outputs: Outputs = {}
    asked = [ask(str(n), 90 + n, max_tokens=20 + n) for n in range(SLOTS + 3)]
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
