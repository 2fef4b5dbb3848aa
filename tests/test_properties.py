"""Laws that hold for any experiment, split and profile, tried on drawn ones.

The experiment is drawn by numpy and written as NSD's files with scipy and pandas, and
shares no code with the reader or with the in-silico writer. Draws are the same in every
run (`derandomize`).
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, PlainValidator
from pydantic.fields import FieldInfo
from scipy.io import savemat

from minddiff_utils.core import profile_files
from minddiff_utils.core.errors import ConfigError, DataError
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.types import IntArray
from minddiff_utils.datasets.nsd.data_set import check_trials
from minddiff_utils.datasets.nsd.reader import NsdTree
from minddiff_utils.preprocessing.splits import check_splits, split_images
from minddiff_utils.preprocessing.trials import average_repeats

EXPERIMENT = "nsddata/experiments/nsd"
ANNOTATIONS = "nsddata_stimuli/stimuli/nsd/annotations"
N_ORDER, N_SHARED, N_EACH, N_ALL = 30_000, 1_000, 10_000, 73_000


def steady(max_examples: int) -> settings:
    """Return settings with the same draws every time, and no deadline.

    Other processes may share the cores.
    """
    slow = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
    return settings(
        max_examples=max_examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=slow,
    )


# --- the index chain ------------------------------------------------------------------


@dataclass(frozen=True)
class Experiment:
    """What NSD's design means, every id 1-based as in its files."""

    order: IntArray  # (30000,) 10k id of each trial
    images: IntArray  # (8, 10000) 73k id of each subject's 10k id
    coco: IntArray  # (73000,) cocoId by nsdId


def draw_experiment(seed: int) -> Experiment:
    rng = np.random.default_rng(seed)
    ids = rng.permutation(N_ALL) + 1
    shared, private = np.sort(ids[:N_SHARED]), ids[N_SHARED:].reshape(8, 9_000)
    images = np.hstack([np.tile(shared, (8, 1)), private])
    order = rng.permutation(np.repeat(np.arange(1, N_EACH + 1), 3))
    return Experiment(order, images, rng.permutation(600_000)[:N_ALL] + 1)


def write_design(root: Path, drawn: Experiment) -> NsdTree:
    folder = root / EXPERIMENT
    folder.mkdir(parents=True, exist_ok=True)
    variables = {
        "masterordering": drawn.order[None].astype(np.uint16),
        "subjectim": drawn.images.astype(np.int32),
        "sharedix": drawn.images[:1, :N_SHARED].astype(np.int32),
    }
    savemat(folder / "nsd_expdesign.mat", variables)
    return NsdTree(root)


def write_table(root: Path, drawn: Experiment, subject: int) -> None:
    """Write the stimulus table with the trials of one subject, numbers 1-based."""
    columns = {"cocoId": drawn.coco, "nsdId": np.arange(N_ALL)}
    columns["shared1000"] = np.isin(np.arange(N_ALL) + 1, drawn.images[0, :N_SHARED])
    repeats = {f"subject{s}_rep{r}": 0 for s in range(1, 9) for r in range(3)}
    table = pd.DataFrame(columns).assign(cocoSplit="train2017", **repeats)
    trial = np.argsort(drawn.order, kind="stable").reshape(N_EACH, 3) + 1
    rows = drawn.images[subject - 1] - 1
    for r in range(3):
        table.loc[rows, f"subject{subject}_rep{r}"] = trial[:, r]
    table.to_csv(root / EXPERIMENT / "nsd_stim_info_merged.csv")


