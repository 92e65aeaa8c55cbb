import pytest

from worker.engine.generation import Generation, Image, Sampling
from worker.engine.torch.block_cache import BlockCache
from worker.engine.torch.scheduler import Scheduler
from worker.engine.torch.sequence import Sequence

pytestmark = pytest.mark.unit

VOCAB = 100


def _sequence(name: str, prompt: list[int], max_tokens: int = 4, image: bytes = b"", lane: int = 0) -> Sequence:
    images = [Image(digest=image * 32, tiles=1, pixels=b"")] if image else []
    generation = Generation(name, prompt, Sampling(), max_tokens, images=images, lane=lane)
    return Sequence(generation, max_tokens, VOCAB, tokens_per_tile=4, page_size=4)


def _scheduler(pages: int = 64, slots: int = 4, chunk: int = 8) -> tuple[Scheduler, BlockCache]:
    cache = BlockCache(pages, 4)
    return Scheduler(cache, slots, chunk), cache


def _cut(scheduler: Scheduler) -> list[tuple[str, int, int]]:
    scheduler.admit()
    return [(c.sequence.id, c.start, c.count) for c in scheduler.chunks()]


def test_short_prompts_share_one_prefill_budget() -> None:
    scheduler, _ = _scheduler()
    for n, name in enumerate("abc"):
        scheduler.add(_sequence(name, [n] * 3))
    assert _cut(scheduler) == [("a", 0, 3), ("b", 0, 3), ("c", 0, 2)]
    assert [s.id for s in scheduler.decoding] == ["a", "b"]
    assert _cut(scheduler) == [("c", 2, 1)]


def test_a_long_prompt_is_cut_and_holds_nobody_who_decodes() -> None:
    scheduler, _ = _scheduler()
    scheduler.add(_sequence("long", list(range(20))))
    assert [_cut(scheduler) for _ in range(4)] == [[("long", 0, 8)], [("long", 8, 8)], [("long", 16, 4)], []]


def test_no_one_overtakes_a_sequence_that_waits_for_pages() -> None:
    scheduler, cache = _scheduler(pages=4)
    first, big, small = _sequence("first", [1] * 8), _sequence("big", [2] * 12), _sequence("small", [3])
    for sequence in (first, big, small):
        scheduler.add(sequence)
    assert [s.id for s in scheduler.admit()] == ["first"]
    scheduler.chunks()
    assert scheduler.admit() == []
    scheduler.remove(first)
    assert [s.id for s in scheduler.admit()] == ["big"]
    cache.check_integrity()


def test_admission_stops_when_slots_are_taken() -> None:
    scheduler, _ = _scheduler(slots=2)
    for n, name in enumerate("abc"):
        scheduler.add(_sequence(name, [n]))
    assert [s.id for s in scheduler.admit()] == ["a", "b"]
    assert (scheduler.running, scheduler.waiting) == (2, 1)


def test_earlier_lanes_are_admitted_first_and_arrival_decides_within_a_lane() -> None:
    scheduler, cache = _scheduler(slots=1)
    lanes = {"a": 2, "b": 2, "c": 0, "d": 1, "e": 0}
    waiting = {name: _sequence(name, [n], lane=lane) for n, (name, lane) in enumerate(lanes.items())}
    for sequence in waiting.values():
        scheduler.add(sequence)
    scheduler.remove(waiting["b"])
    order = []
    while admitted := scheduler.admit():
        order += [sequence.id for sequence in admitted]
        scheduler.remove(admitted[0])
    assert order == ["c", "e", "d", "a"]
    cache.check_integrity()


def test_twins_in_one_step_compute_their_prefix_once() -> None:
    scheduler, cache = _scheduler(chunk=32)
    prompt = list(range(10))
    scheduler.add(_sequence("one", prompt))
    scheduler.add(_sequence("two", prompt))
    assert _cut(scheduler) == [("one", 0, 10), ("two", 8, 2)]
    cache.check_integrity()


def test_prefill_stops_before_an_image_that_is_not_encoded_and_others_go_on() -> None:
    scheduler, _ = _scheduler(chunk=32)
    scheduler.add(_sequence("picture", [1, 2, 100, 101, 102, 103, 3], image=b"p"))
    scheduler.add(_sequence("text", [7, 8]))
    assert _cut(scheduler) == [("picture", 0, 2), ("text", 0, 2)]
    assert _cut(scheduler) == []


@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_removal_at_any_stage_frees_slot_and_pages(steps: int) -> None:
    scheduler, cache = _scheduler(slots=1)
    sequence = _sequence("a", list(range(14)))
    scheduler.add(sequence)
    for _ in range(steps):
        _cut(scheduler)
    scheduler.remove(sequence)
    assert (scheduler.running, scheduler.waiting) == (0, 0)
    assert cache.pages_free == 64
    scheduler.add(_sequence("b", [1]))
    assert [s.id for s in scheduler.admit()] == ["b"]
    cache.check_integrity()


def test_decoding_takes_a_page_only_when_the_last_one_is_full() -> None:
    scheduler, cache = _scheduler()
    sequence = _sequence("a", [1, 2, 3], max_tokens=8)
    scheduler.add(sequence)
    _cut(scheduler)
    taken = []
    for _ in range(6):
        sequence.append(9)
        taken.append(scheduler.grow(sequence) is not None)
        scheduler.advance(sequence)
        cache.check_integrity()
    assert taken == [False, True, False, False, False, True]
