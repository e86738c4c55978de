"""Text with holes: how they are filled, and how many of the words that were masked are found."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import kaldialign
import torch
from lhotse import CutSet
from torch import Tensor
from tqdm import tqdm

from masked_text.options import DecodingOptions, Options
from plateau.data.corpus import TRAIN
from plateau.data.features import FeatureOptions
from plateau.data.loading import load_batch
from plateau.data.masking import generator_for, masked_positions
from plateau.data.tokens import (
    BLANK_ID,
    UNKNOWN,
    WORD_START,
    Tokenizer,
    encode_words,
    read_lang,
)
from plateau.decoding.ctc import greedy_search
from plateau.decoding.evaluate import Decoded, evaluate, token_intervals
from plateau.decoding.files import Interval, has_marks, write_ctm
from plateau.decoding.holes import FilledText, HoleFiller, Tokens, word_scores
from plateau.decoding.run import cuts_to_decode
from plateau.decoding.words import unigram
from plateau.graphs.holes import UnknownWords
from plateau.io import write_json
from plateau.models.masked_text import MaskedTextModel, heard_places
from plateau.models.text_decoder import Memory
from plateau.results import make_records
from plateau.training.experiment import Experiment, corpus_of, lang_dir

BATCH = 16  # utterances that are encoded at once


@dataclass(frozen=True)
class Heard:
    """An utterance, and what the model hears in it."""

    decoded: Decoded  # with the hypothesis of CTC
    log_probs: Tensor  # (T, V), of CTC
    memory: Memory  # what the decoder hears


def make_filler(
    model: MaskedTextModel, tokenizer: Tokenizer, texts: Iterable[str], decoding: DecodingOptions
) -> HoleFiller:
    """What fills holes: by the words of these texts, those of the training, and what they lack."""
    words = unigram(texts, tokenizer, decoding.lm_scale)
    unknown = tokenizer.tokens.index(UNKNOWN)
    words = {tokens: weight for tokens, weight in words.items() if unknown not in tokens}
    spelt = None
    if has_marks(tokenizer):
        pieces = {
            n: token for n, token in enumerate(tokenizer.tokens) if n not in (BLANK_ID, unknown)
        }
        spelt = UnknownWords(
            -decoding.unknown_penalty,
            [n for n, token in pieces.items() if token.startswith(WORD_START)],
            [n for n, token in pieces.items() if not token.startswith(WORD_START)],
            [n for n, token in pieces.items() if token == WORD_START],
        )
    return HoleFiller(
        model.decoder,
        words,
        decoding.max_words,
        decoding.candidates,
        decoding.decoder_scale,
        decoding.search_beam,
        spelt,
    )


@torch.no_grad()
def hear(
    model: MaskedTextModel, cuts: Sequence[CutSet], features: FeatureOptions
) -> Iterator[Heard]:
    """What the model hears in utterances; batches of them are encoded at once."""
    device = next(model.parameters()).device
    for first in range(0, len(cuts), BATCH):
        some = cuts[first : first + BATCH]
        batch = load_batch(CutSet.from_cuts(some), features).to(device)
        cut_of = {cut.id: cut for cut in some}
        encoder_out, lengths = model.ctc.encode(batch.features, batch.lengths)  # (N, T', D), (N,)
        log_probs = model.ctc.scores(encoder_out)  # (N, T', V)
        memory = model.hear(encoder_out, lengths, heard_places(log_probs))
        for n, (id, text, found) in enumerate(
            zip(batch.ids, batch.texts, greedy_search(log_probs, lengths), strict=True)
        ):
            (supervision,) = cut_of[id].supervisions
            speaker, duration = supervision.speaker or id, cut_of[id].duration
            decoded = Decoded(id, speaker, duration, text or "", [found])
            length = int(lengths[n])
            own = Memory(
                memory.values[n : n + 1, :length],
                memory.places[n : n + 1, :length],
                lengths[n : n + 1],
            )
            yield Heard(decoded, log_probs[n, :length], own)


def fill_methods(decoding: DecodingOptions) -> list[str]:
    """Names of the folders' methods, one for each share of the words that is masked."""
    return [f"fill_{100 * share:g}" for share in decoding.holes]


