"""Figures show the numbers they are given, say what they are, and leave no state."""

import inspect
from collections.abc import Callable, Iterable
from io import BytesIO
from itertools import pairwise, product
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection, PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.conditions import factorial
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.signature import WATERMARK, sign
from minddiff_utils.reporting import figures, tables
from minddiff_utils.reporting.figures import MethodPanels, Surface, maps
from minddiff_utils.reporting.figures.canvas import PALETTE, draws, rows_by_metric
from minddiff_utils.reporting.galleries import failure_rule

DEMO = "profile demo: in-silico subjects, demo models"
SMOKE = "profile smoke: in-silico subjects, demo models"
METRICS = {"clip_judge": "CLIP similarity, judge CLIP", "pcc": "pixel correlation, RGB"}
METHODS = {"stage2": "stage 2", "stage1": "stage 1", "retrieval": "nearest image"}
AXES = {"ssim_2d": "SSIM, gray, 2-D", "clip_judge": "CLIP similarity, judge CLIP"}
SUBJECTS = ("1", "2", "all")
FEATURES = ("c", "z", "clip/1")
STUDY = ("structural_loss", "ssim_2d", "pcc", "clip_judge")
K_GRID = (5.0, 25.0, 100.0)


def _frame(names: str, rows: Iterable[tuple[Any, ...]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=names.split())


def _images(n: int, side: int = 8) -> npt.NDArray[np.uint8]:
    """Return n flat pictures, each of another gray."""
    grays = np.arange(n, dtype=np.uint8) * 9
    return np.repeat(grays, side * side * 3).reshape(n, side, side, 3)


NAMERS = {"named_by_judge": "by the judge", "named_by_probe": "by a probe"}
NAMED = _frame(
    "metric method category value ci_low ci_high chance ceiling n_images n_subjects",
    [
        (who, m, kind, v, v - 0.1, v + 0.1, 0.05, 0.9, n, 2)
        for who in NAMERS
        for m, v in (("stage1", 0.4), ("stage2", 0.5), ("truth", 0.9))
        for kind, n in (("all", 12), ("cat", 7), ("dog", 5))
    ],
)
COUNTS = _frame(
    "subject area area_set n_voxels",
    [(1, a, "LVC" if a in LVC else "HVC", 10 * k + 5) for k, a in enumerate(AREAS)],
)
AREA_SETS = ("all_targets", "LVC", "HVC")
ACCURACY = _frame(
    "subject feature area_set r_mean r_null_high r_null_mean r_ceiling p_permutation"
    " r_null_within_high p_within n_images n_targets",
    [
        (s, f, a, 0.1 + 0.1 * k, 0.02, 0.0, 0.7, 0.005, 0.08, 0.02, 20, 50)
        for k, (s, f, a) in enumerate(product((1, 2), FEATURES, AREA_SETS))
    ],
)
SCORES = _frame(
    "subject method metric value ci_low ci_high n_images n_subjects floor chance"
    " ceiling",
    [
        (s, m, k, 0.3 + 0.01 * i, 0.2, 0.5, 6, 2 if s == "all" else 1, 0.1, 0.2, 0.9)
        for i, (s, m, k) in enumerate(product(SUBJECTS, METHODS, METRICS))
    ],
)
PAIRED = _frame(
    "subject method reference metric value ci_low ci_high smallest_effect n_images"
    " n_subjects",
    [
        (s, "stage2", "stage1", k, 0.05, low, 0.09, 0.06, 6, 2 if s == "all" else 1)
        for (s, low), k in product(
            zip(SUBJECTS, (-0.01, 0.01, 0.01), strict=True), METRICS
        )
    ],
)
PAIRS_OF_IMAGES = _frame(
    "subject nsd_id x y", [(s, k, 0.1 * k, 0.2 * k) for s in "12" for k in range(5)]
)
PAIRS_OF_IMAGES.attrs = {"x": "read", "y": "seen", "rho": "rho = +1.00"}
FOREST = {("stage2", "stage1", s): f"subject {s}" for s in SUBJECTS}
WEIGHTS = _frame(
    "feature area weight n_voxels pattern few_voxels",
    [
        (f, a, 1.0 + k, 10 + 20 * k, 0.1, k == 0)
        for f in FEATURES
        for k, a in enumerate(("V1", "LO"))
    ],
)
K_TABLE = _frame(
    "subject layer k_percent r_selected_mean r_cv_selected_mean variance_kept"
    " identification",
    [
        (s, layer, k, 0.5 - k / 400 + 0.1 * s + 0.01 * layer, 0.4, k / 100, 0.9)
        for s, layer, k in product((1, 2), (1, 2), K_GRID)
    ],
)
BY_K = _frame(
    "subject features k_percent metric value ci_low ci_high n_images",
    [
        (s, features, k, m, k / 1000 if k == k else 0.1, low, 0.7, 6)
        for s, m in product(SUBJECTS, METRICS)
        for features, k, low in (
            *(("decoded", 5.0, -0.1), ("decoded", 25.0, 0.01), ("true", 5.0, 0.01)),
            ("weighted", np.nan, -0.1),
        )
    ],
)
DECODERS = _frame(
    "decoder feature r_mean r_low r_high r_ceiling rank_share n_images n_targets"
    " confidence",
    [
        (
            d,
            f,
            *(0.2 + 0.1 * (i + j) for j in (1, 0, 2)),
            0.8,
            0.5 + 0.2 * i,
            6,
            40,
            0.95,
        )
        for (i, d), f in product(enumerate(("paper", "dense")), FEATURES)
    ],
)
HELD_OUT = pd.concat(
    DECODERS.assign(trained_on=words, n_train=50, n_categories=14)
    for words in ("same categories", "other categories")
)
#: What a cell of the factorial scores less than all three features: a tenth for each.
CELLS = _frame(
    "subject method reference metric value ci_low ci_high n_images n_subjects",
    [
        (s, m, "stage2_guided", k, 0.1 * sum(f) - 0.3, -0.4, 0.1, 6, 2)
        for s, (m, f), k in product(SUBJECTS, factorial().items(), METRICS)
        if m != "stage2_guided"
    ],
)
POINTS = _frame(
    "method metric value low high cost n_images n_subjects",
    [
        (arm, k, 0.5 + 0.1 * i, 0.4, 0.8, 10.0 ** (i + 1), 12, 2)
        for (i, arm), k in product(enumerate(("none", "bayes", "paper")), STUDY)
    ],
)
VERDICTS = _frame(
    "subject method reference metric value ci_low ci_high margin verdict n_images",
    [
        (s, "bayes", "paper", k, 0.01, -0.03, 0.05, 0.02, verdict, 6)
        for (s, verdict), k in product(
            zip(SUBJECTS, ("no worse", "not shown", "worse"), strict=True), STUDY
        )
    ],
)
FAILURES = _frame(
    "subject method nsd_id ssim_2d clip_judge signature place",
    [
        ("1", "stage2", 70, 0.9, 0.1, "low semantic", 1),
        ("1", "stage2", 10, 0.8, 0.4, "", 0),
        ("1", "stage2", 20, 0.4, 0.5, "", 0),
        ("1", "stage2", 50, 0.2, 0.8, "low structural", 2),
        ("1", "stage2", 72999, 0.1, 0.9, "low structural", 1),
    ],
)
#: Closed, its faces counter-clockwise from outside.
VERTICES = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float) * 20
FACES = np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])


