"""What `transducer/align.py` says of each utterance of a batch."""

import pytest
import torch

from plateau.alignment.transducer import align
from plateau.data.loading import Batch
from plateau.data.tokens import TokenOptions, make_lang
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.models.transducer import TransducerModel

script = pytest.importorskip("transducer.align", reason="no k2", exc_type=ImportError)


def test_utterances_that_cannot_be_aligned_are_named(tmp_path):
    tokenizer = make_lang(tmp_path / "lang_char", ["ab ba"], TokenOptions(kind="char"))
    torch.manual_seed(0)
    model = TransducerModel(
        8, len(tokenizer.tokens), EncoderOptions(), PredictorOptions(), JoinerOptions()
    ).eval()
    features = torch.randn(3, 40, 8)
    lengths = torch.tensor([40, 40, 8])
    batch = Batch(features, lengths, ["ab b", "", "abba"], ["x", "silent", "fast"], 1.0)
    (utterance, frames), silent, fast = script.aligned(model, [batch], tokenizer, "rna")
    assert silent == "silent has no text"
    available = model.output_lengths(8)
    assert fast == f"fast has 5 tokens and {available} frames, no path fits"
    (alone,) = align(model, features[:1], lengths[:1], [tokenizer.encode("ab b")], "rna")
    assert frames == alone.frames and utterance.id == "x"
    assert [word.label for word in utterance.words] == ["ab", "b"]
    starts = [max(0, 0.04 * frame - 0.015) for frame in frames]
    assert [token.start for token in utterance.tokens] == pytest.approx(starts)
    # With any number of labels a frame it can be said.
    *_, (_, frames) = script.aligned(model, [batch], tokenizer, "rnnt")
    assert len(frames) == 5
