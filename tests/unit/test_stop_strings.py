"""Stop strings across pieces; whatever the pieces, the result is that of the whole text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.stop_strings import StopStrings

pytestmark = pytest.mark.unit


def released(stops, pieces):
    watch = StopStrings(stops)
    texts = [watch.push(piece) for piece in pieces]
    return texts, watch


def test_stop_string_over_three_pieces_cuts_the_text_before_it():
    texts, watch = released(["END"], ["one E", "N", "D two", " three"])
    assert texts == ["one ", "", "", ""]
    assert watch.hit == "END"


def test_possible_beginning_is_held_back_and_released_when_it_is_none():
    texts, watch = released(["END"], ["one E", "N", "x"])
    assert texts == ["one ", "", "ENx"]
    assert watch.hit is None


def test_flush_releases_what_was_held_back():
    _, watch = released(["\n\n"], ["line\n"])
    assert watch.flush() == "\n"
    assert watch.flush() == ""


def test_stop_string_that_is_complete_first_counts():
    texts, watch = released(["world", "lo w"], ["hello world"])
    assert texts == ["hel"]
    assert watch.hit == "lo w"


def test_without_stop_strings_nothing_is_held_back():
    assert released([], ["a", "b"])[0] == ["a", "b"]


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=3),
    pieces=st.lists(st.text("abc", max_size=4), max_size=12),
)
def test_result_depends_on_the_text_alone(stops, pieces):
    texts, watch = released(stops, pieces)
    at_once, watch_at_once = released(stops, ["".join(pieces)])
    assert watch.hit == watch_at_once.hit
    assert "".join(texts) + watch.flush() == "".join(at_once) + watch_at_once.flush()
    if watch.hit is None:
        assert not any(stop in "".join(pieces) for stop in stops)
