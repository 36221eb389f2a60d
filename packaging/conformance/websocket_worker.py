"""A WebSocket as a worker: sends every message back, by the library `websockets`, on the port it is given."""

import asyncio
import os
import signal

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed


async def echo(socket):
    try:
        async for message in socket:
            await socket.send(message)
    except ConnectionClosed:
        pass


def plain(connection, request):
    """A health request is no handshake."""
    if "upgrade" not in request.headers:
        return connection.respond(200, "a WebSocket\n")
    return None


async def main():
    stop = asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set_result, None)
    options = {"max_size": None, "ping_interval": None, "process_request": plain}
    async with serve(echo, "127.0.0.1", int(os.environ["PORT"]), **options):
        await stop


if __name__ == "__main__":
    asyncio.run(main())