def _surface(points: Any, faces: Any, values: Any) -> Surface:
    """Return a surface without sulci and areas."""
    n = len(points)
    return Surface(points, faces, values, np.zeros(n), np.full(n, -1), ())


TETRAHEDRON = _surface(VERTICES, FACES, np.array([1.0, 2.0, 3.0, np.nan]))
INFLATED = (TETRAHEDRON, TETRAHEDRON)
#: A square of two faces: V1 at x = 0, V2 at x = 1, no value in a corner.
XY = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
FLAT = Surface(
    XY,
    np.array([[0, 2, 1], [1, 2, 3]]),
    np.array([1.0, 2.0, 3.0, np.nan]),
    XY[:, 0],
    np.array([0, 0, 1, 1]),
    ("V1", "V2"),
)
LOSSES = (
    np.array([[2.0, 1.5, 1.0], [4.0, np.nan, 1.0]]),
    np.array([2, 0]),
    (0, 2),
    np.array([[2.0, 1.0], [4.0, 5.0]]),
)
LEFT, UP = np.array([-1.0, 0, 0]), np.array([0, 0, 1.0])


def _ablation(cells: pd.DataFrame = CELLS) -> Figure:
    whole = "stage2_guided"
    return figures.fig_ablation(cells, tables.FEATURES, METRICS, reference=whole)


def _k_quality(by_k: pd.DataFrame = BY_K, k: float | None = 50.0) -> Figure:
    return figures.fig_k_quality(K_TABLE, by_k, METRICS, k_chosen=k)


def _failures(points: pd.DataFrame = FAILURES) -> Figure:
    """Draw failures; images are flat: the id's row in the table, and that plus 100."""
    pairs = {
        int(i): (np.full((8, 8, 3), k, np.uint8), np.full((8, 8, 3), 100 + k, np.uint8))
        for k, i in enumerate(FAILURES["nsd_id"])
    }
    return figures.fig_failures(points, pairs, AXES, rule=failure_rule(2))


def _method() -> Figure:
    names = ("seen", "z_alone", "c_alone", "sampled", "aligned")
    pictures = dict(zip(names, _images(5), strict=True))
    responses, losses = np.arange(10.0), np.array([2.0, 1.0])
    said = {
        "scores": {"sampled": "0.5 · 0.4"},
        "engine": "bayes",
        "unit": "step",
        "rule": "Image 7.",
    }
    return figures.fig_method(
        MethodPanels(pictures, responses=responses, losses=losses, **said)
    )


