"""Frozen profiles: every number a run depends on, in one validated object.

A profile is a YAML file in `notebooks/profiles/`; unknown keys, wrong types and values
out of range are refused with one sentence. Defaults live here only. Functions
elsewhere take values from it, never the whole profile.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    field_validator,
    model_serializer,
    model_validator,
)

from minddiff_utils.core.checkpoint import PAPERS
from minddiff_utils.core.errors import ConfigError
from minddiff_utils.core.places import place
from minddiff_utils.core.profile_parts import READS, UNREAD
from minddiff_utils.core.profile_values import (
    ALL_TRIALS,
    MODEL_WORDS,
    MOST_SESSIONS,
    MOST_TEST_IMAGES,
    SUBJECT_WORDS,
    Fraction,
    Origin,
    Percent,
    Percents,
    PositiveInt,
    Session,
    Sessions,
    Share,
    Split,
    Subject,
)

__all__ = [
    "AblationConfig",
    "DataConfig",
    "DecodingConfig",
    "EvaluationConfig",
    "FeatureConfig",
    "ModelConfig",
    "Origin",
    "Preset",
    "Profile",
    "SimulationConfig",
    "Stage1Config",
    "Stage2Config",
    "StudyConfig",
    "SystemsConfig",
]


class _Frozen(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False
    )


class SimulationConfig(_Frozen):
    """The in-silico NSD (demo and smoke only)."""

    n_sessions: Annotated[int, Field(gt=0, le=40)]  # 750 trials each
    n_test_images: PositiveInt  # shared images shown, three repeats each
    n_heldout_images: Annotated[int, Field(ge=0)] = 0  # test2, of other categories
    image_size: PositiveInt = 425  # px, NSD's own
    n_surface_depths: PositiveInt = 3  # layerB1..B3


class DataConfig(_Frozen):
    """How responses are read and prepared (notebook 01)."""

    # the first n of each subject, or as many as there are; those in `only_sessions`
    sessions: Sessions
    betas_version: str = "betas_fithrf_GLMdenoise_RR"
    zscore_on: Literal["train", "all"] = "train"  # trials that fit session scaling
    n_validation: PositiveInt  # last training images by 10k index (published: 859)
    # first test images that stages 1 and 2 reconstruct; null: all that the subject saw
    n_reconstruct: PositiveInt | None
    only_sessions: Annotated[tuple[Session, ...], Field(min_length=1)] | None = None
    # which block of n_validation images validates, from the end; 1: as published
    validation_fold: PositiveInt = 1
    # the 11 areas, or all of NSD's hand-drawn visual region instead
    voxels: Literal["areas", "nsdgeneral"] = "areas"
    # what notebook 01 does where a test image is in the training set too
    leaks: Literal["refuse", "report"] = "refuse"
    n_images: PositiveInt | None = None  # spread evenly over a subject's; null: all
    n_train: PositiveInt | None = None  # as many of the training images alone
    n_test_repeats: PositiveInt | None = None  # first trials of a test image; null: all
    # which of LAION-fMRI's shipped splits says what trains and tests; null elsewhere
    split: Split | None = None

    @model_serializer(mode="wrap")
    def _said(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Return the fields; one of later that says nothing changes no digest."""
        late, fields = ("split", "n_images", "n_train", "n_test_repeats"), dump(self)
        return {k: v for k, v in fields.items() if k not in late or v is not None}

    @model_validator(mode="after")
    def _sessions_fit(self) -> "DataConfig":
        chosen, last = self.session_numbers, self.last_session
        if list(chosen) != sorted(set(chosen)) or chosen[-1] > last:
            msg = (
                f"only_sessions is {list(chosen)}, but must be distinct, ascending and"
                f" among the first {last}, which `sessions` names"
            )
            raise ValueError(msg)
        return self

    @property
    def last_session(self) -> int:
        """Return the last session that is read of a subject who has it."""
        return MOST_SESSIONS if self.sessions == "all" else self.sessions

    @property
    def session_numbers(self) -> tuple[int, ...]:
        """Return the sessions that are asked for, ascending; 1-based as in NSD's names.

        Of a subject who has fewer, those are read that the subject has
        (`NsdTree.sessions_of`).
        """
        return self.only_sessions or tuple(range(1, self.last_session + 1))


