"""TensorRT-LLM, imported when it is needed and only in the version whose API is written down."""

import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from worker.engine.tensorrt.recorded_api import BUILDING, TENSORRT_LLM
from worker.engine.tensorrt.signatures import differences


class PackageError(Exception):
    """TensorRT-LLM is absent, or not the one that this was written against."""


@dataclass(frozen=True, slots=True)
class Package:
    """The modules that building needs."""

    builder: Any
    mapping: Any
    models: Any
    modeling: Any
    quantization: Any
    versions: dict[str, str]


def find_package() -> Package:
    """Raises PackageError naming what is missing or different."""
    try:
        found = importlib.import_module("tensorrt_llm")
    except ImportError as exc:
        raise PackageError(
            f"cannot import tensorrt_llm ({exc}): engines are built where TensorRT-LLM {TENSORRT_LLM} and an NVIDIA "
            "GPU are, such as in NVIDIA's TensorRT-LLM image; --dry-run needs neither"
        ) from exc
    if found.__version__ != TENSORRT_LLM:
        raise PackageError(f"tensorrt_llm is {found.__version__}; engines are built with {TENSORRT_LLM}")
    if wrong := differences(BUILDING):
        raise PackageError(f"tensorrt_llm {TENSORRT_LLM} is not as written down: " + "; ".join(wrong))
    return Package(
        builder=importlib.import_module("tensorrt_llm.builder"),
        mapping=importlib.import_module("tensorrt_llm.mapping"),
        models=importlib.import_module("tensorrt_llm.models"),
        modeling=importlib.import_module("tensorrt_llm.models.modeling_utils"),
        quantization=importlib.import_module("tensorrt_llm.quantization.mode"),
        versions={"tensorrt_llm": found.__version__, **_version_of("tensorrt")},
    )


def _version_of(name: str) -> dict[str, str]:
    try:
        return {name: version(name)}
    except PackageNotFoundError:
        return {}
