"""What looking up the hosts of webhooks may cost the process that does it."""

import threading

from jobs.network import HostRule
from jobs.webhooks.destination import MOST_LOOK_UPS, DestinationRefused, Destinations
from tests.fixtures.eventually import eventually


def test_hosts_that_are_slow_to_find_take_few_threads_and_keep_nobody_waiting() -> None:
    asked: list[str] = []
    found = threading.Event()

    def slow(host: str, port: int) -> list[str]:
        asked.append(host)
        found.wait(60)
        return ["10.0.0.1"]

    destinations = Destinations(HostRule.of(("443",), ()), slow)

    def check(url: str) -> bool:
        """Whether it was looked up and refused."""
        try:
            destinations.check(url)
        except DestinationRefused:
            return True
        return False

    waiting = [threading.Thread(target=check, args=(f"https://host{n}.example/",)) for n in range(MOST_LOOK_UPS)]
    for thread in waiting:
        thread.start()
    eventually("all that may be looked up are", lambda: len(asked) == MOST_LOOK_UPS)
    for n in range(20):
        assert not check(f"https://more{n}.example/")
    for thread in waiting:
        thread.join()
    assert not check("https://more.example/"), "who gave up waiting has not ended the look-up"
    assert len(asked) == MOST_LOOK_UPS
    found.set()
    eventually("hosts are looked up again", lambda: check("https://private.example/"))
