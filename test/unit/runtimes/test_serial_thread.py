"""The thread that does all the calls of one engine."""

from __future__ import annotations

import gc
import threading
import weakref

import pytest

from gps_denied_inference.runtimes.serial_thread import SerialThread


def test_all_calls_run_on_the_same_other_thread() -> None:
    serial = SerialThread("test")
    idents = [serial.call(threading.get_ident)]
    caller = threading.Thread(target=lambda: idents.append(serial.call(threading.get_ident)))
    caller.start()
    caller.join()
    serial.close()
    assert idents[0] == idents[1] != threading.get_ident()


def test_results_and_errors_reach_their_own_caller() -> None:
    serial = SerialThread("test")
    wrong: list[int] = []

    def fail(number: int) -> None:
        raise ValueError(str(number))

    def work(base: int) -> None:
        for number in range(base, base + 200):
            if serial.call(abs, -number) != number:
                wrong.append(number)
            with pytest.raises(ValueError, match=f"^{number}$"):
                serial.call(fail, number)

    callers = [threading.Thread(target=work, args=(base,)) for base in (0, 1000, 2000)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    serial.close()
    assert wrong == []


def test_keeps_nothing_of_a_call_alive() -> None:
    class Buffer:
        pass

    serial = SerialThread("test")
    buffer = Buffer()
    alive = weakref.ref(buffer)
    serial.call(id, buffer)
    serial.call(int)
    del buffer
    gc.collect()
    assert alive() is None
    serial.close()


def test_closed_thread_is_gone_and_refuses_calls() -> None:
    before = threading.active_count()
    serial = SerialThread("test")
    serial.close()
    assert threading.active_count() == before
    with pytest.raises(RuntimeError, match="has ended"):
        serial.call(int)
    with pytest.raises(RuntimeError, match="'test' has ended"):
        serial.submit(int)


def test_submitted_calls_run_in_their_order_without_being_waited_for() -> None:
    serial = SerialThread("test")
    release = threading.Event()
    order: list[int] = []
    first = serial.submit(release.wait, 10)
    later = [serial.submit(order.append, number) for number in range(20)]
    assert not first.done()
    assert order == []
    release.set()
    serial.close(wait=False)
    assert first.result(10) is True
    for future in later:
        future.result(10)
    assert order == list(range(20))


def test_a_cancelled_call_is_not_made() -> None:
    serial = SerialThread("test")
    release = threading.Event()
    called: list[int] = []
    serial.submit(release.wait, 10)
    cancelled = serial.submit(called.append, 1)
    assert cancelled.cancel()
    release.set()
    serial.call(int)
    serial.close()
    assert called == []


def test_an_error_keeps_nothing_alive_without_the_collector() -> None:
    """Device buffers in the frames of a failed call go back at once."""

    class Buffer:
        pass

    def fail(buffer: Buffer) -> None:
        raise ValueError("no memory left")

    serial = SerialThread("test")
    buffer = Buffer()
    alive = weakref.ref(buffer)
    gc.disable()
    try:
        with pytest.raises(ValueError, match="no memory"):
            serial.call(fail, buffer)
        serial.call(int)
        del buffer
        assert alive() is None
    finally:
        gc.enable()
        serial.close()
