"""A training step of every recipe in bfloat16, on the GPU and on the CPU, beside one in float32."""

import contextlib
from pathlib import Path

import pytest
import torch

pytest.importorskip("k2")

import conformer_ctc.options
import conformer_ctc.train
import transducer.options
import transducer.train
from plateau.data.loading import Batch
from plateau.data.tokens import TokenOptions, make_lang
from plateau.models.conformer import ConformerOptions
from plateau.models.ctc import CtcModel
from plateau.models.encoder import EncoderOptions
from plateau.models.joiner import JoinerOptions
from plateau.models.predictor import PredictorOptions
from plateau.models.transducer import TransducerModel

BINS = 20
ENCODER = EncoderOptions(
    conformer=ConformerOptions(dim=64, num_layers=2, feedforward_dim=128, dropout=0.0)
)
TEXTS = ["ab cab", "b", "cabba"]

no_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
on_devices = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=[pytest.mark.gpu, no_gpu])]
)


def ctc(tokenizer):
    model = CtcModel(BINS, len(tokenizer.tokens), ENCODER)
    return model, conformer_ctc.train.make_loss(
        model, tokenizer, conformer_ctc.options.LossOptions()
    )


def rnnt(tokenizer, **options):
    loss = transducer.options.LossOptions(
        ctc_layers=(1,), ctc_scales=(0.5,), warm_up_steps=1000, **options
    )
    predictor, joiner = PredictorOptions(dim=32), JoinerOptions(dim=32)
    model = TransducerModel(BINS, len(tokenizer.tokens), ENCODER, predictor, joiner, (1,))
    return model, transducer.train.make_loss(model, tokenizer, loss)


RECIPES = {
    "conformer_ctc": ctc,
    "pruned": rnnt,
    "pruned rna": lambda tokenizer: rnnt(tokenizer, topology="rna"),
    "full": lambda tokenizer: rnnt(tokenizer, kind="full"),
    "viterbi": lambda tokenizer: rnnt(tokenizer, kind="viterbi", topology="rna"),
}


def losses_of_two_steps(recipe: str, device: str, half: bool, lang: Path) -> list[float]:
    """The loss before and after a step of the optimiser."""
    torch.manual_seed(0)
    model, loss_function = RECIPES[recipe](make_lang(lang, TEXTS, TokenOptions(kind="char")))
    features, lengths = torch.randn(3, 90, BINS), torch.tensor([90, 40, 77])
    batch = Batch(features, lengths, TEXTS, ids=["1", "2", "3"], seconds=2.07)
    model, batch = model.to(device), batch.to(torch.device(device))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    found = []
    for _ in range(2):
        with torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext():
            loss = loss_function(model, batch).total
        assert loss.dtype == torch.float32
        optimizer.zero_grad()
        loss.backward()
        assert all(parameter.grad.isfinite().all() for parameter in model.parameters())
        optimizer.step()
        found.append(loss.item())
    return found


@on_devices
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_in_bfloat16_is_that_in_float32(recipe, device, tmp_path):
    before, after = losses_of_two_steps(recipe, device, True, tmp_path / "half")
    expected = losses_of_two_steps(recipe, "cpu", False, tmp_path / "full")
    assert [before, after] == pytest.approx(expected, rel=0.01)
    assert after != pytest.approx(before, rel=0.03)  # so the second says that steps agree too
