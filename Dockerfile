# One static executable in an image of its own.
FROM rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev
WORKDIR /eagle
COPY . .
RUN cargo build --release --locked --package eagle

FROM scratch
COPY --from=build /eagle/target/release/eagle /eagle
# The agent needs to write its node's hosts.toml and cache; give it a user that may, or these directories.
USER 65532:65532
ENTRYPOINT ["/eagle"]
