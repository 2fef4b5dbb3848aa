"""Profiles refuse what they do not know."""

import pickle
from pathlib import Path

import pytest

from minddiff_utils.core import profile_files
from minddiff_utils.core.areas import AREAS, HVC, LVC
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.profile import Origin
from minddiff_utils.core.profile_files import load_profile, parse_yaml
from minddiff_utils.core.profile_parts import READS, ProfileView
from minddiff_utils.pipeline.cli import main


@pytest.mark.parametrize("name", ["smoke", "demo", "nsd"])
def test_every_shipped_profile_loads_and_carries_its_name(name: str) -> None:
    assert load_profile(name).name == name


def _sentence(overrides: dict, name: str = "demo") -> str:
    with pytest.raises(ConfigError) as error:
        load_profile(name, overrides)
    text = str(error.value)
    assert "\n" not in text
    assert text.endswith(".")
    return text


@pytest.mark.parametrize(
    ("overrides", "words", "remedy"),
    [
        (
            {"stage2.paper.n_iter": -1},
            "is -1, but must be greater than or equal to 0",
            "",
        ),
        ({"models.batch_size": 0}, "is 0, but must be greater than 0", ""),
        ({"decoding.k_percent": 0.0}, "k_percent is 0.0, but must be greater", ""),
        ({"evaluation.confidence": 2}, "is 2, but must be less than 1", ""),
        ({"stage2.paper.n_iter": "five"}, "is 'five', but must be a valid integer", ""),
        ({"stage2.paper.n_iter": 1.5}, "is 1.5, but must be a valid integer", ""),
        ({"stage2.paper.n_iter": True}, "is True, but must be a valid integer", ""),
        (
            {"stage2.preset": "quick"},
            "is 'quick', but must be 'paper', 'released' or 'bayes'",
            "",
        ),
        ({"stage2": 3}, "is 3, but must be a group of keys", ""),
        ({"subjects": 3}, "is 3, but must be a list", ""),
        ({"subjects": []}, "is [], but must be longer", ""),
        ({"subjects": [1, 9]}, "is 9, but must be less than or equal to 8", "subjects"),
        (
            {"stage2.preset": "fast"},  # an engine of before
            "is 'fast', but must be 'paper', 'released' or 'bayes'",
            "",
        ),
        ({"stage2.fast.lr_z": 0.1}, "stage2.fast is no key of a profile (stage2", ""),
        ({"stage2.n_itr": 5}, "is no key of a profile (stage2 has preset, paper", ""),
        ({"simulation.x": 5}, "(simulation has n_sessions, n_test_images", ""),
        ({"nonsense": 1}, "is no key of a profile (it has name, seed", ""),
        (
            {"features.clip_layers": [3, 1]},
            "clip_layers is (3, 1), but must be distinct, ascending",
            "",
        ),
        (
            {"stage1.encode_index": 51},
            "encode_index is 51 and decode_steps 6, but with n_steps 7",
            "",
        ),
        ({"stage1": {"encode_index": 51}}, "is 51", "stage1.encode_index"),
        (
            {"stage1.encode_index": 51, "stage1.n_steps": 9},
            "encode_index is 51",
            "stage1",
        ),
    ],
)
def test_a_wrong_override_is_told_what_is_allowed_and_that_it_is_the_fault(
    overrides: dict, words: str, remedy: str
) -> None:
    text = _sentence(overrides)
    assert words in text
    assert text.endswith(f": mend the override {remedy or next(iter(overrides))}.")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root whose one profile `demo` is free to be spoilt."""
    monkeypatch.setattr(profile_files, "project_root", lambda: tmp_path)
    made = tmp_path / "notebooks" / "profiles"
    made.mkdir(parents=True)
    shipped = (
        Path(profile_files.__file__).parents[3] / "notebooks" / "profiles" / "demo.yaml"
    )
    (made / "demo.yaml").write_bytes(shipped.read_bytes())
    return made


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("strength: 0.3", "strength: -3", "stage2.bayes.strength is -3, but must"),
        (
            "preset: bayes",
            "preset: quick",
            "must be 'paper', 'released' or 'bayes'",
        ),
        ("seed: 2311\n", "", "seed is missing"),
        ("sessions: 4, n_val", "n_val", "data.sessions is missing"),
        ("features: {}", "features: {x: 1}", "features.x is no key"),
        ("n_steps: 7, encode_index: 5", "encode_index: 60", "encode_index is 60"),
    ],
)
@pytest.mark.parametrize(
    "overrides", [{}, {"stage2.paper.step": 0.2, "data.n_validation": 9}]
)
def test_a_fault_in_the_file_is_told_with_its_path(
    folder: Path, before: str, after: str, words: str, overrides: dict
) -> None:
    path = folder / "demo.yaml"
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1
    path.write_text(text.replace(before, after), encoding="utf-8")
    sentence = _sentence(overrides)
    assert words in sentence
    assert sentence.endswith(f": mend {path}.")


def test_an_override_that_makes_a_group_must_make_all_of_it() -> None:
    text = _sentence({"simulation.n_sessions": 3}, "nsd")
    assert "simulation.n_test_images is missing" in text
    assert "mend the override simulation" in text


@pytest.mark.parametrize("order", [1, -1])
def test_overrides_of_a_group_and_of_its_field_contradict(order: int) -> None:
    pairs = [("stage2", 3), ("stage2.paper.n_iter", 5)][::order]
    assert "One override sets stage2 to 3" in _sentence(dict(pairs))


@pytest.mark.parametrize("order", [1, -1])
def test_overrides_of_several_fields_of_a_group_all_count(order: int) -> None:
    pairs = [("stage2", {"paper": {"step": 0.7}}), ("stage2.paper.n_iter", 5)][::order]
    stage2 = load_profile("demo", dict(pairs)).stage2
    assert (stage2.paper.step, stage2.paper.n_iter) == (0.7, 5)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a: [1", "is not valid YAML"),
        (b"a: \xff", "is not valid YAML"),
        (b"- 1", "must hold keys and values, not list"),
        (b"", "must hold keys and values, not NoneType"),
    ],
)
def test_an_unreadable_file_is_said_in_a_sentence(
    folder: Path, content: bytes, words: str
) -> None:
    (folder / "demo.yaml").write_bytes(content)
    assert words in _sentence({})


@pytest.mark.parametrize(("n_shards", "fits"), [(0, 0), (1, 1), (4, 1), (5, 0)])
def test_there_are_at_most_as_many_shards_as_batches(n_shards: int, fits: int) -> None:
    profile = load_profile("demo", {"data.n_reconstruct": 7, "models.batch_size": 2})
    if fits:
        profile.check_shards(n_shards)
    else:
        with pytest.raises(ConfigError, match="batches of 2 make 1 to 4"):
            profile.check_shards(n_shards)


def test_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="demo, digits69, laion_fmri, nsd, smoke"):
        load_profile("dmeo")


def test_digest_changes_with_any_field_and_with_nothing_else() -> None:
    base = load_profile("demo")
    assert base.digest == load_profile("demo").digest
    assert base.digest != load_profile("demo", {"stage2.paper.n_iter": 3}).digest


def test_the_eleven_areas_are_split_into_low_and_high() -> None:
    assert set(LVC) | set(HVC) == set(AREAS)
    assert not set(LVC) & set(HVC)
    assert len(AREAS) == 11


@pytest.mark.parametrize(
    ("name", "origin", "words"),
    [
        ("demo", None, "profile demo: in-silico subjects, demo models"),
        ("demo", "in silico", "profile demo: in-silico subjects, demo models"),
        ("demo", "measured", "profile demo: measured responses, demo models"),
        ("nsd", None, "profile nsd"),
        ("nsd", "measured", "profile nsd"),
        ("nsd", "in silico", "profile nsd: in-silico subjects"),
        ("nsd", "mixed", "profile nsd: measured and in-silico subjects"),
    ],
)
def test_the_label_follows_the_data_and_not_the_name_of_the_profile(
    name: str, origin: Origin | None, words: str
) -> None:
    assert load_profile(name).label(origin) == words


@pytest.mark.parametrize(
    ("over", "words"),
    [
        ({"data.n_train": 135}, "135 training images"),
        ({"data.n_test_repeats": 1}, "1 trial of a test image"),
        ({"data.n_test_repeats": 2}, "2 trials of a test image"),
        (
            {"data.n_images": 300, "data.n_train": 9},
            "300 images a subject, 9 training images",
        ),
    ],
)
def test_the_label_says_what_of_the_data_is_left_out(
    over: dict[str, int], words: str
) -> None:
    assert load_profile("nsd", over).label() == f"profile nsd: {words}"


@pytest.mark.parametrize("given", [0, 41, 1.0, True, "37", "both", "ALL", None])
def test_sessions_are_a_number_or_all(given: object) -> None:
    sentence = _sentence({"data.sessions": given})
    assert f"it is {given!r}, but must be 1 to 40, or all" in sentence
    assert "constrained" not in sentence


def test_all_sessions_are_those_of_the_design() -> None:
    data = load_profile("nsd", {"data.sessions": "all"}).data
    assert data.session_numbers == tuple(range(1, 41))


@pytest.mark.parametrize(("profile", "most"), [("nsd", 1000), ("demo", 60)])
def test_shards_of_all_test_images_are_bounded_by_what_a_subject_can_see(
    profile: str, most: int
) -> None:
    over = {"data.n_reconstruct": None, "models.batch_size": 2}
    found = load_profile(profile, over)
    found.check_shards(most // 2)
    with pytest.raises(ConfigError, match=f"make 1 to {most // 2}"):
        found.check_shards(most // 2 + 1)


# --- what a notebook reads ------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value", "changed"),
    [
        ("stage2.paper.n_iter", 3, ["04_stage2"]),
        (  # another decoder
            *("stage2.preset", "paper"),
            ["02_decoding", "A7_further_tests", "04_stage2"],
        ),
        ("stage2.bayes.strength", 0.1, ["04_stage2"]),
        ("data.n_reconstruct", 3, ["03_stage1", "04_stage2"]),
        (
            *("subjects", [1, 2]),
            [
                *("00_insilico_nsd", "09_video", "A3_engines"),
                *("A4_discrepancies", "A5_other_generator", "A6_digits69"),
            ],
        ),
        (
            *("evaluation.n_bootstrap", 7),
            [
                *("A2_decoders", "09_video", "A3_engines", "A4_discrepancies"),
                *("A5_other_generator", "A6_digits69"),
            ],
        ),
        ("study.margin_ssim", 0.5, ["A3_engines"]),
        ("seed", 1, list(READS)),
    ],
)
def test_a_field_changes_the_digest_of_the_notebooks_that_read_it_alone(
    field: str, value: object, changed: list[str]
) -> None:
    before, after = load_profile("smoke"), load_profile("smoke", {field: value})
    differs = [n for n in READS if before.part_digest(n) != after.part_digest(n)]
    assert differs == changed
    # evaluation and figures read everything
    assert before.part_digest("05_evaluation") != after.part_digest("05_evaluation")


def test_a_notebook_cannot_read_what_its_digest_does_not_cover() -> None:
    profile = load_profile("smoke")
    view = ProfileView(profile, "02_decoding")
    assert view.decoding == profile.decoding
    assert view.decoder == profile.decoder
    assert view.data.sessions == profile.data.sessions
    assert (view.seed, view.label()) == (profile.seed, profile.label())
    with pytest.raises(ConfigError, match=r"02_decoding reads stage2 of the profile"):
        _ = view.stage2
    with pytest.raises(ConfigError, match=r"reads data\.n_reconstruct of the profile"):
        _ = view.data.n_reconstruct
    again = pickle.loads(pickle.dumps(view))
    assert again.decoding == profile.decoding


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1e3", 1000.0),
        ("1_000", 1000),
        (".5", 0.5),
        ("5.", 5.0),
        ("-0.5E+2", -50.0),
        ("+7", 7),
        ("0x10", 16),
        ("0o17", 15),
        ("0b11", 3),
        ("0", 0),
        ("[1e-3, 2]", [1e-3, 2]),
        ("true", True),
        ("True", True),
        ("false", False),
        ("None", None),
        ("null", None),
        ("~", None),
        # text, which a field of another type refuses
        ("1:30", "1:30"),
        ("190:20:30", "190:20:30"),
        ("yes", "yes"),
        ("No", "No"),
        ("on", "on"),
        ("OFF", "OFF"),
        ("y", "y"),
        ("2026-11-29", "2026-11-29"),
        ("1.2.3", "1.2.3"),
        ("1_", "1_"),
        ("１２", "１２"),
        ("'010'", "010"),
    ],
)
def test_plain_values_mean_what_they_mean_in_python(text: str, value: object) -> None:
    found = parse_yaml(text, "It")
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text", ["010", "[1, 007]", "-08", "0_1", "!!int 010", "+00_1"]
)
def test_a_number_with_a_leading_zero_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="starts with no 0"):
        parse_yaml(text, "It")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("data.n_reconstruct", "010"),
        ("seed", "1:30"),
        ("seed", "1e3"),
        ("seed", "9" * 5000),
        ("seed", "0x"),
        ("evaluation.confidence", "yes"),
    ],
)
def test_what_is_no_number_of_python_sets_no_number(
    key: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["run", "--profile", "smoke", "--dry-run", "--set", f"{key}={text}"]
    assert main(arguments) != 0
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert (said.err + said.out).count("\n") <= 2


def test_a_package_apart_from_its_repository_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile_files, "project_root", lambda: tmp_path)
    with pytest.raises(ConfigError, match="pip install -e"):
        load_profile("demo")