class ModelConfig(_Frozen):
    """Which generator and CLIP (only `backbone` looks inside)."""

    backbone: Literal["demo", "sd14", "tiny"]
    device: Literal["cpu", "cuda"] = "cpu"
    dtype: Literal["float32", "float16", "bfloat16"] = "float32"
    batch_size: PositiveInt = 8  # images kept and shared out together
    n_threads: PositiveInt = 1
    # tokens of c under sd14; published code and ours: 15; Stable Diffusion's own: 77
    n_tokens: Literal[15, 77] = 15
    # mean and SD on which CLIP sees images: its own, or as in the published code
    normalisation: Literal["clip", "imagenet"] = "clip"
    # the U-Net through torch.compile: faster on a GPU, after minutes of compiling
    compile: bool = False
    # how stage 2 keeps values for its gradient; auto: by the device's free memory
    memory: Literal["auto", "store", "checkpoint"] = "auto"
    # images of a batch whose gradient is formed at once; null: by the free memory
    n_at_once: PositiveInt | None = None
    # folder with a folder of models per backbone; null: data/models
    path: str | None = None

    @model_validator(mode="after")
    def _tokens_fit(self) -> "ModelConfig":
        if self.n_tokens != 15 and self.backbone != "sd14":
            msg = (
                f"n_tokens is {self.n_tokens}, but only the backbone sd14 has a choice:"
                f" leave it out for {self.backbone}"
            )
            raise ValueError(msg)
        return self

    @property
    def image_size(self) -> int:
        """Return the generator's native image size, px (sides are equal)."""
        return 512 if self.backbone == "sd14" else 64

    def folder(self, root: Path) -> Path | None:
        """Return the folder in `path`, from `root` if relative; None: the usual one."""
        if self.path and self.path.startswith("~"):
            return place(self.path, "models.path")
        return root / self.path if self.path else None


class FeatureConfig(_Frozen):
    """The three decoded features (notebook 02)."""

    n_captions: PositiveInt = 5
    clip_layers: tuple[int, ...] = (1, 2, 3, 4, 5, 6)  # 1-based blocks, MLP outputs

    @model_validator(mode="after")
    def _layers_ascend(self) -> "FeatureConfig":
        layers = self.clip_layers
        if not layers or list(layers) != sorted(set(layers)) or layers[0] < 1:
            msg = (
                f"clip_layers is {layers}, but must be distinct, ascending and start"
                " at 1 or above"
            )
            raise ValueError(msg)
        return self


class DecodingConfig(_Frozen):
    """How features are read from voxels (paper section 3; ours: dense ridge)."""

    # by_preset: the paper's for the presets paper and released, dense for ours
    decoder: Literal["by_preset", "voxel_selected", "dense"] = "by_preset"
    # of the voxel-selected ridge; at NSD's size float64 takes hours, float32 minutes
    dtype: Literal["float32", "float64"] = "float64"
    alpha: Annotated[float, Field(gt=0)] = 0.15
    n_feat_c: PositiveInt = 450
    n_feat_z: PositiveInt = 3000
    n_feat_clip: PositiveInt = 850
    # share of CLIP features kept; null: chosen by cross-validation, layer by layer
    k_percent: Percent | None = 25.0
    k_grid: Percents = (5.0, 10.0, 25.0, 50.0, 75.0, 100.0)
    n_folds: Annotated[int, Field(ge=2)] = 3
    n_permutations: PositiveInt = 200
    n_compare: PositiveInt = 256  # targets per feature when all decoders are compared


class Stage1Config(_Frozen):
    """img2img from z under c (discrepancy 4: levels 37 and 35 of 50)."""

    n_steps: PositiveInt = 50
    encode_index: PositiveInt = 37  # noise level, as DDIM index
    decode_steps: PositiveInt = 35  # denoising steps taken
    guidance_scale: Annotated[float, Field(ge=0)] = 5.0
    guided_share: Share = 1.0  # of the steps, noisiest first; the others follow c alone

    @model_validator(mode="after")
    def _levels_fit(self) -> "Stage1Config":
        if self.encode_index >= self.n_steps or self.decode_steps > self.n_steps:
            msg = (
                f"encode_index is {self.encode_index} and decode_steps"
                f" {self.decode_steps}, but with n_steps {self.n_steps} the first must"
                " be below it and the second not above it"
            )
            raise ValueError(msg)
        return self


class PaperConfig(_Frozen):
    """Algorithm 1, as the paper has it."""

    n_iter: Annotated[int, Field(ge=0)] = 300
    step: Annotated[float, Field(gt=0)] = 0.01  # its eta
    # iterates whose images the complete sampler makes; the best one is returned
    n_candidates: PositiveInt = 4
    n_images: Annotated[int, Field(ge=0)] = 2  # where another preset is chosen


class ReleasedConfig(_Frozen):
    """The loop of the published code, whose step sizes are given."""

    n_iter: Annotated[int, Field(ge=0)] = 300
    n_candidates: PositiveInt = 4  # as of `paper`


