"""Typefaces that pip installs: DejaVu and STIX from matplotlib's own data, Aileron from Pillow's."""

from functools import cache
from pathlib import Path

import matplotlib
from PIL import ImageFont

FACES = (
    "DejaVuSans",
    "DejaVuSans-Bold",
    "DejaVuSans-Oblique",
    "DejaVuSerif",
    "DejaVuSerif-Bold",
    "DejaVuSansMono",
    "STIXGeneral",
    "STIXGeneralBol",
    "Aileron",
)


@cache
def load_font(face: str, size_px: int) -> ImageFont.FreeTypeFont:
    """The face at `size_px` pixels per em. Raises OSError when matplotlib's data lacks the file."""
    if face == "Aileron":
        font = ImageFont.load_default(size_px)
        if not isinstance(font, ImageFont.FreeTypeFont):
            raise OSError("Pillow was built without FreeType: its default font has no sizes")
        return font
    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / f"{face}.ttf"
    return ImageFont.truetype(str(path), size_px, layout_engine=ImageFont.Layout.BASIC)
