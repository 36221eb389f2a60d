import assert from "node:assert/strict";
import http from "node:http";
import type { AddressInfo } from "node:net";

import { answer } from "./app.ts";

/** Asks a worker on `route` for `path`. */
async function ask(
  route: string,
  path: string,
): Promise<{ status: number; body: string }> {
  const server = http.createServer((request, response) =>
    answer(route, request, response)
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const { port } = server.address() as AddressInfo;
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: response.status, body: await response.text() };
  } finally {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

Deno.test("the page is at the route and says the name", async () => {
  for (
    const [route, path] of [["/a/b", "/a/b"], ["/a/b", "/a/b/?x=1"], ["/", "/"]]
  ) {
    const { status, body } = await ask(route, path);
    assert.equal(status, 200);
    assert.ok(body.includes("{{name}}"));
  }
});

Deno.test("the health path is below the route", async () => {
  assert.equal((await ask("/a", "/a/health")).status, 200);
  assert.equal((await ask("/", "/health")).status, 200);
});

Deno.test("what is not there is 404", async () => {
  assert.equal((await ask("/a", "/a/none")).status, 404);
  assert.equal((await ask("/a", "/")).status, 404);
});
