"""Captions to token ids and to the token sequences c.

A caption longer than a sequence is cut and its end mark put last, as CLIP's own
tokenizer does. The published code of MindDiffuser asks Stable Diffusion's embedder for
15 tokens (`max_length: 15` in its `v1-inference.yaml`), which cuts in the same way. A
caption that fits gives the same 15 vectors as the first 15 of 77, because the encoder
is causal; a longer one does not. The empty caption is a start mark and end marks.
"""

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from minddiff_utils.core.errors import ModelError
from minddiff_utils.models.weights import read_json

__all__ = [
    "OpenClipText",
    "TextEncoder",
    "Tokenizer",
    "TransformersText",
    "WordTokenizer",
]

LOG = logging.getLogger(__name__)


#: Makes (n, n_tokens) ids of n captions.
Tokenizer = Callable[[Sequence[str]], Tensor]


@dataclass(frozen=True)
class TextEncoder(ABC):
    """Makes c (n, n_tokens, width) of n captions; says once that captions are cut."""

    model: Any
    tokenizer: Any
    n_tokens: int
    width: int
    _told: list[bool] = field(default_factory=list, repr=False, compare=False)

    @abstractmethod
    def count_cut(self, captions: Sequence[str]) -> int:
        """Return how many of `captions` are longer than a sequence, marks included."""

    @abstractmethod
    def _encode(self, captions: Sequence[str]) -> Tensor:
        """Return c of `captions`."""

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return c (n, n_tokens, width) of n captions."""
        n_cut = 0 if self._told else self.count_cut(captions)
        if n_cut:
            self._told.append(True)
            LOG.warning(
                "%d of %d captions were longer than %d tokens: the rest of each is cut"
                " off (said once; later ones are cut in silence)",
                n_cut,
                len(captions),
                self.n_tokens,
            )
        return self._encode(captions)


# --- words to token ids -------------------------------------------------------------


@dataclass(frozen=True)
class WordTokenizer:
    """Captions to word ids, (n, n_tokens) int64, padded; from a `vocabulary.json`.

    Words are runs of letters and digits in lower case; unknown words get one id. The
    end mark has the largest id, because open_clip pools the text at the largest id.

    >>> tokens = ("<pad>", "<bos>", "<unk>", "cat", "<eos>")
    >>> WordTokenizer(tokens, 0, 1, 4, 2, 5)(["A cat!"]).tolist()
    [[1, 2, 3, 4, 0]]
    """

    tokens: tuple[str, ...]
    pad: int
    bos: int
    eos: int
    unk: int
    n_tokens: int

    def __post_init__(self) -> None:
        n = len(self.tokens)
        ids = (self.pad, self.bos, self.eos, self.unk)
        if len(set(self.tokens)) != n or len(set(ids)) != 4 or self.eos != n - 1:
            raise ModelError(
                "The vocabulary must have distinct tokens and distinct pad, bos, eos"
                f" and unk ids with eos the last of {n}, but they are {ids}."
            )

    @classmethod
    def from_file(cls, path: Path, n_tokens: int) -> "WordTokenizer":
        """Read `vocabulary.json`: tokens and the ids of pad, bos, eos and unk."""
        content = read_json(path)
        try:
            ids = [int(content[key]) for key in ("pad", "bos", "eos", "unk")]
            tokens = tuple(map(str, content["tokens"]))
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(
                f"{path} is not a vocabulary ({error!r}): restore the models' folder."
            ) from error
        pad, bos, eos, unk = ids
        return cls(tokens, pad, bos, eos, unk, n_tokens)

    def __call__(self, captions: Sequence[str]) -> Tensor:
        """Return the ids of `captions`; what does not fit is cut, the end stays."""
        where = {token: row for row, token in enumerate(self.tokens)}
        ids = torch.full((len(captions), self.n_tokens), self.pad, dtype=torch.long)
        for row, caption in enumerate(captions):
            words = _words(caption)[: self.n_tokens - 2]
            line = [self.bos, *(where.get(w, self.unk) for w in words), self.eos]
            ids[row, : len(line)] = torch.tensor(line)
        return ids

    def count_cut(self, captions: Sequence[str]) -> int:
        """Return how many of `captions` do not fit between the marks."""
        return sum(len(_words(caption)) > self.n_tokens - 2 for caption in captions)


def _words(caption: str) -> list[str]:
    return re.findall("[a-z0-9]+", caption.lower())


# --- captions to token sequences ------------------------------------------------------


@dataclass(frozen=True)
class OpenClipText(TextEncoder):
    """Token sequence of an open_clip text tower, after its last layer norm."""

    def count_cut(self, captions: Sequence[str]) -> int:
        """Return how many of `captions` are longer than a sequence, marks included."""
        return int(self.tokenizer.count_cut(captions))

    def _encode(self, captions: Sequence[str]) -> Tensor:
        clip = self.model
        ids = self.tokenizer(captions).to(clip.positional_embedding.device)
        x = clip.token_embedding(ids) + clip.positional_embedding
        x = clip.transformer(x, attn_mask=clip.attn_mask)
        sequence: Tensor = clip.ln_final(x)
        return sequence


@dataclass(frozen=True)
class TransformersText(TextEncoder):
    """Last hidden state of a transformers CLIP text model (Stable Diffusion's c).

    Padding is seen, as in Stable Diffusion.
    """

    def __post_init__(self) -> None:
        config = self.model.config
        if self.n_tokens > config.max_position_embeddings:
            raise ModelError(
                f"models.n_tokens is {self.n_tokens}, but this text encoder has"
                f" {config.max_position_embeddings} positions: ask for fewer tokens."
            )
        if len(self.tokenizer) != config.vocab_size:
            raise ModelError(
                f"The tokenizer knows {len(self.tokenizer)} tokens, but the text"
                f" encoder {config.vocab_size}: the two do not belong together."
            )

    def count_cut(self, captions: Sequence[str]) -> int:
        """Return how many of `captions` are longer than a sequence, marks included."""
        ids = self.tokenizer(list(captions), verbose=False).input_ids
        return sum(len(row) > self.n_tokens for row in ids)

    def _encode(self, captions: Sequence[str]) -> Tensor:
        tokens = self.tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self.n_tokens,
            return_tensors="pt",
        )
        ids = tokens.input_ids.to(self.model.device)
        sequence: Tensor = self.model(ids).last_hidden_state
        return sequence
