"""EGM96 undulations, against the values that its publisher gives for well-known places."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

pytest.importorskip("pyproj", reason="pyproj is not installed")

from gps_denied_inference.autopilot.geoid import Geoid, find_grid
from gps_denied_inference.errors import ConfigurationError


@pytest.fixture(scope="module")
def geoid() -> Geoid:
    grid = find_grid()
    if grid is None:
        pytest.skip("PROJ's egm96_15.gtx is not installed: apt install proj-data")
    return Geoid(grid)


@pytest.mark.parametrize(
    ("latitude", "longitude", "height"),
    [(38.6281550, 269.7791550, -31.628), (-14.6212170, 305.0211140, -2.969),
     (46.8743190, 102.4487290, -43.575), (-23.6174460, 133.8747120, 15.871),
     (38.6254730, 359.9995000, 50.066), (-0.4667440, 0.0023000, 17.329)],
)  # fmt: skip
def test_published_values_of_egm96(geoid, latitude, longitude, height):
    assert geoid.undulation(latitude, longitude) == pytest.approx(height, abs=0.5)


def test_poles_date_line_and_nonsense(geoid):
    assert geoid.undulation(90.0, 0.0) == pytest.approx(13.606, abs=0.01)
    assert geoid.undulation(-90.0, 77.0) == pytest.approx(-29.53, abs=0.01)
    assert geoid.undulation(10.0, 180.0) == geoid.undulation(10.0, -180.0)
    for place in ((math.nan, 0.0), (91.0, 0.0), (0.0, math.inf)):
        assert math.isnan(geoid.undulation(*place))


def test_a_file_that_is_no_grid_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="geoid_grid"):
        find_grid(str(tmp_path / "absent.gtx"))
    wrong = tmp_path / "wrong.gtx"
    wrong.write_text("no grid")
    with pytest.raises(ConfigurationError, match="no grid of PROJ"):
        Geoid(wrong)
