"""Figures show the numbers they are given, say what they are, and leave no state."""

import inspect
from collections.abc import Callable
from io import BytesIO
from itertools import product

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

from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import DataError
from minddiff_utils.core.signature import WATERMARK, sign
from minddiff_utils.reporting import figures
from minddiff_utils.reporting.figures import (
    FlatMap,
    InflatedMap,
    Mesh,
    MethodPanels,
    maps,
)

DEMO = "profile demo: in-silico subjects, demo models"
SMOKE = "profile smoke: in-silico subjects, demo models"
METRICS = {"clip_judge": "judge CLIP", "pcc": "pixel correlation"}
METHODS = {"stage2": "stage 2", "stage1": "stage 1", "retrieval": "nearest image"}
SUBJECTS = ("1", "2", "all")
FEATURES = ("c", "z", "clip/1")

Images = npt.NDArray[np.uint8]


def _images(n: int, side: int = 8) -> Images:
    """Return n flat pictures, each of another gray."""
    grays = np.arange(n, dtype=np.uint8) * 9
    return np.repeat(grays, side * side * 3).reshape(n, side, side, 3)


def _counts() -> pd.DataFrame:
    sets = ["LVC" if a in LVC else "HVC" for a in AREAS]
    n_voxels = np.arange(11) * 10 + 5
    columns = {"subject": 1, "area": AREAS, "area_set": sets, "n_voxels": n_voxels}
    return pd.DataFrame(columns)


def _accuracy() -> pd.DataFrame:
    rows = [
        (s, f, a, 0.1 + 0.1 * k, 0.02, 0.0, 0.7, 0.005, 20, 50)
        for k, (s, f, a) in enumerate(product((1, 2), FEATURES, ("all", "LVC", "HVC")))
    ]
    names = "subject feature area_set r_mean r_null_high r_null_mean r_ceiling"
    names += " p_permutation n_images n_targets"
    return pd.DataFrame(rows, columns=names.split())


def _scores() -> pd.DataFrame:
    rows = [
        (s, m, k, 0.3 + 0.01 * i, 0.2, 0.5, 2 if s == "all" else 6, 0.1, 0.9)
        for i, (s, m, k) in enumerate(product(SUBJECTS, METHODS, METRICS))
    ]
    names = "subject method metric value ci_low ci_high n floor ceiling"
    return pd.DataFrame(rows, columns=names.split())


def _paired() -> pd.DataFrame:
    rows = [
        (s, "stage2 - stage1", k, 0.05, 0.01, 0.09, p, 6)
        for (s, p), k in product(
            zip(SUBJECTS, (0.2, 0.001, 0.001), strict=True), METRICS
        )
    ]
    names = "subject contrast metric value ci_low ci_high p_permutation n"
    return pd.DataFrame(rows, columns=names.split())


def _weights() -> pd.DataFrame:
    rows = [(f, a, 1.0 + k, 10) for f in FEATURES for k, a in enumerate(("V1", "LO"))]
    return pd.DataFrame(rows, columns=["feature", "area", "weight", "n_voxels"])


def _k_table() -> pd.DataFrame:
    rows = [
        (layer, k, 0.5 - k / 400, 0.4, k / 100, 0.9)
        for layer, k in product((1, 2), (10.0, 25.0, 100.0))
    ]
    names = (
        "layer k_percent r_selected_mean r_cv_selected_mean variance_kept"
        " identification"
    )
    return pd.DataFrame(rows, columns=names.split())


def _rivals() -> pd.DataFrame:
    rows = [
        (d, f, 0.3 + 0.1 * i, 0.2 + 0.1 * i, 0.4 + 0.1 * i, 0.8, 0.5 + 0.2 * i, 6, 40)
        for (i, d), f in product(enumerate(("paper", "dense")), FEATURES)
    ]
    names = (
        "decoder feature r_mean r_low r_high r_ceiling rank_share n_images n_targets"
    )
    return pd.DataFrame(rows, columns=names.split()).assign(confidence=0.95)


