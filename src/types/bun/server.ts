// The worker '{{name}}': takes the socket, and ends when it is told to. What it answers is in app.ts.
//
// The listening socket is file descriptor 3 (sd_listen_fds(3)), and SIGTERM means: finish and exit. Bun.serve can not take a socket that
// is open already, and neither can its node:http; its node:net can, and hands the connections on.

import http from "node:http";
import net from "node:net";

import { answer } from "./app";

const FIRST_FD = 3;

// A child would inherit these variables too; LISTEN_PID tells whom they are for.
if (process.env.LISTEN_PID !== String(process.pid) || process.env.LISTEN_FDS !== "1") {
  console.error("no socket was passed; run this worker with `tqserver dev`");
  process.exit(1);
}

// The whole path of a request arrives here, so the worker has to know where it is.
const route = process.env.WORKER_ROUTE ?? "{{route}}";
let stopping = false;
/** Connections, and how many requests are in flight on each. */
const connections = new Map<net.Socket, number>();

const server = http.createServer((request, response) => {
  const socket = request.socket;
  connections.set(socket, (connections.get(socket) ?? 0) + 1);
  response.on("close", () => {
    const left = (connections.get(socket) ?? 1) - 1;
    if (connections.has(socket)) connections.set(socket, left);
    if (stopping && left === 0) socket.end();
  });
  answer(route, request, response);
});

const listener = net.createServer((socket) => {
  connections.set(socket, 0);
  socket.on("close", () => connections.delete(socket));
  server.emit("connection", socket);
});

process.on("SIGTERM", () => {
  stopping = true;
  // No new connections, and those without a request end. The process is done with the last one.
  listener.close(() => process.exit(0));
  for (const [socket, requests] of connections) {
    if (requests === 0) socket.end();
  }
});

listener.listen({ fd: FIRST_FD }, () => console.log(`{{name}} serves ${route}`));
