"""Published scores of captions, against numbers computed by hand.

WordNet is a folder of one synset that the test writes, the sentence encoder a tiny
random BERT: real formats, and nothing is downloaded.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from minddiff_utils.core.errors import ModelError
from minddiff_utils.evaluation.further.caption_metrics import (
    load_caption_scores,
    sentence_scorer,
)
from minddiff_utils.models.downloads import SENTENCES, HubFiles

WORDS = ("[PAD]", "[UNK]", "a", "dog", "hound", "runs", "cat", "sleeps", "on", "grass")
UNPINNED = HubFiles("a/b", "0" * 40, SENTENCES.files)


def _write_wordnet(folder: Path) -> None:
    """Write a WordNet that knows dog and hound, in one synset."""
    folder.mkdir(parents=True)
    empty = ["index.sense", "cntlist.rev"]
    empty += [f"{part}.exc" for part in ("adj", "adv", "noun", "verb")]
    empty += [
        f"{kind}.{p}" for kind in ("data", "index") for p in ("adj", "adv", "verb")
    ]
    for name in empty:
        (folder / name).touch()
    (folder / "lexnames").write_text("00\tnoun.animal\t1\n")
    (folder / "data.noun").write_text("00000000 00 n 02 dog 0 hound 0 000 | a beast\n")
    lines = [f"{word} n 1 0 1 0 00000000" for word in ("dog", "hound")]
    (folder / "index.noun").write_text("\n".join(lines) + "\n")


def _write_encoder(folder: Path) -> BertModel:
    torch.manual_seed(3)
    vocabulary = {word: k for k, word in enumerate(WORDS)}
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
    )
    model = BertModel(config).eval()
    model.save_pretrained(folder)
    pieces = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    pieces.pre_tokenizer = Whitespace()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=pieces, pad_token="[PAD]", unk_token="[UNK]"
    )
    fast.save_pretrained(folder)
    return model


def test_rouge_is_the_f_measure_of_shared_words_and_of_the_longest_sequence(
    tmp_path: Path,
) -> None:
    scores = load_caption_scores(tmp_path).scores
    said, true = ["a dog runs on grass"], [["a cat sleeps", "on grass a dog runs"]]
    # the second has all five words, and of their order "a dog runs"
    assert scores["rouge_1"](said, true).tolist() == [1.0]
    assert scores["rouge_l"](said, true) == pytest.approx([3 / 5])
    # one word of five said, of three true: P = .2, R = 1/3, F = 2PR/(P+R) = .25
    assert scores["rouge_1"](said, [true[0][:1]]) == pytest.approx([0.25])


def test_meteor_counts_synonyms_and_punishes_another_order(tmp_path: Path) -> None:
    _write_wordnet(tmp_path / "perception" / "nltk_data" / "corpora" / "wordnet")
    meteor = load_caption_scores(tmp_path).scores["meteor"]
    true = [["a hound runs"]]
    # all 3 words match in one chunk: F = 1, penalty .5 (1/3)^3
    assert meteor(["a dog runs"], true) == pytest.approx([1 - 0.5 / 27])
    # 2 of 3 match in 2 chunks: P = R = F = 2/3, penalty .5 (2/2)^3
    assert meteor(["a cat runs"], true) == pytest.approx([2 / 3 * 0.5])
    assert meteor(["a cat runs"], [["a hound runs", "a cat runs"]])[0] > 0.9


def test_sentences_are_compared_by_the_mean_of_their_word_pieces(
    tmp_path: Path,
) -> None:
    model = _write_encoder(tmp_path)
    score = sentence_scorer(tmp_path, pin=UNPINNED)
    texts = ("a dog runs", "a cat sleeps on grass", "hound")
    rows = []
    for text in texts:  # alone, so without padding
        ids = torch.tensor([[WORDS.index(word) for word in text.split()]])
        with torch.no_grad():
            mean = model(ids).last_hidden_state[0].mean(0).double().numpy()
        rows.append(mean / np.linalg.norm(mean))
    said, true = [texts[0], texts[1]], [[texts[1], texts[2]], [texts[1]]]
    expected = [max(rows[0] @ rows[1], rows[0] @ rows[2]), 1.0]
    # float32, of batches with padding
    np.testing.assert_allclose(score(said, true), expected, atol=1e-5)


def test_what_is_missing_is_named_with_the_way_to_get_it(tmp_path: Path) -> None:
    found = load_caption_scores(tmp_path / "models")
    assert set(found.scores) == {"rouge_1", "rouge_l"}
    assert set(found.absent) == {"meteor", "sentence_similarity"}
    assert "nltk.downloader" in found.absent["meteor"]
    assert SENTENCES.revision in found.absent["sentence_similarity"]
    assert str(tmp_path) not in "".join(found.absent.values())


def test_an_encoder_of_another_commit_or_a_damaged_one_is_refused(
    tmp_path: Path,
) -> None:
    _write_encoder(tmp_path)
    with pytest.raises(ModelError, match=r"is not the file of .* at 1110a243"):
        sentence_scorer(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="is damaged"):
        sentence_scorer(tmp_path, pin=UNPINNED)
