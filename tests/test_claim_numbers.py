"""Every number of the ledger once more, by numpy and scipy from small tables.

Nothing of the package makes an expected number: images that not every subject has are
left out, means, intervals and Spearman's rho are scipy's, and an endpoint's result
follows from one-sided p values in the place of an interval. The tolerance, 1e-9 of a
number, leaves room for sums in another order.
"""

from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from minddiff_utils.core.crossed import variance_ratios
from minddiff_utils.evaluation import claims
from minddiff_utils.evaluation.claims.evidence import Evidence

Numbers = dict[str, object]

SUBJECTS = ("1", "2", "5")
N_IMAGES = 8
#: Draws of the small tables: together they have every result an endpoint can have.
WORLDS = range(4)
METRICS = ("clip_judge", "pcc", "ssim_2d")
#: Conditions that know nothing of the image; C7 takes the highest of them.
FLOORS = ("mean_image", "shuffled", "stage2_shuffled", "permuted_voxels")
METHODS = (
    *("stage1", "stage2", "stage1_best", "stage2_guided", "z_clip", "c_clip", "takagi"),
    *("retrieval", "category_only", "guided_k5", "guided_k25", "guided_k100", *FLOORS),
    *("retrieval_caption", "guided_true_k5", "guided_true_k100", "guided_likelihood"),
)
#: Of notebook 07, and what O1b and O1c ask of it.
DOSES = ("voxels_25", "trials_25", "aligned_50", "own_50")
ACCURACIES = ("c_r", "z_r")
#: Of notebook 08, and the shares of comparisons that O2 and O3 ask for.
TOLD = ("stage1", "heldout", "category_only", "setting_only", "noise_refit", "axes_10")
SHARES = ("two_way_within", "two_way_across", "c_beats_clusters")
SLOW_AND_FAST = ("frame_order_4000", "frame_order_250")
ARMS = ("none", "best_of_n", "paper", "released", "bayes")
FEATURES = ("c", "z", "clip/1")
HIGH, LOW = ("VO", "PHC", "LO", "MT", "MST", "IPS"), ("V1", "V2", "V3", "V3ab", "hV4")


# --- small tables ---------------------------------------------------------------------


@cache
def _scores(world: int, methods: Sequence[str]) -> Mapping[tuple[str, str], np.ndarray]:
    """Return scores, subjects x images, by method and metric; one image is lost."""
    rng = np.random.default_rng([world, 4, len(methods)])
    hard = rng.normal(0, 0.1, (len(SUBJECTS), N_IMAGES))  # alike under every method
    made = {
        (method, metric): rng.normal(0.5, 0.06) + hard + rng.normal(0, 0.05, hard.shape)
        for method in methods
        for metric in METRICS
    }
    for metric in METRICS:
        made[methods[1], metric][2, 3] = np.nan
    return made


def _frame(made: Mapping[tuple[str, str], np.ndarray]) -> pd.DataFrame:
    rows = [
        (SUBJECTS[s], method, image, metric, value)
        for (method, metric), values in made.items()
        for (s, image), value in np.ndenumerate(values)
        if not np.isnan(value)
    ]
    return pd.DataFrame(
        rows, columns=["subject", "method", "nsd_id", "metric", "value"]
    )


@cache
def _leakage(world: int) -> Mapping[tuple[str, str], np.ndarray]:
    """Return the scores of notebook 08; an image is alone in its cluster."""
    made = dict(_scores(world, TOLD))
    rng = np.random.default_rng([world, 8])
    for metric in SHARES:
        made |= {(m, metric): rng.uniform(0.2, 1, (3, N_IMAGES)) for m in TOLD[:2]}
    made["stage1", "two_way_within"][:, 2] = np.nan
    return made


@cache
def _factors(world: int) -> Mapping[tuple[str, str], np.ndarray]:
    """Return the scores of notebook 07."""
    made = dict(_scores(world, DOSES))
    rng = np.random.default_rng([world, 7])
    for metric in ACCURACIES:
        made |= {(m, metric): rng.normal(0.3, 0.1, (3, N_IMAGES)) for m in DOSES}
    return made


