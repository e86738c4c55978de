"""Decoding of transducers: greedy, modified beam search, and beam search on a k2 graph.

All take a batch of utterances, frame by frame: the encoder's projections (N, T, J), as
`TransducerModel.encode` gives them, with lengths (N,). The model must be in evaluation mode.
Blank is label 0; the topologies are those of `plateau.graphs.transducer`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from plateau.config import UserError
from plateau.graphs.labels import BLANK, Topology
from plateau.models.joiner import Joiner
from plateau.models.predictor import Predictor, State, StatelessPredictor

if TYPE_CHECKING:
    import k2

INF = float("inf")


class Model(Protocol):
    """What decoding needs of a `TransducerModel`."""

    predictor: Predictor
    joiner: Joiner


@dataclass(frozen=True)
class Hypothesis:
    """Tokens of an utterance, with the frames that emit them.

    ``frames[i]`` is the encoder frame at which token i is emitted. They increase strictly where a
    frame has at most one label, and never fall.
    """

    tokens: tuple[int, ...]  # no blanks
    frames: tuple[int, ...]  # one per token
    log_posteriors: tuple[float, ...]  # with which the model emits each token there, nats
    score: float  # natural log probability, of what is said by the function that made it


@torch.no_grad()
def greedy_search(
    model: Model,
    encoder: Tensor,
    lengths: Tensor,
    topology: Topology = "rnnt",
    blank_penalty: float = 0.0,
    max_labels: int = 5,
) -> list[Hypothesis]:
    """The likeliest label at each step of one alignment.

    Args:
        model: predictor and joiner.
        encoder: (N, T, J).
        lengths: (N,), at least 0.
        topology: with ``rnnt`` a frame may emit up to ``max_labels`` labels, else one.
        blank_penalty: nats taken from log p(blank) wherever blank competes with labels.
        max_labels: after so many labels in a frame comes blank, whatever its probability.

    Returns:
        N hypotheses. The score is the log probability of the alignment, in which blanks that won
        have the penalty. Blank after the last of ``max_labels`` labels counts, as does that after
        a label in ``constrained``: they were not chosen and have no penalty.
    """
    num, device = len(encoder), encoder.device
    predictor = _Predictor(model)
    state = model.predictor.start(num)
    projected = predictor.output(state)  # (N, J)
    scores = torch.zeros(num, dtype=torch.float64, device=device)
    limit = max_labels if topology == "rnnt" else 1
    tokens: list[list[int]] = [[] for _ in range(num)]
    frames: list[list[int]] = [[] for _ in range(num)]
    posteriors: list[list[float]] = [[] for _ in range(num)]
    lengths = lengths.to(device)
    for t in range(_last(lengths)):
        active = (lengths > t).nonzero().squeeze(1)  # utterances whose frame goes on: (n,)
        for _ in range(limit):
            log_probs = model.joiner(encoder[active, t], projected[active])  # (n, V)
            log_probs[:, BLANK] -= blank_penalty
            best, labels = log_probs.max(dim=1)  # (n,)
            scores[active] += best.double()
            emitted = labels != BLANK
            active, labels, best = active[emitted], labels[emitted], best[emitted]
            if not len(active):
                break
            columns = (active.tolist(), labels.tolist(), best.tolist())
            for n, label, log_posterior in zip(*columns, strict=True):
                tokens[n].append(label)
                frames[n].append(t)
                posteriors[n].append(log_posterior)
            new_state = model.predictor.advance(tuple(s[active] for s in state), labels)
            for old, new in zip(state, new_state, strict=True):
                old[active] = new
            projected[active] = predictor.output(new_state)
        if len(active) and topology != "rna":  # the blank that ends a frame full of labels
            log_probs = model.joiner(encoder[active, t], projected[active])  # (n, V)
            scores[active] += log_probs[:, BLANK].double()
    return [
        Hypothesis(tuple(a), tuple(b), tuple(c), score)
        for a, b, c, score in zip(tokens, frames, posteriors, scores.tolist(), strict=True)
    ]


@torch.no_grad()
def modified_beam_search(
    model: Model,
    encoder: Tensor,
    lengths: Tensor,
    beam: int = 4,
    blank_penalty: float = 0.0,
    nbest: int = 1,
    topology: Topology = "rnnt",
) -> list[list[Hypothesis]]:
    """Token sequences likeliest over their alignments with at most one label a frame.

    For ``rna`` and ``constrained`` these are all alignments. For ``rnnt`` it is icefall's modified
    beam search: a frame that emits a label has no blank, as if the model were ``rna``. (Of a model
    trained as ``rnnt``, ``constrained`` gives the true probability of such alignments.)

    Hypotheses with the same tokens are one: their probabilities are added.

    Args:
        model: predictor and joiner.
        encoder: (N, T, J).
        lengths: (N,), at least 0.
        beam: hypotheses of an utterance that are kept after each frame. With ``constrained``, a
            label's blank is looked at for twice as many candidates.
        blank_penalty: nats taken from log p(blank) where blank competes with labels: in all
            frames without a label.
        nbest: hypotheses returned per utterance, at most ``beam``.
        topology: see above.

    Returns:
        per utterance a list of different token sequences, best first. The score is that of the
        tokens, summed over the alignments that pruning left, with ``blank_penalty`` in it; the
        frames are those of the best of these alignments.
    """
    lengths = lengths.to(encoder.device)
    predictor = _Predictor(model)
    beams = _Beams.start(len(encoder), beam, encoder.device)
    state = model.predictor.start(len(encoder) * beam)
    projected = predictor.output(state)  # (N·B, J)
    for t in range(_last(lengths)):
        frame = encoder[:, t].unsqueeze(1)  # (N, 1, J)
        log_probs = model.joiner(frame, projected.view(len(encoder), beam, -1))  # (N, B, V)
        log_probs[..., BLANK] -= blank_penalty
        emissions = log_probs
        if topology == "constrained":
            log_probs = _add_next_blank(model, predictor, frame, beams.scores, log_probs, state)
        # An utterance at its end stays as it is: nothing but blank, for nothing.
        ended = (lengths <= t)[:, None, None]
        log_probs = log_probs.masked_fill(ended, -INF)
        log_probs[..., BLANK].masked_fill_(ended[..., 0], 0.0)

        beams, sources, labels = beams.advance(t, log_probs.double(), emissions.double())
        state = tuple(s[sources] for s in state)
        projected = projected[sources]
        emitted = (labels != BLANK).nonzero().squeeze(1)  # the predictor moves for these only
        if len(emitted):
            new_state = model.predictor.advance(tuple(s[emitted] for s in state), labels[emitted])
            for old, new in zip(state, new_state, strict=True):
                old[emitted] = new
            projected[emitted] = predictor.output(new_state)
    return [hypotheses[:nbest] for hypotheses in beams.hypotheses()]


@torch.no_grad()
def fast_beam_search(
    model: Model,
    encoder: Tensor,
    lengths: Tensor,
    graph: "k2.Fsa",
    beam: float = 20.0,
    max_states: int = 64,
    max_contexts: int = 8,
    blank_penalty: float = 0.0,
    nbest: int = 1,
) -> list[list[Hypothesis]]:
    """Token sequences of a decoding graph, likeliest over their alignments, by k2.

    A frame has at most one label, and then no blank, as in ``rna``. Kuang et al. 2022, "Fast and
    parallel decoding for transducer" (arXiv:2211.00484).

    Args:
        model: predictor, stateless, and joiner.
        encoder: (N, T, J).
        lengths: (N,), at least 0.
        graph: of `plateau.graphs.transducer_decoding`, on the encoder's device: `trivial_graph`, or
            `lg_graph` for words and a language model.
        beam: nats below the best state of a frame at which states are dropped.
        max_states: states of the graph, each with its last labels, kept per frame and utterance.
        max_contexts: different last labels kept per frame and utterance.
        blank_penalty: nats taken from log p(blank).
        nbest: hypotheses returned per utterance.

    Returns:
        per utterance a list of different token sequences, best first. The score is that of the
        tokens, summed over all paths of the lattice that pruning left, with the graph's weights and
        ``blank_penalty`` in it; the frames are those of the best of these paths. Where the search
        did not get to a final state of the graph: nothing heard, with the score -inf.

    Raises:
        UserError: the predictor is not stateless: k2 needs labels that few contexts tell apart.
    """
    from plateau.graphs.transducer_decoding import lattice_nbest, search_lattice

    if not isinstance(model.predictor, StatelessPredictor):
        raise UserError("fast_beam needs a stateless predictor; decode with modified_beam")
    if not len(lengths):
        return []
    predictor = _Predictor(model)

    def score(t: int, utterances: Tensor, contexts: Tensor) -> Tensor:
        log_probs = model.joiner(encoder[utterances, t], predictor.output((contexts,)))  # (n, V)
        log_probs[:, BLANK] -= blank_penalty
        return log_probs

    lattice = search_lattice(
        score,
        graph,
        lengths.tolist(),
        vocab_size=model.joiner.output.out_features,
        context=model.predictor.context,
        beam=beam,
        max_states=max_states,
        max_contexts=max_contexts,
    )
    nothing = [Hypothesis((), (), (), -INF)]
    return [
        [
            Hypothesis(tokens, frames, _emissions(model, frames_of_one, tokens, frames), score)
            for tokens, frames, score in paths
        ]
        or nothing
        for paths, frames_of_one in zip(lattice_nbest(lattice, nbest), encoder, strict=True)
    ]


def _emissions(
    model: Model, encoder: Tensor, tokens: Sequence[int], frames: Sequence[int]
) -> tuple[float, ...]:
    """Log probabilities with which tokens are emitted in these frames of encoder (T, J).

    The scores of a lattice of k2 have the graph's weights in them, so the model is asked again.
    """
    if not tokens:
        return ()
    state = model.predictor.start(1)
    states = [state]
    labels = torch.tensor(tokens, device=encoder.device)
    for i in range(len(tokens) - 1):
        states.append(state := model.predictor.advance(state, labels[i : i + 1]))
    state = tuple(torch.cat(parts) for parts in zip(*states, strict=True))
    outputs = model.joiner.predictor(model.predictor.output(state))  # (U, J)
    log_probs = model.joiner(encoder[list(frames)], outputs)  # (U, V)
    return tuple(log_probs.gather(1, labels.unsqueeze(1)).squeeze(1).tolist())


class _Predictor:
    """The joiner's projections of the predictor's outputs, (n, J), for states of n hypotheses.

    What a stateless predictor says depends on its last labels only: it is computed once for each
    context that is met, and kept as long as this object lives.
    """

    def __init__(self, model: Model) -> None:
        self._compute: Callable[[State], Tensor] = lambda state: model.joiner.predictor(
            model.predictor.output(state)
        )
        self._caches = isinstance(model.predictor, StatelessPredictor)
        self._cache: dict[tuple[int, ...], Tensor] = {}

    def output(self, state: State) -> Tensor:
        if not self._caches or not len(state[0]):
            return self._compute(state)
        contexts = [tuple(context) for context in state[0].tolist()]
        unknown = list({context for context in contexts if context not in self._cache})
        if unknown:
            outputs = self._compute((torch.tensor(unknown, device=state[0].device),))  # (n, J)
            self._cache.update(zip(unknown, outputs.unbind(), strict=True))
        return torch.stack([self._cache[context] for context in contexts])


@dataclass(frozen=True)
class _Beams:
    """The hypotheses of all utterances after a frame; those that do not exist score -inf.

    No two hypotheses of an utterance that exist have the same tokens.
    """

    scores: Tensor  # (N, B), log probability of all alignments of the tokens
    best: Tensor  # (N, B), that of the best of them
    tokens: Tensor  # (N, B, U), padded with blank
    frames: Tensor  # (N, B, U), of the best alignment
    posteriors: Tensor  # (N, B, U), log probability with which each token is emitted there
    lengths: Tensor  # (N, B), numbers of tokens

    @classmethod
    def start(cls, num: int, beam: int, device: torch.device) -> "_Beams":
        """One empty hypothesis for each utterance."""
        scores = torch.full((num, beam), -INF, dtype=torch.float64, device=device)
        scores[:, 0] = 0.0
        lengths = torch.zeros(num, beam, dtype=torch.long, device=device)
        none = lengths.unsqueeze(2)
        return cls(scores, scores, none, none, none.double(), lengths)

    def advance(
        self, t: int, log_probs: Tensor, emissions: Tensor
    ) -> tuple["_Beams", Tensor, Tensor]:
        """Go on by frame t, whose labels have ``log_probs`` (N, B, V), and keep the best.

        ``emissions`` (N, B, V) are those of the labels alone, without a blank after them.

        Returns:
            the new beams; for each hypothesis the one that it came from, counted over all
            utterances, and its label in this frame: (N·B,) both.
        """
        num, beam, vocab_size = log_probs.shape
        scores = self.scores.unsqueeze(2) + log_probs  # (N, B, V)
        best = self.best.unsqueeze(2) + log_probs

        # Hypothesis j with blank, and its prefix with j's last token, become the same tokens.
        prefixes, found = self._prefixes()  # (N, B) both
        last = self.tokens.gather(2, (self.lengths - 1).clamp_min(0).unsqueeze(2)).squeeze(2)
        own = vocab_size * torch.arange(beam, device=scores.device) + BLANK  # of B·V candidates
        twins = torch.where(found, prefixes * vocab_size + last, own)
        twin_scores = scores.view(num, -1).gather(1, twins).masked_fill(~found, -INF)
        twin_best = best.view(num, -1).gather(1, twins).masked_fill(~found, -INF)
        through_twin = twin_best > best[..., BLANK]  # the best alignment emits j's last token now
        merged = torch.logaddexp(scores[..., BLANK], twin_scores)
        scores.view(num, -1).scatter_(1, twins, -INF)
        scores[..., BLANK] = merged
        best[..., BLANK] = torch.maximum(best[..., BLANK], twin_best)

        kept, candidates = scores.view(num, -1).topk(beam)  # (N, B)
        sources = candidates.div(vocab_size, rounding_mode="floor")
        labels = candidates % vocab_size
        emitted = labels != BLANK
        through_twin = through_twin.gather(1, sources) & ~emitted
        lengths = self.lengths.gather(1, sources) + emitted
        frame_sources = torch.where(through_twin, prefixes.gather(1, sources), sources)
        # What the last token is emitted with: the candidate's, or that of the twin.
        twin_labels = torch.where(through_twin, last.gather(1, sources), labels)
        emission = emissions.reshape(num, -1).gather(1, frame_sources * vocab_size + twin_labels)
        beams = _Beams(
            scores=kept,
            best=best.view(num, -1).gather(1, candidates),
            tokens=_rows(self.tokens, sources, lengths, emitted, labels),
            frames=_rows(self.frames, frame_sources, lengths, emitted | through_twin, t),
            posteriors=_rows(
                self.posteriors, frame_sources, lengths, emitted | through_twin, emission
            ),
            lengths=lengths,
        )
        first = beam * torch.arange(num, device=sources.device).unsqueeze(1)  # (N, 1)
        return beams, (first + sources).flatten(), labels.flatten()

    def _prefixes(self) -> tuple[Tensor, Tensor]:
        """For each hypothesis, which one has its tokens but the last; and if there is one."""
        position = (self.lengths - 1).clamp_min(0).unsqueeze(2)
        shorter = self.tokens.scatter(2, position, BLANK)  # (N, B, U)
        same = (self.tokens.unsqueeze(1) == shorter.unsqueeze(2)).all(dim=3)  # (N, j, i)
        exists = self.scores > -INF
        same &= exists.unsqueeze(1) & (exists & (self.lengths > 0)).unsqueeze(2)
        return same.int().argmax(dim=2), same.any(dim=2)

    def hypotheses(self) -> list[list[Hypothesis]]:
        """Those that exist, best first."""
        columns = (self.scores, self.lengths, self.tokens, self.frames, self.posteriors)
        return [
            [
                Hypothesis(*(tuple(row[:length]) for row in rows), score)
                for score, length, *rows in zip(*utterance, strict=True)
                if score > -INF
            ]
            for utterance in zip(*(column.tolist() for column in columns), strict=True)
        ]


def _rows(
    old: Tensor, sources: Tensor, lengths: Tensor, changed: Tensor, value: Tensor | int
) -> Tensor:
    """Rows ``sources`` (N, B) of old (N, B, U); ``value`` becomes the last where ``changed``."""
    size = max(int(lengths.max()), 1)
    if size > old.shape[2]:
        old = F.pad(old, (0, 1))
    rows = old[..., :size].gather(1, sources.unsqueeze(2).expand(-1, -1, size))
    position = (lengths - 1).clamp_min(0).unsqueeze(2)  # (N, B, 1)
    last = rows.gather(2, position).squeeze(2)
    new = torch.as_tensor(value, dtype=rows.dtype, device=rows.device)
    return rows.scatter(2, position, torch.where(changed, new, last).unsqueeze(2))


def _add_next_blank(
    model: Model,
    predictor: _Predictor,
    frame: Tensor,
    scores: Tensor,
    log_probs: Tensor,
    state: State,
) -> Tensor:
    """Add to each label's log probability (N, B, V) that of the blank after it in the frame.

    This takes a step of the predictor for each, so only the best 2·B labels of all hypotheses of an
    utterance are looked at; the others are left out (-inf).
    """
    num, beam, vocab_size = log_probs.shape
    labels_only = scores.unsqueeze(2) + log_probs  # (N, B, V)
    labels_only[..., BLANK] = -INF
    number = min(2 * beam, beam * (vocab_size - 1))
    candidates = labels_only.flatten(1).topk(number).indices  # (N, K)
    first = beam * torch.arange(num, device=candidates.device).unsqueeze(1)  # (N, 1)
    sources = first + candidates.div(vocab_size, rounding_mode="floor")
    state = model.predictor.advance(
        tuple(s[sources.flatten()] for s in state), candidates.flatten() % vocab_size
    )
    after = model.joiner(frame, predictor.output(state).view(num, number, -1))  # (N, K, V)
    flat = log_probs.flatten(1)
    result = torch.full_like(flat, -INF)
    result.scatter_(1, candidates, flat.gather(1, candidates) + after[..., BLANK])
    result = result.view_as(log_probs)
    result[..., BLANK] = log_probs[..., BLANK]
    return result


def _last(lengths: Tensor) -> int:
    return int(lengths.max()) if len(lengths) else 0