class BayesConfig(_Frozen):
    """Ours, not Algorithm 1: the sampling itself is steered (`guided_sampling`).

    From the posterior mean of c, by the sampler `posterior`; all blocks that were
    decoded are in the loss.
    """

    # branches of the guided prediction that the gradient goes through
    gradient: Literal["both", "conditional"] = "conditional"
    strength: Annotated[float, Field(ge=0)] = 0.3
    loss: Literal["balanced", "cosine", "likelihood"] = "cosine"
    range: tuple[Share, Share] = (0.0, 1.0)  # of the steps, noisiest first


#: Engines of stage 2, each with a section of its own; `bayes` is ours.
Preset = Literal["paper", "released", "bayes"]


class Stage2Config(_Frozen):
    """Structural alignment: which engine, and the settings of each."""

    preset: Preset = "bayes"
    paper: PaperConfig = PaperConfig()
    released: ReleasedConfig = ReleasedConfig()
    bayes: BayesConfig = BayesConfig()
    # first images that true features and another brain get; null: all
    n_images_controls: PositiveInt | None = None
    n_trajectory: PositiveInt = 8  # images kept per trajectory
    n_images_trajectory: PositiveInt = 16  # first images whose trajectory is kept

    def using(self, preset: Preset, **changes: Any) -> "Stage2Config":
        """Return these settings with another engine, and changes to its section."""
        section = getattr(self, preset).model_copy(update=changes)
        return self.model_copy(update={"preset": preset, preset: section})


class SystemsConfig(_Frozen):
    """The compared systems (`systems`), as far as they are run here."""

    strength_takagi: Fraction = 0.8  # share of the noise steps, published code
    strength_brain_diffuser: Fraction = 0.75  # image-to-image strength, published code
    pixel_size: PositiveInt = 32  # px, side of the images that ridge reads directly


class AblationConfig(_Frozen):
    """What is taken away or varied (`ablation`), on the first images of each subject.

    Features and blocks are taken from stage 1 steered as `bayes` is, iterations from
    the loop of the profile's preset, or of `paper` where that has none.
    """

    n_images: PositiveInt = 8
    layers: tuple[tuple[int, ...], ...] = ((1,), (1, 2))
    iterations: tuple[PositiveInt, ...] = ()
    k_grid: Percents = (5.0, 10.0, 25.0, 50.0, 75.0, 100.0)


class StudyConfig(_Frozen):
    """The study of stage 2 (`minddiff study`), outside the notebooks' time."""

    n_images: Annotated[int, Field(ge=0)] = 0  # test images; 0: no study
    n_images_pilot: PositiveInt = 16  # validation images on which settings are chosen
    n_iter_paper: PositiveInt = 300  # of Algorithm 1 and of the released code's loop
    n_iter_pilot: Annotated[int, Field(ge=0)] = 30  # of Algorithm 1 in the pilot
    step_tuned: Annotated[float, Field(gt=0)] = 0.001  # Algorithm 1's, from the pilot
    # how much worse than the paper's algorithm still counts as no worse
    margin_structural_loss: Annotated[float, Field(ge=0)] = 0.02
    margin_ssim: Annotated[float, Field(ge=0)] = 0.02
    margin_pcc: Annotated[float, Field(ge=0)] = 0.03
    margin_clip: Annotated[float, Field(ge=0)] = 0.03

    @property
    def margins(self) -> dict[str, float]:
        """Return the margins by endpoint."""
        return {
            "structural_loss": self.margin_structural_loss,
            "ssim_2d": self.margin_ssim,
            "pcc": self.margin_pcc,
            "clip_judge": self.margin_clip,
        }


class EvaluationConfig(_Frozen):
    """Intervals and tests (notebook 05)."""

    n_bootstrap: PositiveInt = 2000  # of the intervals in appendix A2 alone
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    # slow variants of the field's metrics, such as ssim_2d_425 (`metrics.METRICS`)
    extra_metrics: tuple[str, ...] = ()


