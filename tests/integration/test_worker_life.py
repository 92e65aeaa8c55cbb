"""Starting and ending workers: refusals, drain, death."""

import signal
import subprocess
import sys

import pytest

from jobs.job import AttemptEnd, JobState
from tests.fixtures.eventually import eventually
from tests.fixtures.processes import has_ended
from tests.fixtures.worker import WorkerBench

pytestmark = pytest.mark.integration


def test_drained_worker_gives_its_job_back_and_another_continues_it(own_bench: WorkerBench):
    first = own_bench.start(VLMQ_WORKER_GRACE_S="0.1")
    first.wait_ready()
    undisturbed = own_bench.wait(own_bench.submit(max_tokens=700))
    job_id = own_bench.submit(max_tokens=700)
    own_bench.wait_for_tokens(job_id)
    assert first.end() == 0
    job = own_bench.store.get(job_id)
    assert (job.state, job.losses) == (JobState.QUEUED, 0)
    assert 0 < len(job.tokens) < 700
    assert own_bench.store.attempts(job_id)[0].end is AttemptEnd.DRAINED
    assert own_bench.store.workers(lease_s=60) == []
    own_bench.start().wait_ready()
    assert own_bench.wait(job_id).tokens == undisturbed.tokens


def test_worker_lets_a_short_job_end_before_it_stops(own_bench: WorkerBench):
    worker = own_bench.start(VLMQ_WORKER_GRACE_S="30")
    worker.wait_ready()
    job_id = own_bench.submit(max_tokens=60)
    own_bench.wait_for_tokens(job_id)
    assert worker.end() == 0
    job = own_bench.store.get(job_id)
    assert job.state.terminal
    assert job.attempt == 1


def test_engine_dies_with_a_killed_worker_and_nothing_is_written_for_its_job(own_bench: WorkerBench):
    worker = own_bench.start()
    worker.wait_ready()
    engine = worker.engine()
    job_id = own_bench.submit(max_tokens=1000)
    own_bench.wait_for_tokens(job_id)
    worker.popen.send_signal(signal.SIGKILL)
    worker.popen.wait(30)
    eventually("the engine is gone", lambda: has_ended(engine))
    assert own_bench.store.get(job_id).state is JobState.IN_PROGRESS


CELERY = ("celery", "-A", "worker.app", "worker", "--without-mingle", "--without-gossip")


@pytest.mark.parametrize(
    ("command", "environment", "said"),
    [
        ((*CELERY, "-P", "prefork", "-Q", "jobs.vlmq-tiny"), {}, "needs -P threads"),
        ((*CELERY, "-P", "threads"), {}, "needs -Q jobs.vlmq-tiny"),
        (("worker",), {"VLMQ_WORKER_MODEL": "no-such"}, "'no-such': no such model in conf/models"),
        (("worker",), {"VLMQ_WORKER_FLUSH_MS": "-1"}, "VLMQ_WORKER_FLUSH_MS) = '-1'"),
        (("worker",), {"VLMQ_WORKER_PATH": "/nowhere"}, "/nowhere"),
        (("worker",), {"VLMQ_DATABASE_URL": ""}, "VLMQ_DATABASE_URL"),
    ],
)
def test_worker_that_cannot_serve_exits_and_says_why(own_bench: WorkerBench, command, environment, said):
    worker = own_bench.start(*command, **environment)
    assert worker.popen.wait(60) != 0
    assert said in worker.output()
    assert "Traceback" not in worker.output()


def test_engine_that_never_starts_ends_the_worker(own_bench: WorkerBench, tmp_path):
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in own_bench.model.iterdir():
        if file.suffix == ".json":
            (broken / file.name).write_bytes(file.read_bytes())
    worker = own_bench.start(VLMQ_WORKER_PATH=str(broken), VLMQ_WORKER_ENGINE_RESTARTS="0")
    assert worker.popen.wait(60) != 0
    assert "safetensors" in worker.output()


def test_worker_and_api_side_modules_import_no_torch():
    code = (
        "import sys, worker.app, worker.tasks, worker.boot, worker.runtime, worker.maintenance\n"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_flower_needs_neither_pictures_nor_tokenizers():
    code = (
        "import sys, worker.app, worker.tasks\n"
        "assert not {'PIL', 'tokenizers', 'numpy', 'httpcore2', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
