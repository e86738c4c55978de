import dataclasses

import pytest
import torch

from plateau.data.loading import Batch
from plateau.models.conformer import ConformerOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.models.transducer import TransducerModel


@pytest.mark.parametrize("layers", [(), (1,), (1, 2)])
def test_a_transducers_posteriors_are_those_of_its_uppermost_ctc_layer(load_script, layers):
    torch.manual_seed(0)
    small = ConformerOptions(dim=16, num_heads=2, num_layers=2, feedforward_dim=16)
    encoder = dataclasses.replace(EncoderOptions(), kind="conformer", conformer=small)
    sizes = encoder, PredictorOptions(dim=8), JoinerOptions(dim=8)
    model = TransducerModel(20, 5, *sizes, ctc_layers=layers).eval()
    for layer in model.ctc.values():
        torch.nn.init.normal_(layer.weight)
    batch = Batch(torch.randn(1, 50, 20), torch.tensor([50]), ["a"], ["x"], 0.5)
    with torch.no_grad():
        found = load_script("report").posteriors(model, batch)
        wanted = model(batch.features, batch.lengths, torch.zeros(1, 1, dtype=torch.int64)).ctc
    if not layers:
        assert found is None
    else:
        torch.testing.assert_close(found, wanted[max(layers)])
        assert len(layers) < 2 or not found.allclose(wanted[1])
