"""The loss of a batch of transcripts: any topology, full sum to Viterbi, with a label prior.

Transcripts are token ids by word, since some topologies know of words. Label 0 is blank, or silence
where the topology has silence. On phones, `silence` is an HMM of a state per phone with optional
silence between words.
"""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from plateau.graphs.dense import emission_scores, mixed_loss
from plateau.graphs.graph import Graphs
from plateau.graphs.labels import BLANK
from plateau.graphs.topology import Segment, Words, chains, segments_of


def graph_loss(
    log_probs: Tensor,
    lengths: Tensor,
    transcripts: Sequence[Words],
    topology: str = "ctc",
    viterbi: float = 0.0,
    delay_penalty: float = 0.0,
    acoustic_scale: float = 1.0,
    log_prior: Tensor | None = None,
    prior_scale: float = 1.0,
) -> Tensor:
    """Minus the log of the weight of a transcript's alignments, in nats, one per utterance: (N,).

    The scores of frames are ``acoustic_scale * log_probs - prior_scale * log_prior``
    (`emission_scores`). Gradients are exact for scores that are not normalised too, as these are;
    those of `torch.nn.functional.ctc_loss` are not (pytorch#52241).

    Args:
        log_probs: (N, T, V), normalised or not.
        lengths: (N,) frames that count, 1..T.
        transcripts: N transcripts: for each word its token ids. Without words, all is label 0.
        topology: one of `plateau.graphs.topology.TOPOLOGIES`.
        viterbi: share of the best alignment's loss in the mix with the sum over all, 0 to 1.
        delay_penalty: nats that a token is worth for each frame earlier, see `mixed_loss`.
        acoustic_scale: exponent of the posteriors.
        log_prior: (V,).
        prior_scale: exponent of the prior.

    Utterances of too few frames have the loss +inf and no gradient, see `frames_needed`.
    """
    scores = emission_scores(log_probs, log_prior, prior_scale, acoustic_scale)
    return mixed_loss(scores, lengths, label_graphs(topology, transcripts), viterbi, delay_penalty)


def label_graphs(topology: str, transcripts: Sequence[Words]) -> Graphs:
    """Training graphs of N transcripts; outputs are the token on the arc that begins it."""
    return chains([_segments(topology, words) for words in transcripts])


def frames_needed(topology: str, words: Words) -> int:
    """The fewest frames that an alignment of a transcript has; one at least."""
    return sum(not segment.optional for segment in _segments(topology, words))


def collapses(topology: str, words: Words) -> bool:
    """Whether each alignment of a transcript, collapsed as in CTC, gives its tokens back.

    Without a blank between them, a token and its like next to it become one.
    """
    labels = [s.label for s in _segments(topology, words) if not s.optional]
    return all(label != following for label, following in pairwise(labels))


def _segments(topology: str, words: Words) -> list[Segment]:
    # Without words, the optional segments of a topology would leave no path, or several for one.
    return segments_of(topology, words, BLANK) if any(words) else [Segment(BLANK)]
