"""Figures of the ablation and of failures show what they are given, and its rule."""

from collections.abc import Callable
from itertools import product

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from minddiff_utils.core.conditions import factorial
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.signature import WATERMARK, sign
from minddiff_utils.reporting import figures, tables
from minddiff_utils.reporting.figures.canvas import PALETTE

DEMO = "profile demo: in-silico subjects, demo models"
SMOKE = "profile smoke: in-silico subjects, demo models"
METRICS = {"clip_judge": "CLIP similarity, judge CLIP", "pcc": "pixel correlation, RGB"}
AXES = {"ssim_2d": "SSIM, gray, 2-D", "clip_judge": "CLIP similarity, judge CLIP"}
K_GRID = (5.0, 25.0, 100.0)

Images = npt.NDArray[np.uint8]


def _cells() -> pd.DataFrame:
    rows = [
        (s, m, k, 0.3 + 0.1 * sum(f), 0.2, 0.9, 2 if s == "all" else 6, 0.15, *f)
        for s, (m, f), k in product(("1", "2", "all"), factorial().items(), METRICS)
    ]
    names = "subject method metric value ci_low ci_high n floor"
    return pd.DataFrame(rows, columns=[*names.split(), *tables.FEATURES])


def _k_table() -> pd.DataFrame:
    rows = [
        (s, layer, k, 0.5 - k / 400 + 0.1 * s + 0.01 * layer, k / 100)
        for s, layer, k in product((1, 2), (1, 2), K_GRID)
    ]
    names = "subject layer k_percent r_selected_mean variance_kept"
    return pd.DataFrame(rows, columns=names.split())


def _quality() -> pd.DataFrame:
    rows = [
        (s, k, 0.5 + k / 1000, 0.4, 0.7, 2 if s == "all" else 6)
        for s, k in product(("1", "2", "all"), K_GRID)
    ]
    names = "subject k_percent value ci_low ci_high n"
    return pd.DataFrame(rows, columns=names.split())


def _points() -> pd.DataFrame:
    marks = ["low semantic", "", "", "low structural", "low structural"]
    return pd.DataFrame(
        {
            "subject": "1",
            "method": "stage2",
            "nsd_id": [70, 10, 20, 50, 72999],
            "ssim_2d": [0.9, 0.8, 0.4, 0.2, 0.1],
            "clip_judge": [0.1, 0.4, 0.5, 0.8, 0.9],
            "signature": marks,
            "place": [1, 0, 0, 2, 1],
        }
    )


def _pairs() -> dict[int, tuple[Images, Images]]:
    """Return flat images: the id's row in the table, and that plus 100."""
    return {
        int(i): (np.full((8, 8, 3), k, np.uint8), np.full((8, 8, 3), 100 + k, np.uint8))
        for k, i in enumerate(_points()["nsd_id"])
    }


def _ablation(cells: pd.DataFrame) -> Figure:
    return figures.fig_ablation(cells, tables.FEATURES, METRICS)


def _k_quality(k_chosen: float | None = 25.0) -> Figure:
    return figures.fig_k_quality(
        _k_table(), _quality(), METRICS["clip_judge"], k_chosen=k_chosen
    )


def _failures(points: pd.DataFrame) -> Figure:
    rule = tables.failure_rule(2)
    return figures.fig_failures(points, _pairs(), AXES, rule=rule)


DRAWN: dict[str, Callable[[], Figure]] = {
    "fig_ablation": lambda: _ablation(_cells()),
    "fig_k_quality": _k_quality,
    "fig_failures": lambda: _failures(_points()),
}


def _drawn(name: str, label: str = DEMO) -> Figure:
    """Return a figure as a run shows it."""
    figure = DRAWN[name]()
    sign(figure, label)
    return figure


def _words(figure: Figure) -> str:
    texts = [t.get_text() for t in figure.findobj(mpl.text.Text)]
    return " ".join(texts).replace("\n", " ")


# --- all three ------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_carries_title_n_interval_and_label(name: str) -> None:
    figure = _drawn(name)
    words = _words(figure)
    assert figure.get_suptitle()
    assert DEMO in words
    assert "n = " in words
    assert "interval" in words
    assert WATERMARK not in words
    assert WATERMARK in _words(_drawn(name, SMOKE))


@pytest.mark.parametrize("name", DRAWN)
def test_every_axis_with_ticks_is_labelled(name: str) -> None:
    for axes in _drawn(name).axes:
        if axes.axison:
            assert axes.get_xlabel()
            assert axes.get_ylabel() or name == "fig_ablation"  # rows are combinations


@pytest.mark.parametrize("name", DRAWN)
def test_all_words_lie_on_the_page(name: str) -> None:
    figure = _drawn(name)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # settles the layout; warnings are errors
    used = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    slack = 0.02  # inches: a quarter of the smallest letter
    assert used.x0 >= -slack
    assert used.x1 <= width + slack
    assert used.y0 >= -slack
    assert used.y1 <= height + slack


# --- the factorial --------------------------------------------------------------------


