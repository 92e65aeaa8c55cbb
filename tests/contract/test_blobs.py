"""What every Blobs does."""

import hashlib
import io
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import fsspec
import pytest

from jobs.blobs import PIECE_BYTES, FolderBlobs, FsspecBlobs
from jobs.errors import BlobNotFound, BlobsUnavailable
from jobs.ports import Blobs
from tests.fakes.blobs import FakeBlobs

pytestmark = pytest.mark.contract

DATA = bytes(range(256)) * 10
DIGEST = hashlib.sha256(DATA).hexdigest()


@pytest.fixture(params=["folder", "fsspec file", "fsspec memory", "fake"])
def blobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Blobs]:
    match request.param:
        case "folder":
            yield FolderBlobs(tmp_path / "blobs")
        case "fsspec file":
            yield FsspecBlobs(f"file://{tmp_path}/blobs")
        case "fsspec memory":
            yield FsspecBlobs("memory://blobs")
            fsspec.filesystem("memory").rm("/blobs", recursive=True)
        case _:
            yield FakeBlobs()


def test_put_stores_under_the_sha256_of_the_content(blobs: Blobs) -> None:
    assert blobs.put(DATA) == DIGEST
    assert blobs.get(DIGEST) == DATA
    assert blobs.put(b"") == hashlib.sha256(b"").hexdigest()


