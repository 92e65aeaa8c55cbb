"""Jobs that share the engine: one batch that changes at token borders, and nobody's answer depends on it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.bodies import chat
from tests.acceptance.system import System
from tests.fixtures.pictures import data_url, picture

pytestmark = [pytest.mark.acceptance, pytest.mark.every_backend]
COLOURS = ("steelblue", "seagreen", "gold", "black")


@pytest.mark.timeout(400)
def test_32_jobs_together_share_one_batch_and_each_answer_is_as_alone(shared: System) -> None:
    bodies = [
        chat(
            f"What do you see, number {i}?",
            *(data_url(picture(200 + 10 * i, 150, colour)) for colour in COLOURS[: i % 3]),
            max_tokens=100 + 4 * i,
        )
        for i in range(32)
    ]
    alone = [shared.wait(shared.submit(body))["output"] for body in bodies]
    before = shared.statistics()["steps_by_batch"]
    with ThreadPoolExecutor(16) as clients:
        # The longest first: then the first one still runs when the last one comes, however slowly they are taken in.
        jobs = list(clients.map(shared.submit, reversed(bodies)))[::-1]
    together = [shared.wait(job)["output"] for job in jobs]
    sizes = steps_since(shared, before)
    assert together == alone
    assert len(set(together)) > 16, "the answers are too much alike to prove anything"
    assert max(sizes) >= 24, sizes
    assert len(sizes) >= 12, f"sequences should join and leave one by one: {sizes}"


def steps_since(system: System, before: dict[str, int]) -> dict[int, int]:
    """Decode batch size → steps that ran with it since `before`."""
    now = system.statistics()["steps_by_batch"]
    grown = {int(size): count - before.get(size, 0) for size, count in now.items()}
    return {size: count for size, count in grown.items() if count > 0}