@cache
def _video(world: int) -> Mapping[tuple[str, str], np.ndarray]:
    """Return the scores of notebook 09, subjects x clips."""
    rng = np.random.default_rng([world, 9])
    orders = [f"frame_order_{ms}" for ms in (250, 1000, 4000)]
    return {
        (method, metric): rng.normal(0.6, 0.2) + rng.normal(0, 0.1, (3, N_IMAGES))
        for method in ("picture", "lags_prior")
        for metric in (*orders, "two_way_motion", "temporal_ssim")
    }


@cache
def _accuracy(world: int) -> Mapping[tuple[str, str], np.ndarray]:
    """Return r of single images, subjects x images, by feature and area set."""
    rng = np.random.default_rng([world, 1])
    noise = (len(SUBJECTS), N_IMAGES)
    return {
        (feature, area): rng.normal(0.3, 0.05) + rng.normal(0, 0.1, noise)
        for feature in FEATURES
        for area in ("all", "LVC", "HVC")
    }


@cache
def _decoding(world: int) -> dict[str, pd.DataFrame]:
    """Return the tables of notebook 02 that are read subject by subject."""
    rng = np.random.default_rng([world, 2])
    rows = _accuracy(world).items()
    by_image = [
        (SUBJECTS[s], image, feature, area, r)
        for (feature, area), values in rows
        for (s, image), r in np.ndenumerate(values)
    ]
    accuracy = [
        (s, f, "all", rng.normal(0.1, 0.02), rng.normal(0.05, 0.02))
        for s in SUBJECTS
        for f in FEATURES
    ]
    selected = [
        (s, layer, k, rng.normal(0.4 - k / 2000, 0.02))
        for s in SUBJECTS
        for layer in (1, 2)
        for k in (5.0, 25.0, 100.0)
    ]
    weights = [
        (s, f, area, rng.uniform(1, 2) + (f == "c") * (area in HIGH), n_voxels)
        for s in SUBJECTS
        for f in FEATURES
        for n_voxels, area in zip(range(15, 70, 5), (*HIGH, *LOW), strict=True)
    ]
    columns = {
        "image_accuracy": ["nsd_id", "feature", "area_set", "r"],
        "accuracy": ["feature", "area_set", "r_mean", "r_null_within"],
        "k_selection": ["layer", "k_percent", "r_selected_mean"],
        "weights": ["feature", "area", "pattern", "n_voxels"],
    }
    tables = zip(columns, (by_image, accuracy, selected, weights), strict=True)
    return {
        name: pd.DataFrame(values, columns=["subject", *columns[name]])
        for name, values in tables
    }


def _evidence(world: int, preset: str = "bayes") -> Evidence:
    few = np.full((len(SUBJECTS), N_IMAGES), np.nan)
    few[:, :4] = 0.9  # the highest chance level, but not of every image
    made = {**_scores(world, METHODS), **{("random_train", m): few for m in METRICS}}
    tables = {"scores": _frame(made), "study": _frame(_scores(world, ARMS))}
    tables["leakage"] = _frame(_leakage(world))
    tables["factors"] = _frame(_factors(world))
    tables["video"] = _frame(_video(world))
    return Evidence(tables | _decoding(world), True, "demo", preset)


def _rows(evidence: Evidence, claim: str) -> list[Numbers]:
    one = [c for c in claims.CLAIMS if c.claim == claim]
    return claims.evaluate_claims(evidence, label="", claims=one).to_dict("records")


# --- the same numbers by hand ---------------------------------------------------------


def _result(sample: np.ndarray, above: float, below: float) -> str:
    """Return what one-sided tests at 2.5 % say of the mean of a sample."""

    def shows(bound: float, side: str) -> bool:
        test = stats.ttest_1samp(sample, bound, alternative=side)
        return bool(test.pvalue < 0.025)

    bounded = np.isfinite(below)
    if shows(above, "greater") and (not bounded or shows(below, "less")):
        return "shown"
    beyond = shows(above, "less") or (bounded and shows(below, "greater"))
    return "opposite" if beyond else "open"


