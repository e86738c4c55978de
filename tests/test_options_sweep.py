"""Every field of every options class with sixteen bad values: refused by name, or they can be used.

The fields are found in the classes, so a new one is covered, and one without a range fails.
"""

import dataclasses
import importlib.util
import math
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

from plateau.config import UserError
from plateau.data.frames import FrameOptions
from plateau.data.tokens import LexiconTokenizer
from plateau.training.schedule import learning_rate

ROOT = Path(__file__).parent.parent
# "Bad" for most fields; where one is good, that must be seen in use.
BAD = (-1, 0, 0.5, 1.5, math.nan, math.inf, -math.inf, 1e308, -1e308, 10**12, 2**64, True, None, "")
BAD += ("x", (-1,))


def options_classes() -> dict[str, type]:
    """The classes, by the section of the configuration that they are."""
    from conformer_ctc.options import Options as Ctc
    from toy_peaky.options import Options as Toy
    from transducer.options import Options as Transducer

    found: dict[str, type] = {"--": Toy}
    for recipe, cls in (("conformer_ctc", Ctc), ("transducer", Transducer)):
        found |= {f"{recipe}:{name}": part for name, part in _parts(cls, "")}
    found["frames:frames"] = FrameOptions
    for script in sorted(ROOT.glob("egs/*/prepare.py")):
        corpus = script.parent.name
        sys.path.insert(0, str(script.parent))
        spec = importlib.util.spec_from_file_location(f"sweep_{corpus}", script)
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        sys.path.pop(0)
        (name,) = (
            name
            for name, value in vars(module).items()
            if name.endswith("Options") and value.__module__ == spec.name
        )
        found[f"{corpus}:corpus"] = getattr(module, name)
    return found


def _parts(cls: type, name: str) -> Iterator[tuple[str, type]]:
    yield name, cls
    for field, kind in get_type_hints(cls).items():
        if dataclasses.is_dataclass(kind):
            yield from _parts(kind, f"{name}.{field}".lstrip("."))


CLASSES = options_classes()
FIELDS = [
    (where, field.name) for where, cls in CLASSES.items() for field in dataclasses.fields(cls)
]


def make(where: str, name: str, value: Any) -> Any:
    """Options with this value, or what is said of it."""
    cls = CLASSES[where]
    if isinstance(getattr(cls(), name), tuple) and isinstance(value, int | float | str):
        value = (value,)  # of a list
    try:
        return dataclasses.replace(cls(), **{name: value})
    except UserError as error:
        return str(error)


def test_a_bad_value_is_named_with_its_field_and_what_it_must_be():
    counts: Counter[str] = Counter()
    for where, name in FIELDS:
        section = where.partition(":")[2]
        full = f"--{name.replace('_', '-')}" if where == "--" else f"{section}.{name}".lstrip(".")
        for value in BAD:
            made = make(where, name, value)
            if not isinstance(made, str):
                counts["taken"] += 1
                continue
            counts["refused"] += 1
            assert len(made.splitlines()) == 1 and full in made, (where, name, value, made)
            assert "must be" in made or "give" in made or "set" in made, made
            assert any(form in made for form in (repr(value), repr([value]), "[-1]")), made
    print(f"{len(FIELDS)} fields × {len(BAD)} values: {dict(counts)}")
    assert counts.total() == len(FIELDS) * len(BAD)
    assert counts["refused"] > 10 * len(FIELDS)


def taken(*sections: str) -> list[tuple[str, str, Any]]:
    """The fields and values of these sections that are not refused."""
    return [
        (where, name, value)
        for where, name in FIELDS
        for value in BAD
        if where.partition(":")[2] in sections and not isinstance(make(where, name, value), str)
    ]


def test_what_is_not_refused_trains_two_steps():
    """Models and losses of both recipes; sizes that are large are taken only if they fit."""
    pytest.importorskip("k2")
    sections = ("encoder", "encoder.conformer", "encoder.blstm", "predictor", "joiner", "loss")
    values = taken(*sections, "loss.prior", "training.schedule")
    for where, name, value in values:
        _two_steps(where, make(where, name, value))
    print(f"{len(values)} values trained two steps")
    assert len(values) > 50


