# Django as `startproject` makes it, by gunicorn: its admin, static files, SQLite in its state, an upload.
# shellcheck shell=bash
PACKAGES=(python3-venv)

fetch() {
    worker site <<'YAML'
command: [.venv/bin/python, -m, gunicorn, site1.wsgi]
# gunicorn takes the route off the paths it hands on.
env: {SCRIPT_NAME: "${WORKER_ROUTE}"}
YAML
    printf '%s\n' 'django<6' gunicorn whitenoise >requirements.txt
    python3 -m venv .venv
    .venv/bin/pip install --quiet -r requirements.txt
    .venv/bin/django-admin startproject site1 .
    cat >>site1/settings.py <<'PY'

import os

STATE = Path(os.environ.get("STATE_DIRECTORY", BASE_DIR / "data"))
DEBUG = False
ALLOWED_HOSTS = ["*"]
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "public" / "static"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": STATE / "db.sqlite3"}}
PY
    .venv/bin/python manage.py collectstatic --no-input >/dev/null
}

prove() {
    local admin=http://127.0.0.1:8080/site/admin
    start site
    is "$(status_of /site/static/admin/css/base.css)" 200
    has "$(curl -sS "$admin/login/")" 'Django administration'
    DONE='admin, static files'
    reloads site /site/admin/login/ 'Django administration'
}