class Profile(_Frozen):
    """One resolved profile; equal digests mean equal results on one machine."""

    name: Literal["smoke", "demo", "nsd", "algonauts", "laion_fmri", "digits69"]
    seed: Annotated[int, Field(ge=0)]
    subjects: Annotated[tuple[Subject, ...], Field(min_length=1)]
    simulation: SimulationConfig | None
    data: DataConfig
    models: ModelConfig
    features: FeatureConfig
    decoding: DecodingConfig
    stage1: Stage1Config
    # the sampler of what starts from the posterior mean of c; null: that of stage 1
    posterior: Stage1Config | None = None
    stage2: Stage2Config
    evaluation: EvaluationConfig
    systems: SystemsConfig = SystemsConfig()
    ablation: AblationConfig = AblationConfig()
    study: StudyConfig = StudyConfig()

    @field_validator("subjects")
    @classmethod
    def _subjects_differ(cls, subjects: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(subjects)) < len(subjects):
            msg = f"subjects is {list(subjects)}, but each may be there once"
            raise ValueError(msg)
        return subjects

    @model_validator(mode="after")
    def _split_fits(self) -> "Profile":
        if (self.data.split is None) == (self.name == "laion_fmri"):
            msg = f"data.split is {self.data.split!r}, which laion_fmri alone needs"
            raise ValueError(msg)
        return self

    @property
    def decoder(self) -> Literal["voxel_selected", "dense"]:
        """Return the decoder in use; the preset of stage 2 decides where none is set.

        `paper` and `released` keep the paper's (FastL2LiR); ours reads more.
        """
        chosen = self.decoding.decoder
        if chosen == "by_preset":
            return "dense" if self.stage2.preset == "bayes" else "voxel_selected"
        return chosen

    @property
    def data_set(self) -> str:
        """Return the data set that the profile is for (`datasets.open_data_set`)."""
        return "nsd" if self.name in ("smoke", "demo") else self.name

    @property
    def usual_origin(self) -> Origin:
        """Return where the responses come from that the profile is made for."""
        return "measured" if self.simulation is None else "in silico"

    def label(self, origin: Origin | None = None, checkpoint: str = "") -> str:
        """Return the words every figure and table carries: profile, data and models.

        `origin` is the data's own word (`Run.origin`), as any profile may be
        given any data; without one, the profile's own data are meant. `checkpoint`:
        the Stable Diffusion that is there (`checkpoint_in`), empty if none.
        """
        origin = origin or self.usual_origin
        rehearsed = self.name == "nsd" and self.simulation is not None
        data = SUBJECT_WORDS[origin]
        if self.name in ("nsd", "algonauts", "laion_fmri") and origin == "measured":
            data = ""  # what this profile is for
        scaling = ALL_TRIALS if self.data.zscore_on == "all" else ""
        models = "random" if rehearsed else MODEL_WORDS[self.models.backbone]
        models = f"{models} models" if models else self._checkpoint_words(checkpoint)
        split = f"split {self.data.split}" if self.data.split else ""
        few, repeats = self.data, self.data.n_test_repeats
        some = [
            f"{few.n_images} images a subject" if few.n_images else "",
            f"{few.n_train} training images" if few.n_train else "",
            f"{repeats} trial{'s' * (repeats > 1)} of a test image" if repeats else "",
        ]
        words = ", ".join(filter(None, (data, models, scaling, split, *some)))
        name = "rehearsal of profile" if rehearsed else "profile"
        return f"{name} {self.name}: {words}".removesuffix(": ")

    def _checkpoint_words(self, name: str) -> str:
        """Return what a label says of Stable Diffusion; nothing where none is used."""
        if not name or self.data_set == "digits69":
            return ""
        return name if name == PAPERS else f"{name} in place of {PAPERS}"

    def check_shards(self, n_shards: int) -> None:
        """Raise ConfigError unless each of `n_shards` can get a batch of images.

        Shards share out whole batches, so that results do not depend on them.
        """
        most = self.simulation.n_test_images if self.simulation else MOST_TEST_IMAGES
        n_images, size = self.data.n_reconstruct or most, self.models.batch_size
        n_batches = -(-n_images // size)
        if not 1 <= n_shards <= n_batches:
            raise ConfigError(
                f"There are to be {n_shards} shards, but {n_images} images in batches"
                f" of {size} make 1 to {n_batches}: choose among these, or lower"
                " models.batch_size."
            )

    @property
    def digest(self) -> str:
        """Return the first 12 hex digits of the SHA-256 of the resolved profile."""
        return _digest(self.model_dump(mode="json"))

    def part(self, notebook: str) -> dict[str, Any]:
        """Return what `notebook` may read (`READS`), as for JSON; all for others."""
        fields = self.model_dump(mode="json")
        if notebook not in READS:
            return fields
        names = ("name", "seed", *READS[notebook])
        part = {name: fields.get(name, getattr(self, name)) for name in names}
        for section, field in UNREAD.get(notebook, ()):
            part[section] = {k: v for k, v in part[section].items() if k != field}
        return part

    def part_digest(self, notebook: str) -> str:
        """Return the digest of `part`: a change elsewhere in the profile leaves it."""
        return _digest(self.part(notebook))


def _digest(fields: Mapping[str, Any]) -> str:
    text = json.dumps(fields, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
