#!/bin/bash
# Ignores the collector's own flags (--config …).
exec /opt/rotel/lib/python3.11/site-packages/rotel/rotel-agent start --otlp-grpc-endpoint 0.0.0.0:4317 --otlp-http-endpoint 0.0.0.0:4318 --exporter blackhole --debug-log traces