@steady(8)
@given(
    seed=st.integers(0, 2**32 - 1),
    subject=st.integers(1, 8),
    n_sessions=st.integers(1, 40),
)
def test_every_trial_leads_to_its_image_and_back(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    subject: int,
    n_sessions: int,
) -> None:
    """trial -> 10k id -> 73k id, and from a 73k id to the trials that showed it."""
    drawn = draw_experiment(seed)
    trials = write_design(tmp_path_factory.mktemp("nsd"), drawn).trials(
        subject, n_sessions
    )
    n_trials, own = 750 * n_sessions, drawn.images[subject - 1]
    assert len(trials.image_id) == n_trials
    np.testing.assert_array_equal(trials.place + 1, drawn.order[:n_trials])
    np.testing.assert_array_equal(trials.image_id + 1, own[trials.place])
    np.testing.assert_array_equal(trials.session, 1 + np.arange(n_trials) // 750)
    back = {int(i): k for k, i in enumerate(own - 1)}  # 73k id to 10k index
    assert [back[i] for i in trials.image_id.tolist()] == trials.place.tolist()
    shared = np.isin(trials.image_id + 1, drawn.images[(subject + 2) % 8])  # another's
    np.testing.assert_array_equal(trials.place < 1000, shared)
    shown = int(trials.image_id[seed % n_trials])
    again = np.flatnonzero(trials.image_id == shown)
    whole = np.flatnonzero(drawn.order == back[shown] + 1)
    np.testing.assert_array_equal(again, whole[whole < n_trials])


@steady(2)
@given(seed=st.integers(0, 2**32 - 1), subject=st.integers(1, 8))
def test_captions_come_by_coco_id_in_the_order_asked_and_a_moved_trial_is_seen(
    tmp_path_factory: pytest.TempPathFactory, seed: int, subject: int
) -> None:
    root, drawn = tmp_path_factory.mktemp("nsd"), draw_experiment(seed)
    tree = write_design(root, drawn)
    write_table(root, drawn, subject)
    check_trials(tree, subject, 40)
    rng = np.random.default_rng(seed)
    wanted = rng.permutation(N_ALL)[:20]
    notes = [
        {
            "id": int(rng.integers(2**31)),
            "image_id": int(drawn.coco[i]),
            "caption": f"{i}",
        }
        for i in rng.permutation(wanted)
    ]
    (root / ANNOTATIONS).mkdir(parents=True)
    path = root / ANNOTATIONS / "captions_train2017.json"
    path.write_text(json.dumps({"annotations": notes}))
    assert tree.captions(wanted, 1)[:, 0].tolist() == [str(i) for i in wanted]
    moved = drawn.order.copy()
    first = int(rng.integers(750))
    second = int(np.flatnonzero(moved != moved[first])[0])
    moved[[first, second]] = moved[[second, first]]
    write_design(root, Experiment(moved, drawn.images, drawn.coco))
    with pytest.raises(DataError, match="does not list nsdId"):
        check_trials(tree, subject, 40)


@steady(60)
@given(
    image=st.lists(st.integers(0, 30), min_size=1, max_size=60), seed=st.integers(0, 99)
)
def test_rows_ascend_by_image_whatever_the_order_of_trials(
    image: list[int], seed: int
) -> None:
    """Each row is the mean of its own trials, as pandas has it."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((len(image), 3)).astype(np.float32)
    found = average_repeats(z, np.array(image))
    expected = pd.DataFrame(z.astype(np.float64)).groupby(np.array(image)).mean()
    assert found.image.tolist() == sorted(set(image))
    # a mean of float64, rounded once to float32
    np.testing.assert_allclose(found.betas, expected, rtol=1e-6, atol=1e-7)
    mixed = rng.permutation(len(image))
    again = average_repeats(z[mixed], np.array(image)[mixed])
    np.testing.assert_array_equal(again.image, found.image)
    np.testing.assert_array_equal(again.n_repeats, found.n_repeats)
    np.testing.assert_allclose(again.betas, found.betas, rtol=1e-6, atol=1e-7)


# --- the split ------------------------------------------------------------------------


@steady(60)
@given(
    shared=st.sets(st.integers(0, N_SHARED - 1), max_size=20),
    others=st.sets(st.integers(N_SHARED, N_EACH - 1), max_size=40),
    n_validation=st.integers(1, 45),
)
@example(shared={999}, others={1000, 1001}, n_validation=1)
def test_a_split_is_disjoint_complete_and_by_rule(
    shared: set[int], others: set[int], n_validation: int
) -> None:
    image = np.array(sorted(shared | others), np.int64)
    if not shared or n_validation >= len(others):
        with pytest.raises(DataError, match="cannot give a test set"):
            split_images(image, image < 1000, n_validation)
        return
    split = split_images(image, image < 1000, n_validation)
    parts = {name: set(image[split == name].tolist()) for name in set(split.tolist())}
    assert parts["test"] == shared
    assert parts["validation"] == set(sorted(others)[-n_validation:])
    assert parts["train"] == others - parts["validation"]
    assert sum(map(len, parts.values())) == len(image)
    check_splits(image, split)


@steady(12)
@given(
    seed=st.integers(0, 2**32 - 1),
    n_sessions=st.integers(1, 40),
    n_validation=st.integers(1, 200),
    subjects=st.sets(st.integers(1, 8), min_size=2),
)
def test_no_subject_trains_on_an_image_that_another_is_tested_on(
    seed: int, n_sessions: int, n_validation: int, subjects: set[int]
) -> None:
    drawn = draw_experiment(seed)
    image = np.unique(drawn.order[: 750 * n_sessions] - 1)
    split = split_images(image, image < 1000, n_validation)
    ids = {s: drawn.images[s - 1, image] - 1 for s in subjects}
    test = {s: set(ids[s][split == "test"].tolist()) for s in subjects}
    other = {i for s in subjects for i in ids[s][split != "test"].tolist()}
    assert len({frozenset(t) for t in test.values()}) == 1  # the same for all
    assert not other & set.union(*test.values())


@steady(60)
@given(
    ids=st.lists(st.integers(0, 30), min_size=1, max_size=20),
    seed=st.integers(0, 99),
)
def test_an_image_twice_is_refused_and_nothing_else(ids: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    split = rng.choice(["train", "validation", "test"], len(ids))
    if len(set(ids)) == len(ids):
        check_splits(np.array(ids), split)
    else:
        with pytest.raises(DataError, match=r"stands .* times"):
            check_splits(np.array(ids), split)


# --- profiles -------------------------------------------------------------------------

NUMBERS = {int: st.integers(-(2**40), 2**40), bool: st.booleans()}
#: What a YAML file can hold, of any kind.
JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=9), inner, max_size=3)
    ),
    max_leaves=8,
)


def leaves(model: type[BaseModel], above: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Return every field of a profile, those of its groups by dotted name."""
    for name, info in model.model_fields.items():
        kinds = [info.annotation, *get_args(info.annotation)]
        groups = [k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)]
        if groups:
            yield from leaves(groups[0], f"{above}{name}.")
        else:
            yield f"{above}{name}", info


