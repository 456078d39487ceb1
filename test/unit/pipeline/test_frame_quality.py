"""Exposure and blur of real images, and of the same images spoilt."""

from __future__ import annotations

import math
import time

import cv2
import numpy as np
import pytest

from gps_denied_inference.demo.scene import load_scene
from gps_denied_inference.pipeline.frame_quality import FrameQuality

SIZE = (640, 480)


def measure(image):
    return FrameQuality.of(image, *SIZE)


SHOWN = ("scene", "caliterra", "brighton_beach", "euroc_v1_01_excerpt")


@pytest.fixture(scope="module", params=SHOWN)
def grey(request):
    """A grey image of 640x480 px: of the sample scene, or a frame of a real camera."""
    if request.param == "scene":
        image = cv2.cvtColor(load_scene(), cv2.COLOR_RGB2GRAY)
    else:
        folder = request.getfixturevalue("shared_data") / request.param
        frames = sorted(p for p in folder.rglob("*") if p.suffix.lower() in (".jpg", ".png"))
        image = cv2.imread(str(frames[len(frames) // 2]), cv2.IMREAD_GRAYSCALE)
    scale = max(SIZE[0] / image.shape[1], SIZE[1] / image.shape[0])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return np.ascontiguousarray(image[: SIZE[1], : SIZE[0]])


def with_noise(image, sigma):
    noisy = image + np.random.default_rng(0).normal(0.0, sigma, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def test_a_good_image_has_no_fault(grey):
    quality = measure(grey)
    assert quality.fault == ""
    assert 0.0 <= quality.blur < 0.45
    assert quality.brightness == pytest.approx(grey.mean() / 255.0, abs=0.02)
    assert quality.dark_share == pytest.approx((grey <= 8).mean(), abs=0.02)
    assert quality.bright_share == pytest.approx((grey >= 247).mean(), abs=0.02)


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_blur_rises_with_the_width_of_the_blur(grey, noise):
    """The noise of a sensor, which comes after the blur, does not hide it."""
    spoilt = [grey, *(cv2.GaussianBlur(grey, (0, 0), sigma) for sigma in (1.0, 2.0, 3.0, 5.0))]
    blurs = [measure(with_noise(image, noise)).blur for image in spoilt]
    assert blurs == sorted(blurs)
    assert blurs[1] < 0.55
    assert blurs[2] > 0.5
    assert blurs[3] > 0.65


@pytest.mark.parametrize("noise", [0.0, 3.0])
def test_motion_along_either_axis_is_blur(grey, noise):
    for size in ((13, 1), (1, 13), (25, 1), (1, 25)):
        assert measure(with_noise(cv2.blur(grey, size), noise)).fault == "blurred"


def test_blur_does_not_depend_on_exposure(grey):
    darker = (grey * 0.4).astype(np.uint8)
    assert measure(darker).blur == pytest.approx(measure(grey).blur, abs=0.03)


def test_noise_alone_has_no_blur():
    noise = with_noise(np.full(SIZE[::-1], 90.0), 5.0)
    assert math.isnan(measure(noise).blur)


def test_a_darkened_image_is_dark(grey):
    quality = measure((grey * 0.06).astype(np.uint8))
    assert quality.fault == "dark"
    assert quality.dark_share > 0.3


def test_an_overexposed_image(grey):
    quality = measure(np.clip(grey.astype(float) * 5.0 + 100.0, 0, 255).astype(np.uint8))
    assert quality.fault == "overexposed"
    assert quality.bright_share > 0.6


def test_colour_and_large_images_are_measured_as_the_network_sees_them(grey):
    small = measure(grey)
    assert measure(np.dstack([grey] * 3)) == small
    large = measure(cv2.resize(grey, (2560, 1920), interpolation=cv2.INTER_CUBIC))
    assert large.blur == pytest.approx(small.blur, abs=0.1)
    assert large.fault == ""


@pytest.mark.parametrize("shape", [(1, 1), (1, 640), (480, 1), (3, 5), (2, 2, 3)])
def test_images_too_small_to_judge(shape):
    quality = measure(np.full(shape, 128, np.uint8))
    assert quality.brightness == pytest.approx(128 / 255)
    assert math.isnan(quality.blur)
    assert quality.fault == ""


def test_medians():
    several = [FrameQuality(0.1, 0.0, 0.0, math.nan), FrameQuality(0.3, 0.2, 0.0, 0.4)]
    assert FrameQuality.median(several) == FrameQuality(pytest.approx(0.2), 0.1, 0.0, 0.4)
    assert all(math.isnan(v) for v in vars(FrameQuality.median([])).values())


def test_it_is_cheap():
    """Processor time, which other processes do not lengthen much."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640), np.uint8)
    best = math.inf
    for _ in range(20):
        begin = time.thread_time()
        for _ in range(20):
            measure(image)
        best = min(best, (time.thread_time() - begin) / 20)
    assert best < 0.3e-3
