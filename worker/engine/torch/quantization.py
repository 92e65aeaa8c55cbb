"""8-bit weights for the language model's layers, by torchao: stored in 8 bits, computed in the engine's own dtype.

One scale per output channel. Embeddings, output head and vision keep the engine's dtype. Knows no checkpoint.
"""

import logging
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import torch
from torch import nn

# The first GPUs with fp8: Ada (8.9), Hopper (9.0).
_FP8_CAPABILITY = (8, 9)


class Quantization(StrEnum):
    NONE = "none"
    INT8 = "int8"
    FP8 = "fp8"


class QuantizationError(Exception):
    """The machine cannot compute with weights of this kind."""


def check(quantization: Quantization, device: torch.device) -> None:
    """Raises QuantizationError when the device has no such numbers."""
    if quantization is not Quantization.FP8:
        return
    if device.type != "cuda":
        raise QuantizationError(f'quantization = "fp8" needs a GPU that has fp8; the device is {device}; "int8" works')
    capability = torch.cuda.get_device_capability(device)
    if capability < _FP8_CAPABILITY:
        name = torch.cuda.get_device_name(device)
        raise QuantizationError(
            f'quantization = "fp8": {name} has compute capability {capability[0]}.{capability[1]}, '
            f'fp8 needs {_FP8_CAPABILITY[0]}.{_FP8_CAPABILITY[1]}; "int8" works'
        )


def quantizer(quantization: Quantization) -> Callable[[nn.Linear], None]:
    """What puts one loaded layer's weight into 8 bits; the 16- or 32-bit one is freed."""
    # Late: torchao takes seconds, and most engines do without. It warns of kernels for other GPUs than ours.
    logging.disable(logging.WARNING)
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig, quantize_
    finally:
        logging.disable(logging.NOTSET)
    kind: Any = Int8WeightOnlyConfig() if quantization is Quantization.INT8 else Float8WeightOnlyConfig()

    def quantize(layer: nn.Linear) -> None:
        quantize_(layer, kind)

    return quantize
