"""What stage 4 looks for in data, options and a model before hours are spent on training.

Each check is for a bug that people have lost weeks to: transcripts that do not belong to the
audio, utterances too short for their tokens, features that are constant or not finite, test
material in the training set, a model in which utterances of a batch leak into each other, a batch
that does not fit into memory. What may be meant is a note; what cannot work, an error.
"""

import math
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from lhotse import CutSet
from torch import nn

from plateau.config import UserError
from plateau.data.corpus import TRAIN, Corpus
from plateau.data.features import FeatureOptions, load_statistics
from plateau.data.loading import enough_memory, is_out_of_memory, load_batch
from plateau.data.tokens import UNKNOWN, WORD_START, Tokenizer
from plateau.text import RESERVED
from plateau.training.interfaces import AnyBatch, LossFunction
from plateau.training.trainer import TrainingOptions

FASTEST_SPEECH = 40.0  # characters per second; the fastest speakers reach about 25


def check_transcripts(set_name: str, cuts: CutSet, tokenizer: Tokenizer) -> list[str]:
    """Empty transcripts, unknown tokens, and texts too long to have been said.

    Raises:
        UserError: all tokens are unknown.
    """
    notes = []
    empty = [cut.id for cut in cuts if not cut.supervisions[0].text]
    if empty:
        notes.append(f"{set_name}: {len(empty)} transcripts are empty, e.g. of {empty[0]}")
    counts = Counter(
        tokenizer.tokens[token]
        for cut in cuts
        for token in tokenizer.encode(cut.supervisions[0].text or "")
    )
    if counts[UNKNOWN] and not counts.keys() - {UNKNOWN, WORD_START}:
        raise UserError(all_unknown(set_name, cuts, tokenizer))
    if counts[UNKNOWN]:
        share = counts[UNKNOWN] / counts.total()
        notes.append(f"{set_name}: {share:.2%} of the tokens are {UNKNOWN}; see tokens.kind")
    rates = {cut.id: len(cut.supervisions[0].text or "") / cut.duration for cut in cuts}
    fast = [name for name, rate in rates.items() if rate > FASTEST_SPEECH]
    if fast:
        notes.append(
            f"{set_name}: {len(fast)} utterances have over {FASTEST_SPEECH:g} characters per "
            f"second, e.g. {fast[0]}; do their transcripts belong to their audio?"
        )
    return notes


def all_unknown(set_name: str, cuts: CutSet, tokenizer: Tokenizer) -> str:
    """What to say of a set with no token that the model knows."""
    texts = [cut.supervisions[0].text for cut in cuts if cut.supervisions[0].text]
    known = [token for token in tokenizer.tokens if token not in (*RESERVED, WORD_START)]
    for change in (str.upper, str.lower):
        tokens = {tokenizer.tokens[t] for text in texts for t in tokenizer.encode(change(text))}
        if tokens - {UNKNOWN, WORD_START}:
            reason = f"they are known in {change.__name__} case: write all texts in one case"
            break
    else:
        reason = "take the text in the same spelling, or other tokens (tokens.kind)"
    return (
        f"{set_name}: every token is {UNKNOWN}: its text has '{texts[0].split()[0]}' …, and the "
        f"tokens are {' '.join(known[:20])}{' …' if len(known) > 20 else ''}\n{reason}"
    )


def check_lengths(set_name: str, cuts: CutSet, max_duration: float) -> None:
    """Every utterance fits into a batch.

    Raises:
        UserError: one does not; it names the longest.
    """
    too_long = [cut for cut in cuts if cut.duration > max_duration]
    if too_long:
        longest = max(too_long, key=lambda cut: cut.duration)
        raise UserError(
            f"{set_name}: {len(too_long)} utterances are longer than loading.max_duration="
            f"{max_duration:g} s; the longest is {longest.id}, {longest.duration:.1f} s\n"
            "cut them with a file segments, leave them out, or set "
            f"loading.max_duration={math.ceil(longest.duration)}"
        )


def check_overlap(set_name: str, cuts: CutSet, train: CutSet) -> list[str]:
    """Utterances of a test set that are in the training set too."""
    names = {cut.supervisions[0].id for cut in train}
    shared = [cut.supervisions[0].id for cut in cuts if cut.supervisions[0].id in names]
    if not shared:
        return []
    return [f"{set_name}: {len(shared)} utterances are in {TRAIN} too, e.g. {shared[0]}"]


