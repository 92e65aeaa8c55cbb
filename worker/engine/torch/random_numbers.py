"""Random numbers that are a function of (seed, position): the same on every device, in every batch, after a restart."""

import numpy as np
from numpy.typing import NDArray

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_BITS = 32


def seed_words(seeds: list[int]) -> NDArray[np.uint64]:
    """Any integers to uint64 `[B]`, equal seeds to equal words; neighbouring seeds share nothing."""
    return _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64) + _GOLDEN)


def uniforms(words: NDArray[np.uint64], positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """`[B]` in [0, 1), multiples of 2⁻³²: u × total stays below total in double precision. SplitMix64 (Steele, Lea,
    Flood 2014) as a counter-based generator: the position advances its state, the finaliser mixes it."""
    state = words + (positions.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    return (_mix(state) >> np.uint64(64 - _BITS)).astype(np.float64) * 2.0**-_BITS


def _mix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    mixed = (state ^ (state >> np.uint64(30))) * _MIX_1
    mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX_2
    return mixed ^ (mixed >> np.uint64(31))