def _ends(sample: np.ndarray) -> tuple[float, float]:
    if len(sample) < 2:
        return np.nan, np.nan
    ends = stats.ttest_1samp(sample, 0.0).confidence_interval(0.95)
    return float(ends.low), float(ends.high)


def _smallest(sample: np.ndarray) -> float:
    return float(stats.t.ppf([0.975, 0.8], len(sample) - 1).sum() * stats.sem(sample))


def _of_images(d: np.ndarray, above: float = 0.0, below: float = np.inf) -> Numbers:
    """Return the numbers of an endpoint, subjects x images, whose unit is the image."""
    d = d[:, ~np.isnan(d).any(axis=0)]
    by_image, by_subject = d.mean(axis=0), d.mean(axis=1)
    low, high = _ends(by_image)
    subjects_low, subjects_high = _ends(by_subject)
    return {
        **{"result": _result(by_image, above, below), "unit": "image"},
        **{"value": d.mean(), "ci_low": low, "ci_high": high},
        **{"smallest_effect": _smallest(by_image), "n_images": len(by_image)},
        **{"n_subjects": len(d), "n_subjects_positive": (by_subject > 0).sum()},
        **{"subjects_low": subjects_low, "subjects_high": subjects_high},
        **{"above": above, "below": below},
    }


def _of_subjects(values: np.ndarray) -> Numbers:
    """Return the numbers of an endpoint that has one value per subject."""
    low, high = _ends(values)
    return {
        **{"result": _result(values, 0.0, np.inf), "unit": "subject"},
        **{"value": values.mean(), "ci_low": np.nan, "ci_high": np.nan},
        **{"smallest_effect": _smallest(values), "n_images": None},
        **{"n_subjects": len(values), "n_subjects_positive": (values > 0).sum()},
        **{"subjects_low": low, "subjects_high": high},
        **{"above": 0.0, "below": np.inf},
    }


def _of_ranks(x: np.ndarray, y: np.ndarray) -> Numbers:
    """Return the numbers of a mean rank correlation, by the jackknife over images."""
    pairs, n = list(zip(x, y, strict=True)), x.shape[1]
    whole = np.array([stats.spearmanr(a, b).statistic for a, b in pairs])
    pseudo = np.empty(x.shape)
    for s, (a, b) in enumerate(pairs):
        for k in range(n):
            without = stats.spearmanr(np.delete(a, k), np.delete(b, k)).statistic
            pseudo[s, k] = n * whole[s] - (n - 1) * without
    pseudo += whole.mean() - pseudo.mean()  # the interval is centred on rho
    low, high = _ends(whole)
    seen = _of_images(pseudo)
    return seen | {
        "n_subjects_positive": (whole > 0).sum(),
        "subjects_low": low,
        "subjects_high": high,
    }


def _agree(rows: Sequence[Numbers], expected: Sequence[Numbers]) -> None:
    """Compare a claim's rows number by number, and its verdict."""
    results = {str(e["result"]) for e in expected}
    verdict = "inconclusive" if "open" in results else "supported"
    verdict = "contradicted" if "opposite" in results else verdict
    assert {row["verdict"] for row in rows} == {verdict}
    for row, numbers in zip(rows, expected, strict=True):
        for name, number in numbers.items():
            if number is None or isinstance(number, str):
                assert row[name] == number, name
            else:
                assert row[name] == pytest.approx(number, rel=1e-9, nan_ok=True), name


# --- images compared with images ------------------------------------------------------


def _against(reference: str) -> list[tuple[str, str, str]]:
    return [("stage2", reference, metric) for metric in METRICS]


