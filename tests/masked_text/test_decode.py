import pytest
import torch

pytest.importorskip("k2")

from masked_text.decode import decoder
from masked_text.options import DecodingOptions, Options
from plateau.config import UserError
from plateau.models.blstm import BlstmOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.masked_text import MaskedTextModel
from plateau.models.text_decoder import TextDecoderOptions


def make(max_length):
    blstm = BlstmOptions(dim=8, num_layers=1, dropout=0.0, subsampling_channels=2)
    text_decoder = TextDecoderOptions(16, 1, 2, 16, dropout=0.0, max_length=max_length)
    return MaskedTextModel(6, 5, EncoderOptions("blstm", blstm=blstm), text_decoder).eval()


def test_methods_in_the_order_of_the_options():
    methods = ("mask_predict_lengths", "greedy", "mask_predict")
    encode, found = decoder(make(4), Options(), DecodingOptions(methods=methods))
    assert tuple(found) == methods
    encoded = encode(torch.randn(2, 40, 6), torch.tensor([40, 30]))
    assert all(len(search(*encoded)) == 2 for search in found.values())


def test_lengths_are_for_models_that_learnt_them():
    methods = DecodingOptions(methods=("greedy", "mask_predict_lengths"))
    with pytest.raises(UserError, match="max_length is 0"):
        decoder(make(0), Options(), methods)