def test_put_file_stores_what_put_stores(blobs: Blobs) -> None:
    large = DATA * (PIECE_BYTES // len(DATA) * 2 + 3)
    file = io.BytesIO(large)
    file.seek(7)
    digest = blobs.put_file(file)
    assert digest == blobs.put_file(file) == hashlib.sha256(large).hexdigest()
    assert blobs.get(digest) == large
    assert blobs.put_file(io.BytesIO(DATA)) == blobs.put(DATA)
    assert blobs.get(blobs.put_file(io.BytesIO())) == b""


def test_open_reads_from_anywhere_in_pieces_and_lines(blobs: Blobs) -> None:
    digest = blobs.put(b"first line\nsecond line\nlast" * 3)
    with blobs.open(digest) as file:
        assert file.readline() == b"first line\n"
        file.seek(11)
        assert file.readline(6) == b"second"
        assert file.read() == (b"first line\nsecond line\nlast" * 3)[17:]
        assert file.read() == b""


def test_open_of_an_unknown_digest_raises(blobs: Blobs) -> None:
    blobs.put(DATA)
    for digest in ("0" * 64, "../../etc/passwd"):
        with pytest.raises(BlobNotFound):
            blobs.open(digest)


def test_a_file_that_breaks_while_it_is_put_leaves_no_blob(tmp_path: Path) -> None:
    class Broken(io.BytesIO):
        reads = 0

        def read(self, size: int | None = -1, /) -> bytes:
            Broken.reads += 1
            if Broken.reads > 6:
                raise OSError("the disk has gone")
            return super().read(size)

    for blobs in (FolderBlobs(tmp_path / "a"), FsspecBlobs(f"file://{tmp_path}/b")):
        Broken.reads = 0
        with pytest.raises(BlobsUnavailable, match="the disk has gone"):
            blobs.put_file(Broken(bytes(4 * PIECE_BYTES)))
        assert blobs.older_than(-3600) == []


def test_put_again_changes_nothing(blobs: Blobs) -> None:
    assert blobs.put(DATA) == blobs.put(DATA) == DIGEST
    assert blobs.get(DIGEST) == DATA


def test_get_of_an_unknown_digest_raises(blobs: Blobs) -> None:
    blobs.put(DATA)
    with pytest.raises(BlobNotFound):
        blobs.get("0" * 64)


@pytest.mark.parametrize(
    "digest", ["../../etc/passwd", "/etc/passwd", "", "a" * 63, "A" * 64, "a" * 63 + "\n", "a/" * 32]
)
def test_what_is_no_digest_is_not_found_and_reaches_no_file(blobs: Blobs, digest: str) -> None:
    blobs.put(DATA)
    with pytest.raises(BlobNotFound):
        blobs.get(digest)
    with pytest.raises(BlobNotFound):
        blobs.delete(digest)


def test_delete_forgets_the_bytes_and_may_be_repeated(blobs: Blobs) -> None:
    blobs.put(DATA)
    blobs.delete(DIGEST)
    blobs.delete(DIGEST)
    with pytest.raises(BlobNotFound):
        blobs.get(DIGEST)


def test_older_than_lists_blobs_by_age_up_to_the_limit(blobs: Blobs) -> None:
    digests = {blobs.put(bytes([number])) for number in range(5)}
    assert blobs.older_than(3600) == []
    assert set(blobs.older_than(-3600)) == digests
    assert len(blobs.older_than(-3600, limit=3)) == 3


def test_put_again_makes_a_blob_young(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put(DATA)
    long_ago = time.time() - 7200
    os.utime(tmp_path / DIGEST[:2] / DIGEST, (long_ago, long_ago))
    assert blobs.older_than(3600) == [DIGEST]
    blobs.put(DATA)
    assert blobs.older_than(3600) == []


def test_a_write_that_did_not_end_leaves_no_blob(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    blobs.put(DATA)
    (tmp_path / DIGEST[:2] / ".unfinished").write_bytes(DATA[:10])
    assert blobs.older_than(-3600) == [DIGEST]


def test_a_folder_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    (tmp_path / "blobs").write_text("a file where the folder should be")
    for blobs in (FolderBlobs(tmp_path / "blobs"), FsspecBlobs(f"file://{tmp_path}/blobs")):
        with pytest.raises(BlobsUnavailable):
            blobs.put(DATA)


def _age(blobs: Blobs, seconds: float) -> None:
    """Makes all that is there older."""
    match blobs:
        case FakeBlobs():
            blobs._blobs = {digest: (at - seconds, data) for digest, (at, data) in blobs._blobs.items()}
        case FolderBlobs():
            for path in blobs._folder.glob("??/*"):
                os.utime(path, (time.time() - seconds,) * 2)
        case FsspecBlobs() if "memory" in str(type(blobs._files)).lower():
            for file in blobs._files.store.values():
                file.modified -= timedelta(seconds=seconds)
        case FsspecBlobs():
            for path in blobs._files.find(blobs._root):
                os.utime(path, (time.time() - seconds,) * 2)


def test_delete_by_age_leaves_what_was_put_or_touched_since(blobs: Blobs) -> None:
    old, put, touched = blobs.put(b"old"), blobs.put(b"put again"), blobs.put(b"touched")
    _age(blobs, 100)
    assert set(blobs.older_than(50)) == {old, put, touched}
    blobs.put(b"put again")
    blobs.touch(touched)
    for digest in (old, put, touched):
        blobs.delete(digest, 50)
    assert (blobs.get(put), blobs.get(touched)) == (b"put again", b"touched")
    with pytest.raises(BlobNotFound):
        blobs.get(old)
    blobs.delete(put)
    with pytest.raises(BlobNotFound):
        blobs.touch(put)


def test_bytes_put_while_a_collector_deletes_them_again_and_again_are_always_there(tmp_path: Path) -> None:
    blobs, stop = FolderBlobs(tmp_path), threading.Event()
    digest = blobs.put(DATA)
    deletions: list[None] = []

    def collect() -> None:
        while not stop.is_set():
            # What it does after it has found the bytes old and without an owner: they are young again by now, or not.
            blobs.delete(digest, 0.5)
            deletions.append(None)
            time.sleep(0.0005)

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        while len(deletions) < 60:
            if len(deletions) % 2:
                with suppress(FileNotFoundError):
                    os.utime(tmp_path / digest[:2] / digest, (time.time() - 100,) * 2)
            blobs.put(DATA)
            blobs.touch(digest)
    finally:
        stop.set()
        collector.join()
    assert blobs.get(digest) == DATA
    assert [path.name for path in tmp_path.glob("??/*")] == [digest]


def test_what_a_killed_process_left_in_the_folder_is_tidied_up(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    path = tmp_path / DIGEST[:2] / DIGEST
    blobs.put(DATA)
    path.rename(path.with_name(f".{DIGEST}-{'0' * 32}"))
    half, young = path.with_name(".tmphalf"), path.with_name(".tmpyoung")
    half.write_bytes(b"half")
    young.write_bytes(b"half")
    os.utime(half, (time.time() - 2 * 86400,) * 2)
    blobs.older_than(0)
    assert blobs.get(DIGEST) == DATA
    assert (half.exists(), young.exists()) == (False, True)
