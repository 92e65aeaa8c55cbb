"""The parts of the TensorRT-LLM backend that need no executor: what is asked of it, and what must never reach it."""

import re
from pathlib import Path

import msgspec
import pytest
import torch

from cli.settings import ROOT
from jobs.settings import load
from tests.fakes.tensorrt_llm import INSTALLED
from worker.engine.generation import Finish, Generation, Image, Sampling
from worker.engine.protocol import Rejected
from worker.engine.tensorrt.entry import Entry
from worker.engine.tensorrt.guidance import STOP_TOKENS
from worker.engine.tensorrt.prompt_table import TableError, TableShape, extra_ids, join
from worker.engine.tensorrt.recorded_api import TENSORRT_LLM
from worker.engine.tensorrt.recorded_executor import CALLED, READ
from worker.engine.tensorrt.sampling import asked_of
from worker.engine.tensorrt.signatures import differences
from worker.engine.tensorrt.vision_engine import FILE, INPUT, OUTPUT, VisionEngineFault, profile_of
from worker.prompt import STOP_TOKENS as PROMPTS_STOP_TOKENS
from worker.settings import EngineCommand, ModelSettings, TensorRTSettings, WorkerSettings

pytestmark = pytest.mark.unit

ASKED = Generation("a", [5, 6, 7], Sampling(), max_tokens=8, stop_ids=[1, 2])
VOCAB = 100


def _ask(**sampling: object) -> Generation:
    return msgspec.structs.replace(ASKED, sampling=Sampling(**sampling))  # type: ignore[arg-type]


def _image(digest: bytes, tiles: int = 1) -> Image:
    return Image(digest, tiles, b"")


# -- sampling


@pytest.mark.parametrize(
    "greedy",
    [
        {},
        {"temperature": 1e-46},
        {"temperature": 1.0, "top_p": 0.0},
        {"temperature": 1.0, "top_p": 1e-46},
        {"temperature": 1.0, "top_k": 1},
    ],
)
def test_greedy_sampling_asks_for_the_likeliest_token_and_no_temperature(greedy):
    # A temperature of 0 alone is no greedy choice there.
    assert asked_of(_ask(**greedy), 0).parameters == {"beam_width": 1, "top_k": 1}


def test_each_parameter_of_a_drawn_answer_is_passed_on_and_what_is_off_is_not():
    asked = _ask(
        seed=3,
        temperature=0.7,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.5,
        frequency_penalty=-0.5,
        logit_bias={9: 2.0},
    )
    found = asked_of(asked, 0)
    assert found.parameters == {
        "beam_width": 1,
        "seed": 3,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.5,
        "frequency_penalty": -0.5,
    }
    assert found.bias == {9: 2.0}
    plain = asked_of(_ask(temperature=1.0), 0).parameters
    assert plain.keys() == {"beam_width", "seed", "temperature", "top_p", "top_k"}


def test_an_answer_that_goes_on_draws_no_random_number_again():
    seeds = [asked_of(_ask(seed=3, temperature=1.0), drawn).parameters["seed"] for drawn in (0, 1, 2)]
    assert seeds[0] == 3 and len(set(seeds)) == 3
    assert all(0 <= seed < 1 << 64 for seed in seeds)


def test_min_tokens_counts_what_was_drawn_before_and_holds_the_other_ends_back():
    asked = msgspec.structs.replace(ASKED, min_tokens=5)
    assert asked_of(asked, 2).parameters["min_tokens"] == 3
    assert asked_of(asked, 2).bias[2] < -1000 and 1 not in asked_of(asked, 2).bias
    assert "min_tokens" not in asked_of(asked, 5).parameters and asked_of(asked, 5).bias == {}


@pytest.mark.parametrize(("sampling", "named"), [({"logprobs": 0}, "logprobs = 0"), ({"top_k": 1025}, "top_k is 1025")])
def test_what_the_executor_cannot_do_is_refused_by_name(sampling, named):
    with pytest.raises(Rejected, match=named) as refused:
        asked_of(_ask(temperature=1.0, **sampling), 0)
    assert refused.value.code == "invalid_sampling"


# -- prompt table