def check_statistics(corpus: Corpus) -> None:
    """The features vary and are finite.

    Raises:
        UserError: a mel bin is constant or not finite.
    """
    mean, std = load_statistics(corpus.statistics)
    bad = (~mean.isfinite() | ~(std > 1e-3)).nonzero().flatten().tolist()
    if bad:
        raise UserError(
            f"{corpus.statistics}: mel bins {bad} are constant or not finite; is the audio "
            "silent, or features.sampling_rate higher than the recordings'?"
        )


def check_training(options: TrainingOptions, steps: int) -> list[str]:
    """What of a training comes after its end, which is after so many steps."""
    notes = []
    if options.schedule.warmup_steps >= steps:
        notes.append(
            f"training.schedule.warmup_steps is {options.schedule.warmup_steps}, and the training "
            f"has {steps} steps: the learning rate does not reach its peak"
        )
    if options.average_last > options.epochs:
        notes.append(
            f"training.average_last is {options.average_last}, and there are {options.epochs} "
            "epochs: the final model is the mean of all"
        )
    masks = options.spec_augment
    if masks.p and masks.after_epochs >= options.epochs:
        notes.append(
            f"training.spec_augment.after_epochs is {masks.after_epochs}, and there are "
            f"{options.epochs} epochs: nothing is masked"
        )
    return notes


def check_model(
    model: nn.Module, loss_function: LossFunction, cuts: CutSet, options: FeatureOptions, vocab: int
) -> list[str]:
    """A model on a few utterances: no leaks between them, and untrained a loss as by chance.

    Raises:
        UserError: an utterance's loss depends on the others in its batch, or is not finite.
    """
    model.eval()

    @torch.no_grad()
    def loss_of(cuts: CutSet) -> tuple[float, int]:
        loss = loss_function(model, load_batch(cuts, options))
        if not loss.total.isfinite():
            raise UserError(f"an untrained model's loss is {loss.total} on {[c.id for c in cuts]}")
        return loss.total.item(), loss.frames

    untrained, frames = loss_of(cuts)
    # An output layer of zeros, as `CtcModel` begins with, would hide every leak.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    together, _ = loss_of(cuts)
    alone = sum(loss_of(CutSet.from_cuts([cut]))[0] for cut in cuts)
    # Rounding makes differences of 1e-7, a frame that reads padding some of 1e-4.
    if not math.isclose(alone, together, rel_tol=1e-5):
        raise UserError(
            f"the loss of {[c.id for c in cuts]} is {alone:.4f} when each is a batch alone and "
            f"{together:.4f} in one batch; look for a wrong dimension or a missing padding mask"
        )
    # A label sequence has many alignments, so less than log V a frame is as it should be.
    per_frame, chance = untrained / frames, math.log(vocab)
    if per_frame > 3 * chance:
        return [f"the untrained loss is {per_frame:.1f} nats a frame; by chance {chance:.1f}"]
    return []


@contextmanager
def model_in_memory(sizes: str) -> Iterator[None]:
    """Where memory runs out while a model is made, say so, and which options are its sizes.

    Raises:
        UserError: it did.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        said = (str(error).strip() or "MemoryError").splitlines()[0]
        raise UserError(
            f"the model does not fit into memory: lower its sizes ({sizes})"
            f"\nwhat was said: {said[:200]}"
        ) from None


def check_memory(
    model: nn.Module, loss_function: LossFunction, batch: AnyBatch, option: str
) -> None:
    """A step of training on the longest that a batch can be.

    Args:
        model: what is trained.
        loss_function: its loss.
        batch: the longest.
        option: what makes batches smaller.

    Raises:
        UserError: it takes too much memory.
    """
    longest = int(batch.lengths.argmax())
    name, amount = batch.ids[longest], batch.amount(int(batch.lengths[longest]))
    print(f"the longest training {batch.things[:-1]} is {name}, {amount}", flush=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).train()
    with enough_memory(batch, option):
        loss_function(model, batch.to(device)).total.backward()
