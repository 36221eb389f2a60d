<?php

declare(strict_types=1);

const PAGE = <<<'HTML'
    <!doctype html>
    <html lang="en">
    <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width">
    <title>{{name}}</title>
    </head>
    <body>
    <h1>Hello from {{name}}</h1>
    <p>Edit <code>{{directory}}/lib/answer.php</code>, save it, and this page follows.</p>
    </body>
    </html>

    HTML;

/**
 * What a worker on $route answers to a request for $path.
 *
 * @return array{int, string, string} status, type and body
 */
function answer(string $route, string $path): array
{
    $base = rtrim($route, '/');

    return match ($path) {
        $base, "$base/" => [200, 'text/html', PAGE],
        "$base/health" => [200, 'text/plain', "ok\n"],
        default => [404, 'text/plain', "there is nothing here\n"],
    };
}