def test_extra_ids_are_zero_for_text_and_the_images_digest_word_by_word():
    first, second = _image(bytes(range(32))), _image(b"\0" * 24 + b"\7" * 8)
    prompt = [5, *range(VOCAB, VOCAB + 5), 6, *range(VOCAB + 5, VOCAB + 10)]
    found = extra_ids(prompt, [first, second], VOCAB, 5)
    words = [int.from_bytes(bytes(range(at, at + 8)), "big") for at in (0, 8, 16, 24)]
    assert found == [0, *words, words[0], 0, 1, 1, 1, int.from_bytes(b"\7" * 8, "big"), 1]


SHAPE = TableShape(rows=8, width=4, dtype=torch.float16)


@pytest.mark.parametrize(
    ("table", "visual", "named"),
    [
        (torch.zeros(4, 4), 4, "torch.float32"),
        (torch.zeros(4, 3, dtype=torch.float16), 4, "[4, 3]"),
        (torch.zeros(1, 4, 4, dtype=torch.float16), 4, "[1, 4, 4]"),
        (torch.zeros(9, 4, dtype=torch.float16), 9, "9 rows, the engine takes 8"),
        (torch.zeros(4, 4, dtype=torch.float16), 5, "4 rows for 5"),
        (torch.zeros(4, 4, dtype=torch.float16).t(), 4, "strides"),
    ],
)
def test_one_bad_table_would_kill_all_and_is_refused_before(table, visual, named):
    with pytest.raises(TableError, match=re.escape(named)):
        SHAPE.check(table, visual)


def test_table_joins_images_in_their_order():
    parts = [torch.full((2, 4), float(n), dtype=torch.float16) for n in range(3)]
    table = join(parts, over_mpi=False)
    SHAPE.check(table, 6)
    assert table[:, 0].tolist() == [0, 0, 1, 1, 2, 2]


# -- one generation's tokens


def test_tokens_of_an_earlier_attempt_go_into_the_prompt_and_count():
    entry = Entry(1, msgspec.structs.replace(ASKED, generated=[8, 9]), limit=4, replays=False)
    assert (entry.first_ids, entry.drawn) == ([5, 6, 7, 8, 9], 2)
    outputs = [entry.take(10), entry.take(11)]
    assert [o.finish for o in outputs if o] == [None, Finish.LENGTH]


def test_a_replayed_answer_is_told_from_where_it_was_cut_off():
    entry = Entry(1, msgspec.structs.replace(ASKED, generated=[8, 9]), limit=4, replays=True)
    assert (entry.first_ids, entry.drawn) == ([5, 6, 7], 0)
    assert [entry.take(8), entry.take(9)] == [None, None]
    told = entry.take(10)
    assert told is not None and [token.id for token in told.tokens] == [10]


def test_a_replayed_answer_that_differs_ends_with_an_error():
    entry = Entry(1, msgspec.structs.replace(ASKED, generated=[8, 9]), limit=4, replays=True)
    told = entry.take(7)
    assert told is not None and told.finish is Finish.ERROR and "was 8, and is 7" in told.error


def test_any_stop_id_ends_an_answer_and_only_the_first_is_known_to_the_executor():
    for stop, known in ((1, True), (2, False)):
        entry = Entry(1, ASKED, limit=8, replays=False)
        told = entry.take(stop)
        assert told is not None and told.finish is Finish.STOP
        assert entry.ends_itself(told) is known


# -- vision engine


def test_the_narrowest_profile_that_fits_is_taken():
    profiles = ((1, 4, 4), (1, 32, 32))
    assert [profile_of(profiles, count) for count in (1, 4, 5, 32)] == [0, 0, 1, 1]
    with pytest.raises(VisionEngineFault, match="33"):
        profile_of(profiles, 33)


def test_the_vision_engines_names_are_the_tools():
    from tools.build_vision_engine import build, vision_graph

    assert (FILE, INPUT, OUTPUT) == (build.ENGINE, vision_graph.INPUT, vision_graph.OUTPUT)


# -- what is installed


def test_the_fake_executor_has_what_is_written_down(monkeypatch):
    monkeypatch.syspath_prepend(INSTALLED)
    assert differences(CALLED, READ) == []


