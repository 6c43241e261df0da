# Two images from one file: `service` (the default) answers forecasts and holds no TensorFlow, `training` fits models.
#     docker build -t leadtime-service .
#     docker build -t leadtime-training --target training .

ARG PYTHON_IMAGE=python:3.11-slim

# --- the project's own wheel -----------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY locks/build.txt locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --disable-pip-version-check --root-user-action=ignore --require-hashes -r locks/build.txt
COPY pyproject.toml README.md LICENSE ./
COPY service service
COPY training training
RUN pip wheel --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir /wheels .

# --- environments without pip, bytecode compiled ---------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS service-environment
RUN python -m venv --without-pip /opt/leadtime
# with --build-arg LOCK="otel signatures", what traces and signatures need as well; one of the two will do
ARG LOCK=service
COPY locks locks
RUN --mount=type=cache,target=/root/.cache/pip \
    for lock in ${LOCK}; do set -- "$@" -r "locks/${lock}.txt"; done \
 && pip --python /opt/leadtime/bin/python install --disable-pip-version-check --require-hashes "$@"
# numpy's and onnxruntime's own tests and model conversion tools: a fifth of their size, and nothing here imports them
RUN find /opt/leadtime -type d -name tests -path '*/numpy/*' -prune -exec rm -r {} + \
 && find /opt/leadtime -type d -path '*/site-packages/onnxruntime/*' \
    \( -name transformers -o -name quantization -o -name tools -o -name datasets \) -prune -exec rm -r {} +
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/leadtime/bin/python install --disable-pip-version-check --no-deps --no-index /wheels/*.whl

FROM ${PYTHON_IMAGE} AS training-environment
RUN python -m venv --without-pip /opt/leadtime
COPY locks/training.txt locks/
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/leadtime/bin/python install --disable-pip-version-check --require-hashes -r locks/training.txt
RUN --mount=type=bind,from=wheel,source=/wheels,target=/wheels \
    pip --python /opt/leadtime/bin/python install --disable-pip-version-check --no-deps --no-index /wheels/*.whl

# --- what both images share ------------------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS base
# One user in both images owns /models, so that a fresh volume there can be written by training and read by the service.
RUN install -d -o 10001 -g 10001 /models
ENV PATH=/opt/leadtime/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PYTHONSAFEPATH=1 \
    HOME=/tmp
WORKDIR /
LABEL org.opencontainers.image.licenses="Apache-2.0"

# --- training --------------------------------------------------------------------------------------------------------
FROM base AS training
LABEL org.opencontainers.image.title="leadtime-training" \
      org.opencontainers.image.description="Fits a stacked LSTM on a table and writes the artifact that the service answers from."
COPY --from=training-environment /opt/leadtime /opt/leadtime
ENV MPLBACKEND=Agg \
    TF_CPP_MIN_LOG_LEVEL=2
USER 10001:10001
ENTRYPOINT ["python", "-m", "training"]
CMD ["--help"]

# --- service: the last stage, so that a plain build gives it ---------------------------------------------------------
FROM base AS service
LABEL org.opencontainers.image.title="leadtime-service" \
      org.opencontainers.image.description="Answers time-series forecasts over HTTP."
COPY --from=service-environment /opt/leadtime /opt/leadtime
ENV LEADTIME_HOST=0.0.0.0
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --start-interval=1s --retries=3 \
    CMD ["python", "-c", "import os, ssl, urllib.request as http; tls = 'LEADTIME_TLS_CERTIFICATE' in os.environ; http.urlopen(f\"http{'s' * tls}://127.0.0.1:{os.environ.get('LEADTIME_PORT', '8000')}/health/ready\", timeout=2, context=ssl._create_unverified_context() if tls else None)"]
CMD ["python", "-m", "service"]
