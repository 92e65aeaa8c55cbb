"""Which programs make up an installation on this machine, and what each is told. Starts nothing."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.folder import FLOWER_USER
from cli.program import Program
from cli.settings import ROOT, environment
from jobs.settings import load
from worker.settings import ModelSettings, WorkerSettings

WORKER_READY = r"\bworker \S+ ready\b"


@dataclass(frozen=True, slots=True)
class Options:
    """What `vlmq up` was asked for. Port 0 takes a free one."""

    folder: Path
    port: int
    flower_port: int
    models: tuple[str, ...]
    workers: int
    verbose: bool = False


@dataclass(frozen=True, slots=True)
class Services:
    """Where the backing services are."""

    database_url: str
    redis_url: str
    blob_url: str


def programs(options: Options, services: Services, flower_password: str) -> list[Program]:
    """Workers are stopped first, while the API still carries their last tokens to whoever reads them; the sweeper
    goes last."""
    base = environment() | {
        "VLMQ_DATABASE_URL": services.database_url,
        "VLMQ_REDIS_URL": services.redis_url,
        "VLMQ_BLOB_URL": services.blob_url,
        "VLMQ_MODELS": ",".join(options.models),
    }
    python = (sys.executable, "-m")
    api = base | {"VLMQ_API_HOST": "127.0.0.1", "VLMQ_API_PORT": str(options.port)}
    flower = base | {
        "FLOWER_ADDRESS": "127.0.0.1",
        "FLOWER_PORT": str(options.flower_port),
        "FLOWER_BASIC_AUTH": f"{FLOWER_USER}:{flower_password}",
    }
    return [
        Program("api", (*python, "api"), api, ROOT, stop_s=15, stage=1),
        Program("maintenance", (*python, "worker.maintenance"), base, ROOT, r"\bready\b", stage=2),
        Program("batches", (*python, "api.batch_process"), base, ROOT, r"\bready\b", stage=2),
        Program("deliveries", (*python, "worker.deliveries"), base, ROOT, r"\bdeliveries ready\b", stop_s=20, stage=1),
        *_workers(options, base),
        Program("flower", (*python, "worker.flower"), flower, ROOT, stop_s=5, stage=1),
    ]


def _workers(options: Options, base: Mapping[str, str]) -> list[Program]:
    settings = load(WorkerSettings)
    gpus = _gpus(base)
    made: list[Program] = []
    for model in options.models:
        on_gpu = ModelSettings.load(model, device=settings.device).device.startswith("cuda")
        for number in range(options.workers):
            told = {"VLMQ_WORKER_MODEL": model}
            if on_gpu and gpus and not settings.gpu:
                told["VLMQ_WORKER_GPU"] = gpus[len(made) % len(gpus)]
            name = f"worker-{number + 1}" if len(options.models) == 1 else f"{model}-{number + 1}"
            argv = (sys.executable, "-m", "worker")
            made.append(
                Program(name, argv, {**base, **told}, ROOT, WORKER_READY, stop_s=settings.grace_s + 15, stage=0)
            )
    return made


def _gpus(base: Mapping[str, str]) -> list[str]:
    """GPUs to hand out, one per worker: those that we may see, else all that the driver lists."""
    if visible := base.get("CUDA_VISIBLE_DEVICES"):
        return visible.split(",")
    driver = Path("/proc/driver/nvidia/gpus")
    return [str(index) for index in range(len(list(driver.iterdir())))] if driver.is_dir() else []
