"""Some things at a time: in order, followed, and with no work left over after an error."""

import threading

import pytest
from raw_trees import Notes

from fsseg.system.parallel import at_once, in_processes, processors
from fsseg.system.progress import Silent


@pytest.fixture(autouse=True)
def _two_workers(monkeypatch):
    monkeypatch.setattr("fsseg.system.parallel.SCANS_AT_ONCE", min(2, processors()))


def test_results_come_in_order_whichever_is_finished_first():
    second_is_done = threading.Event()

    def make(item):
        if item == 0 and processors() > 1:
            second_is_done.wait()
        second_is_done.set()
        return item * 10

    assert list(at_once(make, range(20), Silent(), "")) == list(range(0, 200, 10))


def test_no_more_is_made_ahead_than_is_soon_asked_for():
    begun = []
    results = at_once(begun.append, range(100), Silent(), "")
    next(results)
    results.close()
    assert len(begun) <= 4


def test_an_error_stops_what_was_not_begun():
    begun = []

    def make(item):
        begun.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError):
        list(at_once(make, range(100), Silent(), ""))
    assert len(begun) <= 4


def test_one_process_is_this_one():
    lengths = dict(in_processes(len, ["a", "bb"], 1, Notes(), "lengths"))
    assert lengths == {"a": 1, "bb": 2}
