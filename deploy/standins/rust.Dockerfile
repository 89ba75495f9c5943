# Stand-in for the public rust image: Debian's gcc and this host's toolchain.
FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libc6-dev make pkg-config && rm -rf /var/lib/apt/lists/*
ADD toolchain.tar /usr/local/
ENV CARGO_HOME=/usr/local/cargo
COPY cargo /usr/local/cargo
