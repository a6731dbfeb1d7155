// Another user of the host, who takes the dashboard's port while the supervisor is away and leaves what a browser keeps.

import { createServer } from "node:http";

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

export class Squatter {
  servers = [];

  /** Serves its page there, at both addresses of this host. */
  async take(port) {
    for (const address of ["127.0.0.1", "::1"]) {
      const server = createServer(answer);
      this.servers.push(server);
      await new Promise((taken, failed) => server.once("error", failed).listen(port, address, taken));
    }
  }

  async leave() {
    for (const server of this.servers.splice(0)) {
      server.closeAllConnections();
      await new Promise((left) => server.close(left));
    }
  }
}
