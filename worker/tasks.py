"""The one task: a bell rang."""

from jobs.queue import TASK_RUN_JOB
from worker.app import app


@app.task(name=TASK_RUN_JOB)
def run_job(job_id: str) -> None:
    assert app.runtime is not None, "this task runs in a worker that has started"
    app.runtime.answer(job_id)
