"""Fixtures by area; each plugin is owned by the part that it starts."""

from hypothesis import HealthCheck, settings

# A machine that does other things as well is slow now and then: that is no fault of what is tested.
settings.register_profile("shared", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("shared")

pytest_plugins = [
    "tests.fixtures.services",
    "tests.fixtures.models",
    "tests.fixtures.jobs",
    "tests.fixtures.api",
    "tests.fixtures.batches",
    "tests.fixtures.delivery_bench",
    "tests.fixtures.worker",
    "tests.fixtures.job_bench",
    "tests.fixtures.tensorrt_llm",
    "tests.fixtures.engines",
    "tests.fixtures.tensorrt_executor",
]
