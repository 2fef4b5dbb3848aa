"""The study of stage 2: whether a cheap engine is no worse than the paper's algorithm.

Two parts, both outside the notebooks' ten minutes. The pilot tries variants of our
engines on validation images, which no decoder was fitted to; settings are chosen there.
The confirmation runs every arm, with the settings of the profile, on test images, and
holds ours against Algorithm 1 by margins that the profile states. Work is
kept arm by arm, so that a study that was cut off goes on where it was. Not here: the
engines (`alignment`, `guidance`) and single scores (`metrics`). Place in the flow:
layer 9, command `minddiff study`; notebook 04 draws what it found.
"""

import hashlib
import json
import multiprocessing
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor
from torch.nn import functional

from minddiff_utils import provenance, reconstruction, store
from minddiff_utils.alignment import AlignmentResult, AlignmentSettings, preset
from minddiff_utils.backbone import Backbone, Judge, load_backbone, load_judge
from minddiff_utils.config import Profile
from minddiff_utils.cost import preset_work
from minddiff_utils.critic import (
    Critic,
    StructuralTarget,
    layer_weights,
    structural_loss,
)
from minddiff_utils.diffusion import draw_noise, make_schedule, sample
from minddiff_utils.errors import ConfigError
from minddiff_utils.evaluation import embed_with, resampling
from minddiff_utils.guidance import (
    CombinedSettings,
    GuidanceSettings,
    combined_preset,
    guidance_preset,
)
from minddiff_utils.images import to_torch, to_uint8
from minddiff_utils.metrics import score_condition
from minddiff_utils.reconstruction import DecodedFeatures, Source, Stage2Settings
from minddiff_utils.statistics import (
    Resampling,
    crossed_bootstrap_interval,
    non_inferiority,
)

__all__ = [
    "ENDPOINTS",
    "SHOWN",
    "Arm",
    "Found",
    "confirm",
    "confirmation_arms",
    "cost_table",
    "pareto_table",
    "pilot_arms",
    "read",
    "run_study",
    "run_subject",
    "summarise_pilot",
]

Images = npt.NDArray[np.uint8]
Part = Literal["pilot", "confirmation"]
#: What arms are compared on -> whether more is better.
ENDPOINTS: Mapping[str, bool] = {
    "structural_loss": False,
    "ssim_2d": True,
    "pcc": True,
    "clip_judge": True,
}
#: Arms that a figure names; the others are controls.
SHOWN: Mapping[str, str] = {
    "none": "stage 1 alone",
    "best_of_n": "best of N draws",
    "paper": "Algorithm 1",
    "paper_tuned": "Algorithm 1, step tuned",
    "released": "released code",
    "fast": "fast",
    "guided": "guided",
    "combined": "combined",
}
#: The validation images of notebook 02 and the test images, by part.
_DECODED = {"pilot": "decoded_validation.h5", "confirmation": "decoded.h5"}


@dataclass(frozen=True)
class Arm:
    """One way to make the images.

    Attributes
    ----------
    name, words : str
        Its name in tables, and what it is.
    settings : AlignmentSettings, GuidanceSettings, CombinedSettings or None
        The engine's; None means stage 1 alone.
    source : {"decoded", "true", "shuffled"}
        Where its features come from.
    layers : tuple of int or None
        CLIP blocks in its loss; None means all that were decoded.
    n_draws : int
        Stage-1 images of which the one with the lowest loss is kept.
    decoder : {"autoencoder", "linear"}
        What makes images of latents while optimising: the autoencoder, or a linear map
        of each latent and its neighbours, fitted on training images.
    """

    name: str
    words: str
    settings: Stage2Settings | None
    source: Source = "decoded"
    layers: tuple[int, ...] | None = None
    n_draws: int = 1
    decoder: Literal["autoencoder", "linear"] = "autoencoder"


def _presets(profile: Profile) -> dict[str, Stage2Settings]:
    config, study = profile.stage2, profile.study
    memory = reconstruction.memory_on(profile.models.device)

    def of(name: str, n_iter: int, **more: Any) -> AlignmentSettings:
        update = {"preset": name, "n_iter": n_iter, **more}
        return preset(config.model_copy(update=update), memory=memory)

    return {
        "paper": of("paper", study.n_iter_paper),
        "paper_tuned": of("paper", study.n_iter_paper, step_paper=study.step_tuned),
        "released": of("released", study.n_iter_paper),
        "fast": of("fast", config.n_iter),
        "guided": guidance_preset(config, memory=memory),
        "combined": combined_preset(config, memory=memory),
    }


