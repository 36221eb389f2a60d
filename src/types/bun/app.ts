// What the worker '{{name}}' answers.

import type { IncomingMessage, ServerResponse } from "node:http";

const PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{{name}}</title>
</head>
<body>
<h1>Hello from {{name}}</h1>
<p>Edit <code>{{directory}}/app.ts</code>, save it, and this page follows.</p>
</body>
</html>
`;

/** Answers a request for `route` or what is below it. */
export function answer(
  route: string,
  request: IncomingMessage,
  response: ServerResponse,
): void {
  const base = route.replace(/\/$/, "");
  const [path] = (request.url ?? "/").split("?");
  // A body nobody reads would stand in the way of the next request on the connection.
  request.resume();
  switch (path) {
    case base:
    case `${base}/`:
      return text(response, 200, "text/html", PAGE);
    case `${base}/health`:
      return text(response, 200, "text/plain", "ok\n");
    default:
      return text(response, 404, "text/plain", "there is nothing here\n");
  }
}

function text(
  response: ServerResponse,
  status: number,
  type: string,
  body: string,
): void {
  response.writeHead(status, { "Content-Type": `${type}; charset=utf-8` });
  response.end(body);
}
