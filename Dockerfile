# The image of every process of the service; docker-compose.yml gives each one its command.

FROM python:3.11-slim AS builder
RUN python -m venv /opt/venv
COPY requirements.txt .
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install --disable-pip-version-check --require-hashes --requirement requirements.txt

FROM python:3.11-slim
LABEL org.opencontainers.image.title="marketdata" \
      org.opencontainers.image.description="Polls price providers and serves exact moving averages"
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1
# The volume of the generated key takes its owner and mode from this folder.
RUN useradd --uid 10001 --no-create-home --home-dir /tmp app \
    && install --directory --owner=app --group=app --mode=0700 /var/lib/marketdata
COPY --from=builder /opt/venv /opt/venv
WORKDIR /app
COPY . .
# The user below can write nothing in /app, so bytecode is made here. A clone may be readable by its owner
# only (umask 077), so all are let read.
RUN chmod --recursive a+rX . && python -m compileall -q .
USER app
