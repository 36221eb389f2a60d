import { expect, test } from "bun:test";
import http from "node:http";
import type { AddressInfo } from "node:net";

import { answer } from "./app";

/** Asks a worker on `route` for `path`. */
async function ask(route: string, path: string): Promise<{ status: number; body: string }> {
  const server = http.createServer((request, response) => answer(route, request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: response.status, body: await response.text() };
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

test("the page is at the route and says the name", async () => {
  for (const [route, path] of [["/a/b", "/a/b"], ["/a/b", "/a/b/?x=1"], ["/", "/"]]) {
    const { status, body } = await ask(route, path);
    expect(status).toBe(200);
    expect(body).toContain("{{name}}");
  }
});

test("the health path is below the route", async () => {
  expect((await ask("/a", "/a/health")).status).toBe(200);
  expect((await ask("/", "/health")).status).toBe(200);
});

test("what is not there is 404", async () => {
  expect((await ask("/a", "/a/none")).status).toBe(404);
  expect((await ask("/a", "/")).status).toBe(404);
});