def test_a_compiled_functions_text_is_read_and_its_difference_named():
    overloads = ("def f(self, a: dict[str, int], /, b: str = ', c', *, d: int = \\0) -> None", "def f(self, z: int)")
    compiled = type("Compiled", (), {"__nb_signature__": tuple((text, None) for text in overloads)})()
    here = __name__.rpartition(".")[2]
    globals()["compiled"] = compiled
    path = f"tests.unit.{here}.compiled" if __name__.startswith("tests.") else f"{here}.compiled"
    assert differences({path: "a b= d="}) == []
    assert differences({path: "a b= c="}) == [f"{path} takes no c"]
    assert differences({path: "b= d="}) == [f"{path} wants a"]
    assert "is absent" in differences({}, [f"{path}.nothing"])[0]


def test_the_engine_and_the_prompt_agree_on_the_models_ends():
    assert STOP_TOKENS == PROMPTS_STOP_TOKENS


def test_the_image_is_of_the_version_that_is_driven():
    dockerfile = (ROOT / "Dockerfile").read_text()
    assert f"ARG TENSORRT_LLM_IMAGE=tensorrt-llm/release:{TENSORRT_LLM}\n" in dockerfile
    assert "FROM ${TENSORRT_LLM_IMAGE} AS worker-trtllm\n" in dockerfile


# -- settings and command

MODEL = ModelSettings(name="m", path=Path("/models/m"), engine="tensorrt_llm", slots=64, device="cuda")
SOCKET = Path("/run/engine.sock")


def test_one_setting_switches_the_backend(monkeypatch):
    monkeypatch.setenv("VLMQ_WORKER_MODEL", "InternVL3-8B")
    assert ModelSettings.of(load(WorkerSettings)).engine == "torch"
    monkeypatch.setenv("VLMQ_WORKER_ENGINE", "tensorrt_llm")
    model = ModelSettings.of(load(WorkerSettings))
    assert (model.engine, model.sequences, model.places) == ("tensorrt_llm", 16, 18)
    command = EngineCommand.of(load(WorkerSettings), model).program(SOCKET)
    assert command[command.index("--engines") + 1].endswith("var/engines/InternVL3-8B")
    assert command[command.index("--backend") + 1] == "tensorrt_llm"


def test_a_worker_may_have_its_engines_elsewhere(monkeypatch):
    monkeypatch.setenv("VLMQ_WORKER_ENGINES", "/mnt/engines")
    assert ModelSettings.of(load(WorkerSettings)).engines == Path("/mnt/engines")


def test_one_gpu_is_one_process():
    program = EngineCommand.of(load(WorkerSettings), MODEL).program(SOCKET)
    assert program[1:5] == ["-m", "worker.engine.server", "--socket", str(SOCKET)]


def test_several_gpus_are_a_group_whose_first_rank_has_the_socket():
    model = MODEL.model_copy(update={"tensorrt_llm": TensorRTSettings(tensor_parallel=4)})
    program = EngineCommand.of(load(WorkerSettings), model).program(SOCKET)
    assert program[0] == "mpirun"
    colon = program.index(":")
    first, others = program[:colon], program[colon + 1 :]
    assert first[first.index("-n") + 1] == "1" and others[others.index("-n") + 1] == "3"
    assert "--socket" in first and "--follow" not in first
    assert "--socket" not in others and "--follow" in others
    for rank in (first, others):
        at = rank.index("worker.engine_child")
        assert rank[at + 1] == "0" and "worker.engine.server" in rank[at:]
        assert rank[rank.index("--ranks") + 1] == "4"


def test_the_group_inherits_no_other_groups_variables(monkeypatch):
    for name in ("OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK", "SLURM_JOB_ID"):
        monkeypatch.setenv(name, "2")
    settings = load(WorkerSettings)
    assert not [n for n in EngineCommand.of(settings, MODEL).environment if n.startswith(("OMPI", "PMI", "SLURM"))]
    torch_model = MODEL.model_copy(update={"engine": "torch"})
    assert EngineCommand.of(settings, torch_model).environment["PMI_RANK"] == "2"


def test_every_published_model_has_a_preset_for_tensorrt_llm():
    files = sorted((ROOT / "conf" / "models").glob("InternVL*.toml"))
    assert len(files) == 14
    for file in files:
        model = ModelSettings.load(file.stem, engine="tensorrt_llm")
        assert model.engines == ROOT / "var" / "engines" / file.stem
        assert model.tensorrt_llm.vision == "tensorrt"