#: Every public figure, drawn from small made-up arrays.
CALIBRATION = pd.DataFrame(
    {
        "feature": ["c", "c", "clip/1"],
        "axis": [1, 2, 1],
        "sd": [2.0, 1.0, 3.0],
        "rms": [2.1, 0.9, 3.3],
        "coverage_50": [0.5, 0.6, 0.4],
        "coverage_80": [0.8, 0.8, 0.7],
        "coverage_95": [0.95, 1.0, 0.9],
    }
)
TOLD = {"nothing": {"shuffled": "another brain"}, "brain": {"stage1": "stage 1"}}
AXES_READ = {"axes_0": "0", "axes_2": "2", "stage1": "all"}
GAINS = _frame(
    "subject method metric value ci_low ci_high n_images n_subjects",
    [
        (s, m, k, 0.1 * i, 0.1 * i - 0.05, 0.1 * i + 0.05, 6, 2)
        for s, (i, m), k in product(
            SUBJECTS, enumerate(("shuffled", "axes_2", "stage1")), METRICS
        )
    ],
)
SHARES_OF = _frame(
    "metric prior value", [(k, "shuffled", 0.25) for k in ("clip_judge",)]
)
READ = _frame(
    "subject method metric value ci_low ci_high n_images n_subjects",
    [
        (s, m, k, 0.3, 0.2, 0.4, 6, 2)
        for s, m, k in product(
            SUBJECTS,
            ("all", "voxels_25", "LVC", "own_50", "aligned_50", "virtual_1"),
            ("c_r", "z_r"),
        )
    ],
)
FITS = _frame(
    "subject method voxels_percent relative_snr",
    [
        (s, m, 25.0, 1.0)
        for s in SUBJECTS
        for m in ("all", "own_50", "aligned_50", "virtual_1")
    ],
)
SLOPES = _frame(
    "model metric feature value ci_low ci_high",
    [(m, "clip_judge", f, 0.2, 0.1, 0.3) for m in ("random", "fixed") for f in "cz"],
)
ORDERS = _frame(
    "subject method metric value ci_low ci_high floor n_images n_subjects",
    [
        ("all", m, f"frame_order_{ms}", 0.1 * i + 0.5, 0.5, 0.9, 0.5, 6, 2)
        for (i, m), ms in product(enumerate(("picture", "lags")), (250, 1000))
    ],
)
DRAWN: dict[str, Callable[[], Figure]] = {
    "fig_pareto": lambda: figures.fig_pareto(
        POINTS, {"bayes": "bayes", "paper": "the paper's"}, confidence=0.95
    ),
    "fig_no_worse": lambda: figures.fig_no_worse(
        VERDICTS, {"bayes": "ours"}, reference="paper", confidence=0.95
    ),
    "fig_roi_counts": lambda: figures.fig_roi_counts(COUNTS),
    "fig_reliability": lambda: figures.fig_reliability(
        np.linspace(0, 0.9, 22), np.arange(22) % 11, AREAS
    ),
    "fig_repeats": lambda: figures.fig_repeats(
        {"good": np.tile(np.arange(16.0), (3, 1)).T, "bad": np.full((16, 3), np.nan)},
    ),
    "fig_predictions": lambda: figures.fig_predictions(
        {name: (np.arange(5.0), np.arange(5.0) / 2) for name in ("one", "two")},
    ),
    "fig_scenes": lambda: figures.fig_scenes(_images(5), ["a <dog> & a $5 cat"] * 5),
    "fig_ncsnr_recovery": lambda: figures.fig_ncsnr_recovery(
        np.array([0.1, 0.5]), np.array([0.12, 0.9]), np.full(2, 0.05)
    ),
    "fig_noise": lambda: figures.fig_noise(
        pd.DataFrame(
            {"distance": [1, 2], "n_pairs": 9, "planted": 0.2, "measured": 0.3}
        ),
        pd.DataFrame({"lag": [1, 2], "planted": 0.2, "measured": 0.1}),
        pd.DataFrame({"ceiling": [0.2, 0.4], "reached": 0.3, "n_voxels": 5}),
    ),
    "fig_accuracy": lambda: figures.fig_accuracy(ACCURACY),
    "fig_accuracy_histograms": lambda: figures.fig_accuracy_histograms(
        {f: np.linspace(-0.1, 0.5, 30) for f in FEATURES},
        floors={f: np.linspace(-0.2, 0.2, 30) for f in FEATURES},
        ceilings={f: np.linspace(0.6, 0.9, 30) for f in FEATURES},
    ),
    "fig_calibration": lambda: figures.fig_calibration(CALIBRATION, n_images=9),
    "fig_k_selection": lambda: figures.fig_k_selection(K_TABLE, k_chosen=25.0),
    "fig_k_quality": _k_quality,
    "fig_decoders": lambda: figures.fig_decoders(DECODERS),
    "fig_holdout": lambda: figures.fig_holdout(HELD_OUT),
    "fig_gallery": lambda: figures.fig_gallery(
        {"seen image": _images(3), "stage 2": _images(2)}, title="Images"
    ),
    "fig_losses_of_truth": lambda: figures.fig_losses_of_truth(
        {name: (np.arange(4.0), np.ones((4, 3))) for name in ("paper", "cosine")}
    ),
    "fig_losses": lambda: figures.fig_losses(*LOSSES),
    "fig_trajectory": lambda: figures.fig_trajectory(
        _images(6).reshape(2, 3, 8, 8, 3), (0, 5, 10), _images(2)
    ),
    "fig_comparison": lambda: figures.fig_comparison(SCORES, METRICS, METHODS),
    "fig_differences": lambda: figures.fig_differences(
        PAIRED, METRICS, FOREST, "Stage 2 minus stage 1"
    ),
    "fig_subjects": lambda: figures.fig_subjects(SCORES, METRICS),
    "fig_images": lambda: figures.fig_images({"C10": PAIRS_OF_IMAGES}),
    "fig_ablation": _ablation,
    "fig_failures": _failures,
    "fig_naming": lambda: figures.fig_naming(
        NAMED, NAMERS, METHODS | {"truth": "true image"}, by_category="stage2"
    ),
    "fig_leakage": lambda: figures.fig_leakage(
        GAINS, SHARES_OF, METRICS, TOLD, AXES_READ
    ),
    "fig_factors": lambda: figures.fig_factors(READ, SLOPES, FITS, METRICS),
    "fig_video": lambda: figures.fig_video(
        ORDERS,
        {name: _images(8) for name in ("seen", "picture")},
        {"frame_order_250": 2.0, "frame_order_1000": 8.0},
        {"picture": "each volume", "lags": "lags"},
        {"seen": "seen", "picture": "each volume"},
        tr=2.0,
    ),
    "fig_weights_by_area": lambda: figures.fig_weights_by_area(WEIGHTS),
    "fig_method": _method,
    "fig_flat_maps": lambda: figures.fig_flat_maps({"c": FLAT}),
    "fig_inflated": lambda: figures.fig_inflated({"c": INFLATED}),
}


