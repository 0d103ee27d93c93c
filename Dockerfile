# syntax=docker/dockerfile:1

# ---- build -----------------------------------------------------------------
FROM rust:1.95-bookworm AS build
WORKDIR /build

# Dependencies first, from the manifests alone and with empty crates in our
# place: this layer stays until a manifest or the lock file changes.
COPY rust-toolchain.toml Cargo.toml Cargo.lock ./
COPY actors/Cargo.toml actors/Cargo.toml
COPY loadtest/Cargo.toml loadtest/Cargo.toml
RUN mkdir -p src actors/src loadtest/src tests \
    && echo 'fn main() {}' | tee src/main.rs loadtest/src/main.rs tests/main.rs \
    && touch actors/src/lib.rs \
    && cargo build --release --locked --package runcast

# Then our code. `touch`: cargo compares times, and the empty crates are newer
# than files copied from a checkout.
COPY actors/src actors/src
COPY src src
RUN touch src/main.rs actors/src/lib.rs \
    && cargo build --release --locked --package runcast

# ---- image -----------------------------------------------------------------
FROM debian:bookworm-slim

# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
COPY --from=build /build/target/release/runcast /usr/local/bin/runcast

# Everything else has its default; see docs/configuration.md.
ENV RUNCAST__SERVER__BIND=0.0.0.0:8000
EXPOSE 8000
# SIGTERM drains: give it longer than server.shutdown_grace (20s).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/runcast"]
CMD ["serve"]
