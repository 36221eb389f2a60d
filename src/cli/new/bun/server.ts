// The worker '{{name}}': listens, and ends when it is told to. What it answers is in app.ts.

import { answer } from "./app";

const port = Number(process.env.PORT);
if (!port) {
  console.error("no port was given; run this worker with `tqserver dev`");
  process.exit(1);
}

// The whole path of a request arrives here, so the worker has to know where it is.
const route = process.env.WORKER_ROUTE ?? "{{route}}";

const server = Bun.serve({
  // Nobody but the proxy has to reach it.
  hostname: "127.0.0.1",
  port,
  fetch: (request) => answer(route, request),
});
console.log(`{{name}} serves ${route}`);

process.on("SIGTERM", async () => {
  // No new connections; it is done when the last request is answered.
  await server.stop();
  process.exit(0);
});
