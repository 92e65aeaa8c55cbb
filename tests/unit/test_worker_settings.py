"""Settings of the worker's processes: what is refused, and how it is named."""

from pathlib import Path

import pytest

from jobs.settings import CONF, SettingsError, load
from worker.settings import EngineCommand, MaintenanceSettings, ModelSettings, WorkerSettings

pytestmark = pytest.mark.unit


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    (tmp_path / "models").mkdir()
    return tmp_path


def write(conf: Path, text: str) -> None:
    (conf / "models" / "m.toml").write_text(text)


def test_model_file_says_only_what_differs(conf):
    write(conf, 'path = "/models/m"\nslots = 4\n')
    model = ModelSettings.load("m", conf=conf)
    assert (model.name, model.path, model.slots, model.dtype) == ("m", Path("/models/m"), 4, "float32")


def test_relative_path_counts_from_the_projects_folder(conf):
    write(conf, 'path = "var/m"\n')
    assert ModelSettings.load("m", conf=conf).path == conf.parent / "var/m"
    assert ModelSettings.load("m", "/elsewhere", conf).path == Path("/elsewhere")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('path = "x"\nslot = 4', "slot = 4"),
        ('path = "x"\nslots = 0', "slots = 0"),
        ('path = "x"\ndtype = "int8"', "dtype = 'int8'"),
        ('path = "x"\nengine = "vllm"', "engine = 'vllm'"),
        ("slots = 4", "path"),
        ('path = "x"\npages = 4\nprefill_chunk = 512', "pages = 4"),
        ("path = ", "m.toml"),
    ],
)
def test_wrong_model_file_is_refused_naming_file_key_and_value(conf, text, named):
    write(conf, text)
    with pytest.raises(SettingsError, match=r"m\.toml") as refused:
        ModelSettings.load("m", conf=conf)
    assert named in str(refused.value)


@pytest.mark.parametrize("name", ["none", "../server", "a/b"])
def test_unknown_model_is_refused_with_those_that_exist(name):
    with pytest.raises(SettingsError, match=r"there are: .*vlmq-tiny"):
        ModelSettings.load(name)


def test_wrong_environment_is_refused_naming_variable_and_value(monkeypatch):
    monkeypatch.setenv("VLMQ_WORKER_GRACE_S", "-3")
    monkeypatch.setenv("VLMQ_WORKER_MAX_IMAGES", "many")
    with pytest.raises(SettingsError) as refused:
        load(WorkerSettings)
    assert "VLMQ_WORKER_GRACE_S) = '-3'" in str(refused.value)
    assert "VLMQ_WORKER_MAX_IMAGES) = 'many'" in str(refused.value)


def test_lists_are_comma_separated_in_the_environment(monkeypatch):
    monkeypatch.setenv("VLMQ_WORKER_ALLOWED_FILE_ROOTS", "/a, /b")
    assert load(WorkerSettings).allowed_file_roots == ("/a", "/b")


def test_every_preset_loads():
    for file in (CONF / "models").glob("*.toml"):
        assert ModelSettings.load(file.stem).name == file.stem


def test_engine_command_pins_the_gpu_and_says_everything(conf):
    write(conf, 'path = "/models/m"\ndevice = "cuda"\nprefix_reuse = false\n')
    command = EngineCommand.of(load(WorkerSettings, gpu="3"), ModelSettings.load("m", conf=conf))
    assert command.environment["CUDA_VISIBLE_DEVICES"] == "3"
    assert "--no-prefix-reuse" in command.arguments
    assert command.arguments[command.arguments.index("--device") + 1] == "cuda"


def test_the_environment_says_where_the_engine_computes_instead_of_the_model_file(monkeypatch):
    monkeypatch.setenv("VLMQ_WORKER_DEVICE", "cuda:1")
    settings = load(WorkerSettings)
    arguments = EngineCommand.of(settings, ModelSettings.of(settings)).arguments
    assert arguments[arguments.index("--device") + 1] == "cuda:1"


def test_a_device_that_is_none_is_refused_by_key_and_value(monkeypatch):
    monkeypatch.setenv("VLMQ_WORKER_DEVICE", "tpu")
    with pytest.raises(SettingsError, match=r"VLMQ_WORKER_DEVICE.*tpu"):
        load(WorkerSettings)


def test_engine_command_says_how_many_bits(conf):
    write(conf, 'path = "/models/m"\nquantization = "int8"\n')
    arguments = EngineCommand.of(load(WorkerSettings), ModelSettings.load("m", conf=conf)).arguments
    assert arguments[arguments.index("--quantization") + 1] == "int8"


def test_a_kind_of_weights_that_is_not_known_is_refused_by_key_and_value(conf):
    write(conf, 'path = "/models/m"\nquantization = "int4"\n')
    with pytest.raises(SettingsError, match="quantization = 'int4'"):
        ModelSettings.load("m", conf=conf)


def test_maintenance_settings_have_defaults():
    assert load(MaintenanceSettings).sweep_s == 1.0