def _words(figure: Figure) -> str:
    texts = [t.get_text() for t in figure.findobj(mpl.text.Text)]
    return " ".join(" ".join(texts).split())


def _bars(axes: Axes) -> list[float]:
    return [p.get_height() for p in axes.patches if isinstance(p, Rectangle)]


def _dots(axes: Axes, marker: str = "o") -> list[tuple[float, float]]:
    """Return the points that are drawn one by one."""
    lines = [line for line in axes.lines if line.get_marker() == marker]
    ends = [(np.ravel(line.get_xdata()), np.ravel(line.get_ydata())) for line in lines]
    return [(float(x[0]), float(y[0])) for x, y in ends if len(x) == 1]


# --- all figures ----------------------------------------------------------------------


def test_every_figure_of_the_package_is_tested_here() -> None:
    public = {n for n in figures.__all__ if inspect.isfunction(getattr(figures, n))}
    assert set(DRAWN) == public


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_says_what_it_is_and_its_words_lie_on_the_page(name: str) -> None:
    figure = DRAWN[name]()
    assert figure.get_suptitle()
    words = _words(figure)
    assert "n = " in words or "n in each" in words
    assert "interval" in words or name in {
        "fig_gallery", "fig_scenes", "fig_trajectory", "fig_ncsnr_recovery",
    }  # fmt: skip  # pictures and shares have none
    sign(figure, DEMO)
    assert DEMO in _words(figure)
    assert WATERMARK not in _words(figure)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # settles the layout; warnings are errors
    used = figure.get_tightbbox(canvas.get_renderer())
    width, height = figure.get_size_inches()
    slack = 0.02  # inches: a quarter of the smallest letter
    assert min(used.x0, used.y0) >= -slack
    assert used.x1 <= width + slack
    assert used.y1 <= height + slack


def test_a_figure_of_smoke_is_watermarked() -> None:
    figure = DRAWN["fig_accuracy"]()
    sign(figure, SMOKE)
    assert WATERMARK in _words(figure)


def test_a_figure_leaves_pyplot_and_the_style_as_they_were() -> None:
    before = dict(mpl.rcParams)
    for draw in DRAWN.values():
        draw()
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_a_notebook_shows_a_figure_as_one_picture_with_what_a_reader_adds() -> None:
    figure = DRAWN["fig_k_selection"]()
    shown, _ = DisplayFormatter().format(figure)
    assert [kind for kind in shown if kind.startswith("image/")] == ["image/png"]
    figure.axes[0].axhline(0.5, color="red")
    again, _ = DisplayFormatter().format(figure)
    assert again["image/png"] != shown["image/png"]


def test_a_notebook_shows_the_picture_that_was_written() -> None:
    figure, buffer = DRAWN["fig_k_selection"](), BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    figure.savefig(BytesIO(), format="pdf", metadata={"CreationDate": None})
    shown, facts = DisplayFormatter().format(figure)
    assert shown["image/png"] == buffer.getvalue()
    with Image.open(buffer) as picture:
        assert facts["image/png"]["width"] == round(picture.width * 110 / 150)


def test_the_same_numbers_give_the_same_bytes() -> None:
    pages = []
    for _ in range(2):
        buffer = BytesIO()
        DRAWN["fig_accuracy"]().savefig(buffer, metadata={"Software": None})
        pages.append(buffer.getvalue())
    assert pages[0] == pages[1]


# --- preparation ----------------------------------------------------------------------


def test_roi_bars_are_the_counts_in_order_of_areas() -> None:
    axes = figures.fig_roi_counts(COUNTS.sample(frac=1, random_state=3)).axes[0]
    assert _bars(axes) == (np.arange(11) * 10 + 5).tolist()
    assert [t.get_text() for t in axes.get_xticklabels()] == [*LVC, *HVC]


def test_reliability_leaves_out_unknown_voxels_and_counts_them() -> None:
    ceiling = np.array([0.5, 0.7, np.nan])
    figure = figures.fig_reliability(ceiling, np.zeros(3, int), ["V1"])
    assert "n = 2 voxels (1 without a value)" in _words(figure)


def test_repeats_are_drawn_with_their_mean_over_trials_that_hold_data() -> None:
    trials = np.array([[1.0, 2.0, 6.0], [0.0, np.nan, 1.0], [np.nan] * 3])
    axes = figures.fig_repeats({"one voxel": trials}).axes[0]
    dots = np.array([dots.get_offsets().data[:, 1] for dots in axes.collections[:3]])
    np.testing.assert_array_equal(dots.T, trials)
    segments = axes.collections[3].get_segments()  # empty without a mean
    np.testing.assert_allclose([line[0, 1] for line in segments if len(line)], [3, 0.5])


