#!/usr/bin/env python3
"""Judges a load: verdict.py RECORDS MOMENTS POSTS --worst SECONDS

A request may be lost only if it was in flight inside a process at the moment that process was killed: it began before the death was
over, and ended after the death began. While a process was frozen it accepted nothing: a request on a new connection that began then
was not in it, so when the frozen one dies, that request must not be lost either. Refused connections are never allowed, but in an
outage that was announced. POSTS has the ids of the POST requests that were processed: none may be there twice.

Prints the losses, and as the last line "verdict: REQUESTS LOST IN-FLIGHT AGAIN WORST", which is what `run` prints. Exit status 1 if
a request was lost that must not be, or the longest wait is over the bound.
"""

import argparse
import collections
import json
import sys

# Losses that are told in full.
TOLD = 10


def lines(path):
    try:
        with open(path, encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except FileNotFoundError:
        return []


def announced(moments):
    """The outages, as (begin, end); one that was not ended goes on."""
    found, begin = [], None
    for moment in moments:
        if moment["what"] == "outage" and moment["edge"] == "begin":
            begin = moment["at"]
        elif moment["what"] == "outage" and begin is not None:
            found.append((begin, moment["at"]))
            begin = None
    if begin is not None:
        found.append((begin, float("inf")))
    return found


def in_flight(record, death):
    frozen = death.get("frozen")
    if frozen is not None and not record["reused"] and record["start"] > frozen:
        return False
    return record["start"] <= death["to"] and record["end"] >= death["from"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("records")
    parser.add_argument("moments")
    parser.add_argument("posts")
    parser.add_argument("--worst", type=float, required=True)
    options = parser.parse_args()
    records, moments = lines(options.records), lines(options.moments)
    deaths = [moment for moment in moments if moment["what"] == "death"]
    outages = announced(moments)
    lost, allowed, again, refused = [], 0, 0, 0
    for record in records:
        if record["outcome"] == "ok":
            continue
        absent = any(begin <= record["start"] <= end for begin, end in outages)
        if record["outcome"] == "again":
            again += 1
        elif absent:
            refused += 1
        elif record["outcome"] in ("refused", "timeout", "wrong"):
            lost.append(record)
        elif any(in_flight(record, death) for death in deaths):
            allowed += 1
        elif record["outcome"] == "unanswered" and record["reused"]:
            # A kept connection that was closed while idle, as both sides may at any time, just when a POST was sent on it.
            again += 1
        else:
            lost.append(record)
    requests = sum(record["outcome"] != "again" for record in records)
    good = [record for record in records if record["outcome"] == "ok"]
    worst = max(good, key=lambda record: record["waited"], default={"waited": 0.0, "kind": "none"})
    with open(options.posts, encoding="utf-8") as file:
        twice = [identity for identity, count in collections.Counter(file.read().split()).items() if count > 1]
    for record in lost[:TOLD]:
        nearest = min((death["to"] for death in deaths), key=lambda moment: abs(moment - record["start"]), default=None)
        after = "" if nearest is None else f", begun {record['start'] - nearest:+.3f} s from a death"
        print(f"lost: {record['kind']}, {record['outcome']} after {record['end'] - record['start']:.3f} s{after}: {record['story']}")
    if lost:
        print("lost, by kind and outcome:", dict(collections.Counter(f"{r['kind']} {r['outcome']}" for r in lost)))
    if refused:
        print(f"in the announced outage: {refused} not served")
    if twice:
        print(f"POST requests that were processed twice: {len(twice)}, as {twice[0]}")
    if worst["waited"] > options.worst:
        print(f"waited too long: {worst['kind']}, {worst['waited']:.3f} s, over {options.worst} s")
    print(f"verdict: {requests} {len(lost) + len(twice)} {allowed} {again} {worst['waited']:.2f}")
    sys.exit(1 if lost or twice or not good or worst["waited"] > options.worst else 0)


main()
