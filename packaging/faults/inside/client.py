#!/usr/bin/env python3
"""A strict load: clients of several kinds that note of each request when it began, when it ended, and how.

    client.py --records FILE --progress FILE [--slower N]      until SIGTERM

Kinds: "keep" (GET on connections that are kept), "fresh" (GET, a connection each), "slow" (GET that takes 0.3 s), "post" (POST on
kept connections) and "post-fresh", "stream" (a response that takes 2 s). A request that may be repeated (GET) is sent again, once, when
a kept connection ended before the first byte of the response, as every client does (RFC 9110, 9.2.2); a POST never is.

A record is a line of JSON: kind, when it began and ended (CLOCK_MONOTONIC), the seconds it takes of itself, whether its connection
was used before, outcome, and a word on what happened. Outcomes:
    ok           the response is complete and right
    again        closed before any byte of the response, on a kept connection, and sent again: the record after it tells the rest
    refused      no connection
    unanswered   the connection ended before any byte of the response
    broken       it ended within the response
    status       another status than 200
    wrong        a complete response that is not the one to this request
    timeout      no complete response in time
"""

import argparse
import asyncio
import itertools
import json
import os
import re
import select
import signal
import time
import uuid
import zlib

# Seconds for one request, over what it takes of itself.
DEADLINE = 60
SLOW = 0.3
STREAM = 2.0
# How many clients of each kind, and their pause between two requests.
KINDS = {"keep": (6, 0.03), "fresh": (6, 0.06), "slow": (4, 0.02), "post": (3, 0.06), "post-fresh": (3, 0.08), "stream": (3, 0.05)}


class Failure(Exception):
    def __init__(self, outcome, story):
        super().__init__(story)
        self.outcome = outcome


class Connection:
    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer
        self.used = False
        self.poll = select.poll()
        self.poll.register(writer.get_extra_info("socket").fileno(), select.POLLIN | select.POLLRDHUP)

    @classmethod
    async def open(cls, options):
        try:
            return cls(*await asyncio.open_connection(options.host, options.port))
        except OSError as error:
            raise Failure("refused", str(error)) from error

    def has_ended(self):
        """Nothing is to be read between two requests, so whatever can be is the end."""
        return self.reader.at_eof() or self.writer.is_closing() or bool(self.poll.poll(0))

    def close(self):
        # Before the descriptor: its number may be another connection's then.
        self.writer.transport.abort()

    async def exchange(self, request):
        """Sends a request; returns (status, body, whether the connection can be kept)."""
        begun = False
        try:
            self.writer.write(request)
            await self.writer.drain()
            first = await self.reader.readline()
            if not first:
                raise Failure("unanswered", "closed before any byte of the response")
            begun = True
            return await self.response(first)
        except OSError as error:
            raise Failure("broken" if begun else "unanswered", str(error)) from error
        except (asyncio.IncompleteReadError, ValueError) as error:
            raise Failure("broken", str(error)) from error

    async def response(self, first):
        match = re.match(rb"HTTP/1\.1 (\d{3})", first)
        if not match or not first.endswith(b"\n"):
            raise ValueError(f"no status line: {first[:80]!r}")
        fields = {}
        while (line := await self.reader.readuntil(b"\n")) != b"\r\n":
            name, _, value = line.decode("latin-1").partition(":")
            fields[name.strip().lower()] = value.strip()
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = b""
            while size := int((await self.reader.readuntil(b"\n")).partition(b";")[0], 16):
                body += (await self.reader.readexactly(size + 2))[:-2]
            await self.reader.readuntil(b"\n")
        else:
            body = await self.reader.readexactly(int(fields.get("content-length", "0")))
        self.used = True
        return int(match[1]), body.decode("utf-8", "replace"), fields.get("connection", "").lower() != "close"