def test_recovery_states_the_share_within_two_standard_errors() -> None:
    planted, error = np.full(4, 0.5), np.array([0.0, 0.1, -0.1, 0.3])
    figure = figures.fig_ncsnr_recovery(planted, planted + error, np.full(4, 0.1))
    assert "75.0 %" in _words(figure)


def test_a_caption_is_drawn_as_it_is_and_never_as_a_formula() -> None:
    caption = "from $5^^ to $6"  # as a formula this would be an error
    figure = figures.fig_scenes(_images(1), [caption])
    figure.savefig(BytesIO(), dpi=30)
    assert caption in _words(figure)


# --- decoding -------------------------------------------------------------------------


def test_accuracy_bars_are_means_and_starred_only_if_every_subject_passes() -> None:
    table = ACCURACY.copy()
    table.loc[0, "p_permutation"] = 0.5  # subject 1, c, all areas
    table.loc[1, "p_within"] = 0.5  # c, LVC
    axes = figures.fig_accuracy(table).axes[0]
    means = table.groupby(["feature", "area_set"])["r_mean"].mean()
    expected = [means[f, a] for f in FEATURES for a in AREA_SETS]
    np.testing.assert_allclose(_bars(axes), expected, rtol=1e-12)  # two code paths
    assert [text.get_text() for text in axes.texts] == ["*", *["**"] * 7]


def test_a_bar_alone_stands_on_the_tick_of_its_feature() -> None:
    of_c = ACCURACY["feature"] == "c"
    table = ACCURACY[of_c | (ACCURACY["area_set"] == "all_targets")]
    axes = figures.fig_accuracy(table).axes[0]
    middles = [p.get_x() + p.get_width() / 2 for p in axes.patches]
    width = 0.8 / 3
    expected = [-width, 0, width, *range(1, len(FEATURES))]
    np.testing.assert_allclose(middles, expected, atol=1e-12)  # rounding


def test_histograms_leave_out_targets_without_correlation() -> None:
    r = np.array([0.1, 0.2, 0.6, np.nan])
    floor, ceiling = np.array([0.0, -0.1, 0.1, np.nan]), np.full(4, 0.7)
    bounds = {"floors": {"c": floor}, "ceilings": {"c": ceiling}}
    figure = figures.fig_accuracy_histograms({"c": r}, **bounds)
    assert "n = 3, median 0.200" in _words(figure)
    medians = [float(line.get_xdata()[0]) for line in figure.axes[0].lines]
    assert medians == [0.0, 0.7, 0.2]


def test_predictions_are_drawn_against_the_truth() -> None:
    truth, predicted = np.array([0.0, 1.0, -2.0]), np.array([0.1, 0.4, -0.3])
    [axes] = figures.fig_predictions({"a target": (truth, predicted)}).axes
    drawn = axes.collections[0].get_offsets()
    np.testing.assert_array_equal(drawn, np.stack([truth, predicted], axis=1))


def test_the_names_of_each_method_and_category_are_drawn() -> None:
    better = NAMED.copy()
    dogs = (better["method"] == "stage2") & (better["category"] == "dog")
    better.loc[dogs, "value"] = 0.8
    axes = figures.fig_naming(better, NAMERS, METHODS, by_category="stage2").axes
    widths = [p.get_width() for p in axes[0].patches if isinstance(p, Rectangle)]
    assert widths == [0.4, 0.5]
    assert [t.get_text() for t in axes[2].get_xticklabels()] == ["dog (5)", "cat (7)"]
    assert _bars(axes[2]) == [0.8, 0.5]


@pytest.mark.parametrize(
    "draw", [lambda k: figures.fig_k_selection(K_TABLE, k_chosen=k),
             lambda k: _k_quality(k=k)],
)  # fmt: skip
def test_the_k_in_use_is_marked_in_every_panel_and_only_if_there_is_one(
    draw: Callable[[float | None], Figure],
) -> None:
    for axes in draw(50.0).axes:
        dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
        assert [line.get_xdata()[0] for line in dotted] == [50.0]
    figure = draw(None)
    assert not any(ln.get_linestyle() == ":" for a in figure.axes for ln in a.lines)
    assert "a k for each layer" in _words(figure)


def test_k_lines_are_subjects_with_their_mean_in_bold_and_paired_differences() -> None:
    accuracy, identification, final, true = _k_quality().axes
    bold, same = (
        [line for line in axes.lines if line.get_linewidth() > 2]
        for axes in (accuracy, identification)
    )
    thin = [line for line in accuracy.lines if line.get_marker() == "o"]
    assert (len(bold), len(thin)) == (1, 2)
    # mean over layers 1 and 2: + 0.015; over subjects 1 and 2: + 0.15
    expected = 0.5 - np.array(K_GRID) / 400 + 0.015
    np.testing.assert_allclose(thin[0].get_ydata(), expected + 0.1)
    np.testing.assert_allclose(bold[0].get_ydata(), expected + 0.15)
    np.testing.assert_allclose(same[0].get_ydata(), 0.9)
    dots, of_true = (
        [ln for ln in axes.lines if ln.get_marker() in ("o", "s")]
        for axes in (final, true)
    )
    dots = [ln for ln in dots if len(ln.get_xdata()) == 1]
    found = sorted(float(np.ravel(d.get_ydata())[0]) for d in dots)
    assert found == [*(0.005, 0.005, 0.025, 0.025, 0.1, 0.1)]
    filled = [d.get_markerfacecolor() != "white" for d in dots]
    assert filled == [bool(np.ravel(d.get_ydata())[0] == 0.025) for d in dots]
    beyond = [d.get_xdata()[0] > 110 for d in dots]  # what has no k
    assert beyond == [bool(np.ravel(d.get_ydata())[0] == 0.1) for d in dots]
    assert {float(np.ravel(d.get_ydata())[0]) for d in of_true} == {0.005}
    paper = [
        ln for a in (accuracy, final) for ln in a.lines if ln.get_linestyle() == "--"
    ]
    assert [ln.get_xdata()[0] for ln in paper] == [25, 25]


