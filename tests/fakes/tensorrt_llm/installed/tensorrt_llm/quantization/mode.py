"""The names of algorithms."""

from enum import StrEnum


class QuantAlgo(StrEnum):
    W8A16 = "W8A16"
    W4A16 = "W4A16"
    FP8 = "FP8"
