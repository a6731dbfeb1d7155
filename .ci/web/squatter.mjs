// Another user of the host, who takes the dashboard's port while the supervisor is away and leaves what a browser keeps.

import { createServer } from "node:http";
import { until } from "./host.mjs";

/** Lets the browser ask nobody for a year, */
const KEPT = { "cache-control": "public, max-age=31536000, immutable" };
/** and answers whatever its pages ask. */
const WORKER = `
  addEventListener("install", () => skipWaiting());
  addEventListener("activate", (event) => event.waitUntil(clients.claim()));
  addEventListener("fetch", () => {});
`;
const PAGE = `<!doctype html><title>a page</title><script>
  navigator.serviceWorker.register("/worker.js")
    .then(() => navigator.serviceWorker.ready)
    .then(() => { document.title = "left something"; });
</script>`;

const answer = ({ url }, response) => {
  const [type, body] = url === "/worker.js" ? ["text/javascript", WORKER] : ["text/html", PAGE];
  response.writeHead(200, { "content-type": type, ...KEPT }).end(body);
};

const listen = (port, address) => new Promise((taken, failed) => {
  const server = createServer(answer);
  server.once("error", (error) => (error.code === "EADDRINUSE" ? taken(null) : failed(error)));
  server.listen(port, address, () => taken(server));
});

export class Squatter {
  servers = [];

  /** Serves its page there, at both addresses of this host. */
  async take(port) {
    for (const address of ["127.0.0.1", "::1"]) {
      // Whoever was killed may have its sockets a moment longer than its name.
      const server = await until(`${address}:${port} is free`, () => listen(port, address));
      this.servers.push(server);
    }
  }

  async leave() {
    for (const server of this.servers.splice(0)) {
      server.closeAllConnections();
      await new Promise((left) => server.close(left));
    }
  }
}
