# FastAPI by uvicorn on the worker's socket: JSON, its own documentation, a WebSocket.
# shellcheck shell=bash
# Read by `program`.
# shellcheck disable=SC2034
PACKAGES=(python3-venv)

fetch() {
    how_to fastapi yaml 1 | worker api
    cd "$SRV/api" || return
    printf '%s\n' fastapi 'uvicorn[standard]' >requirements.txt
    cat >main.py <<'PY'
from fastapi import FastAPI, WebSocket

app = FastAPI()


@app.get("/items/{item}")
def item(item: int):
    return {"item": item}


@app.websocket("/echo")
async def echo(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text("echo " + await socket.receive_text())
PY
    python3 -m venv .venv
    .venv/bin/pip install --quiet -r requirements.txt
}

# Says something over a WebSocket, and prints what comes back.
say_over_websocket() {
    "$SRV/api/.venv/bin/python" - "$1" "$2" <<'PY'
import asyncio, sys
from websockets.asyncio.client import connect

async def main():
    async with connect(sys.argv[1]) as socket:
        await socket.send(sys.argv[2])
        print(await socket.recv())

asyncio.run(main())
PY
}

prove() {
    start api
    is "$(get /api/items/7)" '{"item":7}'
    is "$(status_of /api/items/x)" 422
    has "$(get /api/docs)" '/api/openapi.json'
    is "$(say_over_websocket ws://127.0.0.1:8080/api/echo hello)" 'echo hello'
    DONE='JSON, docs, a WebSocket'
    reloads api /api/items/7 '"item":7'
}
