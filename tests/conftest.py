"""Fixtures by area; each plugin is owned by the part that it starts."""

pytest_plugins = [
    "tests.fixtures.services",
    "tests.fixtures.models",
    "tests.fixtures.jobs",
    "tests.fixtures.api",
    "tests.fixtures.worker",
    "tests.fixtures.tensorrt_llm",
    "tests.fixtures.built_engines",
]
