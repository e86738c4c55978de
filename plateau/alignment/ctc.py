"""Forced alignment by CTC models: the best path of a transcript, in any label topology.

A batch of utterances is aligned by k2. For long recordings there is `best_path_of_chain`, whose
memory grows with frames and labels, not with their product; and the encoder sees windows.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from plateau.alignment.files import Alignment
from plateau.alignment.measures import sharpness_and_entropy
from plateau.data.tokens import BLANK_ID
from plateau.graphs.dense import best_paths_and_outputs, emission_scores
from plateau.graphs.loss import label_graphs
from plateau.graphs.topology import Segment, Words, segments_of
from plateau.models.ctc import CtcModel

# Feature frames, multiples of every subsampling factor. A recording of more than WINDOW + CONTEXT
# goes through the encoder in windows, with this much of what is before and after each.
WINDOW = 3000
CONTEXT = 600
# k2 keeps scores for each frame and state: for so many they took 0.4 GB.
MAX_LATTICE = 20_000_000


@torch.no_grad()
def align(
    model: CtcModel,
    features: Tensor,
    lengths: Tensor,
    transcripts: Sequence[Words],
    topology: str = "ctc",
    prior_scale: float = 0.0,
    acoustic_scale: float = 1.0,
) -> list[Alignment]:
    """The best path of each transcript, under the scores that the loss has.

    The posteriors of the result are those of the model, without prior and scale. The model is used
    as it is: call ``model.eval()`` before.

    Args:
        model: with a label prior or without.
        features: (N, T, F).
        lengths: (N,) ≥ 1, feature frames.
        transcripts: N, for each word its token ids.
        topology: one of `plateau.graphs.topology.TOPOLOGIES`, that of the training.
        prior_scale: exponent of the model's label prior, which posteriors are divided by.
        acoustic_scale: exponent of the posteriors.
    """
    log_probs, lengths = log_posteriors(model, features, lengths)
    log_probs, lengths = log_probs.cpu(), lengths.cpu()  # (N, T', V), (N,)
    log_prior = None if model.prior is None else model.prior.log_prior.cpu()
    scores = emission_scores(log_probs, log_prior, prior_scale, acoustic_scale)
    paths = best_paths(scores, lengths, transcripts, topology)
    sharpness, entropy = sharpness_and_entropy(log_probs, lengths)
    alignments = []
    for n, (labels, outputs) in enumerate(paths):
        num_frames = int(lengths[n])
        if not labels:
            alignments.append(Alignment((), -math.inf, num_frames))
            continue
        on_path = log_probs[n, range(num_frames), labels]  # (T',)
        runs = token_runs(labels, outputs)
        alignments.append(
            Alignment(
                frames=tuple(first + int(on_path[first:end].argmax()) for first, end in runs),
                score=float(on_path.sum()),
                num_frames=num_frames,
                runs=tuple(runs),
                log_posteriors=tuple(float(on_path[first:end].sum()) for first, end in runs),
                sharpness=float(sharpness[n]),
                entropy=float(entropy[n]),
            )
        )
    return alignments


def best_paths(
    scores: Tensor, lengths: Tensor, transcripts: Sequence[Words], topology: str
) -> list[tuple[list[int], list[int]]]:
    """Labels of each utterance's best path, and for each frame the token that begins there, or 0.

    Both are empty where no path fits.

    Args:
        scores: (N, T, V).
        lengths: (N,).
        transcripts: N, for each word its token ids.
        topology: one of `plateau.graphs.topology.TOPOLOGIES`.
    """
    transcripts = [[word for word in words if word] for words in transcripts]
    sizes = [1 + 2 * sum(map(len, words)) for words in transcripts]  # states, about
    if max(sizes) * int(lengths.max()) * len(sizes) <= MAX_LATTICE:
        return best_paths_and_outputs(scores, lengths, label_graphs(topology, transcripts))
    return [
        best_path_of_chain(
            utterance[: int(length)],
            segments_of(topology, words, BLANK_ID) if words else [Segment(BLANK_ID)],
        )
        for utterance, length, words in zip(scores, lengths, transcripts, strict=True)
    ]


def frames_needed(topology: str, words: Words) -> int:
    """Frames of the shortest path of a transcript, given as the token ids of each word."""
    words = [word for word in words if word]
    if not words:
        return 0
    return sum(not segment.optional for segment in segments_of(topology, words, BLANK_ID))


def best_path_of_chain(scores: Tensor, segments: Sequence[Segment]) -> tuple[list[int], list[int]]:
    """What `best_paths` gives for one utterance, exactly, in little memory.

    Scores (S,) of the segments are kept for every √T-th frame only; from there on, the stretch up
    to the next is computed once more when the path is followed back. So memory is O(√T S), and time
    twice that of the plain algorithm (Grice, Hughey, Speck 1997, "Reduced space sequence
    alignment").

    Args:
        scores: (T, V), on the CPU.
        segments: S; of two neighbours one at most is optional.
    """
    num_frames, num_segments = len(scores), len(segments)
    labels = torch.tensor([segment.label for segment in segments])  # (S,)
    optional = torch.tensor([segment.optional for segment in segments])
    skipped = torch.full((num_segments,), -math.inf)  # 0 where the segment before may be left out
    skipped[2:] = torch.where(optional[1:-1], 0.0, -math.inf)

    def step(before: Tensor, frame: int) -> tuple[Tensor, Tensor]:
        """Scores after a frame, and by how many segments the best path to each has moved on."""
        moved = torch.full((3, num_segments), -math.inf)
        moved[0] = before
        moved[1, 1:] = before[:-1]
        moved[2, 2:] = before[:-2] + skipped[2:]
        best, moves = moved.max(0)
        return best + scores[frame, labels], moves.to(torch.uint8)

    start = torch.full((num_segments,), -math.inf)
    start[0] = scores[0, labels[0]]
    if optional[0] and num_segments > 1:
        start[1] = scores[0, labels[1]]
    size = math.isqrt(num_frames) + 1
    kept = [start]  # after frames 0, size, 2 size, …
    now = start
    for frame in range(1, num_frames):
        now, _ = step(now, frame)
        if frame % size == 0:
            kept.append(now)
    # The last segment, or the one before where that is optional.
    ends = [num_segments - 1] + [num_segments - 2] * bool(optional[-1] and num_segments > 1)
    segment = max(ends, key=lambda end: float(now[end]))
    if now[segment] == -math.inf:
        return [], []

    path = [0] * num_frames  # the segment of each frame
    for block in reversed(range(len(kept))):
        first = block * size
        last = min(first + size, num_frames - 1)
        now, moves = kept[block], []
        for frame in range(first + 1, last + 1):
            now, moved = step(now, frame)
            moves.append(moved)
        for frame in range(last, first, -1):
            path[frame] = segment
            segment -= int(moves[frame - first - 1][segment])
    path[0] = segment
    found = [segments[s].label for s in path]
    begins = [t == 0 or s != path[t - 1] for t, s in enumerate(path)]
    return found, [label if new else BLANK_ID for label, new in zip(found, begins, strict=True)]


def token_runs(labels: Sequence[int], outputs: Sequence[int]) -> list[tuple[int, int]]:
    """For each token of a path its first frame and the one after its last.

    Args:
        labels: of each frame.
        outputs: the token where one begins, and else 0; so equal tokens may be next to each other.
    """
    runs: list[tuple[int, int]] = []
    for frame, (label, begun) in enumerate(zip(labels, outputs, strict=True)):
        if begun != BLANK_ID:
            runs.append((frame, frame + 1))
        elif label != BLANK_ID:
            runs[-1] = (runs[-1][0], frame + 1)
    return runs


def log_posteriors(model: CtcModel, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """As ``model(features, lengths)``, for recordings of any length; see `WINDOW`."""
    if features.shape[1] <= WINDOW + CONTEXT:
        return model(features, lengths)
    whole = [
        _in_windows(model, utterance[: int(length)])
        for utterance, length in zip(features, lengths, strict=True)
    ]
    padded = torch.nn.utils.rnn.pad_sequence(whole, batch_first=True)  # (N, T', V)
    return padded, model.output_lengths(lengths)


def _in_windows(model: CtcModel, features: Tensor) -> Tensor:
    """Log-probabilities (T', V) of features (T, F)."""
    num_frames, pieces = len(features), []
    for first in range(0, num_frames, WINDOW):
        begin, end = max(0, first - CONTEXT), min(num_frames, first + WINDOW + CONTEXT)
        window = features[begin:end].unsqueeze(0)
        log_probs, _ = model(window, torch.tensor([end - begin], device=features.device))
        skipped = model.output_lengths(first - begin)
        wanted = model.output_lengths(min(WINDOW, num_frames - first))
        pieces.append(log_probs[0, skipped : skipped + wanted])
    return torch.cat(pieces)
