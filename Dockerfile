# The service in an image without shell, package manager or development packages; `npm run image` tags it by version and revision.
# Target `local-aws` is the stand-in for AWS that docker-compose.yml runs.
FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --no-audit --no-fund
COPY tsconfig.json ./
COPY .config .config
COPY src src
RUN npm run build

FROM build AS local-aws
ENV LOCAL_HOST=0.0.0.0 LOCAL_DYNAMODB_PORT=off CVM_LOCAL_DIR=/local
RUN install -d -o node -g node -m 700 /local
USER node
EXPOSE 8001 8883
ENTRYPOINT ["node", "dist/local/main.js"]

FROM node:24-bookworm-slim AS modules
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts --no-audit --no-fund

FROM modules AS files
# Seconds since 1970: the time of every file, so that the same revision gives the same layer.
ARG SOURCE_DATE_EPOCH=0
COPY .config/image-files.sh .config/
COPY --from=build /app/dist dist
RUN sh .config/image-files.sh /image

FROM scratch
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=1970-01-01T00:00:00Z
LABEL org.opencontainers.image.title="certificate-vending-machine" \
      org.opencontainers.image.description="Gives every device its AWS IoT certificate" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.created=$CREATED
COPY --from=files /image /
ENV NODE_ENV=production PATH=/usr/local/bin
WORKDIR /app
# The user `node`, by number, so that an orchestrator can see that it is not root.
USER 1000:1000
EXPOSE 8443 9464
# Alive, not ready: who drains or sheds load must not be killed for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.OPS_PORT || 9464}/livez`).then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# node itself is process 1, so that it gets SIGTERM.
ENTRYPOINT ["node", "--enable-source-maps"]
CMD ["dist/server.js"]
