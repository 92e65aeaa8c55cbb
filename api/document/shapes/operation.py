"""Health, metrics, and the one answer of the jobs API that has no body."""

from typing import Literal

from api.document.shape import Shape, Shapes, Shown


class Readiness(Shown):
    """`missing` names services, and models without a worker as `worker:<model>`; `workers` counts those alive."""

    status: Literal["ready", "missing"]
    missing: list[str]
    workers: dict[str, int]


SHAPES: Shapes = {
    "GET /readyz": {
        200: Shape(Readiness, "Everything that was asked for is there."),
        503: Shape(Readiness, "Something is missing."),
    },
    "GET /metrics": {200: Shape(None, "Prometheus' text format.", others=("text/plain",), never=("application/json",))},
    "GET /v1/jobs/{job_id}/events": {204: Shape(None, "The log has ended, and holds nothing after that place.")},
}
