# Datasette, a program with a port of its own, which does not know its prefix unless it is told.
# shellcheck shell=bash
# Read by `program`.
# shellcheck disable=SC2034
PACKAGES=(python3-venv)

fetch() {
    how_to ports yaml 2 | worker data
    cd "$SRV/data" || return
    echo datasette >requirements.txt
    python3 -m venv .venv
    .venv/bin/pip install --quiet setuptools -r requirements.txt
    python3 -c 'import sqlite3; db = sqlite3.connect("facts.db"); db.execute("create table facts (name text, number integer)"); db.execute("insert into facts values (?, ?)", ("answer", 42)); db.commit()'
}

prove() {
    start data
    has "$(get '/data/facts/facts.json?_shape=array')" '"number": ?42'
    has "$(get /data/facts/facts)" 'answer'
    DONE='a table is read as JSON and as a page'
    reloads data '/data/facts/facts.json?_shape=array' 42
    # One crash is an ordinary restart, and requests wait for it.
    load_start '/data/facts/facts.json?_shape=array' 42 --keep-alive 0 --per-request 2
    kill -KILL "$(worker_pids data)"
    load_goes_on 20
    load_stop
    (($(load_saw failed) <= 2)) || fail 'more was lost than what was in the process'
    is "$(load_saw failures.status)" 0 'responses that are errors'
    DONE+=', a crash is waited for'
}
