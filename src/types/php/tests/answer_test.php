<?php

// Needs nothing but PHP: php tests/answer_test.php

declare(strict_types=1);

require __DIR__ . '/../lib/answer.php';

$failures = 0;

function check(string $claim, bool $holds): void
{
    global $failures;
    echo $holds ? 'ok' : 'not ok', " - $claim\n";
    $failures += $holds ? 0 : 1;
}

foreach ([['/a/b', '/a/b'], ['/a/b', '/a/b/'], ['/', '/']] as [$route, $path]) {
    [$status, $type, $body] = answer($route, $path);
    check("the page of $route is at $path", $status === 200 && $type === 'text/html');
    check('it says the name', str_contains($body, '{{name}}'));
}
check('the health path is below the route', answer('/a', '/a/health')[0] === 200);
check('the health path of / is /health', answer('/', '/health')[0] === 200);
check('what is not there is 404', answer('/a', '/a/none')[0] === 404);
check('what is above the route is 404', answer('/a', '/')[0] === 404);

exit($failures === 0 ? 0 : 1);
