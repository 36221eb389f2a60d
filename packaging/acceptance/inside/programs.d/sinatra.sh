# Sinatra by puma on the worker's socket.
# shellcheck shell=bash
# Read by `program`.
# shellcheck disable=SC2034
PACKAGES=(ruby ruby-sinatra puma)

fetch() {
    how_to ruby yaml 1 | worker ruby
    cd "$SRV/ruby" || return
    cat >config.ru <<'RUBY'
require 'sinatra/base'

class App < Sinatra::Base
  get('/') { "hello from #{request.script_name}" }
  post('/') { request.body.read.reverse }
end

map(ENV.fetch('WORKER_ROUTE')) { run App }
RUBY
}

prove() {
    start ruby
    is "$(get /ruby/)" 'hello from /ruby'
    is "$(curl -sS -H 'Content-Type: text/plain' --data-binary abc http://127.0.0.1:8080/ruby/)" cba
    DONE='a page and a form'
    reloads ruby /ruby/ 'hello from /ruby'
}
