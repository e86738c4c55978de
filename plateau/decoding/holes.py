"""Filling holes in a text by what is heard there.

First the best path through a graph of the words that are given and, in holes, of known words; then
each word that was found is judged beside others: by CTC, with the words next to it, and by a
decoder that sees all of the text.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from plateau.data.tokens import min_frames
from plateau.decoding.ctc import Hypothesis, align_tokens
from plateau.graphs.dense import best_paths_and_outputs
from plateau.graphs.holes import UnknownWords, WordTree, hole_graph, output_of, word_tree
from plateau.models.text_decoder import Memory, TextDecoder

Tokens = tuple[int, ...]  # of a word


@dataclass(frozen=True)
class TextWord:
    """A word of a text whose holes are filled."""

    item: int  # of the text: a word that was given, or a hole, which may have several words
    tokens: Tokens
    # Of a word that was found: what else it may be, likeliest first, itself among them.
    candidates: tuple[tuple[Tokens, float], ...] = ()

    @property
    def confidence(self) -> float | None:
        """The probability of a word that was found, among its candidates; None: it was given."""
        return dict(self.candidates).get(self.tokens)


@dataclass(frozen=True)
class FilledText:
    """The words, and all tokens with their frames."""

    words: tuple[TextWord, ...]
    hypothesis: Hypothesis


class TextPath(NamedTuple):
    """What CTC finds: the words, the frame where each begins, the place of each frame's token."""

    words: list[TextWord]
    begins: list[int]
    places: list[int]  # of T frames; -1 before the first token


@dataclass(frozen=True)
class HoleFiller:
    """How holes are filled.

    Args:
        decoder: finds masked tokens; None: CTC alone decides.
        words: the tokens of each known word, and the weight (nats) of saying it once.
        max_words: in a hole.
        candidates: words that the decoder is asked about for each place, those that CTC finds
            likeliest there.
        decoder_scale: weight of the decoder's log-probability beside that of CTC.
        search_beam: states that lie further than this below the best are dropped, in nats.
        unknown: words of any spelling that a hole may have, too; None: it has known ones.
    """

    decoder: TextDecoder | None
    words: Mapping[Tokens, float]
    max_words: int = 4
    candidates: int = 16
    decoder_scale: float = 0.5
    search_beam: float = 20.0
    unknown: UnknownWords | None = None

    @torch.no_grad()
    def fill(
        self, log_probs: Tensor, memory: Memory, items: Sequence[Tokens | None]
    ) -> FilledText | None:
        """Fill the holes of a text; None where the audio is too short for it.

        Args:
            log_probs: (T, V), of CTC.
            memory: what the decoder hears of this utterance.
            items: the tokens of each word, or None for a hole.
        """
        path = self.best_path(log_probs, items)
        return None if path is None else self.judge(log_probs, memory, items, path)

    @torch.no_grad()
    def judge(
        self, log_probs: Tensor, memory: Memory, items: Sequence[Tokens | None], path: TextPath
    ) -> FilledText | None:
        """As `fill`, of which the best path is known."""
        words = list(path.words)
        # Where it is in this text is known better now than CTC alone expected.
        memory = memory.at([path.places])
        # Of two holes next to each other, what is found first helps the other.
        for place, word in enumerate(words):
            if items[word.item] is None:
                words[place] = self._judge_word(log_probs, memory, words, path.begins, place)
        tokens = [token for word in words for token in word.tokens]
        if min_frames(tokens) > len(log_probs):
            return None
        return FilledText(tuple(words), align_tokens(log_probs, tokens))

    def best_path(self, log_probs: Tensor, items: Sequence[Tokens | None]) -> TextPath | None:
        """The text that CTC finds likeliest; None where the audio is too short for it.

        Args:
            log_probs: (T, V).
            items: see `fill`.
        """
        if min_frames([token for item in items for token in item or ()]) > len(log_probs):
            return None
        graph = hole_graph(items, self._tree, self.max_words, self.unknown)
        length = torch.tensor([len(log_probs)])
        # What is given may be far from what is heard: a beam can lose all paths.
        for beam in (self.search_beam, math.inf):
            ((_, outputs),) = best_paths_and_outputs(log_probs[None].cpu(), length, graph, beam)
            if outputs:
                break
        else:
            return None
        words, begins = [], []
        for frame, number in enumerate(outputs):
            if number > 0:
                item, token, begun = output_of(number)
                if begun:
                    words.append(TextWord(item, (token,)))
                    begins.append(frame)
                else:
                    words[-1] = TextWord(item, (*words[-1].tokens, token))
        places = [begun - 1 for begun in accumulate(number > 0 for number in outputs)]
        return TextPath(words, begins, places)

    @cached_property
    def _tree(self) -> WordTree:
        return word_tree(self.words)

    def _judge_word(
        self,
        log_probs: Tensor,
        memory: Memory,
        words: Sequence[TextWord],
        begins: Sequence[int],
        place: int,
    ) -> TextWord:
        """The word of a place with its candidates, of which it is the likeliest."""
        before = words[place - 1].tokens if place else ()
        after = words[place + 1].tokens if place + 1 < len(words) else ()
        first = begins[place - 1] if place else 0
        last = begins[place + 2] if place + 2 < len(words) else len(log_probs)
        weights = dict(self.words)
        if self.unknown is not None:
            weights.setdefault(words[place].tokens, self.unknown.weight)
        known = list(weights)
        scores = full_sums(
            log_probs[first:last], [(*before, *candidate, *after) for candidate in known]
        ) + torch.tensor(list(weights.values()))
        best = scores.topk(min(self.candidates, len(known)))
        scores, known = best.values, [known[index] for index in best.indices.tolist()]
        if self.decoder is not None and self.decoder_scale:
            others = [word.tokens for word in words]
            scores = scores + self.decoder_scale * word_scores(
                self.decoder, memory, others, place, known
            )
        shares, order = scores.softmax(0).sort(descending=True)
        ranked = [
            (known[index], share)
            for index, share in zip(order.tolist(), shares.tolist(), strict=True)
        ]
        return TextWord(words[place].item, ranked[0][0], tuple(ranked))