def draw_holes(id: str, num_words: int, share: float) -> list[list[int]]:
    """Which words of an utterance are masked, always the same: a list of places for each hole.

    Neighbours are one hole.
    """
    generator = generator_for(id, purpose=f"holes {share}")
    holes: list[list[int]] = []
    for place in masked_positions([[0]] * num_words, share, "word", generator):
        if holes and holes[-1][-1] == place - 1:
            holes[-1].append(place)
        else:
            holes.append([place])
    return holes


def with_holes(
    words: Sequence[Tokens], holes: Sequence[Sequence[int]]
) -> tuple[list[Tokens | None], list[int]]:
    """The items of a text, None for a hole, and which of them are the holes."""
    masked = {place: hole[0] == place for hole in holes for place in hole}
    items: list[Tokens | None] = []
    where = []
    for place, word in enumerate(words):
        if masked.get(place, True):  # not the second of a hole
            if place in masked:
                where.append(len(items))
            items.append(None if place in masked else word)
    return items, where


def word_intervals(
    decoded: Decoded, filled: FilledText, tokenizer: Tokenizer, factor: int
) -> list[Interval]:
    """When the words of a text are said; those that were filled in have a confidence.

    Args:
        decoded: the utterance.
        filled: its text.
        tokenizer: names the tokens; without silence, as ``▁`` alone is, a word begins later.
        factor: feature frames for each frame of the encoder.
    """
    tokens = token_intervals(replace(decoded, hypotheses=[filled.hypothesis]), tokenizer, factor)
    times, words = iter(tokens), []
    for word in filled.words:
        own = [next(times) for _ in word.tokens]
        said = [token for token in own if token.label != WORD_START] or own
        label = tokenizer.decode(word.tokens)
        words.append(Interval(said[0].start, said[-1].end, label, word.confidence))
    return words


def words_right(
    true: Sequence[Tokens],
    holes: Sequence[Sequence[int]],
    where: Sequence[int],
    filled: FilledText | None,
) -> int:
    """How many of the masked words are found again, each in its hole, in order.

    Args:
        true: all words of the text.
        holes: places of the masked words.
        where: the item of each hole.
        filled: None: nothing is.
    """
    if filled is None:
        return 0
    right = 0
    for hole, item in zip(holes, where, strict=True):
        found = [word.tokens for word in filled.words if word.item == item]
        right += _matches([true[place] for place in hole], found)
    return right


def _matches(true: Sequence[Tokens], found: Sequence[Tokens]) -> int:
    errors = kaldialign.edit_distance(true, found)
    return len(true) - errors["sub"] - errors["del"]


def heard_right(
    true: Sequence[Tokens], holes: Sequence[Sequence[int]], heard: Sequence[Tokens]
) -> int:
    """How many of the masked words a hypothesis of the whole utterance has in their places."""
    gap: Tokens = ()  # no word is empty
    right = [a == b for a, b in kaldialign.align(true, heard, gap) if a != gap]
    return sum(right[place] for hole in holes for place in hole)


@torch.no_grad()
def guessed_right(
    filler: HoleFiller, memory: Memory, true: Sequence[Tokens], holes: Sequence[Sequence[int]]
) -> int:
    """How many of the masked words the decoder guesses that hears nothing.

    It is told how many tokens each has, which one that hears must find out.
    """
    mask_id, masked = filler.decoder.mask_id, {place for hole in holes for place in hole}
    words = [(mask_id,) * len(w) if place in masked else w for place, w in enumerate(true)]
    right = 0
    for place in masked:
        known = [word for word in filler.words if len(word) == len(true[place])]
        if known:
            scores = word_scores(filler.decoder, memory.silenced(), words, place, known)
            right += known[int(scores.argmax())] == true[place]
    return right


