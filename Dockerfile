# The service: Node 24, production dependencies and compiled code, as an unprivileged user. Target `local-aws` is the stand-in for AWS.
FROM node:24-bookworm-slim AS build
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --ignore-scripts --no-audit
COPY tsconfig.json ./
COPY .config .config
COPY src src
RUN npm run build

FROM node:24-bookworm-slim AS modules
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts --no-audit

FROM build AS local-aws
ENV LOCAL_HOST=0.0.0.0 LOCAL_DYNAMODB_PORT=off CVM_LOCAL_DIR=/local
RUN install -d -o node -g node -m 700 /local
USER node
EXPOSE 8001 8883
ENTRYPOINT ["node", "dist/local/main.js"]

FROM node:24-bookworm-slim
WORKDIR /app
ENV NODE_ENV=production
COPY --from=modules /app/node_modules node_modules
COPY --from=build /app/dist dist
COPY package.json ./
# Local mode needs development packages and never runs in production.
RUN rm -rf dist/local dist/local-mode.js
USER node
EXPOSE 8443 9464
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
  CMD ["node", "-e", "fetch(`http://127.0.0.1:${process.env.OPS_PORT || 9464}/livez`).then(r => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# node itself is process 1, so that it gets SIGTERM.
ENTRYPOINT ["node", "--enable-source-maps"]
CMD ["dist/server.js"]
