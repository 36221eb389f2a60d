<?php

// The front controller of the worker '{{name}}': every request comes here. What it answers is in lib/answer.php, outside of the
// directory that requests can name files in.

declare(strict_types=1);

require __DIR__ . '/../lib/answer.php';

// The whole path of a request arrives here, so the worker has to know where it is.
$route = getenv('WORKER_ROUTE') ?: '{{route}}';
[$path] = explode('?', $_SERVER['REQUEST_URI'], 2);

[$status, $type, $body] = answer($route, $path);

http_response_code($status);
header("Content-Type: $type; charset=utf-8");
header('Content-Length: ' . strlen($body));
echo $body;