#: Claim -> method, reference and metric of each endpoint.
PAIRS = {
    "C4": _against("takagi"),
    "C6": [
        ("stage2_guided", "z_clip", "clip_judge"),
        ("stage2_guided", "c_clip", "pcc"),
        ("stage2_guided", "stage1", "ssim_2d"),
    ],
    "K1": _against("retrieval"),
    "K2": _against("mean_image"),
    "K3": _against("category_only"),
    "K4": _against("retrieval_caption"),
}


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("claim", PAIRS)
def test_paired_endpoints(claim: str, world: int) -> None:
    made = _scores(world, METHODS)
    expected = [
        _of_images(made[a, metric] - made[b, metric]) for a, b, metric in PAIRS[claim]
    ]
    _agree(_rows(_evidence(world), claim), expected)


@pytest.mark.parametrize("world", WORLDS)
def test_what_notebook_07_is_asked(world: int) -> None:
    made = _factors(world)
    for claim, a, b, metrics in (
        ("O1b", *DOSES[:2], ACCURACIES),
        ("O1c", *DOSES[2:], (*ACCURACIES, "clip_judge")),
    ):
        expected = [_of_images(made[a, m] - made[b, m]) for m in metrics]
        _agree(_rows(_evidence(world), claim), expected)


@pytest.mark.parametrize("world", WORLDS)
def test_what_notebook_08_is_asked(world: int) -> None:
    made = _leakage(world)

    def apart(reference: str, metric: str) -> Numbers:
        return _of_images(made["stage1", metric] - made[reference, metric])

    within = _of_images(made["stage1", "two_way_within"] - 0.5)
    kinds = [apart(name, "pcc") for name in ("category_only", "setting_only")]
    asked = {
        "O2": [within, *kinds],
        "O3": [_of_images(made["heldout", m] - 0.5) for m in SHARES[::-1]],
        "O4a": [apart("noise_refit", metric) for metric in METRICS],
        "O4b": [apart("axes_10", metric) for metric in METRICS[:2]],
    }
    for claim, expected in asked.items():
        _agree(_rows(_evidence(world), claim), expected)


@pytest.mark.parametrize("world", WORLDS)
def test_what_notebook_09_is_asked(world: int) -> None:
    made = _video(world)
    metrics = ("frame_order_1000", "two_way_motion", "temporal_ssim")
    apart = [made["lags_prior", m] - made["picture", m] for m in metrics]
    _agree(_rows(_evidence(world), "O6a"), [_of_images(one) for one in apart])
    slow, fast = (made["lags_prior", orders] - 0.5 for orders in SLOW_AND_FAST)
    expected = [_of_images(slow, 0.25), _of_images(fast, -0.1, 0.1)]
    _agree(_rows(_evidence(world), "O6b"), expected)


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(
    ("claim", "preset", "methods", "method", "reference"),
    [
        ("C5a", "bayes", ARMS, "paper", "none"),
        ("C5b", "bayes", ARMS, "released", "none"),
        ("C5c", "bayes", METHODS, "stage2", "stage1"),
        ("C5d", "bayes", METHODS, "stage2", "stage1_best"),
        # in a run of the paper's engine our own is known from the study
        ("C5a", "paper", METHODS, "stage2", "stage1"),
        ("C5c", "paper", ARMS, "bayes", "none"),
        ("C5d", "paper", ARMS, "bayes", "best_of_n"),
    ],
)
def test_the_gain_of_an_engine(
    claim: str,
    preset: str,
    methods: Sequence[str],
    method: str,
    reference: str,
    world: int,
) -> None:
    made = _scores(world, methods)
    bounds = {"pcc": 0.0, "ssim_2d": 0.0, "clip_judge": -0.03}
    expected = [
        _of_images(made[method, metric] - made[reference, metric], bound)
        for metric, bound in bounds.items()
    ]
    _agree(_rows(_evidence(world, preset), claim), expected)


@pytest.mark.parametrize("world", WORLDS)
def test_every_subject_against_the_highest_chance_level(world: int) -> None:
    made, expected = _scores(world, METHODS), []
    for metric in METRICS:
        highest = max(FLOORS, key=lambda name: made[name, metric].mean())
        apart = made["stage2", metric] - made[highest, metric]
        expected += [_of_images(apart[[s]]) for s in range(len(SUBJECTS))]
    rows = _rows(_evidence(world), "C7")
    _agree(rows, expected)
    subjects = [f"subject {s}:" for s in SUBJECTS]
    named = [str(row["endpoint"]).partition(":")[0] + ":" for row in rows]
    assert named == subjects * len(METRICS)