FIELDS = dict(leaves(Profile))
del FIELDS["name"]


def allowed(kind: Any, rules: list[Any]) -> st.SearchStrategy[Any]:
    """Return what a field of this annotation and these rules may be."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        more = [
            m
            for f in inner[1:]
            for m in (f.metadata if isinstance(f, FieldInfo) else [f])
        ]
        return allowed(inner[0], [*rules, *more])
    if origin is Literal:
        return st.sampled_from(inner)
    if type(None) in inner:
        return st.none() | allowed(Union[tuple(set(inner) - {type(None)})], rules)  # noqa: UP007
    if origin is tuple and inner[-1] is ...:
        least = next(
            (r.min_length for r in rules if isinstance(r, annotated_types.MinLen)), 0
        )
        return st.lists(allowed(inner[0], []), min_size=least, max_size=5)
    if origin is tuple:
        return st.tuples(*(allowed(one, []) for one in inner)).map(list)
    if any(isinstance(rule, PlainValidator) for rule in rules):
        return st.integers(1, 40) | st.just("all")  # of sessions
    if kind is str:
        return st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")))
    return _number(kind, rules)


def _number(kind: type, rules: list[Any]) -> st.SearchStrategy[Any]:
    low, high, open_low, open_high = -(2.0**40), 2.0**40, False, False
    for rule in rules:
        match rule:
            case annotated_types.Ge(ge=value):
                low = value
            case annotated_types.Gt(gt=value):
                low, open_low = value, True
            case annotated_types.Le(le=value):
                high = value
            case annotated_types.Lt(lt=value):
                high, open_high = value, True
    if kind is bool:
        return st.booleans()
    if kind is int:
        return st.integers(math.floor(low) + open_low, math.ceil(high) - open_high)
    assert kind is float
    return st.floats(low, high, exclude_min=open_low, exclude_max=open_high)


def _field(profile: Profile, dotted: str) -> Any:
    found: Any = profile
    for part in dotted.split("."):
        found = getattr(found, part)
    return found


def _plain(value: Any) -> Any:
    """Return a field's value as YAML has it."""
    return [_plain(v) for v in value] if isinstance(value, tuple | list) else value


