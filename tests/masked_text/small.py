"""The model of most tests here."""

import torch

from plateau.models.blstm import BlstmOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.masked_text import MaskedTextModel
from plateau.models.text_decoder import TextDecoderOptions


def small_model(max_length: int = 0) -> MaskedTextModel:
    """A model of six features and five labels, whose mask is 5; the same each time."""
    torch.manual_seed(0)
    blstm = BlstmOptions(dim=8, num_layers=1, dropout=0.0, subsampling_channels=2)
    decoder = TextDecoderOptions(16, 1, 2, 16, dropout=0.0, max_length=max_length)
    return MaskedTextModel(6, 5, EncoderOptions("blstm", blstm=blstm), decoder)
