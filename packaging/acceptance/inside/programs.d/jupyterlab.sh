# JupyterLab, a program with a port of its own and kernels as its children: a cell is run over its WebSocket.
# shellcheck shell=bash
# Read by `program`.
# shellcheck disable=SC2034
PACKAGES=(python3-venv)

fetch() {
    how_to ports yaml 1 | worker lab
    cd "$SRV/lab" || return
    secret lab token secret
    echo jupyterlab >requirements.txt
    python3 -m venv .venv
    .venv/bin/pip install --quiet -r requirements.txt
}

prove() {
    start lab
    has "$(get '/lab/lab?token=secret')" '<title>JupyterLab'
    cat >/root/cell.py <<'PY'
import json, sys, urllib.request, uuid
from websocket import create_connection

base, head = "127.0.0.1:8080/lab", {"Authorization": "token secret"}
request = urllib.request.Request(f"http://{base}/api/kernels", b"{}", head)
kernel = json.load(urllib.request.urlopen(request, timeout=60))["id"]
socket = create_connection(f"ws://{base}/api/kernels/{kernel}/channels", header=[f"{k}: {v}" for k, v in head.items()], timeout=60)
content = {"code": "print(6 * 7)", "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
header = {"msg_id": uuid.uuid4().hex, "username": "", "session": uuid.uuid4().hex, "msg_type": "execute_request", "version": "5.3"}
socket.send(json.dumps({"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}))
while True:
    message = json.loads(socket.recv())
    if message["msg_type"] == "stream":
        print(message["content"]["text"].strip())
        break
PY
    is "$("$SRV/lab/.venv/bin/python" /root/cell.py)" 42
    DONE='a cell is run'
    reloads lab /lab/api version
}
