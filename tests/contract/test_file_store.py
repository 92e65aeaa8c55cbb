"""What every FileStore does."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from jobs.database import Database
from jobs.errors import FileNotFound
from jobs.file_store import PostgresFileStore
from jobs.files import FileFilter, FileStore, NewFile, Purpose
from jobs.ids import new_id
from tests.fakes.files import FakeFileStore

pytestmark = pytest.mark.contract


@dataclass(frozen=True)
class Timed:
    store: FileStore
    pass_time: Callable[[float], None]


@pytest.fixture(params=["postgres", "fake"])
def timed(request: pytest.FixtureRequest) -> Iterator[Timed]:
    if request.param == "fake":
        passed = [timedelta()]

        def pass_time(seconds: float) -> None:
            passed[0] += timedelta(seconds=seconds)

        yield Timed(FakeFileStore(lambda: datetime.now(UTC) + passed[0]), pass_time)
        return
    url = request.getfixturevalue("database_url")
    database = Database(url)

    def make_older(seconds: float) -> None:
        with psycopg.connect(url) as connection:
            age = timedelta(seconds=seconds)
            connection.execute(
                "UPDATE files SET created_at = created_at - %s, expires_at = expires_at - %s", [age, age]
            )

    yield Timed(PostgresFileStore(database), make_older)
    database.close()


@pytest.fixture
def store(timed: Timed) -> FileStore:
    return timed.store


def new_file(tenant: str = "default", purpose: Purpose = Purpose.VISION, lifetime_s: int | None = None) -> NewFile:
    return NewFile(new_id("file-"), tenant, purpose, "cat.png", 3, "a" * 64, lifetime_s)


def test_a_file_is_read_as_it_was_recorded(store: FileStore) -> None:
    file = store.insert(new_file(lifetime_s=3600))
    assert store.get(file.id, "default") == file
    assert (file.purpose, file.filename, file.bytes, file.digest) == (Purpose.VISION, "cat.png", 3, "a" * 64)
    assert file.expires_at is not None
    assert file.expires_at - file.created_at == timedelta(hours=1)
    assert store.insert(new_file()).expires_at is None


def test_another_tenants_file_is_not_found(store: FileStore) -> None:
    file = store.insert(new_file("acme"))
    for attempt in (store.get, store.delete):
        with pytest.raises(FileNotFound):
            attempt(file.id, "default")
    with pytest.raises(FileNotFound):
        store.page("default", FileFilter(after=file.id))
    assert store.page("default", FileFilter()) == []
    assert store.get(file.id, "acme") == file


def test_a_deleted_file_is_not_found(store: FileStore) -> None:
    file = store.insert(new_file())
    store.delete(file.id, "default")
    for attempt in (store.get, store.delete):
        with pytest.raises(FileNotFound, match=file.id):
            attempt(file.id, "default")


def test_pages_go_on_behind_a_file_in_both_orders(store: FileStore) -> None:
    ids = [store.insert(new_file()).id for _ in range(5)]
    assert [f.id for f in store.page("default", FileFilter())] == ids[::-1]
    assert [f.id for f in store.page("default", FileFilter(after=ids[3], limit=2))] == [ids[2], ids[1]]
    assert [f.id for f in store.page("default", FileFilter(after=ids[3], ascending=True))] == [ids[4]]
    with pytest.raises(FileNotFound):
        store.page("default", FileFilter(after="file-unknown"))


def test_a_page_may_be_of_one_purpose(store: FileStore) -> None:
    store.insert(new_file())
    batch = store.insert(new_file(purpose=Purpose.BATCH))
    assert store.page("default", FileFilter(purpose=Purpose.BATCH)) == [batch]


def test_a_file_past_its_time_is_gone_and_then_expires(timed: Timed) -> None:
    file, kept = timed.store.insert(new_file(lifetime_s=3600)), timed.store.insert(new_file())
    assert timed.store.expire() == []
    timed.pass_time(3601)
    with pytest.raises(FileNotFound):
        timed.store.get(file.id, "default")
    with pytest.raises(FileNotFound):
        timed.store.delete(file.id, "default")
    assert timed.store.page("default", FileFilter()) == [timed.store.get(kept.id, "default")]
    assert timed.store.expire() == [file.id]
    assert timed.store.expire() == []
