"""The thread that does all the calls of one engine."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from gps_denied_inference.runtimes.owned_thread import OwnedThread


def test_all_calls_run_on_the_same_other_thread() -> None:
    owned = OwnedThread("test")
    idents = [owned.call(threading.get_ident)]
    caller = threading.Thread(target=lambda: idents.append(owned.call(threading.get_ident)))
    caller.start()
    caller.join()
    owned.close()
    assert idents[0] == idents[1] != threading.get_ident()


def test_results_and_errors_reach_their_own_caller() -> None:
    owned = OwnedThread("test")
    wrong: list[int] = []

    def fail(number: int) -> None:
        raise ValueError(str(number))

    def work(base: int) -> None:
        for number in range(base, base + 200):
            if owned.call(abs, -number) != number:
                wrong.append(number)
            with pytest.raises(ValueError, match=f"^{number}$"):
                owned.call(fail, number)

    callers = [threading.Thread(target=work, args=(base,)) for base in (0, 1000, 2000)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    owned.close()
    assert wrong == []


def test_keeps_nothing_of_a_call_alive() -> None:
    class Buffer:
        pass

    owned = OwnedThread("test")
    buffer = Buffer()
    alive = weakref.ref(buffer)
    owned.call(id, buffer)
    owned.call(int)
    del buffer
    gc.collect()
    assert alive() is None
    owned.close()


def test_closed_thread_is_gone_and_refuses_calls() -> None:
    before = threading.active_count()
    owned = OwnedThread("test")
    owned.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="has ended"):
        owned.call(int)
