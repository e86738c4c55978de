"""Predictors of transducers: what the labels so far say about the next one.

Every predictor maps ``tokens (N, U)`` to ``predictor_out (N, U + 1, P)``, where position u has seen
the first u tokens, and has ``output_dim`` (P). For decoding it goes step by step, on a state that
is a tuple of tensors whose first dimension is the hypotheses: ``start``, ``advance``, ``output``.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from plateau.models.dropout import Dropout
from plateau.ranges import PROBABILITY, SIZE, check_options

State = tuple[Tensor, ...]


@dataclass(frozen=True)
class PredictorOptions:
    """Which predictor, its size and regularisation."""

    kind: Literal["stateless", "lstm"] = "stateless"
    dim: int = 256  # P, of embeddings and outputs
    context: Literal[1, 2] = 2  # labels that a stateless predictor sees
    dropout: float = 0.1  # probability, on the embeddings
    token_dropout: float = 0.0  # probability that blank stands in a label's place while training
    zoneout: float = 0.0  # probability that an LSTM's cell keeps its state (Krueger et al. 2017)

    def __post_init__(self) -> None:
        check_options(
            self,
            "predictor",
            dim=SIZE,
            dropout=PROBABILITY,
            token_dropout=PROBABILITY,
            zoneout=PROBABILITY,
        )


class StatelessPredictor(nn.Module):
    """Embeddings of the last labels and a convolution over them (Ghodsi et al. 2020).

    Before the first label stands blank, label 0.

    Args:
        vocab_size: V, number of labels with the blank.
        options: size and regularisation.
    """

    def __init__(self, vocab_size: int, options: PredictorOptions) -> None:
        super().__init__()
        self.output_dim = options.dim
        self.context = options.context
        self.embedding = nn.Embedding(vocab_size, options.dim)
        self.token_dropout = options.token_dropout
        self.dropout = Dropout(options.dropout)
        self.convolution = nn.Conv1d(options.dim, options.dim, options.context, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the module: tokens (N, U) → (N, U + 1, P)."""
        if self.training:
            tokens = _drop(tokens, self.token_dropout)
        x = self.dropout(self.embedding(F.pad(tokens, (self.context, 0))))  # (N, context + U, P)
        return F.relu(self.convolution(x.transpose(1, 2))).transpose(1, 2)

    def start(self, num: int) -> State:
        """The state of ``num`` empty hypotheses: their last labels (num, context)."""
        return (torch.zeros(num, self.context, dtype=torch.long, device=self._device),)

    def advance(self, state: State, tokens: Tensor) -> State:
        """The state after one more label each, ``tokens`` (n,)."""
        return (torch.cat([state[0][:, 1:], tokens.unsqueeze(1)], dim=1),)

    def output(self, state: State) -> Tensor:
        """What the predictor says in a state: (n, P)."""
        x = self.embedding(state[0]).transpose(1, 2)  # (n, P, context)
        return F.relu(self.convolution(x)).squeeze(2)

    @property
    def _device(self) -> torch.device:
        return self.embedding.weight.device


class LstmPredictor(nn.Module):
    """Embeddings and an LSTM layer (Graves 2012), with zoneout if asked for.

    Args:
        vocab_size: V, number of labels with the blank.
        options: size and regularisation.
    """

    def __init__(self, vocab_size: int, options: PredictorOptions) -> None:
        super().__init__()
        self.output_dim = options.dim
        self.zoneout = options.zoneout
        self.embedding = nn.Embedding(vocab_size, options.dim)
        self.token_dropout = options.token_dropout
        self.dropout = Dropout(options.dropout)
        self.lstm = nn.LSTM(options.dim, options.dim, batch_first=True)

    def forward(self, tokens: Tensor) -> Tensor:
        """See the module: tokens (N, U) → (N, U + 1, P)."""
        if self.training:
            tokens = _drop(tokens, self.token_dropout)
        x = self.dropout(self.embedding(F.pad(tokens, (1, 0))))  # (N, 1 + U, P); blank goes first
        if not self.zoneout:
            return self.lstm(x)[0]
        hidden = cell = x.new_zeros(len(x), self.output_dim)
        outputs = []
        for embedded in x.unbind(1):
            hidden, cell = self._step(embedded, hidden, cell)
            outputs.append(hidden)
        return torch.stack(outputs, dim=1)

    def start(self, num: int) -> State:
        """The state of ``num`` empty hypotheses: hidden and cell state (num, P), blank read."""
        zeros = self.embedding.weight.new_zeros(num, self.output_dim)
        return self.advance((zeros, zeros), torch.zeros(num, dtype=torch.long, device=zeros.device))

    def advance(self, state: State, tokens: Tensor) -> State:
        """The state after one more label each, ``tokens`` (n,)."""
        return self._step(self.embedding(tokens), *state)

    def output(self, state: State) -> Tensor:
        """What the predictor says in a state: (n, P)."""
        return state[0]

    def _step(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        new = torch.lstm_cell(x, (hidden, cell), *self.lstm.all_weights[0])
        return self._zone_out(new[0], hidden), self._zone_out(new[1], cell)

    def _zone_out(self, new: Tensor, old: Tensor) -> Tensor:
        if not self.zoneout:
            return new
        if not self.training:
            return torch.lerp(new, old, self.zoneout)
        return torch.where(torch.rand_like(new) < self.zoneout, old, new)


def _drop(tokens: Tensor, probability: float) -> Tensor:
    """Blank in the place of some tokens, so that less can be learnt by heart."""
    if not probability:
        return tokens
    return tokens.masked_fill(torch.rand(tokens.shape, device=tokens.device) < probability, 0)


Predictor = StatelessPredictor | LstmPredictor


def build_predictor(vocab_size: int, options: PredictorOptions) -> Predictor:
    """Make the predictor for V labels."""
    kinds = {"stateless": StatelessPredictor, "lstm": LstmPredictor}
    return kinds[options.kind](vocab_size, options)
