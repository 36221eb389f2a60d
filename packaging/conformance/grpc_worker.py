"""A gRPC server as a worker: grpcio's own, on the port it is given. Methods are by name, messages are bytes, so no .proto is needed."""

import os
import signal
import threading
from concurrent import futures

import grpc


def unary(request, context):
    """Sends the message back, with the metadata and the time that came with it."""
    metadata = dict(context.invocation_metadata())
    if "x-ask" in metadata:
        context.send_initial_metadata((("x-initial", metadata["x-ask"]),))
        context.set_trailing_metadata((("x-trailing", "end"), ("x-bytes-bin", metadata.get("x-bytes-bin", b""))))
    return request


def fail(request, context):
    context.set_trailing_metadata((("x-why", "asked to"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this: \u00e4")


def wait(request, context):
    """Answers only when the caller has left; says so in `left`."""
    gone = threading.Event()
    if not context.add_callback(gone.set):
        gone.set()
    gone.wait(30)
    LEFT.release()
    return b"late"


def left(request, context):
    return b"yes" if LEFT.acquire(timeout=20) else b"no"


def count(request, context):
    for number in range(int(request)):
        yield b"%d" % number


def endless(request, context):
    context.add_callback(LEFT.release)
    number = 0
    while True:
        yield b"%d" % number
        number += 1


def add(requests, context):
    return b"%d" % sum(len(request) for request in requests)


def echo(requests, context):
    for request in requests:
        yield request


LEFT = threading.Semaphore(0)
METHODS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "Left": grpc.unary_unary_rpc_method_handler(left),
    "Count": grpc.unary_stream_rpc_method_handler(count),
    "Endless": grpc.unary_stream_rpc_method_handler(endless),
    "Add": grpc.stream_unary_rpc_method_handler(add),
    "Echo": grpc.stream_stream_rpc_method_handler(echo),
}


def main():
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=64), options=options)
    handlers = grpc.method_handlers_generic_handler("conformance.Calls", METHODS)
    server.add_generic_rpc_handlers((handlers,))
    server.add_insecure_port("127.0.0.1:" + os.environ["PORT"])
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: server.stop(5))
    server.wait_for_termination()


if __name__ == "__main__":
    main()
