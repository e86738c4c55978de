"""Which utterances a model can learn from."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

from lhotse import CutSet
from lhotse.utils import compute_num_frames
from tqdm import tqdm

from plateau.config import UserError
from plateau.data.features import FRAME_SHIFT
from plateau.data.tokens import Tokenizer, encode_words
from plateau.io import write_text


def num_frames(cut: object) -> int:
    """Feature frames of a cut, stored or still to be computed (every `FRAME_SHIFT`)."""
    if cut.has_features:
        return cut.num_frames
    return compute_num_frames(cut.duration, FRAME_SHIFT, cut.sampling_rate)


def long_enough(
    cuts: CutSet,
    tokenizer: Tokenizer,
    output_lengths: Callable[[int], int],
    frames_needed: Callable[[Sequence[Sequence[int]]], int],
    list_path: Path,
) -> CutSet:
    """Leave out utterances with fewer encoder frames than their tokens need.

    They have no alignment, so their loss is infinite; ``frames_needed`` is given the tokens of each
    word. The names of those left out go to the screen and to ``list_path``.

    Raises:
        UserError: nothing is left.
    """
    kept, left_out = [], []
    shortage = math.inf  # the least, as a factor
    for cut in cuts:
        needed = frames_needed(encode_words(tokenizer, cut.supervisions[0].text or ""))
        available = output_lengths(num_frames(cut))
        if needed > available:
            left_out.append(f"{cut.id} needs {needed} frames and has {available}")
            shortage = min(shortage, needed / max(available, 1))
        else:
            kept.append(cut)
    if left_out:
        write_text(list_path, "\n".join(left_out) + "\n")
        tqdm.write(
            f"left out {len(left_out)} of {len(cuts)} utterances, too short for their tokens: "
            f"{left_out[0]}{'; …' if len(left_out) > 1 else ''} (all in {list_path})"
        )
    if not kept:
        # Subsampling by 2 in place of 6 gives three times the frames.
        advice = (
            "lower the encoder's subsampling, or take longer tokens (tokens.kind, "
            "tokens.vocab_size)"
            if shortage <= 3
            else "look whether the transcripts belong to their audio"
        )
        raise UserError(
            f"every utterance is too short for its tokens, by a factor of {shortage:.3g} and more "
            f"(see {list_path}); {advice}"
        )
    return CutSet.from_cuts(kept)
