"""Decodes one encoded image to RGB within limits, with Pillow. Formats: JPEG, PNG, GIF and BMP, and WebP and AVIF
where Pillow was built with them.

Transparent pixels become white, 16-bit greys are scaled to 8 bits, animations give their first frame.
"""

import struct
import zlib
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError, features

from worker.media.errors import MediaCode, MediaRefused

FORMATS = ("JPEG", "PNG", "GIF", "BMP", *(name for name in ("WEBP", "AVIF") if features.check(name.lower())))
FAULTS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, EOFError),
    *(NotImplementedError, MemoryError, struct.error, zlib.error),
)
"""What Pillow's decoders raise on damaged files."""
_OTHERS = {
    b"II*\0": "TIFF", b"MM\0*": "TIFF", b"%PDF": "PDF", b"<svg": "SVG", b"<?xml": "XML", b"\0\0\1\0": "ICO",
    b"8BPS": "PSD", b"\0\0\0\x0cjP": "JPEG 2000", b"\xff\x0a": "JPEG XL", b"GIMP": "XCF", b"<!DO": "HTML",
    b"<htm": "HTML", b"<!do": "HTML",
}  # fmt: skip
_ORIENTATION = 0x0112


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """`decode_s` is processor time, which whoever starts the decoding takes away when it is over."""

    max_pixels: int
    exif_orientation: bool = True
    decode_s: float = 10.0


class Picture:
    """An opened image whose header was read and whose pixels were not. `width` and `height` are those after turning."""

    def __init__(self, image: Image.Image, turn: bool) -> None:
        self._image = image
        self._turn = turn
        swapped = turn and image.getexif().get(_ORIENTATION, 1) in (5, 6, 7, 8)
        self.width, self.height = (image.height, image.width) if swapped else image.size

    def decode(self) -> Image.Image:
        """RGB. Raises MediaRefused when the file is truncated or damaged."""
        try:
            self._image.load()
            turned = ImageOps.exif_transpose(self._image) if self._turn else self._image
            return to_rgb(turned)
        except FAULTS as exc:
            raise MediaRefused(MediaCode.PARSE_ERROR, f"the {self._image.format} image is damaged: {exc}") from exc
        finally:
            self._image.close()


def open_image(data: bytes, limits: ImageLimits) -> Picture:
    """Reads the header alone. Raises MediaRefused."""
    # Our own limit is checked before any pixel is decoded; Pillow's global one would warn instead of refusing.
    Image.MAX_IMAGE_PIXELS = None
    try:
        image = Image.open(BytesIO(data), formats=FORMATS)
        if image.width < 1 or image.height < 1:
            raise MediaRefused(MediaCode.TOO_SMALL, f"the image has {image.width} × {image.height} pixels")
        if image.width * image.height > limits.max_pixels:
            raise MediaRefused(
                MediaCode.TOO_LARGE,
                f"the image has {image.width} × {image.height} pixels, more than {limits.max_pixels} in all",
            )
    except UnidentifiedImageError as exc:
        raise _unidentified(data) from exc
    except FAULTS as exc:
        raise MediaRefused(MediaCode.INVALID_FORMAT, f"the image's header is wrong: {exc}") from exc
    try:
        # In some formats the orientation stands behind the pixels.
        return Picture(image, limits.exif_orientation)
    except FAULTS as exc:
        raise MediaRefused(MediaCode.PARSE_ERROR, f"the {image.format} image is damaged: {exc}") from exc


def _unidentified(data: bytes) -> MediaRefused:
    accepted = ", ".join(FORMATS)
    kind = next((name for magic, name in _OTHERS.items() if data.startswith(magic)), None)
    if data[4:8] == b"ftyp":
        brand = data[8:12].decode("latin-1").strip()
        kind = {"avif": "AVIF", "avis": "AVIF"}.get(brand, brand)
    elif data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        kind = "WEBP"
    if kind is not None and kind not in FORMATS:
        return MediaRefused(MediaCode.UNSUPPORTED_TYPE, f"files of type {kind} are not accepted; accepted: {accepted}")
    return MediaRefused(MediaCode.INVALID_IMAGE, f"the {len(data)} bytes are no image; accepted: {accepted}")


def to_rgb(image: Image.Image) -> Image.Image:
    """Of a decoded image of any mode; transparent pixels become white."""
    if image.mode.startswith("I"):
        return _scaled(image).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        opaque = image.convert("RGBA")
        white = Image.new("RGBA", opaque.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, opaque).convert("RGB")
    return image.convert("RGB")


def _scaled(image: Image.Image) -> Image.Image:
    """16-bit greys as 8-bit ones, white where the file names a transparent grey. Pillow's own conversion would cut
    every value at 255."""
    values = np.asarray(image).clip(0, 65535).astype(np.uint32)
    greys = ((values * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        greys[values == transparent] = 255
    return Image.fromarray(greys)
