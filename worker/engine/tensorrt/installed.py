"""TensorRT-LLM and TensorRT as they are installed here, held to what was written down of them before anything is
loaded."""

import importlib
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from worker.engine.tensorrt.recorded_api import TENSORRT_LLM
from worker.engine.tensorrt.recorded_executor import CALLED, READ
from worker.engine.tensorrt.signatures import differences


class NotUsable(Exception):
    """This machine cannot serve with this engine; the message lists every reason."""


def find_executor() -> Any:
    """The module `tensorrt_llm.bindings.executor`. Raises NotUsable."""
    try:
        found = importlib.import_module("tensorrt_llm")
    except ImportError as exc:
        raise NotUsable(
            f"cannot import tensorrt_llm ({exc}); it is in NVIDIA's TensorRT-LLM {TENSORRT_LLM} image"
        ) from exc
    if found.__version__ != TENSORRT_LLM:
        raise NotUsable(f"tensorrt_llm is {found.__version__}; this vlmq drives {TENSORRT_LLM}")
    if wrong := differences(CALLED, READ):
        raise NotUsable(f"tensorrt_llm {TENSORRT_LLM} is not as written down:\n  " + "\n  ".join(wrong))
    return importlib.import_module("tensorrt_llm.bindings.executor")


def find_tensorrt(library: str) -> Any:
    """The module that an engine of the vision encoder was built with. Raises NotUsable."""
    try:
        return importlib.import_module(library)
    except ImportError as exc:
        raise NotUsable(f"cannot import {library} ({exc}), with which the vision engine was built") from exc


def versions() -> dict[str, str]:
    """Of the packages that a language engine is tied to, once `find_executor` has found the first."""
    try:
        return {"tensorrt_llm": TENSORRT_LLM, "tensorrt": version("tensorrt")}
    except PackageNotFoundError:
        return {"tensorrt_llm": TENSORRT_LLM}


def gpu() -> tuple[str, str | None, int | None]:
    """Name, compute capability such as `SM89`, and how many; without one the CPU's name and nothing known."""
    if not torch.cuda.is_available():
        return "cpu", None, None
    major, minor = torch.cuda.get_device_capability()
    return torch.cuda.get_device_name(), f"SM{major}{minor}", torch.cuda.device_count()
