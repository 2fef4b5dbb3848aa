"""Train the demo models from scratch on scenes; resumable, on CPU or GPU.

    python demo_training.py PART [--minutes M] [--device cpu|cuda]

PART is one of: render, clip, vae, judge, whiten, unet, export, in this order. A part
that trains stops after M minutes or when its schedule ends, saves a checkpoint under
`data/training/`, and continues from it when called again; without a checkpoint it
starts from the shipped weights, if any.
`export` writes fp16 safetensors to `data/models/demo/`.
A1_demo_models.ipynb tells what is trained and why, and shows how good it is.
"""

import argparse
import json
import logging
import math
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from minddiff_utils.models import load_torchvision

load_torchvision()
import open_clip.model as open_clip_model  # noqa: E402
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from minddiff_utils.core.places import project_root  # noqa: E402
from minddiff_utils.insilico import scenes  # noqa: E402
from minddiff_utils.insilico.backgrounds import SETTINGS  # noqa: E402
from minddiff_utils.insilico.categories import CATEGORIES  # noqa: E402
from minddiff_utils.models.random import SCHEDULER  # noqa: E402

LOG = logging.getLogger("demo_training")
WORK = project_root() / "data" / "training"
MODELS = project_root() / "data" / "models" / "demo"
N_SCENES = {"train": 60_000, "judge": 24_000, "validation": 3_000}

VAE_CONFIG = {
    "in_channels": 3,
    "out_channels": 3,
    "latent_channels": 10,
    "sample_size": 64,
    "layers_per_block": 1,
    "norm_num_groups": 8,
    "block_out_channels": [16, 32, 64, 96],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "mid_block_add_attention": False,
}
CLIP_CONFIG = {
    "embed_dim": 128,
    "vision_cfg": {
        "image_size": 64,
        "patch_size": 8,
        "width": 128,
        "layers": 6,
        "head_width": 32,
    },
    "text_cfg": {"context_length": 18, "width": 128, "heads": 4, "layers": 2},
}
JUDGE_CONFIG = {
    "embed_dim": 96,
    "vision_cfg": {
        "image_size": 64,
        "layers": [1, 1, 2, 1],
        "width": 24,
        "head_width": 32,
    },
    "text_cfg": {"context_length": 18, "width": 96, "heads": 4, "layers": 2},
}
UNET_CONFIG = {
    "sample_size": 8,
    "in_channels": 10,
    "out_channels": 10,
    "layers_per_block": 1,
    "norm_num_groups": 16,
    "cross_attention_dim": 128,
    "block_out_channels": [64, 160],
    "attention_head_dim": 4,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"],
    "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"],
    "mid_block_type": "UNetMidBlock2DCrossAttn",
}
#: Principal axes of c along which decoding is imitated, and how often it is: as what a
#: ridge decodes, and as the posterior mean over captions that is made of it.
N_AXES, DECODED_SHARE, POSTERIOR_SHARE = 300, 0.3, 0.45
#: Of that posterior: axes, captions, and what the log-likelihood is divided by.
N_POSTERIOR_AXES, N_CORPUS, TEMPERATURE = 40, 1024, 2.0
SCHEDULER_CONFIG = {**SCHEDULER, "prediction_type": "v_prediction"}


def vocabulary() -> dict[str, object]:
    """Every word a caption can hold, from a sample of captions; ids are ordered."""
    words: set[str] = set()
    seed = scenes.world_seed("train")
    for index in range(4000):
        for caption in scenes.make_scene(seed, index).captions:
            words.update(caption.split())
    tokens = ["<pad>", "<bos>", "<unk>", *sorted(words), "<eos>"]
    return {"tokens": tokens, "pad": 0, "bos": 1, "unk": 2, "eos": len(tokens) - 1}


def tokenise(captions: list[str], vocab: dict, context: int = 18) -> torch.Tensor:
    index = {token: i for i, token in enumerate(vocab["tokens"])}
    ids = torch.full((len(captions), context), vocab["pad"], dtype=torch.long)
    for row, caption in enumerate(captions):
        words = [index.get(w, vocab["unk"]) for w in caption.split()][: context - 2]
        line = [vocab["bos"], *words, vocab["eos"]]
        ids[row, : len(line)] = torch.tensor(line)
    return ids