@dataclass
class Filling:
    """Texts of a set with a share of their words masked, and what was found of these.

    Args:
        share: of the words.
        right: how many there are (words), and how many are found: by the model; by CTC alone; by
            CTC without the words that are given; by the decoder without audio; and by saying
            always what is commonest.
        texts: all of each text, with what was filled in.
        words: what was filled in alone, by utterance.
    """

    share: float
    right: Counter[str] = field(default_factory=Counter)
    texts: list[Decoded] = field(default_factory=list)
    words: dict[str, list[Interval]] = field(default_factory=dict)

    def add(self, heard: Heard, filler: HoleFiller, tokenizer: Tokenizer, factor: int) -> None:
        """Mask words of an utterance, and fill the holes in all these ways."""
        decoded = heard.decoded
        true = [tuple(word) for word in encode_words(tokenizer, decoded.text)]
        heard_text = tokenizer.decode(decoded.best.tokens)
        said = [tuple(word) for word in encode_words(tokenizer, heard_text)]
        holes = draw_holes(decoded.id, len(true), self.share)
        items, where = with_holes(true, holes)
        path = filler.best_path(heard.log_probs, items)
        filled, by_ctc = (
            None if path is None else each.judge(heard.log_probs, heard.memory, items, path)
            for each in (filler, replace(filler, decoder=None))
        )
        commonest = max(filler.words, key=filler.words.__getitem__)
        self.right.update(
            words=sum(map(len, holes)),
            model=words_right(true, holes, where, filled),
            ctc=words_right(true, holes, where, by_ctc),
            ctc_without_text=heard_right(true, holes, said),
            text_only=guessed_right(filler, heard.memory, true, holes),
            unigram=sum(true[place] == commonest for hole in holes for place in hole),
        )
        if filled is None:
            self.texts.append(decoded)
            return
        self.texts.append(replace(decoded, hypotheses=[filled.hypothesis]))
        words = word_intervals(decoded, filled, tokenizer, factor)
        self.words[decoded.id] = [word for word in words if word.confidence is not None]

    @property
    def metrics(self) -> dict[str, float]:
        """The shares that were found, in percent."""
        total = max(self.right["words"], 1)
        return {
            "masked_words_right" + ("" if by == "model" else f"_{by}"): 100 * number / total
            for by, number in self.right.items()
            if by != "words"
        }


def fill_test_sets(
    experiment: Experiment, options: Options, model: MaskedTextModel, decoding: DecodingOptions
) -> None:
    """Mask words of every test set of an experiment's corpus, fill the holes, and score.

    ``decode_<set>_fill_<percent>/`` has the files of a decode directory, of the whole text with
    what was filled in, ``filled.ctm`` of that alone, and the metrics of `Filling`.

    Args:
        experiment: gets the folders.
        options: that the model is made with.
        model: the final one.
        decoding: shares of the words, and how they are found.
    """
    corpus, tokenizer = corpus_of(options), read_lang(lang_dir(options))
    filler = make_filler(model, tokenizer, corpus.texts(TRAIN), decoding)
    factor = model.encoder.subsampling_factor
    for set_name in corpus.test_sets() if decoding.holes else ():
        fillings = [Filling(share) for share in decoding.holes]
        cuts = cuts_to_decode(corpus, set_name)
        utterances = hear(model, cuts, options.features)
        for heard in tqdm(utterances, set_name, len(cuts), disable=None, leave=False):
            for filling in fillings:
                filling.add(heard, filler, tokenizer, factor)
        for filling, method in zip(fillings, fill_methods(decoding), strict=True):
            folder = experiment.decode_dir(set_name, method)
            metrics = {"filled_text_wer": evaluate(folder, filling.texts, tokenizer, factor)["wer"]}
            write_ctm(folder / "filled.ctm", filling.words)
            records = make_records(set_name, method, **metrics, **filling.metrics)
            write_json(folder / "metrics.json", records)