def test_decoders_are_bars_of_their_mean_and_points_of_their_rank() -> None:
    left, right = figures.fig_decoders(DECODERS).axes
    assert sorted(_bars(left)) == sorted(DECODERS["r_mean"])
    assert sorted(y for _, y in _dots(right)) == sorted(DECODERS["rank_share"])


def test_held_out_categories_are_open_points_beside_filled_ones() -> None:
    left, _ = figures.fig_holdout(HELD_OUT).axes
    dots = [line for line in left.lines if line.get_marker() == "o"]
    empty = [dot for dot in dots if dot.get_markerfacecolor() == "w"]
    assert (len(dots), len(empty)) == (len(HELD_OUT), len(DECODERS))


def test_weights_are_relative_to_the_mean_over_all_voxels_of_a_subject() -> None:
    areas = (
        *(("V1", 1.0, 20, 0.2, False), ("LO", 4.0, 10, 0.3, True)),
        ("MT", 0.0, 0, 0.0, True),
    )
    columns = "feature area weight n_voxels pattern few_voxels"
    one = _frame(columns, [("c", *area) for area in areas])
    two = pd.concat(
        [one.assign(subject=1), one.assign(subject=2, weight=7 * one.weight)]
    )
    for table in (one, two):
        upper, lower, *_ = figures.fig_weights_by_area(table).axes
        # mean over voxels (20 * 1 + 10 * 4) / 30 = 2
        assert [t.get_text() for t in upper.texts] == ["0.50", "2.00", "–"]
        assert [t.get_text() for t in lower.texts] == ["0.20", "0.30", "–"]
        for axes in (upper, lower):  # of LO; MT has no voxel
            assert [p.get_x() for p in axes.patches if p.get_hatch()] == [1]


# --- images ---------------------------------------------------------------------------


def test_gallery_places_images_by_row_and_leaves_cells_blank() -> None:
    rows, rule = (
        {"seen image": _images(3), "stage 2": _images(2)},
        "The first by number",
    )
    figure = figures.fig_gallery(rows, title="Images", rule=rule)
    assert rule in _words(figure)
    axes = figure.axes[0]
    cells = {(int(i.get_extent()[3]), int(i.get_extent()[0])) for i in axes.images}
    assert cells == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
    second = next(i for i in axes.images if int(i.get_extent()[0]) == 1)
    np.testing.assert_array_equal(second.get_array(), _images(3)[1])


def test_losses_are_relative_to_each_image_s_first_and_the_chosen_are_filled() -> None:
    left, right = DRAWN["fig_losses"]().axes
    mean = left.lines[2].get_ydata()  # after one thin line per image
    # images: 1, .75, .5 and 1, none (the last one stands), .25
    np.testing.assert_allclose(mean, [1.0, 0.875, 0.375])
    dots = [c for c in right.collections if isinstance(c, PathCollection)]
    chosen = [c.get_offsets().tolist() for c in dots[1::2]]
    assert chosen == [[[0.0, 1.0]], [[2.0, 0.5]]]


def test_trajectory_ends_with_the_seen_image() -> None:
    axes = DRAWN["fig_trajectory"]().axes[0]
    last = [i for i in axes.images if int(i.get_extent()[0]) == 3]
    assert [int(np.asarray(i.get_array()).max()) for i in last] == [0, 9]


# --- scores ---------------------------------------------------------------------------


def test_comparison_draws_the_rows_over_all_subjects_with_or_without_interval() -> None:
    table = SCORES.copy()
    table.loc[table["subject"] != "all", "value"] = 77.0
    for columns in ([], ["ci_low", "ci_high", "ceiling"]):
        table[columns] = np.nan
        axes = figures.fig_comparison(table, METRICS, METHODS).axes[0]
        drawn = [x for line in axes.lines for x in np.ravel(line.get_xdata())]
        assert np.nanmax(drawn) < 1.0


def test_methods_on_fewer_images_are_named_and_not_drawn() -> None:
    table = SCORES.copy()
    few = table["method"] == "retrieval"
    table.loc[few, "n_images"] = 2
    figure = figures.fig_comparison(table, METRICS, METHODS)
    note = " ".join(str(figure.get_supxlabel()).split())
    assert "T1 alone: retrieval" in note
    rows = [t.get_text() for t in figure.axes[0].get_yticklabels()]
    assert rows == ["stage 2", "stage 1"]


def test_differences_are_filled_where_the_interval_leaves_0() -> None:
    axes = DRAWN["fig_differences"]().axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    faces = [line.get_markerfacecolor() for line in dots]
    assert [face == "white" for face in faces] == [True, False, False]


