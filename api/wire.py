"""What every body of the wire keeps to: known fields only, strict types, text without U+0000."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict


def no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain the character U+0000")
    return text


Text = Annotated[str, AfterValidator(no_nul)]


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)
