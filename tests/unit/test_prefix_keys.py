import pytest

from worker.engine.torch.prefix_keys import PrefixKeys

pytestmark = pytest.mark.unit


def test_keys_of_equal_tokens_after_different_tokens_differ() -> None:
    one, two = PrefixKeys([1, 2, 5, 6], 2, 0), PrefixKeys([3, 2, 5, 6], 2, 0)
    assert one.key(1) != two.key(1)
    assert one.key(0) == PrefixKeys([1, 2, 9], 2, 0).key(0)


def test_keys_of_another_picture_at_the_same_place_differ() -> None:
    ids = [1, -1, -2, 2]
    cat, dog = (PrefixKeys(ids, 4, 0, {0: digest * 32}) for digest in (b"c", b"d"))
    assert cat.key(0) != dog.key(0)


def test_keys_of_pages_after_a_picture_depend_on_it() -> None:
    ids = [1, -1, 2, 3]
    cat, dog = (PrefixKeys(ids, 2, 0, {0: digest * 32}) for digest in (b"c", b"d"))
    assert cat.key(1) != dog.key(1)


def test_a_page_not_yet_full_has_no_key() -> None:
    with pytest.raises(IndexError, match="page 1 has 1 of 2"):
        PrefixKeys([1, 2, 3], 2, 0).key(1)
