import pytest
import torch

from worker.engine.torch.embedding_cache import EmbeddingCache

pytestmark = pytest.mark.unit


def _embedding(rows: int) -> torch.Tensor:
    return torch.ones(rows, 4)  # 16 bytes a row


def _key(name: str) -> tuple[bytes, int, int]:
    return name.encode() * 32, 1, 0


def test_the_least_recently_used_goes_when_the_bytes_are_spent() -> None:
    cache = EmbeddingCache(limit_bytes=48)
    for name in "abc":
        cache.put(_key(name), _embedding(1))
    assert cache.get(_key("a")) is not None
    cache.put(_key("d"), _embedding(1))
    assert cache.get(_key("b")) is None
    assert all(cache.get(_key(name)) is not None for name in "acd")
    assert cache.used_bytes == 48


def test_a_large_entry_drops_several_and_one_beyond_the_limit_none() -> None:
    cache = EmbeddingCache(limit_bytes=48)
    for name in "abc":
        cache.put(_key(name), _embedding(1))
    cache.put(_key("huge"), _embedding(4))
    assert cache.get(_key("huge")) is None and cache.used_bytes == 48
    cache.put(_key("large"), _embedding(2))
    assert [cache.get(_key(name)) is not None for name in ("a", "b", "c", "large")] == [False, False, True, True]


def test_storing_again_replaces_and_counts_once() -> None:
    cache = EmbeddingCache(limit_bytes=100)
    cache.put(_key("a"), _embedding(2))
    cache.put(_key("a"), _embedding(1))
    assert cache.used_bytes == 16


def test_the_same_digest_with_another_number_of_tiles_is_another_image() -> None:
    cache = EmbeddingCache(limit_bytes=100)
    cache.put((b"d" * 32, 1, 0), _embedding(1))
    assert cache.get((b"d" * 32, 2, 0)) is None