def full_sums(log_probs: Tensor, targets: Sequence[Sequence[int]]) -> Tensor:
    """The log-probability (C,) that CTC gives to each of C token sequences; -inf: too few frames.

    Args:
        log_probs: (T, V), normalised.
        targets: no blanks.
    """
    many = log_probs.cpu().unsqueeze(1).expand(-1, len(targets), -1)  # (T, C, V)
    sizes = torch.tensor([len(target) for target in targets])
    joined = torch.tensor([token for target in targets for token in target])
    frames = torch.full((len(targets),), len(log_probs))
    return -F.ctc_loss(many, joined, frames, sizes, reduction="none")


@torch.no_grad()
def word_scores(
    decoder: TextDecoder,
    memory: Memory,
    words: Sequence[Tokens],
    place: int,
    candidates: Sequence[Tokens],
) -> Tensor:
    """The decoder's log-probability (C,) of each candidate for a word, all its tokens masked.

    Args:
        decoder: finds masked tokens.
        memory: what is heard of the utterance.
        words: the tokens of each word of the text.
        place: of the word.
        candidates: C.
    """
    before = [token for word in words[:place] for token in word]
    after = [token for word in words[place + 1 :] for token in word]
    sizes = sorted({len(candidate) for candidate in candidates})
    # All candidates of a length share what the decoder says.
    rows = [[*before, *[decoder.mask_id] * size, *after] for size in sizes]
    tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)
    device = memory.values.device
    found = decoder(
        tokens.to(device),
        torch.tensor([len(row) for row in rows], device=device),
        memory.of(torch.zeros(len(rows), dtype=torch.int64, device=device)),
    ).cpu()  # (S, U, V)
    return torch.stack(
        [
            found[sizes.index(len(candidate)), range(len(before), len(before) + len(candidate))][
                range(len(candidate)), list(candidate)
            ].sum()
            for candidate in candidates
        ]
    )
