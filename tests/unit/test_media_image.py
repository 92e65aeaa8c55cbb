"""Decoding within limits: what is accepted, what becomes of odd pixels, and each refusal by its code."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from worker.media.errors import MediaRefused
from worker.media.image import ImageLimits, open_image

pytestmark = pytest.mark.unit

LIMITS = ImageLimits(max_pixels=1_000_000)


def encoded(image, kind="PNG", **options):
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def gradient(width=40, height=30):
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 5, y * 8, (x + y) * 3], axis=-1).astype(np.uint8))


def decoded(data, limits=LIMITS):
    return open_image(data, limits).decode()


def code_of(data, limits=LIMITS):
    with pytest.raises(MediaRefused) as refused:
        decoded(data, limits)
    return refused.value.code


def png_header(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    ihdr = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + ihdr + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
def test_accepted_format_becomes_rgb(kind):
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    image = decoded(encoded(gradient(), kind, **options))
    assert (image.mode, image.size) == ("RGB", (40, 30))
    difference = np.abs(np.asarray(image, dtype=int) - np.asarray(gradient(), dtype=int))
    assert difference.mean() < (12 if kind in ("GIF", "JPEG") else 1)


def test_transparent_pixels_become_white():
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (0, 0, 255, 0))
    assert decoded(encoded(image)).getpixel((1, 0)) == (255, 255, 255)
    assert decoded(encoded(image)).getpixel((0, 0)) == (255, 0, 0)


def test_palette_with_a_transparent_colour_becomes_white_there():
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50] + [0] * 750)
    image.putpixel((1, 0), 1)
    pixels = decoded(encoded(image, "PNG", transparency=0))
    assert (pixels.getpixel((0, 0)), pixels.getpixel((1, 0))) == ((255, 255, 255), (200, 100, 50))


def test_grey_with_alpha_and_bilevel_become_rgb():
    assert decoded(encoded(Image.new("LA", (1, 1), (100, 255)))).getpixel((0, 0)) == (100, 100, 100)
    assert decoded(encoded(Image.new("1", (1, 1), 1))).getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bit_grey_keeps_its_brightness():
    image = Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.uint16))
    assert [decoded(encoded(image)).getpixel((x, 0))[0] for x in range(3)] == [0, 128, 255]


def test_cmyk_jpeg_becomes_rgb():
    pixel = decoded(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)).getpixel((4, 4))
    assert pixel[0] > 200
    assert max(pixel[1:]) < 60


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=50)
        assert decoded(data).getpixel((0, 0))[0] > 200, kind


def test_exif_orientation_turns_the_picture_unless_switched_off():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(gradient(40, 30), "JPEG", exif=exif)
    turned = open_image(data, LIMITS)
    assert (turned.width, turned.height) == turned.decode().size == (30, 40)
    as_stored = open_image(data, ImageLimits(1_000_000, exif_orientation=False))
    assert (as_stored.width, as_stored.height) == as_stored.decode().size == (40, 30)


def test_picture_of_too_many_pixels_is_refused_before_decoding():
    data = png_header(60_000, 60_000)
    assert len(data) < 200
    assert code_of(data) == "image_too_large"
    assert code_of(encoded(gradient(1001, 1000), "BMP")) == "image_too_large"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_truncated_file_is_refused(kind):
    whole = encoded(Image.effect_noise((200, 200), 80).convert("RGB"), kind)
    assert code_of(whole[: len(whole) // 2]) in ("image_parse_error", "invalid_image_format", "invalid_image")
    assert code_of(whole[:40]) in ("image_parse_error", "invalid_image_format", "invalid_image")


def test_damaged_inside_is_refused():
    whole = bytearray(encoded(Image.effect_noise((200, 200), 80).convert("RGB")))
    whole[300:400] = b"\xff" * 100
    assert code_of(bytes(whole)) == "image_parse_error"


@pytest.mark.parametrize("data", [b"hello", b"\x89PNG", b"GIF89", b"\0" * 100, b"RIFF\0\0\0\0WEBP"])
def test_bytes_that_are_no_image_are_refused(data):
    assert code_of(data) in ("invalid_image", "invalid_image_format", "image_parse_error")


@pytest.mark.parametrize(
    "data", [b"%PDF-1.7", b"<svg xmlns='x'/>", b"\0\0\0\x1cftypavif", b"\0\0\0\x18ftypheic", b"<html>"]
)
def test_other_kinds_of_documents_are_refused_by_their_name(data):
    assert code_of(data) == "unsupported_image_media_type"


def test_tiff_is_refused_by_its_name():
    assert code_of(encoded(gradient(), "TIFF")) == "unsupported_image_media_type"


def test_gif_of_no_pixels_is_refused():
    assert code_of(b"GIF89a\0\0\0\0\0\0\0;") in ("image_too_small", "invalid_image", "invalid_image_format")