@pytest.mark.parametrize("moved", [0.0, 0.028, -0.05, 0.05])
@pytest.mark.parametrize(
    ("claim", "metric", "paper"),
    [
        ("C1", "clip_method", 0.765),
        ("C2", "ssim_2d", 0.354),
        ("C3", "pcc", 0.278),
    ],
)
def test_the_papers_numbers(
    claim: str, metric: str, paper: float, moved: float, rng: np.random.Generator
) -> None:
    made = paper + moved + rng.normal(0, 0.1, (len(SUBJECTS), 520))
    made[1:] += 0.3  # the paper's number is subject 1's
    tables = {"scores": _frame({("stage2", metric): made})}
    measured = Evidence(tables, False, "nsd", backbone="sd14")
    rows = _rows(measured, claim)
    _agree(rows, [_of_images(made[[0]] - paper, -0.03, 0.03)])
    assert [row["paper_value"] for row in rows] == [paper]


def test_the_small_tables_have_every_result_and_verdict() -> None:
    ledgers = [claims.evaluate_claims(_evidence(w), label="") for w in WORLDS]
    together = pd.concat(ledgers)
    assert {"shown", "opposite", "open"} <= set(together["result"])
    states = {"supported", "contradicted", "inconclusive"}
    assert states <= set(together["verdict"])


# --- decoding -------------------------------------------------------------------------


@pytest.mark.parametrize("world", WORLDS)
def test_the_balance_of_k(world: int) -> None:
    table = _decoding(world)["k_selection"]
    by_k = {
        k: np.array(
            [
                np.mean(own.loc[own["k_percent"] == k, "r_selected_mean"])
                for own in (table[table["subject"] == s] for s in SUBJECTS)
            ]
        )
        for k in (5.0, 100.0)
    }
    made = _scores(world, METHODS)
    best = made["guided_k25", "ssim_2d"]
    _agree(
        _rows(_evidence(world), "C8"),
        [
            _of_subjects(by_k[5.0] - by_k[100.0]),
            _of_images(best - made["guided_k5", "ssim_2d"]),
            _of_images(best - made["guided_k100", "ssim_2d"]),
        ],
    )


@pytest.mark.parametrize("world", WORLDS)
def test_what_k_loses_and_what_replaces_it(world: int) -> None:
    made = {name: _scores(world, METHODS)[name, "ssim_2d"] for name in METHODS}
    lost = made["guided_true_k100"] - made["guided_true_k5"]
    regained = lost - (made["guided_k100"] - made["guided_k5"])
    _agree(_rows(_evidence(world), "O5a"), [_of_images(lost), _of_images(regained)])
    weighted = [made["guided_likelihood"] - made[f"guided_k{k}"] for k in (5, 25, 100)]
    _agree(_rows(_evidence(world), "O5b"), [_of_images(each) for each in weighted])


def _pattern(world: int, feature: str, areas: Sequence[str]) -> np.ndarray:
    """Return the mean pattern of a voxel of some areas, by subject."""
    table = _decoding(world)["weights"]
    table = table[(table["feature"] == feature) & table["area"].isin(areas)]
    table = table[table["n_voxels"] >= 20]  # the first area of HIGH has 15
    own = [table[table["subject"] == s] for s in SUBJECTS]
    return np.array([np.average(t["pattern"], weights=t["n_voxels"]) for t in own])


@pytest.mark.parametrize("world", WORLDS)
def test_where_each_feature_is_read(world: int) -> None:
    r = _accuracy(world)
    lean = {f: r[f, "HVC"] - r[f, "LVC"] for f in FEATURES}
    ratio = {
        f: np.log(_pattern(world, f, HIGH) / _pattern(world, f, LOW)) for f in FEATURES
    }
    expected = []
    for feature in ("z", "clip/1"):
        expected.append(_of_images(lean["c"] - lean[feature]))
        expected.append(_of_subjects(ratio["c"] - ratio[feature]))
    _agree(_rows(_evidence(world), "C9"), expected)


