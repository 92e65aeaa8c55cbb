"""When a worker's silence tells anything: time is what the test says."""

from collections.abc import Iterable

import pytest

from worker.maintenance import Contact

pytestmark = pytest.mark.unit

LEASE_S = 10.0


def judged(pauses: Iterable[float]) -> list[bool]:
    """What a contact says that is made anew after each of these pauses."""
    now = 1000.0
    contact = Contact(LEASE_S, lambda: now)
    assert contact.made()
    said = []
    for pause in pauses:
        now += pause
        said.append(contact.made())
    return said


def test_workers_are_judged_while_contact_is_made():
    assert judged([1.0] * 30) == [True] * 30


def test_after_a_break_workers_have_a_lease_to_be_heard():
    assert judged([12.0, *[1.0] * 10]) == [False] * 10 + [True]


def test_after_another_break_they_have_another_lease():
    assert judged([12.0, *[1.0] * 5, 60.0, *[1.0] * 10]) == [False] * 16 + [True]


@pytest.mark.parametrize("pause", [6.0, 7.0, 11.0, 30.0])
def test_rounds_that_always_take_long_keep_no_dead_worker_alive(pause):
    """With a frozen Redis, say: the sweeper must work when the queue does not."""
    said = judged([pause] * 24)
    assert not said[0]
    assert sum(said) >= 3
