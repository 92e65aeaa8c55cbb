# Three images from one file: `api` (no torch; also runs maintenance, migrations and Flower), `worker`, and
# `worker-trtllm`, the worker in NVIDIA's TensorRT-LLM image.
#   docker build --target api -t vlmq-api .
#   docker build --target worker -t vlmq-worker .
#   docker build --target worker-trtllm --build-arg TENSORRT_LLM_IMAGE=… -t vlmq-worker-trtllm .

ARG PYTHON_IMAGE=python:3.11.14-slim-bookworm
# NVIDIA's published image; name it as it is called where you get it from.
ARG TENSORRT_LLM_IMAGE=tensorrt-llm/release:1.2.1

FROM ${PYTHON_IMAGE} AS base
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN groupadd --gid 10001 vlmq \
 && useradd --uid 10001 --gid vlmq --no-create-home --home-dir /app vlmq \
 && install -d -o vlmq -g vlmq /app /app/var /app/var/models /data /data/blobs /data/spool
WORKDIR /app

# Dependencies come before the source, so that a change of code installs nothing again.
FROM base AS tools
RUN python -m venv /venv
COPY constraints.txt pyproject.toml ./
RUN pip install --no-cache-dir -c constraints.txt setuptools \
 && python -c "import sys, tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
[open(f'{name}.txt', 'w').write('\n'.join(p['dependencies'] + [d for e in extras for d in p['optional-dependencies'][e]])) \
for name, extras in {'api': ['api', 'cli', 'flower'], 'worker': ['worker', 'cli']}.items()]"

FROM tools AS api-venv
RUN pip install --no-cache-dir -c constraints.txt -r api.txt

FROM tools AS worker-venv
ARG TORCH=torch==2.13.0
ARG PIP_FLAGS=
RUN pip install --no-cache-dir ${PIP_FLAGS} -c constraints.txt "${TORCH}"
RUN pip install --no-cache-dir -c constraints.txt -r worker.txt

FROM base AS source
COPY pyproject.toml README.md LICENSE ./
COPY jobs jobs
COPY api api
COPY worker worker
COPY cli cli
COPY tools tools
COPY migrations migrations
COPY conf conf

FROM source AS worker
COPY models models
COPY --from=worker-venv /venv /venv
RUN pip install --no-cache-dir --no-build-isolation --no-deps -e .
USER 10001:10001
CMD ["python", "-m", "worker"]

# TensorRT-LLM, TensorRT, torch and MPI are the image's. Of what both need its versions stay: nothing is tied to ours.
FROM ${TENSORRT_LLM_IMAGE} AS worker-trtllm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
RUN groupadd --gid 10001 vlmq \
 && useradd --uid 10001 --gid vlmq --no-create-home --home-dir /app vlmq \
 && install -d -o vlmq -g vlmq /app /app/var /app/var/models /app/var/engines /data /data/blobs /data/spool
WORKDIR /app
COPY --from=tools /app/worker.txt ./
RUN pip freeze --exclude-editable | grep -v ' @ ' > image.txt \
 && sed -i -E '/^(torch|torchao)$/d' worker.txt \
 && pip install --no-cache-dir -c image.txt -r worker.txt onnx \
 && rm image.txt worker.txt
COPY --from=source /app ./
COPY models models
RUN pip install --no-cache-dir --no-build-isolation --no-deps -e .
USER 10001:10001
ENTRYPOINT []
CMD ["python3", "-m", "worker"]

FROM source AS api
COPY --from=api-venv /venv /venv
RUN pip install --no-cache-dir --no-build-isolation --no-deps -e .
USER 10001:10001
EXPOSE 8700
CMD ["python", "-m", "api"]
