# Workers as packages: apt is the deploy, and the rollback.
# shellcheck shell=bash

# worker_package VERSION [broken]: builds a package of the worker blog, prints its path.
worker_package() {
    local directory="$NOTES/packages/$1"
    rm -rf "$directory"
    # A project as its developers have it.
    mkdir -p "$directory/config"
    : >"$directory/config/server.yaml"
    YAML='' write_worker "$directory/workers/blog" "blog $1"
    if [[ "${2:-}" == broken ]]; then echo 'import not_there' >"$directory/workers/blog/main.py"; fi
    (cd "$directory" && tqserver package blog --version "$1" >&2)
    find "$directory" -maxdepth 1 -name '*.deb' | grep . || fail "tqserver package left no .deb in $directory"
}

claim_apt_install_of_a_worker_is_a_deploy_and_a_rollback() {
    local first second before
    first="$(worker_package 1.0)"
    second="$(worker_package 1.1)"
    page_is /beta "$(get /beta)"
    before="$(worker_pids beta)"
    run apt-get install "$first"
    page_is /blog 'blog 1.0'
    run apt-get install "$second"
    page_is /blog 'blog 1.1'
    run apt-get install --allow-downgrades "$first"
    page_is /blog 'blog 1.0'
    is "$(worker_pids beta)" "$before" 'processes of beta'
    run apt-get remove "$(dpkg-deb --field "$first" Package)"
    [[ "$(status_of /blog)" != 200 ]] || fail 'the route is still there'
    eventually 60 no_worker_process blog
}

claim_apt_fails_where_a_packaged_worker_does_not_start() {
    local good bad
    good="$(worker_package 3.0)"
    bad="$(worker_package 3.1 broken)"
    run apt-get install "$good"
    refused apt-get install "$bad"
    has "$OUTPUT" "No module named 'not_there'"
    has "$OUTPUT" 'blog: this version does not start'
    page_is /blog 'blog 3.0'
    run apt-get install --allow-downgrades "$good"
    page_is /blog 'blog 3.0'
    run apt-get purge "$(dpkg-deb --field "$good" Package)"
}

claim_a_worker_of_the_administrator_hides_a_packaged_one() {
    local package
    package="$(worker_package 2.0)"
    live blog 'blog by hand'
    run apt-get install "$package"
    page_is /blog 'blog by hand'
    undeploy blog
    run systemctl reload tqserver
    page_is /blog 'blog 2.0'
    run apt-get purge "$(dpkg-deb --field "$package" Package)"
    [[ "$(status_of /blog)" != 200 ]] || fail 'the route is still there'
}