def _with_stage2(world: int, *arrays: np.ndarray) -> list[np.ndarray]:
    """Return arrays on the images that stage 2 has in every subject."""
    there = ~np.isnan(_scores(world, METHODS)["stage2", "pcc"]).any(axis=0)
    return [x[:, there] for x in arrays]


@pytest.mark.parametrize("world", WORLDS)
def test_decoding_above_chance_and_quality_that_follows(world: int) -> None:
    table, made = _decoding(world)["accuracy"], _scores(world, METHODS)
    expected = []
    for feature in FEATURES:
        own = table[table["feature"] == feature]
        above = np.array(own["r_mean"]) - np.array(own["r_null_within"])
        expected.append(_of_subjects(above))
    c, clip = _with_stage2(
        world, _accuracy(world)["c", "all"], made["stage2", "clip_judge"]
    )
    _agree(_rows(_evidence(world), "C10"), [*expected, _of_ranks(c, clip)])


@pytest.mark.parametrize("world", WORLDS)
def test_slopes_over_images_of_subjects(world: int) -> None:
    """Given the ratios of variances: `test_crossed` has those from whole matrices.

    The search for them stops where the likelihood is flat: 1e-5 of a number.
    """
    r, made = _accuracy(world), _scores(world, METHODS)
    for place, metric in enumerate(METRICS[:2]):
        *x, y = _with_stage2(
            world, r["c", "all"], r["z", "all"], made["stage2", metric]
        )
        ratios, n = variance_ratios(y, np.stack(x)), y.shape[1]

        def slope(rows: np.ndarray, x=x, y=y, ratios=ratios, place=place) -> float:
            n_s, n_i = len(y), len(rows)
            V = np.eye(n_s * n_i) + ratios[0] * np.kron(
                np.ones((n_s, n_s)), np.eye(n_i)
            )
            V += ratios[1] * np.kron(np.eye(n_s), np.ones((n_i, n_i)))
            X = np.column_stack([np.ones(len(V)), *(v[:, rows].ravel() for v in x)])
            half = np.linalg.inv(np.linalg.cholesky(V))
            found = np.linalg.lstsq(half @ X, half @ y[:, rows].ravel(), rcond=None)
            return float(found[0][1 + place])

        every = np.arange(n)
        whole = slope(every)
        pseudo = [n * whole - (n - 1) * slope(np.delete(every, k)) for k in every]
        half = stats.sem(pseudo) * stats.t.ppf(0.975, n - 1)
        row = _rows(_evidence(world), "O1a")[place]
        low, high = row["ci_low"], row["ci_high"]
        assert row["value"] == pytest.approx(whole, rel=1e-5)
        assert (low, high) == pytest.approx((whole - half, whole + half), rel=1e-5)
        assert row["result"] == (
            "shown" if whole > half else "opposite" if whole < -half else "open"
        )
        by_subject = [
            np.linalg.lstsq(
                np.column_stack([np.ones(n), x[0][s], x[1][s]]), y[s], rcond=None
            )[0][1 + place]
            for s in range(len(y))
        ]
        assert row["n_subjects_positive"] == sum(b > 0 for b in by_subject)
        ends = (row["subjects_low"], row["subjects_high"])
        assert ends == pytest.approx(_ends(np.array(by_subject)), rel=1e-5)


@pytest.mark.parametrize("world", WORLDS)
def test_signatures_of_what_was_misread(world: int) -> None:
    made, r = _scores(world, METHODS), _accuracy(world)
    cut = _with_stage2(
        world,
        *(r["c", "all"], r["z", "all"]),
        *(made["stage2", "clip_judge"], made["stage2", "pcc"]),
    )
    c, z, clip, pcc = (stats.rankdata(x, axis=1) for x in cut)
    _agree(_rows(_evidence(world), "C11"), [_of_ranks(c - z, clip - pcc)])
