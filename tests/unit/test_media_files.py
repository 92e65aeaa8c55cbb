"""`file://` images: only regular files below the allowed folders."""

import os

import pytest

from worker.media.errors import MediaRefused
from worker.media.files import FileRoots

pytestmark = pytest.mark.unit


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "inner").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"picture")
    (folder / "inner" / "ü b.png").write_bytes(b"inner picture")
    (tmp_path / "secret").write_bytes(b"secret")
    return folder


def refused(roots, url):
    with pytest.raises(MediaRefused) as caught:
        roots.read(url)
    return caught.value.code


def test_file_below_a_root_is_read(root):
    roots = FileRoots([str(root)], 100)
    assert roots.read(f"file://{root}/a.png") == b"picture"
    assert roots.read(f"file://localhost{root}/inner/%C3%BC%20b.png") == b"inner picture"


def test_link_that_stays_below_a_root_is_followed(root):
    (root / "link.png").symlink_to("inner/ü b.png")
    assert FileRoots([str(root)], 100).read(f"file://{root}/link.png") == b"inner picture"


def test_root_that_is_a_link_itself_works(root, tmp_path):
    (tmp_path / "alias").symlink_to(root)
    assert FileRoots([str(tmp_path / "alias")], 100).read(f"file://{tmp_path}/alias/a.png") == b"picture"


def test_file_outside_the_roots_is_refused_whichever_way_it_is_named(root, tmp_path):
    (root / "out.png").symlink_to("../secret")
    (root / "up").symlink_to("..")
    roots = FileRoots([str(root)], 100)
    names = ["../secret", "%2e%2e/secret", "inner/../../secret", "out.png", "up/secret", "up/pictures/up/secret"]
    urls = [f"file://{root}/{name}" for name in names]
    assert {refused(roots, url) for url in [*urls, "file:///etc/passwd", f"file://{tmp_path}/secret"]} == {
        "invalid_image_url"
    }


def test_sibling_whose_name_begins_like_a_root_is_refused(root, tmp_path):
    (tmp_path / "pictures2").mkdir()
    (tmp_path / "pictures2" / "a.png").write_bytes(b"x")
    assert refused(FileRoots([str(root)], 100), f"file://{tmp_path}/pictures2/a.png") == "invalid_image_url"


def test_without_roots_every_file_is_refused(root):
    assert refused(FileRoots([], 100), f"file://{root}/a.png") == "invalid_image_url"


def test_folder_pipe_and_device_are_refused(root):
    os.mkfifo(root / "pipe")
    roots = FileRoots([str(root), "/dev"], 100)
    for url in (f"file://{root}", f"file://{root}/pipe", "file:///dev/zero"):
        assert refused(roots, url) == "invalid_image_url"


def test_missing_file_and_loop_of_links_are_not_found(root):
    (root / "loop").symlink_to("loop")
    roots = FileRoots([str(root)], 100)
    assert refused(roots, f"file://{root}/none.png") == "image_file_not_found"
    assert refused(roots, f"file://{root}/loop") == "image_file_not_found"


def test_file_over_the_limit_is_refused(root):
    assert refused(FileRoots([str(root)], 6), f"file://{root}/a.png") == "image_file_too_large"


@pytest.mark.parametrize("url", ["file:a.png", "file://host/a.png", "file:///a%00b", "file://"])
def test_url_that_is_no_absolute_path_is_refused(root, url):
    assert refused(FileRoots([str(root)], 100), url) == "invalid_image_url"
