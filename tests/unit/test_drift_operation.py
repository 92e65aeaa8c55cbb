"""What must agree though nothing forces it to: compose file, `vlmq up`, settings, Makefile, README, constraints."""

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
import typer.main
import yaml

from api.settings import ApiSettings
from cli import plan, settings_doc
from cli.main import app
from cli.settings import ROOT, CommandSettings
from jobs.queue import queue_name
from jobs.settings import CONF, FileSettings, ServiceSettings
from jobs.webhooks.bells import QUEUE
from jobs.webhooks.settings import WebhookSettings
from worker.deliveries import __main__ as deliveries
from worker.settings import MaintenanceSettings, ModelSettings, WorkerSettings

pytestmark = pytest.mark.unit

SETTINGS: list[type[FileSettings]] = [
    ServiceSettings,
    ApiSettings,
    WorkerSettings,
    MaintenanceSettings,
    WebhookSettings,
    CommandSettings,
]
SERVER: dict[str, dict[str, Any]] = tomllib.loads((CONF / "server.toml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
README = (ROOT / "README.md").read_text()
SERVED = ServiceSettings.model_fields["models"].default if "services" not in SERVER else SERVER["services"]["models"]


def commands() -> dict[str, click.Command]:
    """Every command of vlmq by its words."""
    found: dict[str, click.Command] = {}

    def walk(words: str, command: click.Command) -> None:
        found[words] = command
        for name, child in getattr(command, "commands", {}).items():
            walk(f"{words} {name}", child)

    walk("vlmq", typer.main.get_command(app))
    return found


def targets() -> set[str]:
    return set(re.findall(r"^([a-z]+)(?=[a-z ]*:(?!=))", (ROOT / "Makefile").read_text(), re.MULTILINE)) | {
        word
        for line in re.findall(r"^([a-z ]+):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE)
        for word in line.split()
    }


def shell_lines(text: str) -> list[str]:
    """Lines of fenced blocks that a reader would type."""
    blocks = re.findall(r"```(?:console|sh|bash)\n(.*?)```", text, re.DOTALL)
    return [line.removeprefix("$ ").strip() for block in blocks for line in block.splitlines() if line.startswith("$ ")]


# -- queues


def test_every_served_models_queue_has_a_worker_in_compose() -> None:
    consumed = {
        queue_name(service["environment"]["VLMQ_WORKER_MODEL"])
        for service in SERVICES.values()
        if service.get("command", [])[-1:] == ["worker"]
    }
    assert consumed >= {queue_name(model) for model in SERVED}


def test_every_served_models_queue_has_a_worker_in_vlmq_up(tmp_path: Path) -> None:
    options = plan.Options(tmp_path, 0, 0, tuple(SERVED), workers=2)
    programs = plan.programs(options, plan.Services("postgresql://", "unix://", "blobs"), "secret")
    workers = [p.environment["VLMQ_WORKER_MODEL"] for p in programs if p.argv[-1] == "worker"]
    assert sorted(workers) == sorted([*SERVED, *SERVED])


def test_webhooks_have_a_process_that_takes_their_queue() -> None:
    words = deliveries.command(WebhookSettings())
    assert words[words.index("-Q") + 1] == QUEUE
    assert [s["command"] for s in SERVICES.values() if "worker.deliveries" in s.get("command", [])]


def test_vlmq_up_and_compose_start_the_same_programs(tmp_path: Path) -> None:
    options = plan.Options(tmp_path, 0, 0, tuple(SERVED), workers=1)
    programs = plan.programs(options, plan.Services("postgresql://", "unix://", "blobs"), "secret")
    ours = {p.argv[p.argv.index("-m") + 1 :] for p in programs}
    theirs = {tuple(s["command"]) for s in SERVICES.values() if s.get("restart") != "no" and "build" in s}
    assert {words[-1] for words in ours} == {words[-1] for words in theirs}


# -- compose


def test_compose_images_are_pinned() -> None:
    for name, service in SERVICES.items():
        assert re.search(r":v?\d+\.\d+", service["image"]), f"{name}: {service['image']}"


def test_compose_settings_are_settings() -> None:
    known = {
        f"{kind.model_config.get('env_prefix', '')}{name}".upper() for kind in SETTINGS for name in kind.model_fields
    }
    for service in SERVICES.values():
        named = {key for key in service.get("environment", {}) if key.startswith("VLMQ_")}
        assert named <= known


def test_compose_secrets_come_from_outside_and_are_required() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    secrets = set(re.findall(r"\$\{(VLMQ_\w+_(?:PASSWORD|TOKEN))", text))
    assert set(re.findall(r"^(VLMQ_\w+)=$", (ROOT / ".env.example").read_text(), re.MULTILINE)) == secrets
    assert set(re.findall(r"\$\{VLMQ_\w+_(?:PASSWORD|TOKEN)(.{2})", text)) == {":?"}


def test_compose_publishes_on_loopback_only_and_no_backing_service() -> None:
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith(("127.0.0.1:", "${VLMQ_PUBLISH:-127.0.0.1:")), f"{name}: {port}"
    assert not {"ports"} & (SERVICES["postgres"].keys() | SERVICES["redis"].keys())


def test_compose_long_running_services_have_health_checks() -> None:
    for name, service in SERVICES.items():
        assert service["restart"] == "no" or "healthcheck" in service, name


def test_compose_volumes_are_named_and_used() -> None:
    used = {volume.split(":")[0] for service in SERVICES.values() for volume in service.get("volumes", [])}
    assert used == COMPOSE["volumes"].keys()


def test_compose_builds_targets_that_the_dockerfile_has() -> None:
    stages = set(re.findall(r"^FROM \S+ AS (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    assert {service["build"]["target"] for service in SERVICES.values() if "build" in service} <= stages


@pytest.mark.parametrize("name", SERVICES)
def test_compose_service_is_contained(name: str) -> None:
    service = SERVICES[name]
    user, _, group = service["user"].partition(":")
    assert int(user) > 0 and int(group) > 0
    assert service["read_only"] is True
    assert "/tmp" in service["tmpfs"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices"} & service.keys()
    assert not [volume for volume in service.get("volumes", []) if volume.startswith(("/", ".", "~"))]


@pytest.mark.parametrize("name", SERVICES)
def test_compose_gives_no_secret_on_a_command_line(name: str) -> None:
    service = SERVICES[name]
    words = [*service.get("entrypoint", []), *service.get("command", [])]
    words += service.get("healthcheck", {}).get("test", [])
    # One dollar is filled in by compose, and everybody sees the outcome; two are the shell's of the container.
    assert not [word for word in words if "$" in word.replace("$$", "")]


def test_compose_flower_asks_for_a_password_and_cannot_change_anything() -> None:
    flower = SERVICES["flower"]
    assert flower["environment"]["FLOWER_BASIC_AUTH"].startswith("vlmq:${VLMQ_FLOWER_PASSWORD:?")
    assert flower["command"] == ["python", "-m", "worker.flower"]


def test_images_of_ours_end_as_the_user_that_compose_names() -> None:
    stages = re.split(r"^FROM ", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)[1:]
    final = [stage for stage in stages if re.search(r"^CMD", stage, re.MULTILINE)]
    users = {re.findall(r"^USER (.*)$", stage, re.MULTILINE)[-1] for stage in final}
    ours = {service["user"] for service in SERVICES.values() if "build" in service}
    assert users == ours and len(final) == 3
    assert re.findall(r"--[gu]id (\d+)", (ROOT / "Dockerfile").read_text()) == ["10001"] * 4


def test_prometheus_reads_what_compose_starts() -> None:
    config = yaml.safe_load((ROOT / COMPOSE["configs"]["prometheus"]["file"]).read_text())
    jobs = {job["job_name"]: job for job in config["scrape_configs"]}
    api, flower = jobs["vlmq-api"], jobs["vlmq-flower"]
    (found,) = api["dns_sd_configs"]
    assert {*found["names"], "prometheus"} <= SERVICES.keys()
    assert str(found["port"]) == SERVICES["api"]["environment"]["VLMQ_API_PORT"]
    assert flower["static_configs"] == [{"targets": [f"flower:{SERVICES['flower']['environment']['FLOWER_PORT']}"]}]
    assert api["authorization"]["credentials_file"] in SERVICES["prometheus"]["command"][0]
    token = SERVICES["prometheus"]["environment"]["METRICS_TOKEN"]
    assert token == SERVICES["api"]["environment"]["VLMQ_API_METRICS_TOKEN"]


# -- settings


def test_every_key_of_the_server_file_is_a_setting() -> None:
    tables = {kind.table: kind for kind in SETTINGS}
    for table, values in SERVER.items():
        assert values.keys() <= tables[table].model_fields.keys()


@pytest.mark.parametrize("file", sorted((CONF / "models").glob("*.toml")), ids=lambda file: file.stem)
def test_every_key_of_a_model_file_is_a_setting(file: Path) -> None:
    assert tomllib.loads(file.read_text()).keys() <= ModelSettings.model_fields.keys()


def test_settings_page_is_current() -> None:
    assert settings_doc.TARGET.read_text() == settings_doc.render(), "run `make docs`"


def test_every_setting_is_described() -> None:
    for kind in [*SETTINGS, ModelSettings]:
        for name, info in kind.model_fields.items():
            assert name == "name" or info.description, f"{kind.__name__}.{name}"


# -- words that a reader types


def test_every_make_target_in_the_readme_exists() -> None:
    named = set(re.findall(r"\bmake ([a-z]+)", "\n".join([*shell_lines(README), *re.findall(r"`([^`]+)`", README)])))
    assert named, "the README names no make target"
    assert named <= targets()


def test_every_vlmq_command_in_the_readme_exists_with_its_options() -> None:
    known = commands()
    lines = [*shell_lines(README), *re.findall(r"`([^`\n]+)`", README)]
    typed = [line.split("#")[0].split() for line in lines if re.match(r"(\.venv/bin/)?vlmq ", line)]
    assert typed, "the README names no vlmq command"
    for _, *words in typed:
        group = known[f"vlmq {words[0]}"]
        sub = known.get(f"vlmq {words[0]} {words[1]}", group) if len(words) > 1 else group
        options = {option for parameter in sub.params for option in parameter.opts} | {"--help"}
        assert {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)} <= options, words


def test_every_public_make_target_explains_itself() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    assert phony is not None
    assert set(re.findall(r"^([a-z]+):.*## ", text, re.MULTILINE)) == set(phony.group(1).split())


def test_ci_runs_the_readmes_test_command() -> None:
    called = re.findall(r"^(make .*)$", (ROOT / ".ci" / "run").read_text(), re.MULTILINE)
    assert " && ".join(called) in README


# -- packages


def test_every_required_package_is_pinned_to_one_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        name, version = line.split("==")
        pinned[normal(name)] = version
    assert {normal(re.split(r"[\[<>=!~ ;]", name)[0]) for name in required} <= pinned.keys()


def test_constraints_name_no_place_and_are_sorted() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert all(re.fullmatch(r"[A-Za-z0-9_.\-]+==[\w.+\-]+", line) for line in lines)
    assert lines == sorted(lines, key=str.lower)


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