@pytest.mark.parametrize(
    "draw",
    [
        lambda **sure: figures.fig_comparison(SCORES, METRICS, METHODS, **sure),
        lambda **sure: figures.fig_subjects(SCORES, METRICS, **sure),
    ],
)
def test_the_note_names_the_run_s_confidence(draw: Callable[..., Figure]) -> None:
    notes = [str(draw(**s).get_supxlabel()) for s in ({}, {"confidence": 0.9})]
    assert ["95 % interval" in " ".join(n.split()) for n in notes] == [True, False]
    assert "90 % interval" in " ".join(notes[1].split())


def test_images_are_drawn_subject_by_subject() -> None:
    axes = DRAWN["fig_images"]().axes[0]
    dots = [line for line in axes.lines if line.get_marker() == "o"]
    assert [line.get_label() for line in dots] == ["1", "2"]
    np.testing.assert_allclose(dots[0].get_xdata(), 0.1 * np.arange(5))
    assert "rho = +1.00" in axes.get_title(loc="left")


def test_dots_of_the_ablation_are_filled_where_the_feature_is_there() -> None:
    cells = CELLS.sample(frac=1, random_state=2)  # the order of rows says nothing
    dots, scores = _ablation(cells).axes[:2]
    filled = {
        (int(line.get_ydata()[0]), int(line.get_xdata()[0]))
        for line in dots.lines
        if line.get_marker() == "o" and line.get_markerfacecolor() == "0.1"
    }
    order = [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2)]
    assert filled == {(row, k) for row, on in enumerate(order) for k in on}
    drawn = {int(y): x for x, y in _dots(scores)}
    expected = [0.1 * len(on) - 0.3 for on in order]
    np.testing.assert_allclose([drawn[k] for k in range(7)], expected, atol=1e-12)
    colours = [ln.get_color() for ln in scores.lines if ln.get_marker() == "o"]
    assert colours == [PALETTE[int(2 in on)] for on in order]


def test_a_combination_without_a_score_keeps_its_row() -> None:
    cells = CELLS.copy()
    cells.loc[cells["method"] == "z_clip", "value"] = np.nan
    for axes in _ablation(cells).axes[1:]:
        empty = [t for t in axes.texts if t.get_text() == "not run"]
        assert [t.get_position()[1] for t in empty] == [6]


def test_differences_stand_where_their_subject_is_named() -> None:
    axes = DRAWN["fig_no_worse"]().axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["ours, subject 1", "ours, subject 2", "ours, all"]
    marks = [line for line in axes.lines if line.get_marker() in ("o", "D", "X")]
    assert [float(np.ravel(line.get_ydata())[0]) for line in marks] == [0, 1, 2]
    margins = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert np.ravel(margins[0].get_xdata()).tolist() == [-0.02, -0.02]


def test_cost_is_drawn_on_a_log_scale_and_controls_are_gray() -> None:
    figure = DRAWN["fig_pareto"]()
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    points = [c.lines[0] for c in figure.axes[0].containers]
    assert [float(p.get_xdata()[0]) for p in points] == [10.0, 100.0, 1000.0]
    assert len({str(p.get_color()) for p in points}) == 3


# --- failures -------------------------------------------------------------------------


def test_extreme_images_are_lettered_pairs_in_the_order_of_their_place() -> None:
    figure = _failures()
    assert failure_rule(2) in _words(figure)
    scatter, low_semantic, low_structural = figure.axes
    # rows of the table: 0 is low in meaning; 4, then 3, in structure
    for axes, rows in ((low_semantic, [0]), (low_structural, [4, 3])):
        shown = [int(im.get_array().ravel()[0]) for im in axes.images]
        assert shown == [*rows, *(100 + r for r in rows)]
    for title in ("a: 70", "b: 72999", "c: 50"):
        assert title in _words(figure)
    assert low_semantic.get_title(loc="left") == "low CLIP similarity, high SSIM"
    letters = {t.get_text(): t.xy for t in scatter.texts}
    assert letters == {"a": (0.9, 0.1), "b": (0.1, 0.9), "c": (0.2, 0.8)}
    medians = [line for line in scatter.lines if line.get_linestyle() == "--"]
    assert (medians[0].get_xdata()[0], medians[1].get_ydata()[0]) == (0.4, 0.5)


def test_a_quadrant_without_images_says_so() -> None:
    scatter, *quadrants = _failures(FAILURES.assign(signature="", place=0)).axes
    assert not scatter.texts
    for axes in quadrants:
        assert [t.get_text() for t in axes.texts] == ["no image in this quadrant"]


# --- maps -----------------------------------------------------------------------------


def test_a_face_needs_two_vertices_with_data() -> None:
    values = np.array([1.0, 3.0, np.nan, np.nan])
    faces = np.array([[0, 1, 2], [1, 2, 3]])
    np.testing.assert_array_equal(maps._face_values(values, faces), [2.0, np.nan])


def test_area_borders_run_between_vertices_of_two_areas() -> None:
    segments = maps._borders(FLAT.points, FLAT.faces, np.array([0, 0, 1, 1]))
    assert segments.shape == (2, 2, 2)
    np.testing.assert_array_equal(segments[..., 0], 0.5)  # halfway from V1 to V2


def test_every_large_piece_of_an_area_is_named_at_one_of_its_vertices() -> None:
    both = Surface(
        np.concatenate([XY, XY + np.array([5, 0])]),
        np.concatenate([FLAT.faces, FLAT.faces + 4]),
        *(np.concatenate([x, x]) for x in (FLAT.values, FLAT.sulc, FLAT.areas)),
        ("V1", "V2"),
    )
    named = [(n, *at) for n, at in maps._pieces(both)]
    assert [n for n, _, _ in named] == ["V1", "V1", "V2", "V2"]
    assert {x for _, x, _ in named} == {0.0, 5.0, 1.0, 6.0}


