import assert from "node:assert/strict";

import { answer } from "./app.ts";

/** Asks a worker on `route` for `path`. */
function ask(route: string, path: string): Response {
  return answer(route, new Request(`http://localhost${path}`));
}

Deno.test("the page is at the route and says the name", async () => {
  for (
    const [route, path] of [["/a/b", "/a/b"], ["/a/b", "/a/b/?x=1"], ["/", "/"]]
  ) {
    const response = ask(route, path);
    assert.equal(response.status, 200);
    assert.ok((await response.text()).includes("{{name}}"));
  }
});

Deno.test("the health path is below the route", () => {
  assert.equal(ask("/a", "/a/health").status, 200);
  assert.equal(ask("/", "/health").status, 200);
});

Deno.test("what is not there is 404", () => {
  assert.equal(ask("/a", "/a/none").status, 404);
  assert.equal(ask("/a", "/").status, 404);
});
