import dataclasses

import pytest
import torch

from plateau.config import UserError
from plateau.data.corpus import Corpus
from plateau.data.loading import Batch
from plateau.io import write_json
from plateau.models.conformer import ConformerOptions
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.models.transducer import TransducerModel
from plateau.results import make_records


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


def test_what_is_decoded_is_chosen_or_named(load_script, tmp_path):
    decoded = load_script("report").decoded
    exp_dir, corpus = tmp_path / "exp/toy/transducer/my run", Corpus(tmp_path / "data/toy")
    exp_dir.mkdir(parents=True)
    (exp_dir / "config.yaml").write_text("data_dir: data/toy\n")
    command = "./run.sh --corpus toy --recipe transducer --exp 'my run'"
    with pytest.raises(UserError, match=f"nothing is decoded; run {command}$"):
        decoded(exp_dir, corpus, "", "")
    for set_name, method, wer in (
        ("a_gone", "beam", 0.0),
        ("test", "beam", 2.0),
        ("test", "x", 1.0),
    ):
        folder = exp_dir / f"decode_{set_name}_{method}"
        write_json(folder / "metrics.json", make_records(set_name, method, wer=wer))
    (corpus.root / "test").mkdir(parents=True)
    (corpus.root / "test/wav.scp").touch()
    assert decoded(exp_dir, corpus, "", "") == ("test", "x")  # a set that is there, the lowest WER
    assert decoded(exp_dir, corpus, "", "beam") == ("test", "beam")
    assert decoded(exp_dir, corpus, "a_gone", "") == ("a_gone", "beam")
    there = "no decoding of dev by x; there are a_gone by beam, test by beam, test by x"
    with pytest.raises(UserError, match=there):
        decoded(exp_dir, corpus, "dev", "x")
