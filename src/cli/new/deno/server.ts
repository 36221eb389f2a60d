// The worker '{{name}}': listens, and ends when it is told to. What it answers is in app.ts.

import { answer } from "./app.ts";

const port = Number(Deno.env.get("PORT"));
if (!port) {
  console.error("no port was given; run this worker with `tqserver dev`");
  Deno.exit(1);
}

// The whole path of a request arrives here, so the worker has to know where it is.
const route = Deno.env.get("WORKER_ROUTE") ?? "{{route}}";

const server = Deno.serve({
  // Nobody but the proxy has to reach it.
  hostname: "127.0.0.1",
  port,
  onListen: () => console.log(`{{name}} serves ${route}`),
}, (request) => answer(route, request));

Deno.addSignalListener("SIGTERM", async () => {
  // No new connections; it is done when the last request is answered.
  await server.shutdown();
  Deno.exit(0);
});
