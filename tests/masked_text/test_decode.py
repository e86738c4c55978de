import pytest
import torch

pytest.importorskip("k2")

from masked_text.decode import decoder
from masked_text.options import DecodingOptions, Options
from plateau.config import UserError
from tests.masked_text.small import small_model


def test_methods_in_the_order_of_the_options():
    methods = ("mask_predict_lengths", "greedy", "mask_predict")
    encode, found = decoder(small_model(4).eval(), Options(), DecodingOptions(methods=methods))
    assert tuple(found) == methods
    encoded = encode(torch.randn(2, 40, 6), torch.tensor([40, 30]))
    assert all(len(search(*encoded)) == 2 for search in found.values())


def test_lengths_are_for_models_that_learnt_them():
    methods = DecodingOptions(methods=("greedy", "mask_predict_lengths"))
    with pytest.raises(UserError, match="max_length is 0"):
        decoder(small_model().eval(), Options(), methods)
