# One static executable in an image of its own.
FROM rust:1.95.0-alpine AS build
# A C compiler for ring and aws-lc (docs/adr/0001).
RUN apk add --no-cache build-base ca-certificates
# The image's own compiler, without the components that only development needs.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /eagle
COPY . .
RUN cargo build --release --locked --package eagle

FROM scratch
COPY --from=build /eagle/target/release/eagle /eagle
# Whom registries' certificates may be signed by; rustls reads it from here.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# An agent that is to write its node's hosts.toml needs a user who may, or a directory that this one owns.
USER 65532:65532
ENTRYPOINT ["/eagle"]
