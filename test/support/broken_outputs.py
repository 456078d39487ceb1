"""A stand-in for a runtime whose library answers with what the contract excludes."""

from __future__ import annotations

import numpy as np

from gps_denied_inference.runtimes.fake import FakeRuntime


class StandInBrokenRuntime(FakeRuntime):
    """The fake runtime, whose answers are spoiled while ``spoil`` is set.

    Attributes:
        spoil: takes a dictionary of output arrays and changes it, or None.
    """

    spoil = None

    def infer(self, handle, inputs):
        """Answer, then spoil the answer."""
        outputs = super().infer(handle, inputs)
        if self.spoil is not None:
            type(self).spoil(outputs)
        return outputs


def put(name, index, value):
    """Return a spoiler that writes one value."""

    def spoil(outputs):
        outputs[name][index] = value

    return spoil


def replace(name, change):
    """Return a spoiler that puts another array in an output's place."""

    def spoil(outputs):
        outputs[name] = change(outputs[name])

    return spoil


def drop(name):
    """Return a spoiler that leaves an output out."""

    def spoil(outputs):
        del outputs[name]

    return spoil


SPOILT_FEATURES = {
    "nan_descriptor": put("descriptors", (3, 5), np.nan),
    "infinite_descriptor": put("descriptors", (3, 5), np.inf),
    "descriptors_not_of_unit_length": replace("descriptors", lambda a: 3.0 * a),
    "descriptors_of_fewer_rows": replace("descriptors", lambda a: a[:-1]),
    "descriptors_of_another_length": replace("descriptors", lambda a: a[:, :-1]),
    "descriptors_of_another_type": replace("descriptors", lambda a: a.astype(np.float64)),
    "nan_keypoint": put("keypoints", (0, 1), np.nan),
    "keypoint_outside": put("keypoints", (0, 0), 1e6),
    "keypoints_of_another_rank": replace("keypoints", lambda a: a.ravel()),
    "nan_score": put("scores", 0, np.nan),
    "scores_of_fewer_rows": replace("scores", lambda a: a[:-1]),
    "count_above_k": put("count", 0, 10_000),
    "count_below_zero": put("count", 0, -1),
    "count_of_no_row": replace("count", lambda a: a[:0]),
    "no_count": drop("count"),
    "a_list_for_an_array": replace("scores", list),
}
SPOILT_MATCHES = {
    "partner_beyond_the_last": put("matches0", 0, 10_000),
    "partner_in_the_padding": put("matches0", 0, 49),
    "partner_below_minus_one": put("matches0", 0, -2),
    "nan_score": replace("scores0", lambda a: np.full_like(a, np.nan)),
    "score_above_one": replace("scores0", lambda a: a + 2.0),
    "matches_of_fewer_rows": replace("matches0", lambda a: a[:-1]),
    "matches_of_another_type": replace("matches0", lambda a: a.astype(np.int64)),
    "no_scores": drop("scores0"),
}
