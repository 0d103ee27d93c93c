# Two images: `runcast`, the last stage and so the default, and `runcast-kubectl`
# (`--target runcast-kubectl`), which has kubectl as well. Both can follow the logs
# of pods: the first over the Kubernetes API by itself. Each is one static program
# and what it reads: no shell, no package manager, no library.
# `make image-test` builds both, runs them as they are meant to, and says how
# large they are.

# ---- console ---------------------------------------------------------------
FROM docker.io/library/node:22-bookworm-slim AS console
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
# The version of rust-toolchain.toml, which is not copied: rustup would fetch
# lints and formatter for it.
FROM docker.io/library/rust:1.95.0-bookworm AS build
WORKDIR /build

# A program that contains glibc: `runcast exec` runs in any agent's image. With
# --target the flags are not for build scripts and macros, which cannot be static.
# What backtraces take their lines from is more than half of the program, and
# packs to a third.
ENV RUSTFLAGS="-C target-feature=+crt-static -C link-arg=-Wl,--compress-debug-sections=zlib"
RUN printf '#!/bin/sh\nexec cargo build --release --locked --package runcast --target "$(rustc -vV | sed -n "s/^host: //p")"\n' \
        > /usr/local/bin/build-runcast \
    && chmod 755 /usr/local/bin/build-runcast

# Dependencies first, from the manifests alone and with empty crates in our
# place: this layer stays until a manifest or the lock file changes.
COPY Cargo.toml Cargo.lock ./
COPY actors/Cargo.toml actors/Cargo.toml
COPY loadtest/Cargo.toml loadtest/Cargo.toml
RUN mkdir -p src actors/src loadtest/src tests/suites \
    && echo 'fn main() {}' | tee src/main.rs loadtest/src/main.rs tests/main.rs tests/suites/main.rs \
    && touch actors/src/lib.rs \
    && build-runcast

# Then our code. `touch`: cargo compares times, and the empty crates are newer
# than files copied from a checkout.
COPY actors/src actors/src
COPY build.rs ./
COPY src src
COPY --from=console /build/frontend/console/dist frontend/console/dist
RUN touch src/main.rs actors/src/lib.rs && build-runcast

# All files of the image. nsswitch.conf: names come from /etc/hosts and DNS.
RUN mkdir -p /image/etc/ssl/certs /image/usr/local/bin /image/tmp \
    && chmod 1777 /image/tmp \
    && cp target/*/release/runcast /image/usr/local/bin/ \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && echo 'hosts: files dns' > /image/etc/nsswitch.conf \
    && echo 'runcast:x:10001:10001::/tmp:/sbin/nologin' > /image/etc/passwd \
    && echo 'runcast:x:10001:' > /image/etc/group

# ---- what both have --------------------------------------------------------
FROM scratch AS base
COPY --from=build /image/ /

# A number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
# Nothing is written but what kubectl caches and `runcast exec` spools, to /tmp:
# the root filesystem may be read-only.
ENV PATH=/usr/local/bin HOME=/tmp
# Everything else has its default; see docs/configuration.md.
ENV RUNCAST__SERVER__BIND=0.0.0.0:8000
# Who may come in is not chosen here, and the broker does not start on this
# address until it is: give it keys (RUNCAST__AUTH__MODE=jwt and
# RUNCAST__AUTH__SECRET_FILE, KEYS_FILE or JWKS_URL), or, only where others cannot
# reach the port, RUNCAST__AUTH__ALLOW_ANONYMOUS=true. docs/security.md says more.
EXPOSE 8000
# It does not depend on Redis: a broker waits for that with its streams open.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 \
    CMD ["/usr/local/bin/runcast", "health"]
# SIGTERM drains: give it longer than server.shutdown_grace (20s).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/runcast"]
CMD ["serve"]

ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="runcast" \
    org.opencontainers.image.description="A live-run streaming broker: Redis Pub/Sub and kubectl logs to Server-Sent Events" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="${VERSION}" \
    org.opencontainers.image.revision="${REVISION}"

# ---- with kubectl ----------------------------------------------------------
# Within one minor version of the cluster's API server.
FROM registry.k8s.io/kubectl:v1.34.1 AS kubectl

FROM base AS runcast-kubectl
COPY --from=kubectl /bin/kubectl /usr/local/bin/kubectl

# ---- without ---------------------------------------------------------------
# Logs of pods are off until there is a cluster to ask.
FROM base AS runcast
ENV RUNCAST__KUBECTL__ENABLED=false RUNCAST__KUBECTL__ENGINE=api
