// The worker '{{name}}': takes the socket, and ends when it is told to. What it answers is in app.ts.
//
// The listening socket is file descriptor 3 (sd_listen_fds(3)), and SIGTERM means: finish and exit. Deno.serve can not take a socket that
// is open already; its node:http can.

import http from "node:http";

import { answer } from "./app.ts";

const FIRST_FD = 3;

// A child would inherit these variables too; LISTEN_PID tells whom they are for.
if (
  Deno.env.get("LISTEN_PID") !== String(Deno.pid) ||
  Deno.env.get("LISTEN_FDS") !== "1"
) {
  console.error("no socket was passed; run this worker with `tqserver dev`");
  Deno.exit(1);
}

// The whole path of a request arrives here, so the worker has to know where it is.
const route = Deno.env.get("WORKER_ROUTE") ?? "{{route}}";
let stopping = false;

const server = http.createServer((request, response) => {
  response.on("close", () => {
    // This connection has become an idle one, which nobody else would close.
    if (stopping) setTimeout(() => server.closeIdleConnections());
  });
  answer(route, request, response);
});

Deno.addSignalListener("SIGTERM", () => {
  stopping = true;
  // No new connections. It is done when the last request is answered.
  server.close(() => Deno.exit(0));
  server.closeIdleConnections();
});

server.listen({ fd: FIRST_FD }, () => console.log(`{{name}} serves ${route}`));
