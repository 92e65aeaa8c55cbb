"""Width and height of an encoded picture from its header alone: PNG, JPEG, GIF, BMP, WebP, AVIF. Decodes nothing.

Whoever decodes it later may refuse it, or turn it: this is for estimates.
"""

import struct
from collections.abc import Callable

HEAD_BYTES = 256 * 2**10
"""Enough of a file from elsewhere: only a JPEG with more than that of metadata has its size behind it."""

Size = tuple[int, int]

# Start of frame, of any kind of coding; between them are other segments.
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_AVIF_HEAD_BYTES = 16 * 2**10


def size_of(data: bytes) -> Size | None:
    """None: it is none of these, or the bytes end before the size."""
    for magic, place, read in _KINDS:
        if data[place : place + len(magic)] == magic:
            try:
                width, height = read(data)
            except (struct.error, _Unknown):
                return None
            return (width, height) if width > 0 and height > 0 else None
    return None


class _Unknown(Exception):
    """The size is not where it should be."""


def _png(data: bytes) -> Size:
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def _gif(data: bytes) -> Size:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _bmp(data: bytes) -> Size:
    (header,) = struct.unpack_from("<I", data, 14)
    if header == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        # Upside down when the height is negative.
        width, height = struct.unpack_from("<ii", data, 18)
    return width, abs(height)


def _jpeg(data: bytes) -> Size:
    at = 2
    while True:
        mark, kind = struct.unpack_from(">BB", data, at)
        if mark != 0xFF:
            raise _Unknown
        if kind == 0xFF:
            at += 1
        elif kind in _JPEG_BARE:
            at += 2
        elif kind in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            (length,) = struct.unpack_from(">H", data, at + 2)
            at += 2 + max(2, length)


def _webp(data: bytes) -> Size:
    match data[12:16]:
        case b"VP8 ":
            width, height = struct.unpack_from("<HH", data, 26)
            return width & 0x3FFF, height & 0x3FFF
        case b"VP8L":
            (bits,) = struct.unpack_from("<I", data, 21)
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        case b"VP8X":
            if len(data) < 30:
                raise _Unknown
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    raise _Unknown


def _avif(data: bytes) -> Size:
    """The largest of all items: parts, thumbnails and masks are not larger than the whole. They stand in front."""
    sizes: list[Size] = []
    at = data.find(b"ispe", 0, _AVIF_HEAD_BYTES)
    while at >= 0:
        sizes.append(struct.unpack_from(">II", data, at + 8))
        at = data.find(b"ispe", at + 16, _AVIF_HEAD_BYTES)
    return max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))


_KINDS: tuple[tuple[bytes, int, Callable[[bytes], Size]], ...] = (
    (b"\x89PNG\r\n\x1a\n", 0, _png),
    (b"\xff\xd8\xff", 0, _jpeg),
    (b"GIF8", 0, _gif),
    (b"BM", 0, _bmp),
    (b"WEBP", 8, _webp),
    (b"ftypavi", 4, _avif),
)