def confirmation_arms(profile: Profile) -> tuple[Arm, ...]:
    """Return the arms of the confirmation, with the settings of the profile.

    The best-of-N control draws as many images of stage 1 as the U-Net evaluations of
    `fast` pay for, and keeps the one that `fast` would keep.
    """
    found, ours = _presets(profile), profile.stage2.layers_fast
    fast, guided, both = (found[name] for name in ("fast", "guided", "combined"))
    assert isinstance(fast, AlignmentSettings)
    z_only = replace(fast, lr_c=0.0)
    cost = preset_work(profile, "fast", "store").total.unet_forwards
    stage1 = preset_work(profile, "guided", "store").finishing.unet_forwards
    n_draws = max(2, round(cost / stage1))
    return (
        Arm("none", "stage 1 alone", None),
        Arm(
            "best_of_n", f"best of {n_draws} draws", None, layers=ours, n_draws=n_draws
        ),
        Arm("paper", "Algorithm 1 as published", found["paper"]),
        Arm("paper_tuned", "Algorithm 1, step size tuned", found["paper_tuned"]),
        Arm("released", "the released code's loop", found["released"]),
        Arm("fast", "fast", fast, layers=ours),
        Arm("fast_z", "fast, z alone", z_only, layers=ours),
        Arm("fast_shuffled", "fast, another brain", fast, "shuffled", ours),
        Arm("fast_true", "fast, true features", fast, "true", ours),
        Arm("guided", "guided sampling", guided, layers=ours),
        Arm("guided_shuffled", "guided, another brain", guided, "shuffled", ours),
        Arm("guided_true", "guided, true features", guided, "true", ours),
        Arm("combined", "short fast loop, then guided", both, layers=ours),
        Arm("combined_shuffled", "combined, another brain", both, "shuffled", ours),
        Arm("combined_true", "combined, true features", both, "true", ours),
    )