# --- data -------------------------------------------------------------------------


def _render_block(world: str, start: int, stop: int, size: int) -> np.ndarray:
    seed = scenes.world_seed(world)
    images = []
    for index in range(start, stop):
        big = scenes.render(scenes.make_scene(seed, index), 128)
        small = big.reshape(size, 2, size, 2, 3).astype(np.float32).mean((1, 3))
        images.append(np.rint(small).astype(np.uint8))
    return np.stack(images)


def render_all() -> None:
    WORK.mkdir(parents=True, exist_ok=True)
    for world, n in N_SCENES.items():
        path = WORK / f"{world}.npy"
        if path.exists():
            continue
        starts = range(0, n, 250)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            task = partial(_render_block, world, size=64)
            blocks = pool.map(task, starts, [s + 250 for s in starts])
            np.save(path.with_suffix(".part.npy"), np.concatenate(list(blocks)))
        path.with_suffix(".part.npy").rename(path)
        LOG.info("rendered %s", path)


def load_world(world: str) -> tuple[torch.Tensor, list[scenes.Scene]]:
    images = torch.from_numpy(np.load(WORK / f"{world}.npy")).permute(0, 3, 1, 2)
    seed = scenes.world_seed(world)
    return images, [scenes.make_scene(seed, i) for i in range(len(images))]


def to_float(images: torch.Tensor) -> torch.Tensor:
    return images.float() / 127.5 - 1


# --- checkpoints and averaging ----------------------------------------------------


def shipped_log() -> dict[str, list]:
    """Return the training log beside the shipped weights, by part."""
    path = MODELS / "training_log.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


@dataclass(frozen=True)
class Schedule:
    """When to stop now, how long in all (minutes), and the share of the learning rate.

    A share below 1 is for weights that are trained already: the shipped ones.
    """

    minutes: float
    total: float
    peak: float
    device: str