def _two_steps(where: str, part: Any) -> None:
    from plateau.models.encoder import EncoderOptions
    from plateau.models.joiner import JoinerOptions
    from plateau.models.predictor import PredictorOptions
    from plateau.models.prior import PriorOptions
    from plateau.training.schedule import ScheduleOptions

    recipe, _, section = where.partition(":")
    if section.startswith("encoder.") and part is not None:
        part = EncoderOptions(kind=section[8:], **{section[8:]: part})
    torch.manual_seed(0)
    model, loss_function = (_ctc if recipe == "conformer_ctc" else _transducer)(
        part if isinstance(part, EncoderOptions) else _small_encoder(),
        part if isinstance(part, PredictorOptions) else PredictorOptions(dim=8),
        part if isinstance(part, JoinerOptions) else JoinerOptions(dim=8),
        part if section == "loss" else None,
        part if isinstance(part, PriorOptions) else None,
    )
    schedule = part if isinstance(part, ScheduleOptions) else ScheduleOptions(warmup_steps=0)
    optimizer = torch.optim.AdamW(model.parameters())
    for step in (1, 2):
        optimizer.param_groups[0]["lr"] = learning_rate(schedule, step, step / 2)
        loss = loss_function(model, _batch())
        assert loss.total.isfinite(), (where, part)
        optimizer.zero_grad()
        (loss.total / loss.tokens).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
    assert all(parameter.isfinite().all() for parameter in model.parameters()), (where, part)


def _small_encoder():
    from plateau.models.blstm import BlstmOptions
    from plateau.models.encoder import EncoderOptions

    return EncoderOptions("blstm", blstm=BlstmOptions(dim=8, num_layers=1))


TOKENIZER = LexiconTokenizer(
    ["<blk>", "<unk>", "a", "b", "c"], {"ab": ["a", "b"], "cc": ["c", "c"]}, phones=True
)


def _batch():
    from plateau.data.loading import Batch

    features = torch.randn(2, 60, 20, generator=torch.Generator().manual_seed(0))
    return Batch(features, torch.tensor([60, 44]), ["ab cc", "ab"], ["1", "2"], 1.04)


def _ctc(encoder, _predictor, _joiner, loss, prior):
    from conformer_ctc.options import LossOptions
    from conformer_ctc.train import make_loss
    from plateau.models.ctc import CtcModel

    loss = loss or LossOptions(**({"prior": prior} if prior else {}))
    model = CtcModel(20, 5, encoder, loss.prior).train()
    return model, make_loss(model, TOKENIZER, loss)


def _transducer(encoder, predictor, joiner, loss, _prior):
    from plateau.models.transducer import TransducerModel
    from transducer.options import LossOptions
    from transducer.train import make_loss

    loss = loss or LossOptions()
    model = TransducerModel(20, 5, encoder, predictor, joiner, loss.ctc_layers).train()
    return model, make_loss(model, TOKENIZER, loss)


@pytest.mark.parametrize("rate", [2000, 8000, 16000, 22050, 44100])
def test_features_are_refused_just_where_kaldi_aborts(rate):
    """The largest number of mel bins that is taken computes; one more is refused."""
    pytest.importorskip("kaldifeat")
    import numpy as np

    from plateau.data.features import FeatureOptions, make_extractor

    with pytest.raises(UserError, match="must be at most") as error:
        FeatureOptions(rate, 1000)
    most = int(str(error.value).split("at most ")[1].split(":")[0])
    samples = np.random.default_rng(0).normal(size=rate).astype(np.float32)
    features = make_extractor(FeatureOptions(rate, most)).extract(samples, rate)
    assert features.shape == (100, most) and np.isfinite(features).all()
    with pytest.raises(UserError, match=f"num_mel_bins is {most + 1}; at {rate} Hz"):
        FeatureOptions(rate, most + 1)
