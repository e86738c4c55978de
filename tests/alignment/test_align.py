"""What `plateau.alignment.run` says of each utterance of a batch, with the transducer's aligner."""

import math

import pytest
import torch

from plateau.alignment import transducer
from plateau.alignment.files import Alignment
from plateau.alignment.run import Aligner, aligned
from plateau.alignment.spelling import Speller
from plateau.data.loading import Batch
from plateau.data.tokens import TokenOptions, make_lang
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.models.transducer import TransducerModel
from plateau.training.experiment import SpeechOptions


def test_utterances_that_cannot_be_aligned_are_named(tmp_path):
    tokenizer = make_lang(tmp_path / "lang_char", ["ab ba"], TokenOptions(kind="char"))
    torch.manual_seed(0)
    model = TransducerModel(
        8, len(tokenizer.tokens), EncoderOptions(), PredictorOptions(), JoinerOptions()
    ).eval()
    features = torch.randn(4, 40, 8)
    lengths = torch.tensor([40, 40, 8, 40])
    texts = ["Ab – B.", "", "abba", "ab abc"]  # a dash is not said
    batch = Batch(features, lengths, texts, ["x", "silent", "fast", "new"], 1.0)

    def results(topology):
        def align(features, lengths, transcripts):
            targets = [[token for word in words for token in word] for words in transcripts]
            return transducer.align(model, features, lengths, targets, topology)

        def frames_needed(words):
            return 1 if topology == "rnnt" else sum(map(len, words))

        aligner = Aligner(SpeechOptions(), 4, align, frames_needed)
        durations = dict(zip(batch.ids, (0.4, 0.4, 0.08, 0.4), strict=True))
        return list(aligned(aligner, [batch], Speller(tokenizer), durations))

    result, silent, fast, new = results("rna")
    assert silent == "silent has no text"
    available = model.output_lengths(8)
    assert fast == (
        f"fast is too short for its text: 5 tokens need 5 frames, and it has {available}"
    )
    assert new == "new has words that the model cannot spell: abc; it lacks c, and knows: a b"
    target = tokenizer.encode("ab b")
    (alone,) = transducer.align(model, features[:1], lengths[:1], [target], "rna")
    utterance, frames = result.measured.aligned, result.alignment.frames
    assert frames == alone.frames and utterance.id == "x"
    assert [word.label for word in utterance.words] == ["Ab", "B."]
    starts = [max(0, 0.04 * frame - 0.015) for frame in frames]
    assert [token.start for token in utterance.tokens] == pytest.approx(starts)
    # ▁ a b, ▁ b: a word is its letters, which start at tokens 1 and 4 …
    assert [word.start for word in utterance.words] == pytest.approx([starts[1], starts[4]])
    # … and its confidence the geometric mean of their posteriors where the path has them.
    tokens = torch.tensor([target])
    output = model(features[:1], lengths[:1], tokens)
    _, label = transducer.lattice_log_probs(model, output, tokens)  # (1, T, 5)
    posteriors = [label[0, frame, u].exp().item() for u, frame in enumerate(frames)]
    expected = [torch.tensor(p).log().mean().exp() for p in (posteriors[1:3], posteriors[4:])]
    confidences = [word.confidence for word in utterance.words]
    assert confidences == pytest.approx([float(e) for e in expected], rel=1e-4)
    # With any number of labels a frame it can be said.
    assert len(results("rnnt")[2].alignment.frames) == 5


@pytest.mark.parametrize(
    ("alignment", "duration", "reason"),
    [
        (Alignment((), -math.inf, 3), 0.12, "x is too short for its text: 5 tokens need 5 frames"),
        (Alignment((), -math.inf, 5), 0.2, "x has no path: the model gives none of its 5 tokens'"),
        (Alignment((0,) * 5, -1.0, 1), 0.004, "x has 5 tokens in 0.004 s, more than milliseconds"),
    ],
)
def test_why_there_is_no_alignment(tmp_path, alignment, duration, reason):
    """Too few frames are said only where that was seen; else what the model says."""
    tokenizer = make_lang(tmp_path / "lang_char", ["ab ba"], TokenOptions(kind="char"))
    batch = Batch(torch.zeros(1, 12, 8), torch.tensor([12]), ["ab b"], ["x"], duration)
    aligner = Aligner(SpeechOptions(), 4, lambda *_: [alignment], lambda words: 5)
    (said,) = aligned(aligner, [batch], tokenizer, {"x": duration})
    assert said.startswith(reason)
