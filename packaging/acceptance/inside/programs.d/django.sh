# Django as `startproject` makes it, by gunicorn: migrated by `tqserver exec`, its admin logged in to, static files; once with SQLite in its
# state, once with PostgreSQL over its socket, where the worker's user is the role.
# shellcheck shell=bash
# Read by `program`.
# shellcheck disable=SC2034
PACKAGES=(python3-venv postgresql)

fetch() {
    local name
    for name in site shop; do
        how_to django yaml 1 | worker "$name"
        cd "$SRV/$name" || return
        printf '%s\n' 'django<6' gunicorn 'psycopg[binary]' >requirements.txt
        python3 -m venv .venv
        .venv/bin/pip install --quiet -r requirements.txt
        .venv/bin/django-admin startproject project .
        how_to django python 1 >>project/settings.py
        # The other one's database.
        [[ "$name" != shop ]] || how_to django python 2 | sed 's/"site"/"shop"/; s/tqw-site/tqw-shop/' >>project/settings.py
        .venv/bin/python manage.py collectstatic --no-input >/dev/null
    done
}

# Logs in to the admin of a worker, as a browser does.
log_in() {
    local admin="http://127.0.0.1:8080/$1/admin" jar token
    jar="$(mktemp)"
    curl -sS --cookie-jar "$jar" -o /dev/null "$admin/login/"
    token="$(awk '$6 == "csrftoken" { print $7 }' "$jar")"
    curl -sS --cookie "$jar" --cookie-jar "$jar" -o /dev/null "$admin/login/" -d "csrfmiddlewaretoken=$token" \
        -d username=root -d password=Sup3rSecret -d next=/
    has "$(curl -sS --cookie "$jar" "$admin/")" '<title>Site administration'
}

prove() {
    local name
    systemctl start postgresql
    eventually 30 runuser -u postgres -- psql -c 'select 1'
    runuser -u postgres -- createuser tqw-shop
    runuser -u postgres -- createdb --owner=tqw-shop shop
    for name in site shop; do
        start "$name"
        is "$(status_of "/$name/static/admin/css/base.css")" 200
        run tqserver exec "$name" -- python manage.py migrate --no-input
        run tqserver exec "$name" -- env DJANGO_SUPERUSER_PASSWORD=Sup3rSecret \
            python manage.py createsuperuser --no-input --username root --email root@example.org
        log_in "$name"
        DONE+="${DONE:+, }$name: migrated, logged in"
        reloads "$name" "/$name/admin/login/" 'Django administration'
        log_in "$name"
    done
}
