"""Decoding within limits: what is accepted, what becomes of odd pixels, and each refusal by its code."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image, features

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


def png_chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_of(width, height, bits, colour_type, rows, *extra):
    """A PNG by hand, for what Pillow does not write."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour_type, 0, 0, 0))
    body = png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body


def png_header(width, height):
    return png_of(width, height, 8, 2, b"\0" * 1000)


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


def test_sixteen_bit_greys_are_scaled_to_the_nearest_of_eight_bits():
    values = np.arange(0, 65536, 97, dtype=np.uint16)[None]
    made = np.asarray(decoded(encoded(Image.fromarray(values))))
    assert np.array_equal(made[..., 0], np.rint(values / 257).astype(np.uint8))
    assert np.array_equal(made[..., 0], made[..., 2])


def test_sixteen_bit_grey_with_a_transparent_one_is_white_there():
    row = b"\0" + struct.pack(">HHH", 0, 32768, 65535 - 257)
    data = png_of(3, 1, 16, 0, row, png_chunk(b"tRNS", struct.pack(">H", 0)))
    assert [decoded(data).getpixel((x, 0))[0] for x in range(3)] == [255, 128, 254]


def test_sixteen_bit_colours_with_alpha_are_laid_on_white():
    row = b"\0" + struct.pack(">8H", 65535, 0, 0, 65535, 0, 0, 65535, 0)
    image = decoded(png_of(2, 1, 16, 6, row))
    assert [image.getpixel((x, 0)) for x in range(2)] == [(255, 0, 0), (255, 255, 255)]


def test_half_transparent_pixels_are_mixed_with_white():
    for mode, colour, expected in (("RGBA", (200, 0, 100, 102), (233, 153, 193)), ("LA", (0, 51), (204,) * 3)):
        made = np.array(decoded(encoded(Image.new(mode, (2, 2), colour))).getpixel((0, 0)), dtype=int)
        assert np.abs(made - expected).max() <= 1, mode


def test_palette_with_an_alpha_per_colour_is_laid_on_white():
    image = Image.new("P", (3, 1))
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 0, 255])
    for x in range(3):
        image.putpixel((x, 0), x)
    pixels = decoded(encoded(image, "PNG", transparency=bytes([0, 255, 51])))
    assert [pixels.getpixel((x, 0)) for x in range(3)] == [(255, 255, 255), (255, 0, 0), (204, 204, 255)]


def test_progressive_jpeg_equals_the_same_picture_in_one_scan():
    scans = [encoded(gradient(64, 64), "JPEG", quality=90, progressive=flag) for flag in (False, True)]
    assert scans[1] != scans[0]
    assert decoded(scans[0]).tobytes() == decoded(scans[1]).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_shows_the_picture_upright(orientation):
    """The stored pixels are the inverse of what the orientation asks for."""
    T = Image.Transpose
    inverse = {
        2: T.FLIP_LEFT_RIGHT, 3: T.ROTATE_180, 4: T.FLIP_TOP_BOTTOM, 5: T.TRANSPOSE, 6: T.ROTATE_90,
        7: T.TRANSVERSE, 8: T.ROTATE_270,
    }  # fmt: skip
    upright = gradient(40, 30)
    stored = upright.transpose(inverse[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_image(encoded(stored, "PNG", exif=exif), LIMITS)
    assert (picture.width, picture.height) == (40, 30)
    assert picture.decode().tobytes() == upright.tobytes()


@pytest.mark.parametrize("adobe", [True, False], ids=["inverted, as Adobe writes it", "without Adobe's marker"])
def test_cmyk_jpeg_has_the_colours_that_pillow_sees(adobe):
    inks = Image.new("CMYK", (16, 16), (0, 200, 255, 30))
    data = encoded(inks, "JPEG", quality=100, subsampling=0)
    marker = data.index(b"\xff\xee\0\x0eAdobe")
    if not adobe:
        data = data[:marker] + data[marker + 16 :]
    difference = np.abs(np.asarray(decoded(data), dtype=int) - np.asarray(inks.convert("RGB"), dtype=int))
    assert difference.max() <= 6


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif_becomes_rgb_with_transparent_pixels_white():
    opaque = decoded(encoded(gradient(), "AVIF", quality=100, subsampling="4:4:4"))
    assert np.abs(np.asarray(opaque, dtype=int) - np.asarray(gradient(), dtype=int)).max() <= 6
    clear = decoded(encoded(Image.new("RGBA", (16, 16), (255, 0, 0, 0)), "AVIF"))
    assert clear.getpixel((8, 8)) == (255, 255, 255)


def test_lossless_webp_with_alpha_is_laid_on_white():
    image = decoded(encoded(Image.new("RGBA", (4, 4), (10, 20, 30, 0)), "WEBP", lossless=True, exact=True))
    assert image.getpixel((1, 1)) == (255, 255, 255)


def test_cmyk_jpeg_becomes_rgb():
    pixel = decoded(encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)).getpixel((4, 4))
    assert pixel[0] > 200
    assert max(pixel[1:]) < 60


def test_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    for kind in ("GIF", "WEBP", "PNG", *(("AVIF",) if features.check("avif") else ())):
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


@pytest.mark.parametrize(
    "data", [b"hello", b"\x89PNG", b"GIF89", b"\0" * 100, b"RIFF\0\0\0\0WEBP", b"\0\0\0\x1cftypavif" + b"\0" * 40]
)
def test_bytes_that_are_no_image_are_refused(data):
    assert code_of(data) in ("invalid_image", "invalid_image_format", "image_parse_error")


@pytest.mark.parametrize("data", [b"%PDF-1.7", b"<svg xmlns='x'/>", b"\0\0\0\x18ftypheic", b"<html>"])
def test_other_kinds_of_documents_are_refused_by_their_name(data):
    assert code_of(data) == "unsupported_image_media_type"


def test_tiff_is_refused_by_its_name():
    assert code_of(encoded(gradient(), "TIFF")) == "unsupported_image_media_type"


def test_gif_of_no_pixels_is_refused():
    assert code_of(b"GIF89a\0\0\0\0\0\0\0;") in ("image_too_small", "invalid_image", "invalid_image_format")
