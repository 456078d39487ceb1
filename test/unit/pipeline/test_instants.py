"""Frames of one instant are taken and limited together; who drops out keeps nobody waiting."""

from __future__ import annotations

import threading
import time

import pytest

from gps_denied_inference.pipeline.instants import InstantLimiter, InstantSlots

MS = 1_000_000
LONG = 5.0  # s: a wait that would show


def after(seconds, work):
    timer = threading.Timer(seconds, work)
    timer.start()
    return timer


def test_frames_of_one_instant_are_taken_together():
    slots: InstantSlots[str] = InstantSlots(2, LONG)
    slots.put(1, 40 * MS, "right")
    timer = after(0.05, lambda: slots.put(0, 41 * MS, "left"))
    assert slots.take() == {0: "left", 1: "right"}
    timer.join()


def test_one_camera_never_waits():
    slots: InstantSlots[int] = InstantSlots(1, LONG)
    begin = time.monotonic()
    for i in range(5):
        slots.put(0, i, i)
        assert slots.take() == {0: i}
    assert time.monotonic() - begin < LONG / 2


def test_a_camera_that_drops_out_is_waited_for_once():
    slots: InstantSlots[int] = InstantSlots(2, 0.2)
    for camera in (0, 1):
        slots.put(camera, 1000 * MS, 1)
    assert slots.take() == {0: 1, 1: 1}
    waits = []
    for i in range(2, 5):
        slots.put(0, i * 1000 * MS, i)
        begin = time.monotonic()
        assert slots.take() == {0: i}
        waits.append(time.monotonic() - begin)
    assert waits[0] >= 0.2
    assert max(waits[1:]) < 0.1
    # It is back, late: the next time it is waited for.
    slots.put(1, 4000 * MS, 4)
    assert slots.take() == {1: 4}
    slots.put(0, 5000 * MS, 5)
    timer = after(0.05, lambda: slots.put(1, 5000 * MS, 5))
    assert slots.take() == {0: 5, 1: 5}
    timer.join()


def test_cameras_of_other_instants_do_not_wait_for_one_another():
    slots: InstantSlots[int] = InstantSlots(2, 0.2)
    slots.put(0, 1000 * MS, 0)
    assert slots.take() == {0: 0}
    slots.put(1, 1500 * MS, 0)
    slots.take()
    begin = time.monotonic()
    for i in range(2, 6):
        slots.put(i % 2, 1000 * MS + i * 500 * MS, i)
        assert slots.take() == {i % 2: i}
    assert time.monotonic() - begin < 0.1
    # What waits is taken together all the same: it saves time.
    slots.put(0, 9000 * MS, 8)
    slots.put(1, 9500 * MS, 9)
    assert slots.take() == {0: 8, 1: 9}


def test_the_newest_frame_of_each_camera_wins():
    slots: InstantSlots[int] = InstantSlots(2, 0.01)
    assert slots.put(0, 1, 1) is None
    assert slots.put(1, 1, 2) is None
    assert slots.put(0, 2, 3) == 1
    assert slots.take() == {0: 3, 1: 2}


def test_close_gives_back_what_nobody_took():
    slots: InstantSlots[int] = InstantSlots(2, LONG)
    slots.put(0, 1, 7)
    taken = []
    worker = threading.Thread(target=lambda: taken.append(slots.take()))
    worker.start()
    time.sleep(0.05)
    left = slots.close()
    worker.join(2.0)
    assert not worker.is_alive()
    assert taken == [None]
    assert left == {0: 7}
    assert slots.put(1, 2, 8) == 8
    assert slots.take() is None


def flown(limiter, now, frames, rate, jitter=(0.0, 0.0)):
    """Return the numbers of the frames that each of two cameras gets through."""
    admitted = ([], [])
    for i in range(frames):
        for camera in (0, 1):
            now[0] = i * 0.04 + (jitter[camera] if i % 3 else 0.0)
            if limiter.admits(camera, 1 + i * 40 * MS + camera * MS, rate):
                admitted[camera].append(i)
    return admitted


def test_a_limit_lets_whole_instants_through():
    now = [0.0]
    limiter = InstantLimiter(2, 0.005, lambda: now[0])
    left, right = flown(limiter, now, 100, 10.0, jitter=(0.0, 0.004))
    assert left == right
    assert len(left) == pytest.approx(40, abs=1)


def test_without_limit_all_pass():
    limiter = InstantLimiter(2, 0.005)
    assert all(limiter.admits(i % 2, i, 0.0) for i in range(10))


def test_each_camera_has_the_whole_rate_where_they_see_at_other_times():
    now = [0.0]
    limiter = InstantLimiter(2, 0.005, lambda: now[0])
    counts = [0, 0]
    for i in range(200):
        now[0] = i * 0.02
        counts[i % 2] += limiter.admits(i % 2, 1 + i * 20 * MS, 10.0)
    assert counts == [pytest.approx(40, abs=1)] * 2


def test_frames_without_stamp_are_each_judged_alone():
    now = [0.0]
    limiter = InstantLimiter(2, 0.005, lambda: now[0])
    assert limiter.admits(0, 0, 1.0)
    assert limiter.admits(1, 0, 1.0)
    assert not limiter.admits(0, 0, 1.0)
