#!/usr/bin/env python3
"""Clients that ask a server without a pause, and count what goes wrong: for restarts that nobody is to notice.

Two kinds: keep-alive clients use one connection for as long as the server lets them; the others make one for each request. They
run until SIGTERM, or until --seconds are over. Then a summary is printed as JSON, and the exit status is 1 if a request failed.

What counts as a failure, each under a name of its own in "failures":
    refused       the connection was refused, or reset before the request was sent
    unanswered    the connection ended after the request was sent, before any byte of the answer
    unanswered_reused   the same, on a connection that had answered a request before
    truncated     the connection ended, or broke, within an answer
    status        another status than 200
    body          an answer that does not match --expect
    malformed     no HTTP
    timeout       no complete answer within --deadline

No failures: a connection that ended after an answer with "Connection: close" ("closed_announced"), and one that was seen to end while
nothing was asked on it ("closed_idle"), which a browser does not show either.
"""

import argparse
import asyncio
import collections
import json
import os
import re
import signal
import ssl
import sys
import time

# Longest head of an answer, and longest body.
LIMIT = 8 << 20
# Failures that are described in full.
DESCRIBED = 10


class Failure(Exception):
    """A request that failed: which of the kinds above, and what happened."""

    def __init__(self, kind, story):
        super().__init__(story)
        self.kind = kind


class Tally:
    """What all clients saw."""

    def __init__(self):
        self.began = time.monotonic()
        self.answers = 0
        self.connections = 0
        self.closed_announced = 0
        self.closed_idle = 0
        self.longest = 0.0
        self.failures = collections.Counter()
        self.described = []
        self.bodies = collections.Counter()

    def failed(self, client, failure):
        self.failures[failure.kind] += 1
        if len(self.described) < DESCRIBED:
            after = time.monotonic() - self.began
            clock = time.strftime("%H:%M:%S")
            self.described.append(f"{clock} (after {after:.3f} s) {client}: {failure.kind}: {failure}")

    def summary(self):
        return {
            "seconds": round(time.monotonic() - self.began, 3),
            "answers": self.answers,
            "failed": sum(self.failures.values()),
            "failures": dict(self.failures),
            "described": self.described,
            "connections": self.connections,
            "closed_announced": self.closed_announced,
            "closed_idle": self.closed_idle,
            "longest_seconds": round(self.longest, 3),
            "bodies": dict(self.bodies.most_common(40)),
        }


