import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from repgan_jax.palette import Palette, default_colours
from repgan_jax.report import chart
from repgan_jax.report import html as report


def coordinates(svg):
    path = re.search(r'class="line" d="M([^"]+)"', svg).group(1)
    return np.array([point.split() for point in path.split("L")], float)


def labels(svg):
    return [float(t) for t in re.findall(r'text-anchor="end">([^<]+)<', svg)]


def test_chart_keeps_the_shape_of_the_data():
    x, y = np.array([0, 10, 30, 100]), np.array([0.2, 0.9, 0.4, 0.6])
    drawn = coordinates(chart.line_chart(x, y, title="t", x_label="step"))
    # Straight lines from data to drawing: a factor and an offset; drawn to 0.1 units.
    for values, places in ((x, drawn[:, 0]), (y, drawn[:, 1])):
        fitted = np.polyval(np.polyfit(values, places, 1), values)
        np.testing.assert_allclose(places, fitted, atol=0.11)
    assert drawn[1, 1] < drawn[0, 1]  # larger is higher up


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(("low", "high"), [(0.01, 2.3), (3, 3), (1e-7, 1e4), (0.61, 0.84)])
def test_ticks_enclose_the_data_and_everything_lies_inside(low, high, log):
    svg = chart.line_chart(
        np.arange(1, 101), np.geomspace(low, high, 100), title="t", x_label="step", log=log
    )
    ticks = labels(svg)
    assert ticks[0] <= low + 1e-6 and ticks[-1] >= high * 0.999
    assert 2 <= len(ticks) <= 13
    drawn = coordinates(svg)
    assert (drawn >= 0).all() and (drawn <= [420, 230]).all()


def test_of_many_points_means_are_drawn():
    noisy = 1 + 0.1 * (-1.0) ** np.arange(3000)
    drawn = coordinates(chart.line_chart(np.arange(3000), noisy, title="t", x_label="step"))
    assert len(drawn) == 150
    assert np.ptp(drawn[:, 1]) == 0


def test_one_point_is_a_dot():
    assert chart.line_chart([5], [0.5], title="t", x_label="step").count("<circle") == 1


def test_text_is_escaped():
    assert report.tag("p", class_='"') == '<p class="&quot;"></p>'
    for html in (
        report.note("<x>"),
        report.section("<x>", "<x>"),
        report.tiles([("<x>", "<x>")]),
        report.figure({"<x>": np.zeros((2, 3, 3), np.uint8)}, "<x>", "<x>"),
        report.legend(Palette(("background", "<x>"), default_colours(2))),
        report.table(["<x>"], []),
        chart.line_chart([1, 2], [1, 2], title="<x>", x_label="<x>"),
    ):
        assert "<x>" not in html and "&lt;x&gt;" in html


def test_large_pictures_are_reduced_and_small_ones_kept():
    rng = np.random.default_rng(0)
    large, small = (rng.integers(0, 255, shape, np.uint8) for shape in ((300, 600, 3), (20, 30, 3)))
    html = report.figure({"large": large, "small": small}, "both")
    found = [
        Image.open(io.BytesIO(base64.b64decode(data))).size
        for data in re.findall(r"base64,([^\"]+)", html)
    ]
    assert found == [(256, 128), (30, 20)]


def test_a_missing_share_is_a_dash():
    assert "–" in report.meter(None)
    assert "12.3" in report.meter(0.1234)
