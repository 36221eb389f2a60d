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
<p>Edit <code>{{directory}}/app.js</code>, save it, and this page follows.</p>
</body>
</html>
`;

/** Answers a request for `route` or what is below it. */
export function answer(route, request, response) {
  const base = route.replace(/\/$/, "");
  const [path] = request.url.split("?", 1);
  if (path === base || path === `${base}/`) {
    send(response, 200, "text/html", PAGE);
  } else if (path === `${base}/health`) {
    send(response, 200, "text/plain", "ok\n");
  } else {
    send(response, 404, "text/plain", "there is nothing here\n");
  }
}

function send(response, status, type, body) {
  response.writeHead(status, {
    "Content-Type": `${type}; charset=utf-8`,
    "Content-Length": Buffer.byteLength(body),
  });
  response.end(body);
}
