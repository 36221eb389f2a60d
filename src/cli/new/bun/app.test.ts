import { expect, test } from "bun:test";

import { answer } from "./app";

/** Asks a worker on `route` for `path`. */
function ask(route: string, path: string): Response {
  return answer(route, new Request(`http://localhost${path}`));
}

test("the page is at the route and says the name", async () => {
  for (const [route, path] of [["/a/b", "/a/b"], ["/a/b", "/a/b/?x=1"], ["/", "/"]]) {
    const response = ask(route, path);
    expect(response.status).toBe(200);
    expect(await response.text()).toContain("{{name}}");
  }
});

test("the health path is below the route", () => {
  expect(ask("/a", "/a/health").status).toBe(200);
  expect(ask("/", "/health").status).toBe(200);
});

test("what is not there is 404", () => {
  expect(ask("/a", "/a/none").status).toBe(404);
  expect(ask("/a", "/").status).toBe(404);
});