class Client:
    def __init__(self, kind, pause, options, records):
        self.kind = kind
        self.pause = pause
        self.options = options
        self.records = records
        self.connection = None
        self.keep = not kind.endswith("fresh")
        self.nominal = {"slow": SLOW, "stream": STREAM}.get(kind, 0.0)
        self.retries = not kind.startswith("post")

    def request(self):
        """A request, and the pattern that its response has to match."""
        route = self.options.route
        close = "" if self.keep else "Connection: close\r\n"
        if self.kind.startswith("post"):
            identity = uuid.uuid4().hex
            body = os.urandom(2000)
            head = f"POST {route}/post HTTP/1.1\r\nHost: faults\r\nX-Id: {identity}\r\nContent-Length: {len(body)}\r\n{close}\r\n"
            return head.encode() + body, rf"{identity} {len(body)} {zlib.crc32(body)}\n"
        path = {"slow": f"/sleep?{SLOW}", "stream": f"/stream?{STREAM}"}.get(self.kind, "")
        pattern = r"(piece\n){%d}" % round(STREAM * 10) if self.kind == "stream" else self.options.expect
        return f"GET {route}{path} HTTP/1.1\r\nHost: faults\r\n{close}\r\n".encode(), pattern

    async def attempt(self, request, pattern):
        """One attempt; returns (whether the connection was used before, outcome, story)."""
        reused = False
        try:
            async with asyncio.timeout(self.nominal + DEADLINE):
                # The time of the beginning was taken before this look. So a connection that ends unseen by it ended after that time.
                if self.connection and self.connection.has_ended():
                    self.drop()
                if self.connection is None:
                    self.connection = await Connection.open(self.options)
                reused = self.connection.used
                status, body, kept = await self.connection.exchange(request)
        except TimeoutError:
            self.drop()
            return reused, "timeout", f"no complete response in {self.nominal + DEADLINE} s"
        except Failure as failure:
            self.drop()
            return reused, failure.outcome, str(failure)
        if not (self.keep and kept):
            self.drop()
        if status != 200:
            return reused, "status", f"{status}: {body[:160]}"
        if not re.fullmatch(pattern, body):
            return reused, "wrong", body[:160]
        return reused, "ok", ""

    def drop(self):
        if self.connection:
            self.connection.close()
            self.connection = None

    async def run(self):
        while True:
            request, pattern = self.request()
            began = time.monotonic()
            for may_repeat in (self.retries, False):
                start = time.monotonic()
                reused, outcome, story = await self.attempt(request, pattern)
                again = may_repeat and reused and outcome == "unanswered"
                self.records.add(
                    kind=self.kind,
                    start=start,
                    end=time.monotonic(),
                    waited=max(0.0, time.monotonic() - began - self.nominal),
                    reused=reused,
                    outcome="again" if again else outcome,
                    story=story,
                )
                if not again:
                    break
            await asyncio.sleep(self.pause * self.options.slower)


class Records:
    def __init__(self):
        self.all = []
        self.good = 0
        self.bad = 0

    def add(self, **record):
        self.all.append(record)
        if record["outcome"] == "ok":
            self.good += 1
        elif record["outcome"] != "again":
            self.bad += 1

    def write(self, path):
        with open(path, "w", encoding="utf-8") as file:
            for record in self.all:
                file.write(json.dumps(record) + "\n")


def write_whole(path, text):
    with open(path + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(path + ".new", path)


async def run(options):
    records = Records()
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    clients = [Client(kind, pause, options, records) for kind, (count, pause) in KINDS.items() for _ in range(count)]
    tasks = [asyncio.create_task(client.run()) for client in clients]
    deadline = time.monotonic() + options.seconds
    for _ in itertools.count():
        write_whole(options.progress, f"{records.good} {records.bad}\n")
        for task in tasks:
            if task.done():
                task.result()
        try:
            await asyncio.wait_for(stop.wait(), 0.1)
            break
        except TimeoutError:
            if time.monotonic() > deadline:
                break
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    records.write(options.records)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--route", default="/alpha")
    parser.add_argument("--expect", default=r"alpha \d+\n", help="what the response to a plain GET has to match")
    parser.add_argument("--records", required=True)
    parser.add_argument("--progress", required=True)
    parser.add_argument("--slower", type=float, default=1, help="all pauses are so many times as long")
    parser.add_argument("--seconds", type=float, default=900, help="ends by itself after so long")
    asyncio.run(run(parser.parse_args()))


main()
