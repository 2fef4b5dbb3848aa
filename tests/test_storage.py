"""Disk is counted from published sizes, and follows the profile."""

import pytest

from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.profile import Profile
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.pipeline.cli import main
from minddiff_utils.studies.storage import kept, session_bytes, to_download


def _profile(**over: object) -> Profile:
    named = {key.replace("__", "."): value for key, value in over.items()}
    return load_profile("nsd", {"subjects": [1], **named})


def test_a_session_s_file_has_the_size_that_others_measured() -> None:
    one = to_download(_profile(data__sessions=1))["betas"]
    assert one / 1e9 == pytest.approx(1.09, abs=0.005)  # stated to two digits
    forty = to_download(_profile(data__sessions=40))["betas"]
    assert forty / 2**30 == pytest.approx(40.77, rel=0.005)  # a public copy, GiB


def test_a_subject_with_fewer_sessions_weighs_those_it_has() -> None:
    few = to_download(_profile(subjects=[4], data__sessions=40))["betas"]
    thirty = to_download(_profile(subjects=[4], data__sessions=30))["betas"]
    assert few == thirty


def test_only_the_sessions_that_are_read_weigh() -> None:
    two = _profile(data__sessions=40, data__only_sessions=[3, 5])
    assert to_download(two)["betas"] == 2 * session_bytes(1)


def test_subject_1_s_responses_have_the_paper_s_voxels() -> None:
    responses = kept(_profile(data__sessions=37))["responses"]
    assert responses == pytest.approx(4 * 9841 * 11_694)


def test_a_dense_decoder_stores_a_weight_per_voxel_and_target() -> None:
    dense = kept(_profile(decoding__decoder="dense"))["decoders"]
    targets = 15 * 768 + 4 * 64 * 64 + 0.25 * 6 * 50 * 768
    assert dense == pytest.approx(4 * 11_694 * targets)
    assert kept(_profile())["decoders"] < dense / 3


def test_images_and_subjects_count_once_each() -> None:
    one, two = kept(_profile()), kept(_profile(subjects=[1, 2]))
    half = kept(_profile(data__n_reconstruct=491))
    assert two["images"] == 2 * one["images"]
    assert half["images"] == one["images"] / 2
    assert half["trajectories"] == one["trajectories"]  # the first images'


def test_a_simulated_profile_downloads_nothing() -> None:
    with pytest.raises(ConfigError, match="downloads nothing"):
        to_download(load_profile("demo"))


def test_the_plan_says_what_is_downloaded_and_kept(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "--profile", "nsd", "--images", "4", "--tflops", "250"]) == 0
    said = capsys.readouterr().out
    assert "To download, betas as hdf5: 192 GB" in said  # 152 + 40, NSD's four subjects
    assert "To keep, an estimate" in said
