import assert from "node:assert/strict";
import http from "node:http";
import { test } from "node:test";

import { answer } from "./app.js";

/** Asks a worker on `route` for `path`. */
async function ask(route, path) {
  const server = http.createServer((request, response) => answer(route, request, response));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const response = await fetch(`http://127.0.0.1:${server.address().port}${path}`);
    return { status: response.status, body: await response.text() };
  } finally {
    server.close();
    server.closeAllConnections();
  }
}

test("the page is at the route and says the name", async () => {
  for (const [route, path] of [["/a/b", "/a/b"], ["/a/b", "/a/b/?x=1"], ["/", "/"]]) {
    const { status, body } = await ask(route, path);
    assert.equal(status, 200, path);
    assert.match(body, /{{name}}/);
  }
});

test("the health path is below the route", async () => {
  assert.equal((await ask("/a", "/a/health")).status, 200);
  assert.equal((await ask("/", "/health")).status, 200);
});

test("what is not there is 404", async () => {
  assert.equal((await ask("/a", "/a/none")).status, 404);
  assert.equal((await ask("/a", "/")).status, 404);
});
