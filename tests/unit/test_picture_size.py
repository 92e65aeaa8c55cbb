"""Sizes of pictures from their headers, beside what Pillow says that it has written."""

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from api.picture_size import size_of

pytestmark = pytest.mark.unit

SIZES = [(1, 1), (2, 3), (640, 480), (337, 1201), (4000, 30), (16383, 16)]
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "png": ("PNG", "RGB", {}),
    "png-interlaced-palette": ("PNG", "P", {"optimize": True}),
    "jpeg": ("JPEG", "RGB", {}),
    "jpeg-progressive": ("JPEG", "L", {"progressive": True}),
    "jpeg-with-profile": ("JPEG", "RGB", {"icc_profile": bytes(200_000), "comment": b"\xff\xd8 no picture \xff\xc0"}),
    "gif": ("GIF", "P", {}),
    "bmp": ("BMP", "RGB", {}),
    "webp": ("WEBP", "RGB", {}),
    "webp-lossless": ("WEBP", "RGB", {"lossless": True}),
    "webp-extended": ("WEBP", "RGBA", {"icc_profile": bytes(1000)}),
    "avif": ("AVIF", "RGB", {}),
}


def written(kind: str, size: tuple[int, int], **more: Any) -> bytes:
    format, mode, options = KINDS[kind]
    if format in ("WEBP", "AVIF") and not features.check(format.lower()):
        pytest.skip(f"this Pillow writes no {format}")
    out = io.BytesIO()
    Image.new(mode, size).save(out, format, **options, **more)
    return out.getvalue()


@pytest.mark.parametrize("kind", KINDS)
def test_size_is_that_of_the_written_picture(kind: str) -> None:
    assert {size: size_of(written(kind, size)) for size in SIZES} == {size: size for size in SIZES}


def test_size_of_a_picture_with_a_thumbnail_in_its_metadata_is_the_pictures() -> None:
    inner = written("jpeg", (160, 120))
    data = written("jpeg", (800, 600), exif=b"Exif\0\0" + inner)
    assert size_of(data) == (800, 600)


def test_size_of_a_bitmap_that_is_stored_from_its_top_is_no_negative_one() -> None:
    data = bytearray(written("bmp", (30, 20)))
    data[22:26] = (-20).to_bytes(4, "little", signed=True)
    assert size_of(bytes(data)) == (30, 20)


@pytest.mark.parametrize("kind", KINDS)
def test_no_beginning_of_a_picture_raises_or_has_another_size(kind: str) -> None:
    data = written(kind, (337, 201))
    found = {size_of(data[:length]) for length in range(min(len(data), 700))}
    assert found <= {None, (337, 201)}


@pytest.mark.parametrize(
    "data", [b"", b"<svg/>", b"%PDF-1.7", b"\0\0\0\x18ftypmp42" + bytes(40), b"BM", b"RIFF\0\0\0\0WEBPVP9 "]
)
def test_what_is_no_picture_has_no_size(data: bytes) -> None:
    assert size_of(data) is None


@given(
    st.sampled_from(
        [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF\0\0\0\0WEBPVP8X", b"\0\0\0\0ftypavif"]
    ),
    st.binary(max_size=200),
)
def test_size_of_damaged_pictures_is_positive_or_none(magic: bytes, rest: bytes) -> None:
    size = size_of(magic + rest)
    assert size is None or min(size) > 0
