"""What the judge has to find, and what it has to let pass: python3 verdict_test.py"""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

JUDGE = pathlib.Path(__file__).resolve().parent / "verdict.py"
DEATH = {"what": "death", "from": 10.0, "to": 10.1}


def record(start, end, outcome="ok", kind="keep", reused=True, waited=0.0):
    return {"kind": kind, "start": start, "end": end, "waited": waited, "reused": reused, "outcome": outcome, "story": ""}


def judge(records, moments=(), posts="", worst=2):
    """The exit status, and the numbers: requests, lost, in flight, again, longest wait."""
    with tempfile.TemporaryDirectory() as directory:
        here = pathlib.Path(directory)
        (here / "records").write_text("".join(json.dumps(one) + "\n" for one in records))
        (here / "moments").write_text("".join(json.dumps(one) + "\n" for one in moments))
        (here / "posts").write_text(posts)
        command = [sys.executable, JUDGE, here / "records", here / "moments", here / "posts", "--worst", str(worst)]
        judged = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    numbers = judged.stdout.splitlines()[-1].removeprefix("verdict: ").split()
    return judged.returncode, [int(number) for number in numbers[:4]]


GOOD = record(1.0, 1.1)


class Verdict(unittest.TestCase):
    def test_a_load_that_saw_nothing_passes(self):
        self.assertEqual(judge([GOOD]), (0, [1, 0, 0, 0]))

    def test_a_load_without_any_response_does_not_pass(self):
        self.assertEqual(judge([])[0], 1)

    def test_in_flight_at_a_death_is_allowed(self):
        for outcome in ("unanswered", "broken", "status"):
            self.assertEqual(judge([GOOD, record(9.9, 10.1, outcome)], [DEATH]), (0, [2, 0, 1, 0]))

    def test_begun_after_a_death_is_lost(self):
        self.assertEqual(judge([GOOD, record(10.2, 10.3, "unanswered", reused=False)], [DEATH]), (1, [2, 1, 0, 0]))

    def test_ended_before_a_death_is_lost(self):
        self.assertEqual(judge([GOOD, record(9.8, 9.9, "broken")], [DEATH]), (1, [2, 1, 0, 0]))

    def test_without_a_death_all_is_lost(self):
        self.assertEqual(judge([GOOD, record(9.9, 10.1, "status")]), (1, [2, 1, 0, 0]))

    def test_a_refused_connection_is_lost_even_at_a_death(self):
        self.assertEqual(judge([GOOD, record(10.0, 10.05, "refused", reused=False)], [DEATH]), (1, [2, 1, 0, 0]))

    def test_a_new_connection_is_not_in_a_process_that_was_frozen_before(self):
        death = DEATH | {"frozen": 5.0}
        self.assertEqual(judge([GOOD, record(6.0, 10.1, "unanswered", reused=False)], [death]), (1, [2, 1, 0, 0]))
        self.assertEqual(judge([GOOD, record(6.0, 10.1, "unanswered")], [death]), (0, [2, 0, 1, 0]))

    def test_what_was_sent_again_counts_once(self):
        self.assertEqual(judge([record(10.2, 10.2, "again"), record(10.2, 10.3)], [DEATH]), (0, [1, 0, 0, 1]))

    def test_refused_in_an_announced_outage_is_not_lost(self):
        edges = [{"what": "outage", "edge": "begin", "at": 5.0}, {"what": "outage", "edge": "end", "at": 6.0}]
        self.assertEqual(judge([GOOD, record(5.5, 5.6, "refused", reused=False)], edges), (0, [2, 0, 0, 0]))
        self.assertEqual(judge([GOOD, record(6.5, 6.6, "refused", reused=False)], edges), (1, [2, 1, 0, 0]))
        self.assertEqual(judge([GOOD, record(4.9, 5.6, "broken")], edges), (1, [2, 1, 0, 0]))

    def test_a_post_that_was_processed_twice_is_lost(self):
        self.assertEqual(judge([GOOD], posts="a\nb\na\n"), (1, [1, 1, 0, 0]))

    def test_a_wait_over_the_bound_does_not_pass(self):
        self.assertEqual(judge([GOOD, record(1.0, 4.0, waited=3.0)])[0], 1)


unittest.main()
