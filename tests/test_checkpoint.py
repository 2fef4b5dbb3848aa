"""Labels name the Stable Diffusion that is there, whatever the folder says or lacks."""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from minddiff_utils.core.checkpoint import PAPERS, UNKNOWN, checkpoint_in
from minddiff_utils.core.profile_files import load_profile
from minddiff_utils.core.run import Run, Tree
from minddiff_utils.models.downloads import LICENCE, PINNED, main

V14, V15 = (
    "133a221b8aa7292a167afc5127cb63fb5005638b",
    "451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
)
NOTE = ".cache/huggingface/download/unet/diffusion_pytorch_model.safetensors.metadata"


def folder_of(root: Path, files: Mapping[str, str]) -> Path:
    """Write a folder in diffusers' layout; the weights are not looked into."""
    weights = {"unet/diffusion_pytorch_model.safetensors": "weights"}
    for name, text in {**weights, **files}.items():
        path = root / "sd14" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root / "sd14"


def named(name: object) -> str:
    return json.dumps({"_class_name": "any", "_name_or_path": name})


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({NOTE: f"{V14}\netag\n1700000000.0\n"}, PAPERS),
        ({NOTE: f"{V15}\netag\n1700000000.0\n"}, "Stable Diffusion v1-5"),
        # saved from the hub's cache by diffusers
        ({"unet/config.json": named(f"/models/snapshots/{V14}/unet")}, PAPERS),
        ({"model_index.json": named("CompVis/stable-diffusion-v1-4")}, PAPERS),
        (
            {"model_index.json": named("runwayml/stable-diffusion-v1-5")},
            "Stable Diffusion v1-5",
        ),
        ({"model_index.json": named("some-one/tuned.v2")}, "some-one/tuned.v2"),
        # the hub's commit is surer than a name that was saved
        ({NOTE: f"{V15}\n", "model_index.json": named("a/b")}, "Stable Diffusion v1-5"),
        ({NOTE: f"{'0' * 40}\n", "model_index.json": named("a/b")}, "a/b"),
        # nothing to go by
        ({}, UNKNOWN),
        ({NOTE: ""}, UNKNOWN),
        ({NOTE: "\udcff".encode("utf-8", "surrogateescape").hex()}, UNKNOWN),
        ({"unet/config.json": "{"}, UNKNOWN),
        ({"unet/config.json": "[1]"}, UNKNOWN),
        ({"unet/config.json": named(None)}, UNKNOWN),
        ({"unet/config.json": named("/home-of/someone/sd/unet")}, UNKNOWN),
        ({"unet/config.json": named("line\nbreak/b")}, UNKNOWN),
    ],
)
def test_a_folder_is_named_by_what_its_files_say(
    tmp_path: Path, files: Mapping[str, str], name: str
) -> None:
    assert checkpoint_in(folder_of(tmp_path, files)) == name


def test_where_no_u_net_is_nothing_is_named(tmp_path: Path) -> None:
    assert checkpoint_in(tmp_path / "absent") == ""
    (tmp_path / "unet").mkdir()
    assert checkpoint_in(tmp_path) == ""


def test_the_pinned_commit_is_the_paper_s(tmp_path: Path) -> None:
    pin = PINNED[0]
    assert pin.repository == "CompVis/stable-diffusion-v1-4"
    folder = folder_of(tmp_path, {NOTE: f"{pin.revision}\n"})
    assert checkpoint_in(folder) == PAPERS


@pytest.mark.parametrize(
    ("profile", "commit", "label"),
    [
        ("nsd", V14, "profile nsd: Stable Diffusion v1-4"),
        (
            "nsd",
            V15,
            "profile nsd: Stable Diffusion v1-5 in place of Stable Diffusion v1-4",
        ),
        (
            "nsd",
            "",
            "profile nsd: unnamed Stable Diffusion in place of Stable Diffusion v1-4",
        ),
        # these use none
        ("demo", V15, "profile demo: in-silico subjects, demo models"),
        ("digits69", V15, "profile digits69: measured responses"),
    ],
)
def test_every_label_names_it_and_says_where_it_is_not_the_paper_s(
    tmp_path: Path, profile: str, commit: str, label: str
) -> None:
    folder = folder_of(tmp_path, {NOTE: f"{commit}\n"})
    tree = Tree(tmp_path, profile, tmp_path / "data", folder.parent)
    assert Run(load_profile(profile), tree, None, (0, 1)).label == label


def test_the_licence_is_shown_with_the_download_commands(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["models"])
    said = capsys.readouterr().out
    assert said.startswith(LICENCE)
    assert "CreativeML OpenRAIL-M" in LICENCE
    assert "https://huggingface.co/spaces/CompVis/stable-diffusion-license" in LICENCE
    # a shell may still be given all of it
    lines = said.splitlines()
    assert sum(line.startswith("hf download") for line in lines) == len(PINNED)
    assert all(line.startswith(("#", "hf download")) for line in lines)
