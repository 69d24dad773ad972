# The steps of `make run`, in two stages: what installs stays behind, what runs is read-only and nobody's.

FROM python:3.13-slim AS build
WORKDIR /sendable
COPY requirements.txt .
RUN python -m venv .venv \
 && .venv/bin/python -m pip install --no-cache-dir --require-hashes -r requirements.txt
COPY pyproject.toml README.md alembic.ini ./
COPY migrations migrations
COPY app app
RUN .venv/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --editable . \
 && .venv/bin/python -m compileall -q app migrations \
 && chmod -R a+rX .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin sendable \
 && install --directory --owner=sendable --group=sendable --mode=0700 /data
COPY --from=build /sendable /sendable
ENV PATH=/sendable/.venv/bin:$PATH PYTHONUNBUFFERED=1 SENDABLE_DATA_DIR=/data SENDABLE_HOST=0.0.0.0
# A number, so that an orchestrator can see that it is not root. PostgreSQL, where it is embedded, runs as the same user.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s \
  CMD ["python", "-c", "import os; from urllib.request import urlopen; urlopen(f'http://127.0.0.1:{os.environ.get(\"SENDABLE_PORT\") or 8000}/livez', timeout=2)"]
ENTRYPOINT ["sendable"]
CMD ["serve"]