def pilot_arms(profile: Profile) -> tuple[Arm, ...]:
    """Return the variants of the pilot: one thing changed at a time, then together.

    Around the profile's `fast`: solver, steps and guidance of the surrogate, its
    gradient path, a single x0-prediction, what moves and how fast, the anchor, the
    stop, the blocks in the loss, bfloat16. Around `guided`: form, strength, number of
    pulls, range. Algorithm 1 with several step sizes finds the one for `paper_tuned`.
    """
    found, ours = _presets(profile), profile.stage2.layers_fast
    base, steer, paper = found["fast"], found["guided"], found["paper"]
    assert isinstance(base, AlignmentSettings)
    assert isinstance(paper, AlignmentSettings)
    assert isinstance(steer, GuidanceSettings)
    w = profile.stage1.guidance_scale
    all_guided = {"guidance_scale": w, "guided_share": 1.0}
    short = replace(paper, n_iter=profile.study.n_iter_pilot)
    fast: dict[str, dict[str, Any]] = {
        "fast": {},
        "fast, no guidance": {"guidance_scale": 1.0},
        "fast, guidance": all_guided,
        "fast, guidance in half": {"guidance_scale": w, "guided_share": 0.5},
        "fast, dpmpp_2m": {"solver": "dpmpp_2m"},
        "fast, dpmpp_2m, guidance": {"solver": "dpmpp_2m", **all_guided},
        "fast, dpmpp_2s, guidance": {"solver": "dpmpp_2s", **all_guided},
        "fast, 2 steps": {"n_steps": 2},
        "fast, 1 step (x0)": {"n_steps": 1},
        "fast, all steps": {"n_steps": None, **all_guided},
        "fast, all steps, 2 active": {"n_steps": None, **all_guided, "active_steps": 2},
        "fast, z alone": {"lr_c": 0.0},
        "fast, c alone": {"lr_z": 0.0},
        "fast, no anchor": {"anchor_c": 0.0},
        "fast, half step sizes": {"lr_z": base.lr_z / 2, "lr_c": base.lr_c / 2},
        "fast, double step sizes": {"lr_z": base.lr_z * 2, "lr_c": base.lr_c * 2},
        "fast, half the iterations": {"n_iter": base.n_iter // 2},
        "fast, discrepancy stop": {"stop_level": 1.0},
        "fast, plateau stop": {"stop_window": max(2, base.n_iter // 4)},
        "fast, bfloat16": {"precision": "bfloat16"},
    }
    other = "clean" if steer.form == "unet" else "unet"
    pull: dict[str, dict[str, Any]] = {
        "guided": {},
        "guided, half strength": {"strength": steer.strength / 2},
        "guided, double strength": {"strength": steer.strength * 2},
        "guided, 3 pulls": {"form": "clean", "n_inner": 3},
        "guided, first half": {"last": 0.5},
        "guided, second half": {"first": 0.5},
        f"guided, form {other}": {"form": other, "n_inner": 1},
    }
    steps = (0.01, 0.001, 0.0001, 0.00001)
    arms = (
        Arm("none", "stage 1 alone", None),
        *[
            Arm(n, n, replace(base, **change), layers=ours)
            for n, change in fast.items()
        ],
        Arm("fast, all blocks", "fast, all blocks", base),
        Arm(
            *("fast, linear decoder", "fast, linear decoder", base),
            layers=ours,
            decoder="linear",
        ),
        *[
            Arm(n, n, replace(steer, **change), layers=ours)
            for n, change in pull.items()
        ],
        Arm("guided, all blocks", "guided, all blocks", steer),
        *_combinations(base, steer, ours),
        *[
            Arm(
                f"paper, step {eta:g}",
                "Algorithm 1",
                replace(short, lr_z=eta, lr_c=eta),
            )
            for eta in steps
        ],
    )
    return _distinct(arms)


def _distinct(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """Return the arms without those that repeat another under a new name."""
    known: dict[str, Arm] = {}
    for arm in arms:
        known.setdefault(repr(replace(arm, name="", words="")), arm)
    return tuple(known.values())


def _combinations(
    base: AlignmentSettings, steer: GuidanceSettings, layers: tuple[int, ...]
) -> list[Arm]:
    """Return short loops of `base` followed by guidance at several strengths."""
    arms = []
    for n_iter in (base.n_iter // 3, base.n_iter // 2):
        short = replace(base, n_iter=n_iter, n_candidates=1)
        for factor in (1, 2):
            pull = replace(steer, strength=factor * steer.strength)
            name = f"combined, {n_iter} steps, strength {pull.strength:g}"
            arms.append(Arm(name, name, CombinedSettings(short, pull), layers=layers))
    return arms


# --- making images --------------------------------------------------------------------


def _decoder_path(run: store.Run, part: Part) -> Path:
    return run.tree.derived(reconstruction.subject_of(run)) / _DECODED[part]


def _make(
    run: store.Run, backbone: Backbone, features: DecodedFeatures, arm: Arm
) -> dict[str, npt.NDArray[Any]]:
    """Return images and cost of one arm for one batch."""
    began = time.perf_counter()
    if arm.layers is not None:
        features = features.with_layers(arm.layers)
    if arm.settings is None:
        made = _best_of(run, backbone, features, arm.n_draws)
    else:
        settings = arm.settings
        if arm.decoder == "linear" and isinstance(settings, AlignmentSettings):
            settings = replace(settings, decode=linear_decoder(run, backbone))
        result = reconstruction.align_batch(run, backbone, features, settings)
        made = _arrays_of(result)
    n = len(features.nsd_id)
    seconds = np.full(n, (time.perf_counter() - began) / n)
    return {"nsd_id": features.nsd_id, "seconds": seconds, **made}


def _arrays_of(result: AlignmentResult) -> dict[str, npt.NDArray[Any]]:
    return {
        "images": to_uint8(result.images),
        "n_unet_evaluations": result.n_unet_evaluations,
        "n_unet_gradients": result.n_unet_gradients,
        "steps": result.stopped,
        "diverged": result.diverged,
    }


#: Training images on which the linear decoder is fitted.
_N_LINEAR = 400


@torch.no_grad()
def linear_decoder(
    run: store.Run, backbone: Backbone, n_images: int = _N_LINEAR
) -> Callable[[Tensor], Tensor]:
    """Return a linear map of latents to images, by least squares on training images.

    Each latent cell and its eight neighbours give the pixels of the cell: the cheapest
    stand-in for the autoencoder's decoder that still has a gradient.
    """
    folder = run.tree.derived(reconstruction.subject_of(run))
    split = store.read_arrays(folder / "responses.h5", ["split"])["split"]
    images = store.read_arrays(folder / "stimuli.h5", ["images"])["images"]
    x = to_torch(images[split == "train"][:n_images]).to(backbone.device)
    z = torch.cat([backbone.encode_images(part) for part in torch.split(x, 32)])
    ratio = x.shape[-1] // z.shape[-1]
    pixels = functional.unfold(x, ratio, stride=ratio).mT.flatten(0, 1)
    fitted = torch.linalg.lstsq(_neighbours(z).flatten(0, 1), pixels).solution

    def decode(latents: Tensor) -> Tensor:
        cells = (_neighbours(latents) @ fitted).mT
        return functional.fold(cells, x.shape[-2:], ratio, stride=ratio)

    return decode


def _neighbours(z: Tensor) -> Tensor:
    """Return each cell with its neighbours and a one, (n, n_cells, 9 C + 1)."""
    around = functional.unfold(z, 3, padding=1).mT
    return torch.cat([around, torch.ones_like(around[..., :1])], dim=-1)


def _best_of(
    run: store.Run, backbone: Backbone, features: DecodedFeatures, n_draws: int
) -> dict[str, npt.NDArray[Any]]:
    """Return the stage-1 image of the lowest loss among `n_draws`.

    The draws go on in each image's own stream: more of them change no earlier one.
    """
    schedule = make_schedule(
        backbone, reconstruction.diffusion_settings(run.profile.stage1)
    )
    generators = reconstruction.noise_generators(run, features.nsd_id.tolist())
    best: Tensor | None = None
    lowest = torch.full((len(features.nsd_id),), torch.inf)
    for _ in range(n_draws):
        noise = draw_noise(backbone, generators)
        images = sample(backbone, features.z, features.c, noise, schedule)
        loss = balanced_loss(backbone, images, features.target)
        best = images if best is None else best
        better = loss < lowest
        best = torch.where(better[:, None, None, None], images, best)
        lowest = torch.where(better, loss, lowest)
    assert best is not None
    n = len(lowest)
    return {
        "images": to_uint8(best),
        "n_unet_evaluations": np.full(n, n_draws * schedule.n_unet_evaluations),
        "n_unet_gradients": np.zeros(n, np.int64),
        "steps": np.zeros(n, np.int64),
        "diverged": np.zeros(n, bool),
    }


@torch.no_grad()
def balanced_loss(
    backbone: Backbone, images: Tensor, target: StructuralTarget
) -> Tensor:
    """Return the balanced structural loss of images (n, 3, S, S), (n,)."""
    features = backbone.clip_layers(images, target.layers)
    return structural_loss(features, target, layer_weights(target, "balanced")).cpu()


#: Raised whenever the images of some arm change with the same settings. Algorithm 1's
#: arms take hours, so another line of code elsewhere must not throw them away.
_ENGINES = 1


def _arm_file(run: store.Run, part: Part, arm: Arm) -> Path:
    """Return the file of an arm, named after all that its images depend on.

    Not after the whole profile: what was made for one arm stays good when the settings
    of another are changed.
    """
    profile = run.profile
    depends = [
        arm,
        _n_images(profile, part),
        (profile.seed, profile.stage1, profile.models, profile.features),
        provenance.digest_file(_decoder_path(run, part)),
        _ENGINES,
    ]
    digest = hashlib.sha256(repr(depends).encode()).hexdigest()[:16]
    folder = run.tree.derived(reconstruction.subject_of(run)) / f"study_{part}"
    return folder / f"{re.sub(r'[^a-z0-9]+', '_', arm.name)}_{digest}.h5"


def _images_of(
    run: store.Run, backbone: Backbone, part: Part, arm: Arm
) -> dict[str, npt.NDArray[Any]]:
    """Return what an arm made, from its file where that is current."""
    source = _decoder_path(run, part)
    path = _arm_file(run, part, arm)
    if store.is_intact(path):
        return store.read_arrays(path)
    n = _n_images(run.profile, part)
    layers = run.profile.features.clip_layers
    features = reconstruction.read_decoded(
        source, backbone, layers, n=n, source=arm.source
    )
    parts = [_make(run, backbone, features.rows(rows), arm) for rows in run.batches(n)]
    made = {key: np.concatenate([p[key] for p in parts]) for key in parts[0]}
    store.write_arrays(path, made, run=run, inputs=[source])
    return made


def _n_images(profile: Profile, part: Part) -> int:
    study = profile.study
    return study.n_images_pilot if part == "pilot" else study.n_images


# --- scores ---------------------------------------------------------------------------


def _unselected(target: StructuralTarget) -> StructuralTarget | None:
    """Return the target of the features that no arm's loss saw, if there are any."""
    others = {k: ~mask & (target.scale[k] > 0) for k, mask in target.selected.items()}
    if not all(bool(mask.any()) for mask in others.values()):
        return None
    return replace(target, selected=others)


def _structure(
    backbone: Backbone,
    images: Images,
    decoded: StructuralTarget,
    true: StructuralTarget,
) -> dict[str, npt.NDArray[np.float64]]:
    """Return the losses of images against decoded features, and held-out ones.

    structural_loss: balanced over all decoded blocks; paper_loss: Algorithm 1's sum;
    heldout_loss: balanced, of the features that were not selected, against those of the
    seen image: it rises where an arm fits what the decoder got wrong.
    """
    x = to_torch(images).to(backbone.device, backbone.dtype)
    with torch.no_grad():
        seen = backbone.clip_layers(x, decoded.layers)
        losses: dict[str, tuple[StructuralTarget, Critic]] = {
            "structural_loss": (decoded, "balanced"),
            "paper_loss": (decoded, "paper"),
        }
        other = _unselected(true)
        if other is not None:
            losses["heldout_loss"] = (other, "balanced")
        return {
            name: structural_loss(seen, target, layer_weights(target, critic))
            .double()
            .cpu()
            .numpy()
            for name, (target, critic) in losses.items()
        }


def _score(
    run: store.Run,
    backbone: Backbone,
    judge: Judge,
    part: Part,
    made: Mapping[str, Mapping[str, npt.NDArray[Any]]],
) -> pd.DataFrame:
    """Return a row per arm, image and metric of one subject."""
    n, layers = _n_images(run.profile, part), run.profile.features.clip_layers
    path = _decoder_path(run, part)
    decoded, true = (
        reconstruction.read_decoded(path, backbone, layers, n=n, source=source).target
        for source in ("decoded", "true")
    )
    subject = reconstruction.subject_of(run)
    stimuli = store.read_arrays(
        run.tree.derived(subject) / "stimuli.h5", ["images", "nsd_id"]
    )
    row = {int(i): k for k, i in enumerate(stimuli["nsd_id"])}
    look = embed_with(judge, run.profile.models.batch_size)
    frames = []
    for name, arrays in made.items():
        truth = stimuli["images"][[row[int(i)] for i in arrays["nsd_id"]]]
        views = {"clip_judge": look(arrays["images"])}, {"clip_judge": look(truth)}
        scores = score_condition(arrays["images"], truth, *views)
        wanted = {k: v for k, v in scores.items() if k in ENDPOINTS}
        wanted |= _structure(backbone, arrays["images"], decoded, true)
        wanted |= {
            key: arrays[key].astype(float)
            for key in ("n_unet_evaluations", "n_unet_gradients", "seconds", "steps")
        }
        frames += [
            pd.DataFrame(
                {
                    "subject": str(subject),
                    "method": name,
                    "nsd_id": arrays["nsd_id"],
                    "metric": metric,
                    "value": values,
                }
            )
            for metric, values in wanted.items()
        ]
    return pd.concat(frames, ignore_index=True)


def run_subject(run: store.Run, part: Part, say: Callable[[str], None]) -> pd.DataFrame:
    """Run or read every arm of one subject; return the scores of all images.

    Parameters
    ----------
    run : Run
        Of one subject, all images.
    part : {"pilot", "confirmation"}
        Variants on validation images, or the arms on test images.
    say : callable
        Told of each arm as it is done.

    Returns
    -------
    DataFrame
        Columns subject, method, nsd_id, metric, value.

    Raises
    ------
    ConfigError
        The profile has no study.
    StoreError
        Notebook 02 has not run for this subject, or decoded fewer images.
    """
    if run.profile.study.n_images == 0:
        raise ConfigError(
            f"Profile {run.profile.name} has no study: set study.n_images above 0."
        )
    store.read_arrays(_decoder_path(run, part), ["nsd_id"])  # says if it is not there
    backbone = load_backbone(run.profile.models, run.tree.models)
    judge = load_judge(run.tree.models, kind=run.profile.models.backbone)
    chosen = pilot_arms if part == "pilot" else confirmation_arms
    made = {}
    for arm in chosen(run.profile):
        began = time.perf_counter()
        made[arm.name] = _images_of(run, backbone, part, arm)
        say(f"subject {run.subject}, {arm.name}: {time.perf_counter() - began:.0f} s")
    return _score(run, backbone, judge, part, made)


# --- all subjects ---------------------------------------------------------------------


def cost_table(scores: pd.DataFrame, reference: str = "paper") -> pd.DataFrame:
    """Return each arm's mean cost per image, and its share of the reference's.

    Columns: method, n_unet_evaluations, n_unet_gradients, seconds, steps, share (of the
    reference's U-Net evaluations).
    """
    columns = ["n_unet_evaluations", "n_unet_gradients", "seconds", "steps"]
    costs = scores[scores["metric"].isin(columns)]
    table = costs.pivot_table(
        index="method", columns="metric", values="value", sort=False
    )[columns]
    if reference in table.index:
        evaluations = table["n_unet_evaluations"].astype(float)
        table["share"] = evaluations / evaluations.loc[[reference]].item()
    return table.reset_index().rename_axis(columns=None)


def pareto_table(scores: pd.DataFrame, draws: Resampling) -> pd.DataFrame:
    """Return each arm's endpoints with their interval, and its cost per image.

    Columns: method, metric, value, low, high, cost (U-Net evaluations), n (images of
    all subjects), n_subjects.
    """
    cost = cost_table(scores).set_index("method")["n_unet_evaluations"]
    rows = []
    known = scores[scores["metric"].isin(ENDPOINTS)]
    for (method, metric), block in known.groupby(["method", "metric"], sort=False):
        wide = block.pivot(index="subject", columns="nsd_id", values="value")
        interval = crossed_bootstrap_interval(
            wide.dropna(axis=1),
            rng=draws.stream("pareto", str(method), str(metric)),
            n_bootstrap=draws.n_bootstrap,
            confidence=draws.confidence,
        )
        n = {"n": len(block), "n_subjects": len(wide)}
        low_high = {"low": interval.low, "high": interval.high}
        own = {"method": method, "metric": metric, "value": interval.value}
        rows.append({**own, **low_high, "cost": float(cost[str(method)]), **n})
    return pd.DataFrame(rows)


def summarise_pilot(scores: pd.DataFrame) -> pd.DataFrame:
    """Return each variant's mean endpoints and cost over all images and subjects."""
    table = scores.pivot_table(
        index="method", columns="metric", values="value", sort=False
    )
    wanted = [*ENDPOINTS, "heldout_loss", "n_unet_evaluations", "n_unet_gradients"]
    kept = [name for name in (*wanted, "seconds") if name in table]
    return table[kept].reset_index().rename_axis(columns=None)


def confirm(
    scores: pd.DataFrame,
    margins: Mapping[str, float],
    *,
    resampling: Resampling,
    rivals: Sequence[str] = ("fast", "guided", "combined"),
    references: Iterable[str] = ("paper", "paper_tuned", "released", "none"),
) -> pd.DataFrame:
    """Return whether the rivals are no worse than each reference, endpoint by endpoint.

    Parameters
    ----------
    scores : DataFrame
        From `run_subject`, all subjects together.
    margins : mapping of float
        By endpoint: how much worse still counts as no worse; fixed beforehand.

    Returns
    -------
    DataFrame
        As `statistics.non_inferiority`, one block per rival and reference.
    """
    tables = [
        non_inferiority(
            scores, rival, reference, margins, ENDPOINTS, resampling=resampling
        )
        for rival in rivals
        for reference in references
    ]
    return pd.concat(tables, ignore_index=True)


def _worker(name: str, subject: int, overrides: dict[str, Any], part: Part) -> Any:
    """Run one subject in a process of its own."""
    run = store.start(name, subject=subject, overrides=overrides)
    told: list[str] = []
    return run_subject(run, part, told.append), told


def run_study(
    name: str,
    overrides: Mapping[str, Any],
    part: Part,
    *,
    n_jobs: int,
    say: Callable[[str], None],
) -> pd.DataFrame:
    """Run every subject of the profile `name` and write the study's tables.

    Call it again after it was cut off: finished arms are read, the others go on.

    Parameters
    ----------
    name, overrides
        As for `store.start`.
    part : {"pilot", "confirmation"}
    n_jobs : int
        Subjects at once.
    say : callable
        Told of every arm.

    Returns
    -------
    DataFrame
        The pilot's summary, or the verdicts.

    Raises
    ------
    MindDiffError
        As `run_subject`.
    """
    run = store.start(name, overrides=overrides)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(n_jobs, mp_context=context) as pool:
        futures = [
            pool.submit(_worker, name, subject, dict(overrides), part)
            for subject in run.profile.subjects
        ]
        tables = []
        for future in as_completed(futures):
            table, told = future.result()
            tables.append(table)
            for words in told:
                say(words)
    order = [str(subject) for subject in run.profile.subjects]
    scores = pd.concat(tables, ignore_index=True)
    rank = scores["subject"].map(order.index)
    scores = scores.iloc[np.argsort(rank, kind="stable")].reset_index(drop=True)
    return _write(run, part, scores)


def _write(run: store.Run, part: Part, scores: pd.DataFrame) -> pd.DataFrame:
    """Write what a part found, with its settings; return its main table."""
    folder = run.tree.study
    if part == "pilot":
        found = summarise_pilot(scores)
        store.write_table(folder / "pilot.csv", found, run=run)
    else:
        found = confirm(scores, run.profile.study.margins, resampling=resampling(run))
        store.write_table(folder / "scores.csv", scores, run=run)
        store.write_table(folder / "costs.csv", cost_table(scores), run=run)
        store.write_table(folder / "verdicts.csv", found, run=run)
    store.write_text(folder / f"{part}.json", _settings(run, part), run=run)
    return found


@dataclass(frozen=True)
class Found:
    """What the last study of a profile found.

    Attributes
    ----------
    pilot : DataFrame or None
        From `summarise_pilot`; None where it has not been run.
    points, costs, verdicts : DataFrame
        From `pareto_table`, `cost_table` and `confirm`.
    confidence : float
        Of intervals and verdicts.
    """

    pilot: pd.DataFrame | None
    points: pd.DataFrame
    costs: pd.DataFrame
    verdicts: pd.DataFrame
    confidence: float


def read(run: store.Run) -> Found | None:
    """Return the confirmation of the run's profile, None where it has not been run.

    Raises
    ------
    StoreError
        A table is damaged or missing beside the others.
    """
    folder = run.tree.study
    if not (folder / "scores.csv").is_file():
        return None
    scores = store.read_table(folder / "scores.csv")
    scores["subject"] = scores["subject"].astype(str)
    pilot = folder / "pilot.csv"
    return Found(
        pilot=store.read_table(pilot) if pilot.is_file() else None,
        points=pareto_table(scores, resampling(run)),
        costs=store.read_table(folder / "costs.csv"),
        verdicts=store.read_table(folder / "verdicts.csv"),
        confidence=run.profile.evaluation.confidence,
    )


def _settings(run: store.Run, part: Part) -> str:
    """Return the command, the profile and every arm's settings as JSON."""
    chosen = pilot_arms if part == "pilot" else confirmation_arms
    words = {
        "command": f"minddiff study --profile {run.profile.name} --part {part}",
        "note": run.profile.label,
        "arms": {
            arm.name: {
                "words": arm.words,
                "source": arm.source,
                "layers": arm.layers,
                "n_draws": arm.n_draws,
                "decoder": arm.decoder,
                "settings": asdict(arm.settings) if arm.settings else None,
            }
            for arm in chosen(run.profile)
        },
        "profile": run.profile.model_dump(mode="json"),
    }
    return json.dumps(words, indent=1) + "\n"
