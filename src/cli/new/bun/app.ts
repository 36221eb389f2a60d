// What the worker '{{name}}' answers.

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
export function answer(route: string, request: Request): Response {
  const base = route.replace(/\/$/, "");
  switch (new URL(request.url).pathname) {
    case base:
    case `${base}/`:
      return text(200, "text/html", PAGE);
    case `${base}/health`:
      return text(200, "text/plain", "ok\n");
    default:
      return text(404, "text/plain", "there is nothing here\n");
  }
}

function text(status: number, type: string, body: string): Response {
  const headers = { "Content-Type": `${type}; charset=utf-8` };
  return new Response(body, { status, headers });
}
