# Stand-in for the public collector: rotel receives OTLP over gRPC on 4317 and prints what it gets. It takes no collector file.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends libpython3.11 python3 python3-venv && rm -rf /var/lib/apt/lists/* \
    && python3 -m venv /opt/rotel && /opt/rotel/bin/pip install --quiet rotel==0.0.1a15
COPY collector-entrypoint.sh /usr/local/bin/collector
USER nobody
ENTRYPOINT ["collector"]
