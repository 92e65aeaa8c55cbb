import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from worker.engine.torch.block_cache import BlockCache, IntegrityError, Lease
from worker.engine.torch.prefix_keys import PrefixKeys

pytestmark = pytest.mark.unit


def _run(cache: BlockCache, ids: list[int], room: int, salt: int = 0) -> tuple[Lease, PrefixKeys] | None:
    """Opens a lease and fills it with `ids` as a prefill would."""
    keys = PrefixKeys(ids, cache.page_size, salt)
    lease = cache.open(keys, (len(ids) - 1) // cache.page_size, room)
    if lease is None:
        return None
    cache.grow(lease, len(ids))
    for index in range(lease.shared, len(ids) // cache.page_size):
        cache.register(lease, index, keys.key(index))
    return lease, keys


def test_a_prefix_seen_before_shares_its_full_pages() -> None:
    cache = BlockCache(pages=8, page_size=4)
    first = _run(cache, list(range(10)), 12)
    second = _run(cache, [*range(8), 77, 78], 12)
    assert first and second
    assert second[0].shared == 2
    assert second[0].pages[:2] == first[0].pages[:2]
    assert second[0].pages[2] != first[0].pages[2]
    cache.check_integrity()


def test_a_prompt_of_whole_pages_leaves_its_last_page_to_compute() -> None:
    cache = BlockCache(pages=8, page_size=4)
    _run(cache, list(range(8)), 8)
    again = _run(cache, list(range(8)), 8)
    assert again and again[0].shared == 1


def test_a_released_prefix_stays_until_its_page_is_needed_deepest_first() -> None:
    cache = BlockCache(pages=4, page_size=2)
    held = _run(cache, [1, 2, 3, 4, 5, 6, 7, 8], 8)
    assert held
    cache.release(held[0])
    assert (cache.pages_free, cache.pages_cached) == (0, 4)
    _run(cache, [9, 9, 9, 9], 4)
    keys = PrefixKeys([1, 2, 3, 4, 5, 6, 7, 8], 2, 0)
    found = cache.open(keys, 4, 4)
    assert found and found.shared == 2
    cache.check_integrity()


def test_another_salt_shares_nothing() -> None:
    cache = BlockCache(pages=8, page_size=4)
    _run(cache, list(range(10)), 12, salt=1)
    other = _run(cache, list(range(10)), 12, salt=2)
    assert other and other[0].shared == 0


def test_a_lease_is_refused_while_others_were_promised_the_room() -> None:
    cache = BlockCache(pages=4, page_size=4)
    first = cache.open(PrefixKeys([], 4, 0), 0, 12)
    assert first
    assert cache.open(PrefixKeys([], 4, 0), 0, 8) is None
    cache.release(first)
    assert cache.open(PrefixKeys([], 4, 0), 0, 8)


def test_growing_beyond_the_promise_is_a_bug_that_raises() -> None:
    cache = BlockCache(pages=4, page_size=4)
    lease = cache.open(PrefixKeys([], 4, 0), 0, 4)
    assert lease
    with pytest.raises(IntegrityError, match="5 tokens"):
        cache.grow(lease, 5)


def test_pages_of_a_lease_not_kept_are_forgotten_and_returned_for_scrubbing() -> None:
    cache = BlockCache(pages=4, page_size=4)
    held = _run(cache, list(range(10)), 12)
    assert held
    pages = set(held[0].pages)
    assert set(cache.release(held[0], keep=False)) == pages
    again = _run(cache, list(range(10)), 12)
    assert again and again[0].shared == 0


def test_a_cached_prefix_survives_a_user_that_is_not_kept() -> None:
    cache = BlockCache(pages=8, page_size=4)
    good = _run(cache, list(range(9)), 9)
    assert good
    cache.release(good[0])
    bad = _run(cache, [*range(8), 50, 51, 52, 53, 54], 13)
    assert bad
    own = bad[0].pages[2:]
    assert sorted(cache.release(bad[0], keep=False)) == sorted(own)
    again = _run(cache, list(range(9)), 9)
    assert again and again[0].shared == 2
    cache.check_integrity()


def test_integrity_check_sees_a_page_that_has_two_owners() -> None:
    cache = BlockCache(pages=4, page_size=4)
    lease = cache.open(PrefixKeys([], 4, 0), 0, 8)
    assert lease
    cache.grow(lease, 8)
    lease.pages[1] = lease.pages[0]
    with pytest.raises(IntegrityError, match="twice"):
        cache.check_integrity()


class CacheMachine(RuleBasedStateMachine):
    """Leases over few pages and few different tokens, so that prefixes collide and room runs out."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = BlockCache(pages=7, page_size=2)
        self.live: list[tuple[Lease, PrefixKeys, list[int], int]] = []

    @rule(ids=st.lists(st.integers(0, 1), min_size=1, max_size=10), extra=st.integers(0, 5))
    def open(self, ids: list[int], extra: int) -> None:
        room = len(ids) + extra
        opened = _run(self.cache, ids, room)
        if opened:
            self.live.append((*opened, ids, room))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), token=st.integers(0, 1))
    def append(self, data: st.DataObject, token: int) -> None:
        lease, keys, ids, room = data.draw(st.sampled_from(self.live))
        if len(ids) < room:
            ids.append(token)
            self.cache.grow(lease, len(ids))
            if len(ids) % 2 == 0:
                self.cache.register(lease, len(ids) // 2 - 1, keys.key(len(ids) // 2 - 1))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), keep=st.booleans())
    def release(self, data: st.DataObject, keep: bool) -> None:
        index = data.draw(st.integers(0, len(self.live) - 1))
        self.cache.release(self.live.pop(index)[0], keep)

    @invariant()
    def accounts_agree(self) -> None:
        self.cache.check_integrity()

    @invariant()
    def shared_pages_hold_equal_prefixes(self) -> None:
        content: dict[int, list[int]] = {}
        for lease, _, ids, _ in self.live:
            for index, page in enumerate(lease.pages):
                prefix = ids[: (index + 1) * 2]
                assert content.setdefault(page, prefix) == prefix


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