class Connection:
    """One connection, and whether it has answered before."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.used = False

    @classmethod
    async def open(cls, options):
        try:
            reader, writer = await asyncio.open_connection(options.host, options.port, limit=LIMIT, ssl=options.tls)
        except OSError as error:
            raise Failure("refused", str(error)) from error
        return cls(reader, writer)

    def close(self):
        self.writer.close()

    def has_ended(self):
        return self.reader.at_eof() or self.reader.exception() is not None or self.writer.is_closing()

    async def ask(self, options, keep):
        """Sends one request; returns (body, whether the server keeps the connection)."""
        close = "" if keep else "Connection: close\r\n"
        request = f"GET {options.path} HTTP/1.1\r\nHost: {options.host}\r\nUser-Agent: load\r\n{close}\r\n"
        try:
            self.writer.write(request.encode())
            await self.writer.drain()
            first = await self.reader.readline()
        except OSError as error:
            raise Failure(self.unanswered(), str(error)) from error
        if not first:
            raise Failure(self.unanswered(), "closed before any byte of the answer")
        try:
            return await self.answer(first)
        except (OSError, asyncio.IncompleteReadError) as error:
            raise Failure("truncated", str(error)) from error
        except (ValueError, asyncio.LimitOverrunError) as error:
            raise Failure("malformed", str(error)) from error

    def unanswered(self):
        return "unanswered_reused" if self.used else "unanswered"

    async def line(self):
        line = await self.reader.readline()
        if not line.endswith(b"\n"):
            raise asyncio.IncompleteReadError(line, None)
        return line.decode("latin-1").rstrip("\r\n")

    async def answer(self, first):
        if not first.endswith(b"\n"):
            raise asyncio.IncompleteReadError(first, None)
        match = re.match(r"HTTP/1\.[01] (\d{3})", first.decode("latin-1"))
        if not match:
            raise ValueError(f"no status line: {first[:80]!r}")
        fields = {}
        while line := await self.line():
            name, _, value = line.partition(":")
            fields[name.strip().lower()] = value.strip()
        body = await self.body(fields)
        keep = fields.get("connection", "").lower() != "close" and "until_end" not in fields
        self.used = True
        if match[1] != "200":
            raise Failure("status", f"{match[1]}: {body[:200]!r}")
        return body, keep

    async def body(self, fields):
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await self.line()).partition(";")[0], 16):
                body += await self.reader.readexactly(size)
                await self.line()
            while await self.line():
                pass
            return body
        if "content-length" in fields:
            return await self.reader.readexactly(int(fields["content-length"]))
        fields["until_end"] = ""
        return await self.reader.read()


async def client(name, options, tally, keep):
    """One client, until it is cancelled."""
    connection = None
    while True:
        if connection and connection.has_ended():
            tally.closed_idle += 1
            connection.close()
            connection = None
        began = time.monotonic()
        try:
            async with asyncio.timeout(options.deadline):
                if connection is None:
                    connection = await Connection.open(options)
                    tally.connections += 1
                body, kept = await connection.ask(options, keep)
            text = body.decode("utf-8", "replace").strip()
            if not options.expect.search(text):
                raise Failure("body", f"{text[:200]!r}")
            tally.answers += 1
            tally.bodies[text[:60]] += 1
            if keep and not kept:
                tally.closed_announced += 1
        except TimeoutError:
            tally.failed(name, Failure("timeout", f"no complete answer in {options.deadline} s"))
            kept = False
        except Failure as failure:
            tally.failed(name, failure)
            kept = False
        tally.longest = max(tally.longest, time.monotonic() - began)
        if connection and not (keep and kept):
            connection.close()
            connection = None
        # A client is no attack: without a pause, 32 of them leave no processor for the server on a small machine.
        await asyncio.sleep(options.pause)


def write_whole(path, text):
    """A reader of the file sees all of it or none."""
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


def unverified():
    """TLS with whoever answers: certificates change while this runs."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


async def run(options):
    tally = Tally()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    kinds = [("keep-alive", True)] * options.keep_alive + [("per-request", False)] * options.per_request
    tasks = [
        asyncio.create_task(client(f"{kind} client {number}", options, tally, keep))
        for number, (kind, keep) in enumerate(kinds)
    ]
    deadline = time.monotonic() + options.seconds
    while not stop.is_set() and time.monotonic() < deadline:
        if options.progress:
            write_whole(options.progress, f"{tally.answers} {sum(tally.failures.values())}\n")
        for task in tasks:
            if task.done():
                task.result()
        try:
            await asyncio.wait_for(stop.wait(), 0.1)
        except TimeoutError:
            pass
    summary = tally.summary()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return summary


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--tls", action="store_const", const=unverified(), help="speak TLS, and believe any certificate")
    parser.add_argument("--path", default="/")
    parser.add_argument("--expect", type=re.compile, default=re.compile(""), help="what each answer has to match")
    parser.add_argument("--keep-alive", type=int, default=16, help="clients that keep their connection")
    parser.add_argument("--per-request", type=int, default=16, help="clients that make one for each request")
    parser.add_argument("--pause", type=float, default=0.02, help="seconds between an answer and the next request")
    parser.add_argument("--deadline", type=float, default=30, help="seconds for an answer")
    parser.add_argument("--seconds", type=float, default=600, help="ends by itself after so long")
    parser.add_argument("--summary", help="a file for the summary, instead of standard output")
    parser.add_argument("--progress", help="a file that is kept up to date: answers, failures")
    return parser.parse_args()


def main():
    options = arguments()
    summary = asyncio.run(run(options))
    text = json.dumps(summary, indent=2) + "\n"
    if options.summary:
        write_whole(options.summary, text)
    else:
        sys.stdout.write(text)
    return 1 if summary["failed"] or not summary["answers"] else 0


if __name__ == "__main__":
    sys.exit(main())