def test_dots_are_filled_where_the_feature_is_there() -> None:
    cells = _cells().sample(frac=1, random_state=2)  # the order of rows says nothing
    dots, scores = _ablation(cells).axes[:2]
    filled = {
        (int(line.get_ydata()[0]), int(line.get_xdata()[0]))
        for line in dots.lines
        if line.get_marker() == "o" and line.get_markerfacecolor() == "0.1"
    }
    order = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]
    assert filled == {(row, k) for row, on in enumerate(order) for k in on}
    drawn = {
        int(line.get_ydata()[0]): (line.get_xdata()[0], line.get_color())
        for line in scores.lines
        if line.get_marker() == "o"
    }
    for row, on in enumerate(order):
        value, colour = drawn[row]
        assert value == pytest.approx(0.3 + 0.1 * len(on))
        assert colour == PALETTE[int(2 in on)]


def test_a_combination_without_a_score_keeps_its_row() -> None:
    cells = _cells()
    cells.loc[cells["method"] == "z_clip", "value"] = np.nan
    figure = _ablation(cells)
    for axes in figure.axes[1:]:
        said = [t for t in axes.texts if t.get_text() == "not run"]
        assert [t.get_position()[1] for t in said] == [6]


def test_only_the_factorial_can_be_drawn_as_one() -> None:
    twin = _cells().query("method == 'stage1'").assign(method="stage2_iter_0")
    with pytest.raises(DataError, match="same features"):
        _ablation(pd.concat([_cells(), twin]))
    with pytest.raises(DataError, match="no rows 'all'"):
        _ablation(_cells().query("subject != 'all'"))
    with pytest.raises(DataError, match="has no rows"):
        _ablation(_cells().assign(value=np.nan))


# --- k --------------------------------------------------------------------------------


def test_k_lines_are_subjects_with_their_mean_in_bold() -> None:
    accuracy, variance, final = _k_quality().axes
    bold = [line for line in accuracy.lines if line.get_linewidth() > 2]
    thin = [line for line in accuracy.lines if line.get_marker() in ("o", "s")]
    assert len(bold) == 1
    assert len(thin) == 2
    # mean over layers 1 and 2: + 0.015; over subjects 1 and 2: + 0.15
    expected = 0.5 - np.array(K_GRID) / 400 + 0.015
    np.testing.assert_allclose(thin[0].get_ydata(), expected + 0.1)
    np.testing.assert_allclose(bold[0].get_ydata(), expected + 0.15)
    kept = [line for line in variance.lines if line.get_linewidth() > 2]
    np.testing.assert_allclose(kept[0].get_ydata(), K_GRID)  # percent
    (bars,) = final.collections
    assert [s[:, 1].tolist() for s in bars.get_segments()] == [[0.4, 0.7]] * 3


def test_the_k_in_use_is_marked_in_every_panel_and_only_if_there_is_one() -> None:
    for axes in _k_quality(k_chosen=25.0).axes:
        dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert [line.get_xdata()[0] for line in dotted] == [25.0]
    figure = _k_quality(k_chosen=None)
    assert not any(ln.get_linestyle() == ":" for a in figure.axes for ln in a.lines)
    assert "a k for each layer" in _words(figure)


def test_quality_of_several_metrics_is_refused() -> None:
    twice = pd.concat([_quality(), _quality()])
    with pytest.raises(DataError, match="twice"):
        figures.fig_k_quality(_k_table(), twice, "PCC", k_chosen=None)


# --- failures -------------------------------------------------------------------------


def test_median_lines_split_the_scatter() -> None:
    scatter = _failures(_points()).axes[0]
    vertical, horizontal = (
        line for line in scatter.lines if line.get_linestyle() == "--"
    )
    assert vertical.get_xdata()[0] == 0.4
    assert horizontal.get_ydata()[0] == 0.5


def test_extreme_images_are_pairs_in_the_order_of_their_place() -> None:
    figure = _failures(_points())
    _, low_semantic, low_structural = figure.axes
    # rows of the table: 0 is low in meaning; 4, then 3, in structure
    for axes, rows in ((low_semantic, [0]), (low_structural, [4, 3])):
        shown = [int(im.get_array().ravel()[0]) for im in axes.images]
        assert shown == [*rows, *(100 + r for r in rows)]
    titles = _words(figure)
    for said in ("a: 70", "b: 72999", "c: 50"):
        assert said in titles
    assert low_semantic.get_title(loc="left") == "low CLIP similarity, high SSIM"
    letters = {t.get_text(): t.xy for t in figure.axes[0].texts}
    assert letters == {"a": (0.9, 0.1), "b": (0.1, 0.9), "c": (0.2, 0.8)}


def test_a_scatter_of_which_nothing_is_marked_has_no_letters() -> None:
    points = _points().assign(signature="", place=0)
    assert not _failures(points).axes[0].texts


def test_the_rule_of_selection_is_in_the_caption() -> None:
    assert tables.failure_rule(2) in _words(_failures(_points()))


def test_a_quadrant_without_images_says_so() -> None:
    points = _points()
    points.loc[0, ["signature", "place"]] = "", 0
    figure = _failures(points)
    assert "no image in this quadrant" in [t.get_text() for t in figure.axes[1].texts]


def test_a_marked_image_that_is_not_given_is_named() -> None:
    points = _points().replace({"nsd_id": {50: 51}})
    with pytest.raises(DataError, match="images 51 are marked"):
        _failures(points)


def test_points_of_two_methods_are_refused() -> None:
    both = pd.concat([_points(), _points().assign(method="stage1")])
    with pytest.raises(DataError, match="several"):
        _failures(both)
