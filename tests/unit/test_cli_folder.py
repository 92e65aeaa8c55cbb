"""Who runs a folder, and what it tells the other commands."""

from pathlib import Path

import pytest

from cli.errors import CommandError
from cli.folder import Folder, Running

pytestmark = pytest.mark.unit

RUNNING = Running(1, "http://127.0.0.1:1", "http://127.0.0.1:2", "secret", "postgresql://", "unix://", ("m",), {"a": 3})


def test_folder_that_nobody_runs_is_not_busy_and_not_made(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "x")
    assert not folder.busy()
    assert folder.running() is None
    assert folder.holder() is None
    assert not folder.stop(within_s=0)
    assert not (tmp_path / "x").exists()


def test_folder_that_is_held_refuses_a_second_holder_by_name(tmp_path: Path) -> None:
    with Folder(tmp_path).held():
        Folder(tmp_path).announce(RUNNING)
        with (
            pytest.raises(CommandError, match=r"already runs in .* at http://127.0.0.1:1") as caught,
            Folder(tmp_path).held(),
        ):
            pass
        assert "vlmq down" in caught.value.hint


def test_folder_state_is_told_while_held_and_forgotten_after(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with folder.held():
        assert folder.running() is None
        folder.announce(RUNNING)
        assert Folder(tmp_path).running() == RUNNING
    assert folder.running() is None


def test_folder_state_of_a_crashed_holder_is_not_believed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    with folder.held():
        folder.announce(RUNNING)
        left = (tmp_path / "up.json").read_bytes()
    (tmp_path / "up.json").write_bytes(left)
    assert folder.running() is None


def test_folder_secret_is_made_once_and_private(tmp_path: Path) -> None:
    secret = Folder(tmp_path).secret("flower")
    assert Folder(tmp_path).secret("flower") == secret
    assert len(secret) >= 20
    assert (tmp_path / "flower.password").stat().st_mode & 0o077 == 0


def test_folder_state_is_private(tmp_path: Path) -> None:
    with Folder(tmp_path).held():
        Folder(tmp_path).announce(RUNNING)
        assert (tmp_path / "up.json").stat().st_mode & 0o077 == 0