def _held_out() -> pd.DataFrame:
    tables = [
        _rivals().assign(trained_on=words, n_train=50, n_categories=14)
        for words in ("same categories", "other categories")
    ]
    return pd.concat(tables, ignore_index=True)


def _tetrahedron() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Return a closed mesh with faces counter-clockwise from outside."""
    vertices = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], float) * 20
    return vertices, np.array([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]])


def _flat() -> FlatMap:
    """Return a square of two faces: V1 at x = 0, V2 at x = 1, no value in a corner."""
    xy = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], float)
    faces = np.array([[0, 2, 1], [1, 2, 3]])
    values = np.array([1.0, 2.0, 3.0, np.nan])
    return FlatMap(xy, faces, values, xy[:, 0], np.array([0, 0, 1, 1]), ("V1", "V2"))


def _inflated() -> InflatedMap:
    mesh = Mesh(*_tetrahedron(), np.array([1.0, 2.0, 3.0, np.nan]))
    return InflatedMap(mesh, mesh)


def _panels() -> MethodPanels:
    pictures = dict(
        zip(
            ("seen", "z_alone", "c_alone", "sampled", "aligned"),
            _images(5),
            strict=True,
        )
    )
    return MethodPanels(
        **pictures, responses=np.arange(10.0), losses=np.array([2.0, 1.0])
    )


STUDY = ("structural_loss", "ssim_2d", "pcc", "clip_judge")


def _points() -> pd.DataFrame:
    rows = [
        (arm, k, 0.5 + 0.1 * i, 0.4, 0.8, 10.0 ** (i + 1), 12, 2)
        for (i, arm), k in product(enumerate(("none", "fast", "paper")), STUDY)
    ]
    names = "method metric value low high cost n n_subjects"
    return pd.DataFrame(rows, columns=names.split())


def _verdicts() -> pd.DataFrame:
    said = ("no worse", "not shown", "worse")
    rows = [
        (s, "fast", "paper", k, 0.01, -0.03, 0.05, 0.02, 0.04, said[i % 3], 6)
        for i, (s, k) in enumerate(product(SUBJECTS, STUDY))
    ]
    names = "subject method reference metric value low high margin p_holm verdict n"
    return pd.DataFrame(rows, columns=names.split())


#: Every public figure, drawn from small made-up arrays.
DRAWN: dict[str, Callable[[], Figure]] = {
    "fig_pareto": lambda: figures.fig_pareto(
        _points(),
        {"fast": "fast", "paper": "the paper's"},
        confidence=0.95,
    ),
    "fig_no_worse": lambda: figures.fig_no_worse(
        _verdicts(), {"fast": "ours"}, reference="paper", confidence=0.95
    ),
    "fig_roi_counts": lambda: figures.fig_roi_counts(_counts()),
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
    "fig_accuracy": lambda: figures.fig_accuracy(_accuracy()),
    "fig_accuracy_histograms": lambda: figures.fig_accuracy_histograms(
        {f: np.linspace(-0.1, 0.5, 30) for f in FEATURES},
        floors={f: np.linspace(-0.2, 0.2, 30) for f in FEATURES},
        ceilings={f: np.linspace(0.6, 0.9, 30) for f in FEATURES},
    ),
    "fig_k_selection": lambda: figures.fig_k_selection(_k_table(), k_chosen=25.0),
    "fig_decoders": lambda: figures.fig_decoders(_rivals()),
    "fig_holdout": lambda: figures.fig_holdout(_held_out()),
    "fig_gallery": lambda: figures.fig_gallery(
        {"seen image": _images(3), "stage 2": _images(2)}, title="Images"
    ),
    "fig_losses": lambda: figures.fig_losses(
        np.array([[2.0, 1.5, 1.0], [4.0, np.nan, 1.0]]),
        np.array([2, 0]),
        (0, 2),
        np.array([[2.0, 1.0], [4.0, 5.0]]),
    ),
    "fig_trajectory": lambda: figures.fig_trajectory(
        _images(6).reshape(2, 3, 8, 8, 3), (0, 5, 10), _images(2)
    ),
    "fig_comparison": lambda: figures.fig_comparison(_scores(), METRICS, METHODS),
    "fig_paired": lambda: figures.fig_paired(_paired(), METRICS),
    "fig_subjects": lambda: figures.fig_subjects(_scores(), METRICS),
    "fig_quality_vs_accuracy": lambda: figures.fig_quality_vs_accuracy(
        _accuracy(), _scores()
    ),
    "fig_weights_by_area": lambda: figures.fig_weights_by_area(_weights()),
    "fig_method": lambda: figures.fig_method(_panels()),
    "fig_flat_maps": lambda: figures.fig_flat_maps({"c": _flat()}),
    "fig_inflated": lambda: figures.fig_inflated({"c": _inflated()}),
}


def _drawn(name: str, label: str = DEMO) -> Figure:
    """Return a figure as a run shows it."""
    figure = DRAWN[name]()
    sign(figure, label)
    return figure


def _words(figure: Figure) -> str:
    texts = [t.get_text() for t in figure.findobj(mpl.text.Text)]
    return "\n".join(texts)


def _bars(axes: Axes) -> list[float]:
    return [p.get_height() for p in axes.patches if isinstance(p, Rectangle)]


# --- all figures ----------------------------------------------------------------------


def test_every_figure_of_the_package_is_tested_here() -> None:
    public = {n for n in figures.__all__ if inspect.isfunction(getattr(figures, n))}
    elsewhere = {"fig_ablation", "fig_k_quality", "fig_failures"}  # the ablation's file
    assert set(DRAWN) | elsewhere == public


@pytest.mark.parametrize("name", DRAWN)
def test_a_figure_carries_title_n_interval_and_label(name: str) -> None:
    words = _words(_drawn(name)).replace("\n", " ")
    assert DEMO in words
    assert "n = " in words or "n in each" in words
    assert "interval" in words or name in {
        "fig_gallery", "fig_scenes", "fig_trajectory", "fig_ncsnr_recovery",
    }  # fmt: skip  # pictures and shares have none


@pytest.mark.parametrize("name", DRAWN)
def test_only_the_smoke_profile_is_watermarked(name: str) -> None:
    assert WATERMARK in _words(_drawn(name, SMOKE))
    assert WATERMARK not in _words(_drawn(name))


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


def test_a_figure_leaves_pyplot_and_the_style_as_they_were() -> None:
    before = dict(mpl.rcParams)
    for draw in DRAWN.values():
        draw()
    assert plt.get_fignums() == []
    assert dict(mpl.rcParams) == before


def test_a_notebook_shows_a_figure_as_one_picture() -> None:
    figure = _drawn("fig_k_selection")
    shown, _ = DisplayFormatter().format(figure)
    assert [kind for kind in shown if kind.startswith("image/")] == ["image/png"]


def test_the_same_numbers_give_the_same_bytes() -> None:
    def png() -> bytes:
        buffer = BytesIO()
        figure = _drawn("fig_accuracy")
        figure.savefig(buffer, format="png", metadata={"Software": None})
        return buffer.getvalue()

    assert png() == png()


# --- what is drawn ------------------------------------------------------------------


def test_roi_bars_are_the_counts_in_order_of_areas() -> None:
    shuffled = _counts().sample(frac=1, random_state=3)
    figure = figures.fig_roi_counts(shuffled)
    assert _bars(figure.axes[0]) == (np.arange(11) * 10 + 5).tolist()


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


def test_repeats_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="same images"):
        figures.fig_repeats({"a": np.ones((3, 2)), "b": np.ones((4, 2))})


def test_predictions_are_drawn_against_the_truth() -> None:
    truth, predicted = np.array([0.0, 1.0, -2.0]), np.array([0.1, 0.4, -0.3])
    figure = figures.fig_predictions({"a target": (truth, predicted)})
    [axes] = figure.axes
    drawn = axes.collections[0].get_offsets()
    np.testing.assert_array_equal(drawn, np.stack([truth, predicted], axis=1))


def test_predictions_of_other_images_are_refused() -> None:
    with pytest.raises(DataError, match="same images"):
        figures.fig_predictions({"a": (np.zeros(3), np.zeros(4))})


def test_recovery_states_the_share_within_two_standard_errors() -> None:
    planted, error = np.full(4, 0.5), np.array([0.0, 0.1, -0.1, 0.3])
    figure = figures.fig_ncsnr_recovery(planted, planted + error, np.full(4, 0.1))
    assert "75.0 %" in _words(figure)


def test_accuracy_bars_are_means_over_subjects() -> None:
    table = _accuracy()
    bars = _bars(figures.fig_accuracy(table).axes[0])
    means = [
        table[(table["area_set"] == a) & (table["feature"] == f)]["r_mean"].mean()
        for a in ("all", "LVC", "HVC")
        for f in FEATURES
    ]
    np.testing.assert_allclose(bars, means, rtol=1e-12)  # one mean, two code paths


def test_accuracy_is_starred_only_if_every_subject_passes() -> None:
    table = _accuracy()
    table.loc[0, "p_permutation"] = 0.5  # subject 1, c, all areas
    stars = [t for t in figures.fig_accuracy(table).axes[0].texts]
    assert len(stars) == 9 - 1


def test_histograms_leave_out_targets_without_correlation() -> None:
    r = np.array([0.1, 0.2, 0.6, np.nan])
    floor, ceiling = np.array([0.0, -0.1, 0.1, np.nan]), np.full(4, 0.7)
    bounds = {"floors": {"c": floor}, "ceilings": {"c": ceiling}}
    figure = figures.fig_accuracy_histograms({"c": r}, **bounds)
    assert "n = 3, median 0.200" in _words(figure)
    medians = [float(line.get_xdata()[0]) for line in figure.axes[0].lines]
    assert medians == [0.0, 0.7, 0.2]


def test_k_selection_marks_the_chosen_k() -> None:
    figure = figures.fig_k_selection(_k_table(), k_chosen=25.0)
    for axes in figure.axes:
        vertical = [np.unique(line.get_xdata()) for line in axes.lines]
        assert any(len(x) == 1 and x[0] == 25.0 for x in vertical)


def test_without_a_k_in_use_no_k_is_marked() -> None:
    figure = figures.fig_k_selection(_k_table(), k_chosen=None)
    assert "a k for each layer" in _words(figure)
    for axes in figure.axes:
        assert all(len(np.unique(line.get_xdata())) > 1 for line in axes.lines)


def test_decoders_are_bars_of_their_mean_and_points_of_their_rank() -> None:
    table = _rivals()
    left, right = figures.fig_decoders(table).axes
    assert sorted(_bars(left)) == sorted(table["r_mean"])
    ranks = [line.get_ydata()[0] for line in right.lines if line.get_marker() == "o"]
    assert sorted(ranks) == sorted(table["rank_share"])


def test_decoders_of_several_subjects_are_refused() -> None:
    twice = pd.concat([_rivals(), _rivals()])
    with pytest.raises(DataError, match="pass the table of one subject"):
        figures.fig_decoders(twice)


def test_more_decoders_than_colours_are_refused() -> None:
    many = [_rivals().assign(decoder=f"decoder {i}") for i in range(11)]
    for draw in (figures.fig_decoders, figures.fig_holdout):
        table = pd.concat(many).assign(trained_on="x", n_train=1, n_categories=1)
        with pytest.raises(DataError, match="cannot be told apart by 10 colours"):
            draw(table)


def test_held_out_categories_are_open_points_beside_filled_ones() -> None:
    left, _ = figures.fig_holdout(_held_out()).axes
    dots = [line for line in left.lines if line.get_marker() == "o"]
    empty = [dot for dot in dots if dot.get_markerfacecolor() == "w"]
    assert (len(dots), len(empty)) == (len(_held_out()), len(_rivals()))


def test_gallery_places_images_by_row_and_leaves_cells_blank() -> None:
    rows = {"seen image": _images(3), "stage 2": _images(2)}
    axes = figures.fig_gallery(rows, title="Images").axes[0]
    cells = {(int(i.get_extent()[3]), int(i.get_extent()[0])) for i in axes.images}
    assert cells == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}
    second = next(i for i in axes.images if int(i.get_extent()[0]) == 1)
    np.testing.assert_array_equal(second.get_array(), _images(3)[1])


def test_losses_are_relative_to_each_image_s_first() -> None:
    axes = _drawn("fig_losses").axes[0]
    mean = axes.lines[2].get_ydata()  # after one thin line per image
    # images: 1, .75, .5 and 1, none (the last one stands), .25
    np.testing.assert_allclose(mean, [1.0, 0.875, 0.375])


def test_losses_fill_the_candidate_that_was_chosen() -> None:
    axes = _drawn("fig_losses").axes[1]
    dots = [c for c in axes.collections if isinstance(c, PathCollection)]
    chosen = [c.get_offsets().tolist() for c in dots[1::2]]
    assert chosen == [[[0.0, 1.0]], [[2.0, 0.5]]]


def test_trajectory_ends_with_the_seen_image() -> None:
    axes = _drawn("fig_trajectory").axes[0]
    last = [i for i in axes.images if int(i.get_extent()[0]) == 3]
    shown = [int(np.asarray(i.get_array()).max()) for i in last]
    assert shown == [0, 9]  # the grays of _images(2)


def test_comparison_draws_the_rows_over_all_subjects() -> None:
    table = _scores()
    table.loc[table["subject"] != "all", "value"] = 77.0
    figure = figures.fig_comparison(table, METRICS, METHODS)
    drawn = [x for line in figure.axes[0].lines for x in np.ravel(line.get_xdata())]
    assert max(drawn) < 1.0


def test_comparison_of_several_subjects_needs_pooled_rows() -> None:
    table = _scores()
    with pytest.raises(DataError, match="no rows 'all'"):
        figures.fig_comparison(table[table["subject"] != "all"], METRICS, METHODS)


def test_comparison_draws_a_score_without_interval_or_ceiling() -> None:
    table = _scores()
    table[["ci_low", "ci_high", "ceiling"]] = np.nan
    figure = figures.fig_comparison(table, METRICS, METHODS)
    assert len(figure.axes) == len(METRICS)


def test_paired_differences_are_filled_where_p_is_small() -> None:
    axes = _drawn("fig_paired").axes[0]
    dots = [line for line in axes.lines if line.get_marker() in {"o", "D"}]
    faces = [line.get_markerfacecolor() for line in dots]
    assert [face == "white" for face in faces] == [True, False, False]


def test_quality_pairs_accuracy_and_score_of_the_same_subject() -> None:
    accuracy, scores = _accuracy(), _scores().sample(frac=1, random_state=1)
    axes = figures.fig_quality_vs_accuracy(accuracy, scores).axes[0]
    drawn = {
        (round(float(line.get_xdata()[0]), 9), round(float(line.get_ydata()[0]), 9))
        for line in axes.lines
        if line.get_marker() == "o"
    }
    expected = set()
    for subject in (1, 2):
        own = accuracy[
            (accuracy["subject"] == subject) & (accuracy["area_set"] == "all")
        ]
        row = scores.query(
            f"subject == '{subject}' and method == 'stage2' and metric == 'clip_judge'"
        )
        value = float(row["value"].iloc[0])
        expected.add((round(own["r_mean"].mean(), 9), round(value, 9)))
    assert drawn == expected


def test_weights_are_relative_to_the_mean_over_all_voxels() -> None:
    weights = pd.DataFrame(
        {
            "feature": "c",
            "area": ["V1", "LO", "MT"],
            "weight": [1.0, 4.0, 0.0],
            "n_voxels": [20, 10, 0],
        }
    )
    axes = figures.fig_weights_by_area(weights).axes[0]
    # mean over voxels (20 * 1 + 10 * 4) / 30 = 2
    assert [t.get_text() for t in axes.texts] == ["0.50", "2.00", "–"]


def test_weights_do_not_depend_on_the_scale_of_a_subject() -> None:
    one = _weights().assign(subject=1)
    two = one.assign(subject=2, weight=one["weight"] * 100)
    alone = figures.fig_weights_by_area(one).axes[0]
    both = figures.fig_weights_by_area(pd.concat([one, two])).axes[0]
    words = [[t.get_text() for t in axes.texts] for axes in (alone, both)]
    assert words[0] == words[1]


def test_the_area_groups_cover_all_areas_in_the_order_drawn() -> None:
    axes = figures.fig_roi_counts(_counts()).axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == [*LVC, *HVC]


# --- maps -----------------------------------------------------------------------------


def test_a_face_needs_two_vertices_with_data() -> None:
    values = np.array([1.0, 3.0, np.nan, np.nan])
    faces = np.array([[0, 1, 2], [1, 2, 3]])
    np.testing.assert_array_equal(maps._face_values(values, faces), [2.0, np.nan])


def test_area_borders_run_between_vertices_of_two_areas() -> None:
    flat = _flat()
    assert flat.areas is not None
    segments = maps._borders(flat, flat.areas)
    assert segments.shape == (2, 2, 2)
    np.testing.assert_array_equal(segments[..., 0], 0.5)  # halfway from V1 to V2


def test_every_large_piece_of_an_area_is_named_at_one_of_its_vertices() -> None:
    left = _flat()
    both = FlatMap(
        np.concatenate([left.xy, left.xy + np.array([5, 0])]),
        np.concatenate([left.faces, left.faces + 4]),
        np.concatenate([left.values, left.values]),
        areas=np.array([0, 0, 1, 1] * 2),
        area_names=("V1", "V2"),
    )
    assert both.areas is not None
    named = [(name, *place) for name, place in maps._pieces(both, both.areas)]
    assert [n for n, _, _ in named] == ["V1", "V1", "V2", "V2"]
    assert {x for _, x, _ in named} == {0.0, 5.0, 1.0, 6.0}


def test_the_viewer_sees_no_back_faces_and_posterior_at_the_right() -> None:
    vertices, faces = _tetrahedron()
    mesh = Mesh(vertices, faces, np.array([1.0, 2.0, 3.0, 4.0]))
    direction, up = np.array([-1.0, 0, 0]), np.array([0, 0, 1.0])
    triangles, colours = maps._project(mesh, direction, up, mpl.colors.Normalize(1, 4))
    # from the left, two of the four faces look at the viewer
    assert len(triangles) == len(colours) == 2
    # anterior is +y in space and -x on the screen of a left lateral view
    shown = {tuple(p) for p in triangles.reshape(-1, 2)}
    assert shown == {(-y, z) for _, y, z in vertices}


@pytest.mark.parametrize("swap", [False, True])
def test_near_faces_are_drawn_after_far_ones(swap: bool) -> None:
    far = np.array([[0, 0, 0], [0, 0, 1], [0, 1, 0]], float)
    near = far - np.array([5, 0, 0])
    vertices = np.concatenate([near, far] if swap else [far, near])
    values = np.array([1.0] * 3 + [2.0] * 3)
    mesh = Mesh(vertices, np.arange(6).reshape(2, 3), values)
    direction, up = np.array([-1.0, 0, 0]), np.array([0, 0, 1.0])
    _, colours = maps._project(mesh, direction, up, mpl.colors.Normalize(1, 2))
    last = mpl.colormaps["viridis"](0.0 if swap else 1.0)[:3]
    # both face the viewer squarely, so the light leaves the colours as they are
    np.testing.assert_allclose(colours[-1], last, atol=1e-12)  # one product


def test_lateral_views_look_from_the_outside_of_each_hemisphere() -> None:
    views = {words: direction for words, _, direction, _ in maps._views(_inflated())}
    assert views["L lateral"].tolist() == [-1, 0, 0]
    assert views["R lateral"].tolist() == [1, 0, 0]
    assert views["L medial"].tolist() == [1, 0, 0]


def test_inflated_maps_are_polygons_of_all_six_views() -> None:
    axes = _drawn("fig_inflated").axes[0]
    assert len([c for c in axes.collections if isinstance(c, PolyCollection)]) == 6


def test_a_map_without_values_is_refused() -> None:
    vertices, faces = _tetrahedron()
    empty = Mesh(vertices, faces, np.full(4, np.nan))
    with pytest.raises(DataError, match="No vertex"):
        figures.fig_inflated({"c": InflatedMap(empty, empty)})


def test_faces_beyond_the_last_vertex_are_refused() -> None:
    vertices, faces = _tetrahedron()
    with pytest.raises(DataError, match="0-based"):
        Mesh(vertices, faces + 1, np.zeros(4))


# --- refusals -------------------------------------------------------------------------


def test_a_missing_column_is_named() -> None:
    with pytest.raises(DataError, match="no column n_voxels"):
        figures.fig_roi_counts(_counts().drop(columns="n_voxels"))


def test_an_empty_table_is_refused() -> None:
    with pytest.raises(DataError, match="no rows"):
        figures.fig_accuracy(_accuracy().iloc[:0])


def test_float_images_are_refused() -> None:
    with pytest.raises(DataError, match="uint8"):
        figures.fig_gallery(
            {"seen": _images(2).astype(float)},  # type: ignore[dict-item]
            title="Images",
        )


def test_a_note_for_an_unknown_row_is_refused() -> None:
    with pytest.raises(DataError, match="no row of the gallery"):
        figures.fig_gallery(
            {"seen": _images(2)}, title="Images", row_notes={"sen": "typo"}
        )


def test_a_gallery_says_how_its_images_were_picked() -> None:
    rule = "Picked by rule: the first two by number"
    figure = figures.fig_gallery({"seen": _images(2)}, title="Images", rule=rule)
    assert rule in " ".join(_words(figure).split())


def test_a_caption_is_drawn_as_it_is_and_never_as_a_formula() -> None:
    caption = "from $5^^ to $6"  # as a formula this would be an error
    figure = figures.fig_scenes(_images(1), [caption])
    figure.savefig(BytesIO(), dpi=30)
    assert caption in _words(figure)


def test_captions_must_match_the_images() -> None:
    with pytest.raises(DataError, match="captions"):
        figures.fig_scenes(_images(2), ["one"])


def test_differences_stand_where_their_subject_is_named() -> None:
    figure = _drawn("fig_no_worse")
    axes = figure.axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names == ["ours, subject 1", "ours, subject 2", "ours, all"]
    marks = [line for line in axes.lines if line.get_marker() in ("o", "D", "X")]
    assert [float(np.ravel(line.get_ydata())[0]) for line in marks] == [0, 1, 2]
    margins = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert np.ravel(margins[0].get_xdata()).tolist() == [-0.02, -0.02]


def test_cost_is_drawn_on_a_log_scale_and_controls_are_gray() -> None:
    figure = _drawn("fig_pareto")
    assert all(axes.get_xscale() == "log" for axes in figure.axes)
    points = [c.lines[0] for c in figure.axes[0].containers]
    assert [float(p.get_xdata()[0]) for p in points] == [10.0, 100.0, 1000.0]
    colours = [p.get_color() for p in points]
    assert len(set(map(str, colours))) == 3
