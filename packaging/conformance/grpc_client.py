"""grpcio's client against a server: grpc_client.py HOST:PORT [CERTIFICATE]. Each case is a sentence; exits 1 if one is not true."""

import sys
import threading
import time

import grpc

LONG = 60


class Calls:
    def __init__(self, target, certificate):
        options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.max_send_message_length", 64 << 20)]
        if certificate:
            with open(certificate, "rb") as file:
                credentials = grpc.ssl_channel_credentials(file.read())
            self.channel = grpc.secure_channel(target, credentials, options)
        else:
            self.channel = grpc.insecure_channel(target, options)
        path = "/conformance.Calls/"
        for name in ("Unary", "Fail", "Wait", "Left"):
            setattr(self, name.lower(), self.channel.unary_unary(path + name))
        self.none = self.channel.unary_unary(path + "None")
        self.count = self.channel.unary_stream(path + "Count")
        self.endless = self.channel.unary_stream(path + "Endless")
        self.add = self.channel.stream_unary(path + "Add")
        self.echo = self.channel.stream_stream(path + "Echo")


def a_call_is_answered(calls):
    assert calls.unary(b"hello", timeout=LONG) == b"hello"
    assert calls.unary(b"", timeout=LONG) == b""


def metadata_goes_both_ways(calls):
    metadata = (("x-ask", "a b"), ("x-bytes-bin", bytes(range(256))))
    answer, call = calls.unary.with_call(b"x", metadata=metadata, timeout=LONG)
    assert answer == b"x"
    assert ("x-initial", "a b") in call.initial_metadata(), call.initial_metadata()
    trailing = dict(call.trailing_metadata())
    assert trailing["x-trailing"] == "end", trailing
    assert trailing["x-bytes-bin"] == bytes(range(256)), trailing


def an_error_has_its_status_words_and_trailers(calls):
    error = fails(lambda: calls.fail(b"", timeout=LONG), grpc.StatusCode.FAILED_PRECONDITION)
    assert error.details() == "not like this: \u00e4", error.details()
    assert ("x-why", "asked to") in error.trailing_metadata(), error.trailing_metadata()


def a_method_that_is_not_there_is_unimplemented(calls):
    fails(lambda: calls.none(b"", timeout=LONG), grpc.StatusCode.UNIMPLEMENTED)


def large_messages_come_whole(calls):
    for size in (16 << 10, 1 << 20, 20 << 20):
        message = bytes(i % 251 for i in range(4096)) * (size // 4096)
        assert calls.unary(message, timeout=LONG) == message, size


def a_server_streams(calls):
    assert list(calls.count(b"0", timeout=LONG)) == []
    assert list(calls.count(b"5000", timeout=LONG)) == [b"%d" % number for number in range(5000)]


def a_client_streams(calls):
    assert calls.add(iter([b"x" * 1000] * 3000), timeout=LONG) == b"3000000"
    assert calls.add(iter([]), timeout=LONG) == b"0"


def both_stream_in_turns(calls):
    ask, answers = Questions(), None
    answers = calls.echo(ask, timeout=LONG)
    for number in range(200):
        ask.put(b"%d" % number)
        assert next(answers) == b"%d" % number
    ask.end()
    assert list(answers) == []


def both_stream_without_waiting(calls):
    messages = [b"%d " % number * 200 for number in range(3000)]
    assert list(calls.echo(iter(messages), timeout=LONG)) == messages


def a_deadline_ends_a_call_at_both_ends(calls):
    fails(lambda: calls.wait(b"", timeout=0.5), grpc.StatusCode.DEADLINE_EXCEEDED)
    assert calls.left(b"", timeout=LONG) == b"yes"


def a_call_that_is_cancelled_ends_at_both_ends(calls):
    call = calls.wait.future(b"", timeout=LONG)
    # What is sent on the connection behind it is answered only after the server has seen it.
    calls.unary(b"x", timeout=LONG)
    call.cancel()
    assert call.cancelled()
    assert calls.left(b"", timeout=LONG) == b"yes"


def a_stream_that_is_cancelled_ends_at_both_ends(calls):
    call = calls.endless(b"", timeout=LONG)
    for _ in range(100):
        next(call)
    call.cancel()
    assert calls.left(b"", timeout=LONG) == b"yes"


def many_calls_at_a_time_do_not_mix(calls):
    futures = [calls.unary.future(b"%d" % number, timeout=LONG) for number in range(500)]
    assert [future.result() for future in futures] == [b"%d" % number for number in range(500)]


class Questions:
    """Messages that are put in one by one."""

    def __init__(self):
        self.condition = threading.Condition()
        self.messages = []

    def put(self, message):
        with self.condition:
            self.messages.append(message)
            self.condition.notify()

    def end(self):
        self.put(None)

    def __iter__(self):
        return self

    def __next__(self):
        with self.condition:
            if not self.condition.wait_for(lambda: self.messages, LONG):
                raise StopIteration
            message = self.messages.pop(0)
        if message is None:
            raise StopIteration
        return message


def fails(call, status):
    try:
        call()
    except grpc.RpcError as error:
        assert error.code() == status, error
        return error
    raise AssertionError("it did not fail")


CASES = [
    a_call_is_answered,
    metadata_goes_both_ways,
    an_error_has_its_status_words_and_trailers,
    a_method_that_is_not_there_is_unimplemented,
    large_messages_come_whole,
    a_server_streams,
    a_client_streams,
    both_stream_in_turns,
    both_stream_without_waiting,
    a_deadline_ends_a_call_at_both_ends,
    a_call_that_is_cancelled_ends_at_both_ends,
    a_stream_that_is_cancelled_ends_at_both_ends,
    many_calls_at_a_time_do_not_mix,
]


def main():
    target, *certificate = sys.argv[1:]
    calls = Calls(target, certificate[0] if certificate else None)
    failed = 0
    for case in CASES:
        began = time.monotonic()
        try:
            case(calls)
            word = "ok"
        except Exception as error:  # whatever it is, it is this case's
            failed += 1
            word = f"FAILED: {type(error).__name__}: {error}"
        print(f"  {case.__name__.replace('_', ' ')}: {word} ({time.monotonic() - began:.2f} s)", flush=True)
    print(f"  {len(CASES) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