class Trainer:
    """A model, its optimiser, an average of its weights, and where they are saved."""

    def __init__(self, name: str, model: torch.nn.Module, lr: float, decay: float):
        self.path = WORK / f"{name}.pt"
        self.model, self.decay, self.lr = model, decay, lr
        self.average = {k: v.detach().clone() for k, v in model.state_dict().items()}
        self.optimiser = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.01)
        self.step, self.seconds, self.log = 0, 0.0, []
        self.before = {"step": 0, "minutes": 0.0}  # of the weights it starts from
        shipped = next((MODELS / name).glob("*.safetensors"), None)
        if not self.path.exists() and shipped is not None:
            model.load_state_dict(load_file(shipped), strict=False)
            self.log = shipped_log().get(name, [])
            self.before = {k: self.log[-1][k] for k in self.before}
            self.average = {
                k: v.detach().clone() for k, v in model.state_dict().items()
            }
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            model.load_state_dict(saved["model"])
            self.average = saved["average"]
            self.optimiser.load_state_dict(saved["optimiser"])
            self.step, self.seconds = saved["step"], saved["seconds"]
            self.log, self.before = saved["log"], saved["before"]

    def freeze(self, *prefixes: str) -> None:
        """Go on from the average and leave the parameters under `prefixes` as they are.

        The U-Net is trained on the latents of one encoder and the text of one text
        tower; freezing both lets decoder and vision tower improve beside it.
        """
        self.model.load_state_dict(self.average)
        for name, parameter in self.model.named_parameters():
            if name.startswith(prefixes):
                parameter.requires_grad_(False)

    def update(self, loss: torch.Tensor, fraction: float, peak: float) -> None:
        warm = min(1.0, (self.step + 1) / 100)
        rate = (
            self.lr * peak * warm * max(0.03, 0.5 + 0.5 * math.cos(math.pi * fraction))
        )
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        decay = min(self.decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for key, value in self.model.state_dict().items():
                if value.dtype.is_floating_point:
                    self.average[key].lerp_(value, 1 - decay)
                else:
                    self.average[key].copy_(value)

    def save(self) -> None:
        state = {
            "model": self.model.state_dict(),
            "average": self.average,
            "optimiser": self.optimiser.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
            "log": self.log,
            "before": self.before,
        }
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.rename(self.path)

    def run(self, schedule: "Schedule", step) -> None:
        """Call `step()` for a loss until the time is up; save every minute.

        On a CPU the schedule counts the processor's time, so that other work on the
        machine does not shorten it.
        """
        clock = time.process_time if schedule.device == "cpu" else time.time
        began = last = clock()
        before = self.seconds
        losses = []
        while clock() - began < 60 * schedule.minutes:
            fraction = min(1.0, self.seconds / (60 * schedule.total))
            loss = step()
            self.update(loss, fraction, schedule.peak)
            losses.append(loss.item())
            self.seconds = before + clock() - began
            if clock() - last > 60:
                last = clock()
                row = {
                    "step": self.before["step"] + self.step,
                    "minutes": round(self.before["minutes"] + self.seconds / 60, 2),
                    "loss": round(float(np.mean(losses)), 5),
                }
                losses = []
                self.log.append(row)
                LOG.info("%s %s", self.path.stem, row)
                self.save()
            if fraction >= 1.0:
                break
        self.save()


# --- the autoencoder --------------------------------------------------------------


def train_vae(schedule: Schedule, *, frozen: bool) -> None:
    """Train the autoencoder: pixels, edges, what the CLIP sees, and latents that last.

    Latents are shaken, mirrored and shrunk before they are decoded, so that decoding is
    smooth in them and a U-Net of convolutions finds them easy to draw (Kouzelis et al.
    2025, arXiv 2502.09509).
    """
    torch.manual_seed(1)
    device = schedule.device
    images, _ = load_world("train")
    model = AutoencoderKL(**VAE_CONFIG).to(device)
    trainer = Trainer("vae", model, lr=1.5e-3, decay=0.998)
    if frozen:
        trainer.freeze("encoder.", "quant_conv.")
    seen_by_clip = ClipDistance(device)
    batch = 16 if device == "cpu" else 128
    generator = torch.Generator().manual_seed(10 + trainer.step)

    def step() -> torch.Tensor:
        rows = torch.randint(len(images), (batch,), generator=generator)
        x = to_float(images[rows]).to(device)
        with torch.autocast(device, torch.bfloat16):
            posterior = model.encode(x).latent_dist
            z = posterior.mean.float()
            x, moved = _moved(x, _shaken(z, generator), generator)
            y = model.decode(moved).sample
            half = slice(batch // 2)  # it costs as much as the decoder
            perceived = seen_by_clip(x[half], y[half], generator)
        y = y.float()
        gx, gy = _gradients(x), _gradients(y)
        edges = sum(F.l1_loss(a, b) for a, b in zip(gx, gy, strict=True))
        pixels = F.mse_loss(y, x) + 0.15 * F.l1_loss(y, x)
        # the spread of the posterior is used by nobody: a small constant
        bounds = 2e-4 * (z**2).mean() + 1e-4 * ((posterior.logvar + 5) ** 2).mean()
        bounds = bounds + 0.02 * _redundancy(z)
        return pixels + 0.05 * edges + bounds.float() + 0.25 * perceived

    trainer.run(schedule, step)


@torch.no_grad()
def begin_vae(folder: Path) -> None:
    """Begin the autoencoder from trained weights of the same widths, its z folded.

    The principal axes of the old latents become the new channels, with SD 1. The turn
    is folded into the convolutions on both sides, so that what the autoencoder computes
    changes only by what the axes left out had.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    old = AutoencoderKL(**{**VAE_CONFIG, "latent_channels": config["latent_channels"]})
    old.load_state_dict(load_file(next(folder.glob("*.safetensors"))))
    images, _ = load_world("train")
    z = _encoded(old.eval(), images[:600], "cpu")
    rows = z.permute(0, 2, 3, 1).flatten(0, 2)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    n = VAE_CONFIG["latent_channels"]
    axes, sd, centre = vectors.flip(1)[:, :n].T, values.flip(0)[:n].sqrt(), rows.mean(0)
    new = AutoencoderKL(**VAE_CONFIG)
    state = {k: v for k, v in old.state_dict().items() if k in new.state_dict()}
    into, out_of = old.encoder.conv_out, old.decoder.conv_in
    fold = (axes / sd[:, None]) @ old.quant_conv.weight[: len(centre), :, 0, 0]
    shift = old.quant_conv.bias[: len(centre)] - centre
    weight = torch.einsum("oi,ihwk->ohwk", fold, into.weight)
    bias = fold @ into.bias + (axes / sd[:, None]) @ shift
    state["encoder.conv_out.weight"] = torch.cat([weight, 0.01 * weight])
    state["encoder.conv_out.bias"] = torch.cat([bias, torch.full_like(bias, -5)])
    back = old.post_quant_conv.weight[..., 0, 0]
    unfold = back @ (axes.T * sd)
    state["decoder.conv_in.weight"] = torch.einsum(
        "oihw,ij->ojhw", out_of.weight, unfold
    )
    constant = back @ centre + old.post_quant_conv.bias
    state["decoder.conv_in.bias"] = out_of.bias + torch.einsum(
        "oihw,i->o", out_of.weight, constant
    )
    for name, size in (("quant_conv", 2 * n), ("post_quant_conv", n)):
        state[f"{name}.weight"] = torch.eye(size)[..., None, None]
        state[f"{name}.bias"] = torch.zeros(size)
    new.load_state_dict(state)
    trainer = Trainer("vae", new, lr=1.5e-3, decay=0.998)
    trainer.average = {k: v.clone() for k, v in new.state_dict().items()}
    trainer.save()


def _shaken(z: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return latents with noise of up to a fifth of their own spread."""
    share = 0.2 * torch.rand(len(z), 1, 1, 1, generator=generator)
    noise = torch.randn(z.shape, generator=generator)
    spread = z.detach().std((0, 2, 3), keepdim=True)
    return z + (share * noise).to(z.device) * spread


def _redundancy(z: torch.Tensor) -> torch.Tensor:
    """Return the mean squared correlation between channels.

    Noise on z rewards channels that repeat each other: without this, 10 channels held
    5 dimensions.
    """
    rows = z.permute(1, 0, 2, 3).flatten(1)
    correlation = torch.corrcoef(rows)
    return torch.triu(correlation, 1).square().sum() / (len(rows) * (len(rows) - 1) / 2)


def _moved(
    x: torch.Tensor, z: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and latents, now and then both mirrored or both shrunk."""
    chance = float(torch.rand((), generator=generator))
    if chance < 0.15:
        return x.flip(-1), z.flip(-1)
    if chance < 0.3:
        share = 0.5 if chance < 0.22 else 0.75
        shrink = partial(F.interpolate, scale_factor=share, mode="area")
        return shrink(x), shrink(z)
    return x, z


class ClipDistance:
    """Squared distance of two images in the first three blocks of the demo CLIP.

    The counterpart of the perceptual loss of Stable Diffusion's autoencoder; it keeps
    what an object is recognised by where squared error alone would blur it. The images
    are shifted at random, so that the patches of the CLIP leave no grid.
    """

    def __init__(self, device: str):
        clip = load_average("clip", build_clip(CLIP_CONFIG, vocabulary()))
        self.visual = clip.visual.to(device)

    def __call__(
        self, x: torch.Tensor, y: torch.Tensor, generator: torch.Generator
    ) -> torch.Tensor:
        if x.shape[-1] != 64:  # shrunk images: not its size
            return y.new_zeros(())
        shift = tuple(torch.randint(8, (2,), generator=generator).tolist())
        with torch.no_grad():
            true = self._blocks(torch.roll(x, shift, (2, 3)))
        seen = self._blocks(torch.roll(y, shift, (2, 3)))
        pairs = zip(true, seen, strict=True)
        return sum(F.mse_loss(b, a) / a.var() for a, b in pairs) / len(true)

    def _blocks(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = self.visual.forward_intermediates(
            x, indices=[0, 1, 2], intermediates_only=True, output_fmt="NLC"
        )
        return [block.float() for block in found["image_intermediates"]]


def _gradients(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]


# --- CLIP and the judge -----------------------------------------------------------


def build_clip(config: dict, vocab: dict) -> torch.nn.Module:
    text = {**config["text_cfg"], "vocab_size": len(vocab["tokens"])}
    return open_clip_model.CLIP(config["embed_dim"], config["vision_cfg"], text)


def train_clip(
    name: str,
    config: dict,
    world: str,
    schedule: Schedule,
    *,
    frozen: bool,
) -> None:
    device = schedule.device
    torch.manual_seed(2 if name == "clip" else 3)
    images, made = load_world(world)
    vocab = vocabulary()
    model = build_clip(config, vocab)
    width = config["embed_dim"]
    model.aux = torch.nn.Linear(width, len(CATEGORIES) + len(SETTINGS))
    model.to(device)
    trainer = Trainer(name, model, lr=1.5e-3, decay=0.995)
    if frozen:
        text = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.")
        trainer.freeze(*text, "text_projection")
    batch = 64 if device == "cpu" else 512
    labels = _labels(made)
    tokens = tokenise([c for s in made for c in s.captions], vocab).reshape(
        len(made), 5, -1
    )
    generator = torch.Generator().manual_seed(20 + trainer.step)

    def step() -> torch.Tensor:
        rows = torch.randint(len(images), (batch,), generator=generator)
        which = torch.randint(5, (batch,), generator=generator)
        x = _augment(to_float(images[rows]), generator).to(device)
        a = F.normalize(model.encode_image(x), dim=-1)
        b = F.normalize(model.encode_text(tokens[rows, which].to(device)), dim=-1)
        logits = model.logit_scale.exp().clamp(max=60) * a @ b.T
        targets = torch.arange(batch, device=device)
        contrast = F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)
        y = labels[rows].to(device)
        aux = F.binary_cross_entropy_with_logits(model.aux(a * 8), y)
        return contrast / 2 + 20 * aux

    trainer.run(schedule, step)


def _labels(made: list[scenes.Scene]) -> torch.Tensor:
    names = [*CATEGORIES, *SETTINGS]
    labels = torch.zeros(len(made), len(names))
    for row, scene in enumerate(made):
        for item in scene.objects:
            labels[row, names.index(item.category)] = 1
        labels[row, names.index(scene.setting)] = 1
    return labels


def _augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    dx, dy = torch.randint(-3, 4, (2,), generator=generator).tolist()
    gain = 1 + 0.1 * (torch.rand(len(x), 1, 1, 1, generator=generator) - 0.5)
    return torch.roll(x, (dx, dy), (2, 3)) * gain


# --- the U-Net --------------------------------------------------------------------


def load_average(name: str, model: torch.nn.Module) -> torch.nn.Module:
    """Load the averaged weights of the checkpoint, else those that are shipped."""
    checkpoint = WORK / f"{name}.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)["average"]
    else:
        state = load_file(next((MODELS / name).glob("*.safetensors")))
    model.load_state_dict({k: v for k, v in state.items() if k[:4] != "aux."})
    return model.eval().requires_grad_(False)


def text_sequence(clip: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    """Return the text tower's normalised token sequence, (n, n_tokens, width)."""
    x = clip.token_embedding(ids) + clip.positional_embedding
    x = clip.transformer(x, attn_mask=clip.attn_mask)
    return clip.ln_final(x)


def _encoded(vae: AutoencoderKL, images: torch.Tensor, device: str) -> torch.Tensor:
    parts = (to_float(part).to(device) for part in images.split(128))
    return torch.cat([vae.encode(x).latent_dist.mode().cpu() for x in parts])


@torch.no_grad()
def whiten(device: str, n_images: int = 6000) -> None:
    """Turn the channels of z so that they are uncorrelated, with mean 0 and SD 1.

    The turn is folded into the 1 x 1 convolutions after the encoder and before the
    decoder; what the autoencoder computes stays the same.
    """
    path = WORK / "vae.pt"
    vae = load_average("vae", AutoencoderKL(**VAE_CONFIG)).to(device)
    images, _ = load_world("train")
    z = _encoded(vae, images[:n_images], device).double()
    rows = z.permute(0, 2, 3, 1).flatten(0, 2)
    values, vectors = torch.linalg.eigh(torch.cov(rows.T))
    turn = (vectors / values.sqrt()).T.float().to(device)  # (channel, channel)
    centre, n = rows.mean(0).float().to(device), len(turn)
    into, out_of = vae.quant_conv, vae.post_quant_conv
    weight, bias = into.weight[:n, :, 0, 0].clone(), into.bias[:n].clone()
    into.weight[:n, :, 0, 0] = turn @ weight
    into.bias[:n] = turn @ (bias - centre)
    weight = out_of.weight[..., 0, 0].clone()
    out_of.bias += weight @ centre
    out_of.weight[..., 0, 0] = weight @ torch.linalg.inv(turn)
    saved = torch.load(path, weights_only=True)
    state = {k: v.cpu().clone() for k, v in vae.state_dict().items()}
    model = AutoencoderKL(**VAE_CONFIG)
    fresh = torch.optim.AdamW(model.parameters()).state_dict()
    saved |= {"model": state, "average": state, "optimiser": fresh}
    torch.save(saved, path)
    LOG.info("whitened; shares of the variance were %s", values.flip(0) / values.sum())


@torch.no_grad()
def latents_and_text(device: str) -> dict[str, torch.Tensor]:
    """Return latents and text of the training scenes, computed once.

    Keys: z, (n, channels, 8, 8), mean 0 and SD 1 per channel, whose own `mean` and
    `std` stand beside it; `table`, (n_texts, n_tokens, width), float16, and `rows`,
    (n, 5), of each scene's captions in it; `null`, the empty caption; `centre` and
    `axes`, (n_axes, n_tokens * width), the principal axes of the mean of five captions
    with the SD along each, `spread`.
    """
    path = WORK / "unet_inputs.pt"
    if path.exists():
        return torch.load(path, weights_only=True)
    images, made = load_world("train")
    vocab = vocabulary()
    vae = load_average("vae", AutoencoderKL(**VAE_CONFIG)).to(device)
    clip = load_average("clip", build_clip(CLIP_CONFIG, vocab)).to(device)
    z = _encoded(vae, images, device)
    mean, std = z.mean((0, 2, 3)), z.std((0, 2, 3))
    z = (z - mean[:, None, None]) / std[:, None, None]
    texts = [c for s in made for c in s.captions]
    unique = sorted(set(texts))
    where = {t: i for i, t in enumerate(unique)}
    ids = tokenise(unique, vocab)
    table = torch.cat([text_sequence(clip, x.to(device)).cpu() for x in ids.split(512)])
    rows = torch.tensor([where[t] for t in texts]).reshape(len(made), 5)
    some = torch.stack([table[r].mean(0).flatten() for r in rows[:6000]])
    _, sizes, axes = torch.linalg.svd(some - some.mean(0), full_matrices=False)
    saved = {
        "z": z,
        "mean": mean,
        "std": std,
        "table": table.half(),
        "rows": rows,
        "null": text_sequence(clip, tokenise([""], vocab).to(device)).cpu(),
        "centre": some.mean(0),
        "axes": axes[:N_AXES].clone(),
        "spread": sizes[:N_AXES] / len(some) ** 0.5,
    }
    torch.save(saved, path)
    return saved


def train_unet(schedule: Schedule, arm: str | None) -> None:
    """Train the U-Net, or one arm of the control run, which begins from random weights.

    The arms differ in c alone: "uncorrupted" never sees c as a decoder returns it.
    """
    torch.manual_seed(4)
    device = schedule.device
    data = latents_and_text(device)
    z = data["z"]
    model = UNet2DConditionModel(**UNET_CONFIG)
    model.to(device, memory_format=torch.channels_last)
    name = f"unet_{arm}" if arm else "unet"
    trainer = Trainer(name, model, lr=1e-3, decay=0.999)
    abar = DDIMScheduler(**SCHEDULER_CONFIG).alphas_cumprod
    batch = 64 if device == "cpu" else 256
    generator = torch.Generator().manual_seed(40 + trainer.step)

    def step() -> torch.Tensor:
        i = torch.randint(len(z), (batch,), generator=generator)
        c = _conditions(data, i, generator, corrupted=arm != "uncorrupted")
        t = torch.randint(1000, (batch,), generator=generator)
        noise = torch.randn(z[i].shape, generator=generator)
        a = abar[t][:, None, None, None]
        x = a.sqrt() * z[i] + (1 - a).sqrt() * noise
        v = a.sqrt() * noise - (1 - a).sqrt() * z[i]
        snr = a / (1 - a)
        weight = (snr.clamp(max=5) + 0.3) / (snr + 1)
        x = x.to(device, memory_format=torch.channels_last)
        with torch.autocast(device, torch.bfloat16):
            out = model(x, t.to(device), c.to(device)).sample.float()
        return (weight.to(device) * (out - v.to(device)) ** 2).mean()

    trainer.run(schedule, step)


def _conditions(
    data: dict[str, torch.Tensor],
    i: torch.Tensor,
    generator: torch.Generator,
    *,
    corrupted: bool,
) -> torch.Tensor:
    """One caption or the mean of five, in part as a decoder returns it, or empty."""
    rows = data["rows"][i]
    n = len(rows)
    pick = torch.randint(5, (n,), generator=generator)
    c = data["table"][rows[torch.arange(n), pick]].float()
    mean = torch.rand(n, generator=generator) < 0.6
    c[mean] = data["table"][rows[mean]].float().mean(1)
    how = torch.rand(n, generator=generator)
    decoded = mean & (how < DECODED_SHARE) & corrupted
    if decoded.any():
        c[decoded] = _as_decoded(data, c[decoded], generator)[0]
    likely = mean & (how > 1 - POSTERIOR_SHARE) & corrupted
    if likely.any():
        c[likely] = _as_posterior(data, c[likely], generator)
    empty = torch.rand(n, generator=generator) < 0.1
    return torch.where(empty[:, None, None], data["null"], c)


def _as_decoded(
    data: dict[str, torch.Tensor], c: torch.Tensor, generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Return c as ridge regression from brain responses would have it.

    Beside it its coordinates along the principal axes, their gain and the error's SD.

    Along principal axis k a decoder keeps the share g of the variance: what it returns
    is g times the truth plus an error of variance g (1 - g). g falls from .45 to .02
    over the first 150 axes; its distance from 1 is drawn anew for each image.
    """
    flat = c.flatten(1) - data["centre"]
    along = flat @ data["axes"].T
    k = torch.arange(along.shape[1])
    share = 0.45 / (1 + (k / 35) ** 2)
    severity = 1.15 * torch.rand(len(c), 1, generator=generator)
    kept = (1 - severity * (1 - share)).clamp(min=0)
    error = (kept * (1 - kept)).sqrt() * data["spread"]
    noise = torch.randn(along.shape, generator=generator)
    new = kept * along + error * noise
    beyond = (flat - along @ data["axes"]) * (1 - severity).clamp(min=0)
    decoded = (data["centre"] + new @ data["axes"] + beyond).reshape(c.shape)
    return decoded, new, kept, error


def _as_posterior(
    data: dict[str, torch.Tensor], c: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    """Return the posterior mean of c over captions of other scenes, once decoded."""
    _, new, gain, error = _as_decoded(data, c, generator)
    drawn = torch.randint(len(data["rows"]), (N_CORPUS,), generator=generator)
    corpus = data["table"][data["rows"][drawn]].float().mean(1)
    along = (corpus.flatten(1) - data["centre"]) @ data["axes"].T
    part = slice(N_POSTERIOR_AXES)
    found = new[:, None, part] - gain[:, None, part] * along[None, :, part]
    error = error[:, None, part].clamp(min=1e-6)
    scores = -(found / error).square().sum(2) / 2 / TEMPERATURE
    weights = torch.softmax(scores, 1)
    return (weights @ corpus.flatten(1)).reshape(c.shape)


# --- export -----------------------------------------------------------------------


def _half(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {
        k: v.half().contiguous() if v.is_floating_point() else v.contiguous()
        for k, v in model.state_dict().items()
    }


def _write(folder: Path, weights: str, model: torch.nn.Module, configs: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / (weights + ".part")
    save_file(_half(model), part, metadata={"format": "pt"})
    part.chmod(0o644)
    part.rename(folder / weights)
    for name, config in configs.items():
        text = json.dumps(config, indent=1, sort_keys=True) + "\n"
        (folder / name).write_text(text, encoding="utf-8")


def export() -> None:
    import hashlib

    vocab = vocabulary()
    log = shipped_log()
    if (WORK / "vae.pt").exists():
        saved = load_average("vae", AutoencoderKL(**VAE_CONFIG))
        config = {**VAE_CONFIG, "_class_name": "AutoencoderKL", "scaling_factor": 1.0}
        if (WORK / "unet_inputs.pt").exists():
            inputs = torch.load(WORK / "unet_inputs.pt", weights_only=True, mmap=True)
            config["latents_mean"] = [round(v, 6) for v in inputs["mean"].tolist()]
            config["latents_std"] = [round(v, 6) for v in inputs["std"].tolist()]
        name = "diffusion_pytorch_model.safetensors"
        _write(MODELS / "vae", name, saved, {"config.json": config})
    for part, config in (("clip", CLIP_CONFIG), ("judge", JUDGE_CONFIG)):
        if (WORK / f"{part}.pt").exists():
            model = load_average(part, build_clip(config, vocab))
            text = {**config["text_cfg"], "vocab_size": len(vocab["tokens"])}
            files = {
                "open_clip_config.json": {
                    "model_cfg": {**config, "text_cfg": text},
                    "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
                },
                "vocabulary.json": vocab,
            }
            _write(MODELS / part, "open_clip_model.safetensors", model, files)
    if (WORK / "unet.pt").exists():
        model = load_average("unet", UNet2DConditionModel(**UNET_CONFIG))
        config = {**UNET_CONFIG, "_class_name": "UNet2DConditionModel"}
        name = "diffusion_pytorch_model.safetensors"
        _write(MODELS / "unet", name, model, {"config.json": config})
    folder = MODELS / "scheduler"
    folder.mkdir(parents=True, exist_ok=True)
    config = {**SCHEDULER_CONFIG, "_class_name": "DDIMScheduler"}
    (folder / "scheduler_config.json").write_text(json.dumps(config, indent=1) + "\n")
    for part in ("vae", "clip", "judge", "unet"):
        if (WORK / f"{part}.pt").exists():
            saved = torch.load(WORK / f"{part}.pt", weights_only=True)
            log[part] = saved["log"]
    (MODELS / "training_log.json").write_text(json.dumps(log, indent=0) + "\n")
    files = sorted(
        p for p in MODELS.rglob("*") if p.is_file() and p.name != "SHA256SUMS"
    )
    lines = [
        f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(MODELS)}\n"
        for p in files
    ]
    (MODELS / "SHA256SUMS").write_text("".join(lines))
    LOG.info("exported %.1f MB", sum(p.stat().st_size for p in files) / 1e6)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parts = ("render", "clip", "vae", "judge", "whiten", "unet", "export")
    parser.add_argument("part", choices=parts)
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after")
    parser.add_argument(
        "--total", type=float, default=60, help="length of the schedule"
    )
    parser.add_argument(
        "--peak", type=float, default=1, help="share of the part's learning rate"
    )
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--control",
        choices=("corrupted", "uncorrupted"),
        help="an arm of the control run of unet: does it help to learn c as decoded?",
    )
    parser.add_argument(
        "--start", type=Path, help="folder of an autoencoder that vae begins from"
    )
    parser.add_argument(
        "--frozen",
        action="store_true",
        help="keep the encoder (vae) or the text tower (clip) as they are",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    schedule = Schedule(args.minutes, args.total, args.peak, args.device)
    if args.part == "render":
        render_all()
    elif args.part == "vae":
        if args.start is not None and not (WORK / "vae.pt").exists():
            begin_vae(args.start)
        train_vae(schedule, frozen=args.frozen)
    elif args.part == "clip":
        train_clip("clip", CLIP_CONFIG, "train", schedule, frozen=args.frozen)
    elif args.part == "judge":
        train_clip("judge", JUDGE_CONFIG, "judge", schedule, frozen=False)
    elif args.part == "whiten":
        whiten(args.device)
    elif args.part == "unet":
        train_unet(schedule, args.control)
    else:
        export()


if __name__ == "__main__":
    main()
