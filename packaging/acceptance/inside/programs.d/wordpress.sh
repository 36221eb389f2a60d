# WordPress with MariaDB: installed by its own form, logged in to, a picture uploaded and seen, a plugin installed from an archive.
# shellcheck shell=bash
# Read by `program`.
# shellcheck disable=SC2034
PACKAGES=(wordpress php-fpm php-mysql php-gd php-curl php-xml mariadb-server)

fetch() {
    how_to wordpress yaml 1 | worker blog
    cd "$SRV/blog" || return
    mkdir -p public
    cp -rL /usr/share/wordpress/. public/
    mkdir -p public/wp-content/{uploads,upgrade}
    cat >public/wp-config.php <<'PHP'
<?php
define('DB_NAME', 'wp');
define('DB_USER', 'wp');
define('DB_PASSWORD', trim(file_get_contents(getenv('CREDENTIALS_DIRECTORY') . '/db')));
define('DB_HOST', 'localhost:/run/mysqld/mysqld.sock');
define('DB_CHARSET', 'utf8mb4');
define('DB_COLLATE', '');
define('FS_METHOD', 'direct');
foreach (['AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE'] as $name) {
    define($name . '_KEY', "$name-key");
    define($name . '_SALT', "$name-salt");
}
$table_prefix = 'wp_';
if (!defined('ABSPATH')) define('ABSPATH', __DIR__ . '/');
require_once ABSPATH . 'wp-settings.php';
PHP
    secret blog db password-of-wp
    # What WordPress is given: a picture and a plugin.
    python3 - <<'PY'
import pathlib, struct, zipfile, zlib

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

head = struct.pack(">IIBBBBB", 400, 400, 8, 2, 0, 0, 0)
rows = (b"\0" + bytes([255, 0, 0]) * 400) * 400
png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
pathlib.Path("/acceptance/red.png").write_bytes(png)
with zipfile.ZipFile("/acceptance/hello-tq.zip", "w") as plugin:
    plugin.writestr("hello-tq/hello-tq.php", "<?php\n/*\nPlugin Name: Hello TQ\nVersion: 1.0\n*/\nadd_action('login_footer', function () { echo '<p>hello from a plugin</p>'; });\n")
    plugin.writestr("hello-tq/a.css", "body {}")
PY
}

nonce() {
    grep -o 'name="_wpnonce" value="[^"]*"' | head -n 1 | cut -d'"' -f4
}

prove() {
    local blog=http://127.0.0.1:8080/blog page nonce picture
    systemctl start mariadb
    mysql -e "create database wp; create user wp@localhost identified by 'password-of-wp'; grant all on wp.* to wp@localhost"
    start blog
    browse() { curl -sS --fail-with-body --max-time 120 --cookie-jar jar --cookie jar --cookie wordpress_test_cookie=WP+Cookie+check "$@"; }
    cd "$(mktemp -d)" || return
    has "$(browse "$blog/wp-admin/install.php?step=2" -d weblog_title=Blog -d user_name=admin -d admin_password=Sup3rSecret \
        -d admin_password2=Sup3rSecret -d pw_weak=1 -d admin_email=a@example.org)" '<h1>Success'
    browse "$blog/wp-login.php" -d log=admin -d pwd=Sup3rSecret -d wp-submit=1 -d testcookie=1
    has "$(browse "$blog/wp-admin/")" '<title>Dashboard'
    page="$(browse "$blog/wp-admin/media-new.php?browser-uploader")"
    browse "$blog/wp-admin/media-new.php?inline=" -F 'async-upload=@/acceptance/red.png;type=image/png' -F html-upload=Upload -F post_id=0 \
        -F "_wpnonce=$(nonce <<<"$page")"
    picture="/blog/wp-content/uploads/$(date +%Y/%m)/red"
    cmp <(get "$picture.png") /acceptance/red.png
    has "$(curl -sSI "http://127.0.0.1:8080$picture-150x150.png")" '^x-content-type-options: nosniff'
    page="$(browse "$blog/wp-admin/plugin-install.php?tab=upload")"
    page="$(browse "$blog/wp-admin/update.php?action=upload-plugin" -F 'pluginzip=@/acceptance/hello-tq.zip;type=application/zip' \
        -F "_wpnonce=$(nonce <<<"$page")" -F install-plugin-submit=Install)"
    has "$page" 'Plugin installed successfully'
    browse -o /dev/null "$blog/wp-admin/$(grep -o 'plugins.php?action=activate[^"]*' <<<"$page" | sed 's/&amp;/\&/g; s/&#038;/\&/g')"
    has "$(get /blog/wp-login.php)" 'hello from a plugin'
    is "$(get /blog/wp-content/plugins/hello-tq/a.css)" 'body {}'
    DONE='installed, logged in, picture seen, plugin runs'
    reloads blog /blog/wp-login.php 'hello from a plugin'
    cmp <(get "$picture.png") /acceptance/red.png
}
