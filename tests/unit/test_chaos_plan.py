"""A seed of the chaos runs replays, and their reports become the page's tables."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.client import Client
from tests.chaos.cluster import Times
from tests.chaos.entry import Report, options, reported
from tests.chaos.faults import FAULTS, bar_s, schedule
from tests.chaos.load import WEIGHTS, turns
from tests.chaos.mutants import MUTANTS, Mutant, mutated
from tests.chaos.operations import OPERATIONS
from tests.chaos.requests import all_requests
from tests.chaos.run import Result
from tests.chaos.table import put_in, tables
from tests.chaos.timeline import EXPLAINED

pytestmark = pytest.mark.unit

CHAOS: dict[str, Any] = {
    "kind": "chaos",
    "seed": 1,
    "device": "cpu",
    "machine": {"cores": 2},
    "network": "network namespace",
    "findings": [],
    "faults": ["worker killed", "worker killed", "worker killed", "engine killed", "clock set back", "API killed"],
    "recoveries": {"worker killed": [9.0, 11.0, 16.0], "engine killed": [4.0]},
    "bars": {"worker killed": [15.0, 15.0, 15.0], "engine killed": [5.5]},
    "not_here": {"clock set back": "there is no C compiler here"},
    "engine_start_s": 3.5,
    "cancelled_s": [0.1, 0.2],
    "continued": {"jobs": 4, "with pictures": 2},
    "lease_s": 10.0,
    "operations": 100,
    "retries": 20,
}


def test_a_seed_gives_the_same_faults_operations_and_keys_again() -> None:
    assert schedule(7, 60) == schedule(7, 60) != schedule(8, 60)
    requests = all_requests()
    made = [turns(7, 50, requests, "http://hook") for _ in range(2)]
    assert made[0] == made[1] != turns(8, 50, requests, "http://hook")
    keys = [Client([], random.Random(turn.seed), lambda: False).key() for turn in made[0]]
    assert keys == [Client([], random.Random(turn.seed), lambda: False).key() for turn in made[1]]
    assert len(set(keys)) == len(keys)


def test_every_fault_strikes_once_before_any_strikes_again() -> None:
    assert sorted(schedule(3, len(FAULTS))) == sorted(FAULTS)


def test_what_is_named_elsewhere_is_there() -> None:
    assert set(WEIGHTS) == set(OPERATIONS)
    named = {fault for faults in EXPLAINED.values() for fault in faults} | {f for m in MUTANTS for f in m.faults}
    assert named <= set(FAULTS)


def test_each_promise_of_time_has_its_faults() -> None:
    times = Times(lease_s=10, engine_silence_s=8)
    assert bar_s("worker killed", times, 3.5) == 15
    assert bar_s("engine killed", times, 3.5) == 5.5
    assert bar_s("engine hangs", times, 3.5) == 13.5
    assert bar_s("Redis restarted empty", times, 3.5) == bar_s("PostgreSQL killed", times, 3.5) == 5
    assert bar_s("API killed", times, 3.5) is None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_fits_the_code_and_is_code_itself(mutant: Mutant) -> None:
    compile(mutated(mutant), mutant.file, "exec")


def test_reports_become_tables_in_their_places_and_leave_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- chaos -->\nold\n<!-- /chaos -->\n<!-- soak -->\nkept\n<!-- /soak -->\n")
    report, broken = tmp_path / "1.json", tmp_path / "2.json"
    report.write_text(json.dumps(CHAOS))
    broken.write_text(json.dumps({"kind": "chaos", "seed": 2, "findings": ["the harness broke: OSError"]}))
    put_in(page, tables([report, broken]))
    text = page.read_text()
    assert "| worker killed | 3 | 11.0 | 16.0 | 15.0 | 1 late |" in text
    assert "| engine killed | 1 | 4.0 | 4.0 | 5.5 | kept |" in text
    assert "| API killed | 1 | – | – | – | |" in text and "| clock set back |" not in text
    assert "Not tried on every machine: clock set back (there is no C compiler here)." in text
    assert "1 run broke off" in text and "old" not in text and "kept" in text


def test_a_run_that_finds_nothing_keeps_no_folder_and_one_that_breaks_says_so(tmp_path: Path) -> None:
    asked = options("").parse_args(["--seed", "4", "--report", str(tmp_path / "new" / "report.json")])
    with reported(Report("chaos", values={"operations": 3}), asked) as clean:
        (clean / "api.log").write_text("log")
    told = json.loads(asked.report.read_text())
    assert (told["kind"], told["seed"], told["findings"], told["operations"]) == ("chaos", 4, [], 3)
    assert not clean.exists()
    with reported(Report("chaos"), asked) as broken:
        raise OSError("no disk")
    assert json.loads(asked.report.read_text())["findings"] == ["the harness broke: OSError: no disk"]
    broken.rmdir()


def test_a_page_without_a_place_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing")
    with pytest.raises(ValueError, match="no marks <!-- chaos -->"):
        put_in(page, {"chaos": "table"})


def test_recovery_later_than_promised_is_told_and_one_without_a_promise_is_not() -> None:
    recoveries = {"worker killed": [9.0, 15.5, 15.0], "poisonous job": [60.0], "engine killed": [4.0, 4.0]}
    result = Result(recoveries=recoveries, bars={"worker killed": [15.0, 15.0, 15.0], "engine killed": [5.5, 3.9]})
    assert result.late() == [
        "worker killed: recovered in 15.5 s, later than 15.0 s",
        "engine killed: recovered in 4.0 s, later than 3.9 s",
    ]