def test_the_viewer_sees_no_back_faces_and_posterior_at_the_right() -> None:
    mesh = _surface(VERTICES, FACES, np.array([1.0, 2.0, 3.0, 4.0]))
    triangles, colours, _ = maps._project(mesh, LEFT, UP, mpl.colors.Normalize(1, 4))
    # from the left, two of the four faces look at the viewer
    assert len(triangles) == len(colours) == 2
    # anterior is +y in space and -x on the screen of a left lateral view
    shown = {tuple(p) for p in triangles.reshape(-1, 2)}
    assert shown == {(-y, z) for _, y, z in VERTICES}


@pytest.mark.parametrize("swap", [False, True])
def test_near_faces_are_drawn_after_far_ones(swap: bool) -> None:
    far = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]], float)
    near = far - np.array([5, 0, 0])
    vertices = np.concatenate([near, far] if swap else [far, near])
    mesh = _surface(vertices, np.arange(6).reshape(2, 3), np.repeat([1.0, 2.0], 3))
    _, colours, _ = maps._project(mesh, LEFT, UP, mpl.colors.Normalize(1, 2))
    last = mpl.colormaps[maps._CMAP](0.0 if swap else 1.0)[:3]
    # both face the viewer squarely, so the light leaves the colours as they are
    np.testing.assert_allclose(colours[-1], last, atol=1e-12)  # one product


def test_inflated_maps_show_both_hemispheres_from_six_sides_and_from_outside() -> None:
    axes = DRAWN["fig_inflated"]().axes[0]
    assert len([c for c in axes.collections if isinstance(c, PolyCollection)]) == 6
    views = {words: direction for words, _, direction, _ in maps._views(INFLATED)}
    assert all(direction[1] < 0 for direction in views.values())  # from behind
    for name in ("outside", "inside", "below"):
        mirrored = views[f"R {name}"] * np.array([-1, 1, 1])
        np.testing.assert_array_equal(views[f"L {name}"], mirrored)
    assert views["L outside"][0] < 0 < views["L inside"][0]


def test_all_features_share_one_scale_around_one_and_names_keep_apart() -> None:
    scale = maps._scale({"c": np.array([0.5, 1.25]), "z": np.array([1.0, np.nan])})
    assert (scale.vmin + scale.vmax) / 2 == 1
    figure = figures.fig_flat_maps({"c": FLAT, "z": FLAT})
    titles = [axes.get_title(loc="left") for axes in figure.axes[:3]]
    assert titles == ["c (semantic)", "z (detail)", "the areas"]
    places = maps._apart(np.array([[0.0, 0.0], [0.1, 0.01], [9.0, 0.0]]), 1, 0.5)
    assert abs(places[0, 1] - places[1, 1]) >= 0.5 - 1e-9  # rounding
    assert places[2].tolist() == [9, 0]


# --- refusals -------------------------------------------------------------------------

_EMPTY = _surface(VERTICES, FACES, np.full(4, np.nan))
_SINGLE = SCORES[SCORES["subject"] != "all"]


@pytest.mark.parametrize(
    ("draw", "words"),
    [
        (
            lambda: figures.fig_roi_counts(COUNTS.drop(columns="n_voxels")),
            "column n_",
        ),
        (lambda: figures.fig_accuracy(ACCURACY.iloc[:0]), "no rows"),
        (lambda: figures.fig_repeats({"a": XY, "b": XY[:3]}), "same images"),
        (lambda: figures.fig_predictions({"a": (XY[:3, 0], XY[:, 0])}), "same images"),
        (lambda: figures.fig_scenes(_images(2), ["one"]), "captions"),
        (
            lambda: figures.fig_gallery({"seen": _images(2) / 2}, title="Images"),
            "uint8",
        ),
        (lambda: figures.fig_comparison(_SINGLE, METRICS, METHODS), "no rows 'all'"),
        (lambda: figures.fig_decoders(pd.concat([DECODERS] * 2)), "of one subject"),
        (lambda: _k_quality(BY_K.drop(columns="n_images")), "no column n_images"),
        (lambda: _ablation(CELLS.assign(reference="other")), "has no rows"),
        (lambda: _failures(FAILURES.replace({"nsd_id": {50: 51}})), "images 51 are"),
        (lambda: figures.fig_inflated({"c": (_EMPTY, _EMPTY)}), "No vertex"),
        (lambda: _surface(VERTICES, FACES + 1, np.zeros(4)), "0-based"),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Callable[[], Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        draw()


@pytest.mark.parametrize("n_titles", [3, 7])
def test_words_of_neighbouring_rows_do_not_touch(n_titles: int) -> None:
    rows = ["one", "of two\nlines", *["words that\ngo on for\nthree lines"] * 9]
    page = ("a title", "a note", 2.0)
    titles = ["SSIM"] * n_titles
    figure, grid = draws()(rows_by_metric)(page, rows, titles, "score", 3)
    figure.savefig(BytesIO(), format="png")
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [label.get_window_extent(renderer) for label in grid[0].get_yticklabels()]
    edges = sorted((box.y0, box.y1) for box in boxes)
    assert all(low[1] < high[0] for low, high in pairwise(edges))
