"""Published scores of captions: ROUGE, METEOR and the similarity of sentences.

ROUGE is the package rouge-score's. METEOR is nltk's, whose synonyms need WordNet, and
the similarity is that of all-MiniLM-L6-v2: both are scored where their files lie in the
models' folder `perception`, and nowhere else, so that a table does not depend on what a
machine has besides. Nothing is downloaded.

References
----------
Lin (2004), ROUGE; Banerjee and Lavie (2005), METEOR; Reimers and Gurevych (2019),
Sentence-BERT. MindEye2, final_evaluations.ipynb, has the same libraries and settings.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch

from minddiff_utils.core.errors import ModelError
from minddiff_utils.core.reading import reading
from minddiff_utils.core.types import Doubles
from minddiff_utils.models import find_device, full_float32, load_torchvision
from minddiff_utils.models.downloads import SENTENCES, HubFiles, download_command
from minddiff_utils.models.weights import sha256

__all__ = ["Score", "load_caption_scores"]

#: n captions, and the captions of n images -> the highest score with one of each
#: image's captions, float64 (n,).
Score = Callable[[Sequence[str], Sequence[Sequence[str]]], Doubles]

_ROUGE = {"rouge_1": "rouge1", "rouge_l": "rougeL"}
#: Word pieces of a caption that are read; the model was trained with 128.
_MAX_TOKENS, _BATCH = 128, 64


@dataclass(frozen=True)
class CaptionScores:
    """Scores by metric, and why the others are absent, as sentences."""

    scores: Mapping[str, Score]
    absent: Mapping[str, str]


def load_caption_scores(models: Path, *, device: str = "cpu") -> CaptionScores:
    """Return the scores whose files are at hand.

    `models`: folder of models, in whose folder `perception` METEOR looks for
    `nltk_data/corpora/wordnet`, the similarity for `all-MiniLM-L6-v2`; `device`: of the
    sentence encoder. Its files are there, but are others than those of the pinned
    commit, or cannot be read: ModelError.
    """
    scores: dict[str, Score] = {
        metric: partial(_rouge, kind) for metric, kind in _ROUGE.items()
    }
    absent: dict[str, str] = {}
    data, encoder = (models / "perception" / n for n in ("nltk_data", SENTENCES.target))
    where = f"{models.name}/perception"  # tables do not depend on where a project lies
    if (data / "corpora" / "wordnet").is_dir():
        scores["meteor"] = partial(_meteor, data / "corpora" / "wordnet")
    else:
        absent["meteor"] = (
            f"Not scored: wordnet is missing from {where}/nltk_data/corpora; `python -m"
            f" nltk.downloader -d {where}/nltk_data wordnet` fetches it; unzip it"
            " there."
        )
    missing = [name for name in SENTENCES.files if not (encoder / name).is_file()]
    if missing:
        get = download_command(SENTENCES, Path(where))
        absent["sentence_similarity"] = (
            f"Not scored: {missing[0]} is missing from {where}/{SENTENCES.target};"
            f" `{get}` fetches it."
        )
    else:
        scores["sentence_similarity"] = sentence_scorer(encoder, device=device)
    return CaptionScores(scores, absent)


# --- by words -------------------------------------------------------------------------


def _rouge(kind: str, said: Sequence[str], true: Sequence[Sequence[str]]) -> Doubles:
    from rouge_score.rouge_scorer import RougeScorer  # slow import

    scorer = RougeScorer([kind])  # words as they are, not their stems
    pairs = zip(said, true, strict=True)
    best = [scorer.score_multi([*own], text)[kind].fmeasure for text, own in pairs]
    return np.array(best, np.float64)


def _meteor(
    folder: Path, said: Sequence[str], true: Sequence[Sequence[str]]
) -> Doubles:
    from nltk.tokenize import NLTKWordTokenizer  # slow import
    from nltk.translate.meteor_score import meteor_score

    words, known = NLTKWordTokenizer().tokenize, _wordnet(folder)
    best = [
        meteor_score([words(one) for one in own], words(text), wordnet=known)
        for text, own in zip(said, true, strict=True)
    ]
    return np.array(best, np.float64)


@cache
def _wordnet(folder: Path) -> object:
    """Return WordNet in English, read from its own folder."""
    import nltk.data  # slow import
    from nltk.corpus.reader.wordnet import WordNetCorpusReader

    folder = folder.resolve()
    nltk.data.path.append(str(folder.parents[1]))  # nltk reads nowhere else
    remedy = "unzip nltk's corpus wordnet there again"
    with (
        reading(folder / "data.noun", ModelError, remedy=remedy, what="WordNet"),
        warnings.catch_warnings(),  # it says that it speaks no other language
    ):
        warnings.simplefilter("ignore", UserWarning)
        return WordNetCorpusReader(str(folder), None)


# --- by meaning -----------------------------------------------------------------------


def sentence_scorer(
    folder: Path, *, device: str = "cpu", pin: HubFiles = SENTENCES
) -> Score:
    """Return the cosine similarity of captions by a sentence encoder in `folder`.

    An embedding is the mean over the word pieces of a caption, of unit norm; each
    caption is embedded once. A file is not that of the commit in `pin`, or cannot be
    read: ModelError.
    """
    load_torchvision()
    from transformers import AutoModel, AutoTokenizer  # slow import, after the shim

    for name, digest in pin.digests.items():
        if sha256(folder / name) != digest:
            raise ModelError(
                f"{folder / name} is not the file of {pin.repository} at"
                f" {pin.revision}: fetch it again, or move the folder away."
            )
    where = find_device(device)
    remedy = f"fetch {pin.repository} again, or move the folder away"
    with reading(folder / "model.safetensors", ModelError, remedy=remedy):
        words = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(
            folder, use_safetensors=True, local_files_only=True
        )
    model = model.to(where, torch.float32).eval().requires_grad_(False)
    known: dict[str, Doubles] = {}

    @torch.no_grad()
    def embed(texts: list[str]) -> None:
        options = {"padding": True, "truncation": True, "max_length": _MAX_TOKENS}
        tokens = words(texts, return_tensors="pt", **options).to(where)
        with full_float32():
            hidden = model(**tokens).last_hidden_state  # (n, n_tokens, d)
        there = tokens["attention_mask"][..., None].to(hidden.dtype)
        means = ((hidden * there).sum(1) / there.sum(1)).double().cpu().numpy()
        for text, row in zip(texts, means, strict=True):
            known[text] = row / np.linalg.norm(row)

    def score(said: Sequence[str], true: Sequence[Sequence[str]]) -> Doubles:
        every = dict.fromkeys([*said, *(text for own in true for text in own)])
        new = [text for text in every if text not in known]
        for k in range(0, len(new), _BATCH):
            embed(new[k : k + _BATCH])
        pairs = zip(said, true, strict=True)
        best = [max(known[one] @ known[text] for one in own) for text, own in pairs]
        return np.array(best, np.float64)

    return score
