"""What losses, alignments and searches agree on. Needs no k2."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

# Of transducers: which alignments stand for a transcript; see `plateau.graphs.transducer`.
Topology = Literal["rnnt", "rna", "constrained"]
BLANK = 0


def pad(
    sequences: Sequence[Sequence[int]], value: int = BLANK, device: torch.device | str = "cpu"
) -> Tensor:
    """N sequences as (N, U) int64, padded at their ends."""
    tensors = [torch.tensor(list(sequence), dtype=torch.int64) for sequence in sequences]
    return torch.nn.utils.rnn.pad_sequence(tensors, True, value).to(device)
