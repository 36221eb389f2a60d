// The worker '{{name}}': takes the socket, and ends when it is told to. What it answers is in app.js.
//
// The listening socket is file descriptor 3 (sd_listen_fds(3)), and SIGTERM means: finish and exit.

import http from "node:http";
import process from "node:process";

import { answer } from "./app.js";

const FIRST_FD = 3;

// A child would inherit these variables too; LISTEN_PID tells whom they are for.
if (process.env.LISTEN_PID !== String(process.pid) || process.env.LISTEN_FDS !== "1") {
  console.error("no socket was passed; run this worker with `tqserver dev`");
  process.exit(1);
}

// The whole path of a request arrives here, so the worker has to know where it is.
const route = process.env.WORKER_ROUTE ?? "{{route}}";
let stopping = false;

const server = http.createServer((request, response) => {
  response.on("close", () => {
    // This connection has become an idle one, which nobody else would close.
    if (stopping) setImmediate(() => server.closeIdleConnections());
  });
  answer(route, request, response);
});

process.on("SIGTERM", () => {
  stopping = true;
  // No new connections. The process ends by itself with the last request.
  server.close();
  server.closeIdleConnections();
});

server.listen({ fd: FIRST_FD }, () => console.log(`{{name}} serves ${route}`));
