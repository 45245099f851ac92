# One image for every command: `up` by default, with PostgreSQL and the search engine inside; `serve`, `work`, `migrate` … beside real servers.
#
#   docker build -t wordloom .
#   docker run --rm -p 127.0.0.1:8000:8000 -v wordloom:/var/lib/wordloom wordloom
#   docker run --rm -e DATABASE_URL=… -e ELASTIC_URL=… -e WORDLOOM_ENV=prod wordloom work --worker-id w1
#
# Images are pinned by version, not by digest.

# With git, which tells the build its commit.
FROM node:24-bookworm AS build
WORKDIR /src
COPY . .
RUN node tools/bootstrap.mjs build

FROM debian:bookworm-slim
# PostgreSQL refuses to run as root; a number, so that Kubernetes can see that it is not root.
RUN install -d -o 10001 -g 10001 /var/lib/wordloom
COPY --from=build /src/dist/wordloom /usr/local/bin/wordloom
USER 10001:10001
# Nobody outside of the container could reach 127.0.0.1.
ENV API_HOST=0.0.0.0 \
    WORDLOOM_DATA_DIR=/var/lib/wordloom
VOLUME /var/lib/wordloom
# The API; a worker's metrics; a worker's /livez and /readyz.
EXPOSE 8000 9108 9110
ENTRYPOINT ["wordloom"]
CMD ["up"]
