# syntax=docker/dockerfile:1

# ---- console ---------------------------------------------------------------
FROM node:22-bookworm-slim AS console
WORKDIR /build/frontend

# The page and the client package it is made with, without what only tests need.
COPY frontend/package.json frontend/package-lock.json frontend/tsconfig.base.json ./
COPY frontend/packages/client/package.json packages/client/
COPY frontend/console/package.json console/
RUN npm ci --no-audit --no-fund --include-workspace-root \
    --workspace @runcast/client --workspace runcast-console
COPY frontend/packages/client packages/client
COPY frontend/console console
RUN npm run build

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
COPY build.rs ./
COPY src src
COPY --from=console /build/frontend/console/dist frontend/console/dist
RUN touch src/main.rs actors/src/lib.rs \
    && cargo build --release --locked --package runcast

# ---- image -----------------------------------------------------------------
FROM debian:bookworm-slim

# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
COPY --from=build /build/target/release/runcast /usr/local/bin/runcast

# Everything else has its default; see docs/configuration.md.
ENV RUNCAST__SERVER__BIND=0.0.0.0:8000
# Who may come in is not chosen here, and the broker does not start on this
# address until it is: give it keys (RUNCAST__AUTH__MODE=jwt and
# RUNCAST__AUTH__SECRET_FILE, KEYS_FILE or JWKS_URL), or, only where others cannot
# reach the port, RUNCAST__AUTH__ALLOW_ANONYMOUS=true. docs/security.md says more.
EXPOSE 8000
# SIGTERM drains: give it longer than server.shutdown_grace (20s).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/runcast"]
CMD ["serve"]