@st.composite
def fields_and_values(draw: Callable[..., Any]) -> dict[str, Any]:
    """Draw some fields of the demo profile with a value that each allows by itself."""
    names = draw(st.lists(st.sampled_from(sorted(FIELDS)), min_size=1, max_size=4))
    return {
        name: draw(allowed(FIELDS[name].annotation, list(FIELDS[name].metadata)))
        for name in names
    }


@pytest.fixture
def own_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Profile]:
    """Give what reads a text as the file of the profile `demo`."""
    folder = tmp_path / "notebooks" / "profiles"
    folder.mkdir(parents=True)

    def read(text: str) -> Profile:
        (folder / "demo.yaml").write_text(text, encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(profile_files, "project_root", lambda: tmp_path)
            return load_profile("demo")

    return read


def _try(overrides: Mapping[str, Any]) -> Profile:
    """Return the profile; a draw that breaks a rule over several fields is put away."""
    try:
        return load_profile("demo", overrides)
    except ConfigError as error:
        said = str(error)
    assert "does not fit" in said  # not a field's own rule
    return assume(False)


@steady(30)
@given(overrides=fields_and_values())
def test_a_profile_is_what_its_file_says_however_it_is_written(
    own_profile: Callable[[str], Profile], overrides: dict[str, Any]
) -> None:
    """Written out, read back, its keys in any order: the same profile and digest."""
    profile = _try(overrides)
    for name, value in overrides.items():
        assert _plain(_field(profile, name)) == value
    written = profile.model_dump(mode="json")
    backwards = {k: _backwards(written[k]) for k in reversed(written)}
    for facts in (written, backwards):
        again = own_profile(yaml.safe_dump(facts, sort_keys=False, allow_unicode=True))
        assert again == profile
        assert again.digest == profile.digest


def _backwards(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _backwards(value[k]) for k in reversed(value)}


@steady(30)
@given(overrides=fields_and_values())
def test_overrides_mean_the_same_dotted_nested_and_in_any_order(
    overrides: dict[str, Any],
) -> None:
    profile, nested = _try(overrides), dict[str, Any]()
    for name, value in overrides.items():
        group, _, leaf = name.rpartition(".")
        (nested.setdefault(group, {}) if group else nested)[leaf] = value
    assert load_profile("demo", nested) == profile
    assert load_profile("demo", _backwards(overrides)).digest == profile.digest


@steady(30)
@given(overrides=fields_and_values())
def test_a_digest_tells_profiles_apart(overrides: dict[str, Any]) -> None:
    profile, base = _try(overrides), load_profile("demo")
    assert (profile == base) == (profile.digest == base.digest)


@steady(200)
@given(name=st.sampled_from(sorted(FIELDS)), value=JUNK)
def test_any_value_is_taken_as_it_is_or_refused_in_one_sentence(
    name: str, value: Any
) -> None:
    """Nothing is turned into something else, such as true into 1 or "3" into 3."""
    said, found = "", None
    try:
        found = _plain(_field(load_profile("demo", {name: value}), name))
    except ConfigError as error:
        said = str(error)
    if said:
        assert said.endswith(".")
        assert len(said.splitlines()) == 1
        assert "mend the override" in said
        return
    assert found == value
    assert isinstance(found, bool) == isinstance(value, bool)


@steady(60)
@given(group=st.sampled_from(["", "stage2.", "data.", "simulation."]), key=st.text())
def test_a_key_that_no_profile_has_is_refused_in_one_sentence(
    group: str, key: str
) -> None:
    assume(f"{group}{key}" not in {*FIELDS, "name"})
    assume(key not in {n.partition(".")[0] for n in FIELDS})
    with pytest.raises(ConfigError) as caught:
        load_profile("demo", {f"{group}{key}": 1})
    said = str(caught.value)
    assert said.endswith(".")
    assert len(said.splitlines()) == 1
