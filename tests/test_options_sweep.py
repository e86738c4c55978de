"""Every field of every options class with sixteen bad values: refused by name, or they can be used.

The fields are found in the classes, so a new one is covered, and one without a range fails.
"""

import dataclasses
import importlib.util
import math
import re
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from plateau.config import UserError
from plateau.models.vrnn import VrnnOptions
from plateau.training.schedule import ScheduleOptions, learning_rate
from tests.use_options import SHORT, Uses, changes_beside, watched
from tests.vrnn import tiny

ROOT = Path(__file__).parent.parent
# "Bad" for most fields; where one is good, that must be seen in use.
BAD = (-1, 0, 0.5, 1.5, math.nan, math.inf, -math.inf, 1e308, -1e308, 10**12, 2**64, True, None, "")
BAD += ("x", (-1,))


def options_classes() -> dict[str, type]:
    """The classes, by the section of the configuration that they are."""
    from conformer_ctc.options import Options as Ctc
    from masked_text.options import Options as MaskedText
    from masked_window.options import Options as MaskedWindow
    from toy_peaky.options import Options as Toy
    from transducer.options import Options as Transducer
    from vrnn.options import Options as Vrnn

    found: dict[str, type] = {"--": Toy}
    recipes = {"conformer_ctc": Ctc, "transducer": Transducer}
    recipes |= {"masked_text": MaskedText, "masked_window": MaskedWindow, "vrnn": Vrnn}
    for recipe, cls in recipes.items():
        found |= {f"{recipe}:{name}": part for name, part in _parts(cls, "")}
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


def make(where: str, name: str, value: Any, others: Mapping[str, Any] = {}) -> Any:
    """Options with this value, beside others, or what is said of it."""
    cls = CLASSES[where]
    if isinstance(getattr(cls(), name), tuple) and isinstance(value, int | float | str):
        value = (value,)  # of a list
    try:
        return cls(**{**others, name: value})
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


def taken(where: str) -> list[tuple[str, Any]]:
    """The fields of a section with the values that are not refused."""
    return [
        (name, value)
        for section, name in FIELDS
        for value in BAD
        if section == where and not isinstance(make(where, name, value), str)
    ]


# What sizes a section has where it is used: the smallest things. Not in place of the swept field.
SMALL: dict[str, dict[str, Any]] = {
    "--": {"frames": 6, "classes": 2, "target": "0 1", "steps": 3},
    "conformer_ctc:": {"data_dir": "data/toy"},
    "transducer:": {"data_dir": "data/toy"},
    "masked_text:": {"data_dir": "data/toy"},
    "masked_text:decoder": {"dim": 8, "num_layers": 1, "num_heads": 2, "feedforward_dim": 8},
    "masked_text:encoder.conformer": {"dim": 8, "num_layers": 1, "num_heads": 2},
    "masked_text:encoder.blstm": {"dim": 8, "num_layers": 1},
    "masked_text:decoding": {"holes": (0.5,), "max_words": 1, "candidates": 4},
    "masked_window:": {"data_dir": "data/spoken"},
    "masked_window:window": {"frames": 30, "words": 3, "frame_stride": 3},
    "masked_window:window_model": {"dim": 8, "audio_layers": 1, "num_heads": 2},
    "vrnn:": {"data_dir": "data/strokes", "vrnn": VrnnOptions(**tiny.VRNN)},
    "vrnn:vrnn": tiny.VRNN,
    "vrnn:vae": tiny.VAE,
    "vrnn:loading": {"batch_size": 4},
    "vrnn:decoding": {"importance_samples": 2},
    "conformer_ctc:training": {"epochs": 2} | SHORT,
    "conformer_ctc:encoder.conformer": {"dim": 8, "num_layers": 1, "num_heads": 2},
    "transducer:encoder.conformer": {"dim": 8, "num_layers": 1, "num_heads": 2},
    "conformer_ctc:encoder.blstm": {"dim": 8, "num_layers": 1},
    "transducer:encoder.blstm": {"dim": 8, "num_layers": 1},
    "transducer:predictor": {"dim": 8},
    "transducer:decoding": {"methods": ("greedy", "modified_beam", "fast_beam")},
}
# Sections that several recipes have, and that are used in the same way where the class is one.
SHARED = ("features", "tokens", "loading", "training", "training.schedule")
SHARED += ("training.spec_augment",)
OUTCOMES: dict[tuple[str, str, str], str] = {}


@pytest.fixture(scope="module")
def uses(tmp_path_factory) -> Iterator[Uses]:
    patch = pytest.MonkeyPatch()
    folder = tmp_path_factory.mktemp("uses")
    patch.chdir(folder)
    yield Uses(folder)
    patch.undo()


@pytest.mark.parametrize("where", CLASSES)
def test_what_is_taken_can_be_used(uses, where):
    """By the code that reads the field: what comes of it is finite; or it is refused by then."""
    counts: Counter[str] = Counter()
    for name, value in taken(where):
        # What is the same in several recipes is done once.
        section = where.partition(":")[2]
        same = f"conformer_ctc:{section}"
        shared = section in SHARED and CLASSES[same] is CLASSES[where]
        key = (same if shared else where, name, repr(value))
        if key not in OUTCOMES:
            OUTCOMES[key] = outcome(uses, key[0], name, value)
        counts[OUTCOMES[key]] += 1
    print(f"{where}: {dict(counts)}")
    assert counts.total() == len(taken(where))


def outcome(uses: Uses, where: str, name: str, value: Any) -> str:
    """What becomes of a value that the class takes; a failed assertion if it is neither."""
    others = {k: v for k, v in SMALL.get(where, {}).items() if k != name}
    part = make(where, name, value, others | changes_beside(where, name))
    if isinstance(part, str):
        assert len(part.splitlines()) == 1, part
        return "refused beside other fields"
    with watched(part) as read:
        try:
            uses.use(where, name, part)
            said = ""
        except UserError as error:
            said = str(error)
    assert name in read, f"{where}: nothing reads {name} (={value!r}); see BESIDE"
    if not said:
        return "used"
    assert isinstance(value, str), (name, value, said)  # the name of what is not there
    assert len(said.splitlines()) <= 3
    return "refused before training"


# What is large in these takes time or memory and nothing else: stage 4 tries it on the machine.
SIZES = {"dim", "num_layers", "num_heads", "feedforward_dim", "hidden_dim", "subsampling_channels"}
SIZES |= {"latent_dim", "feature_dim", "latent_feature_dim", "components", "masked_dim", "channels"}
SIZES |= {"num_blocks", "audio_layers"}
SIZES |= {"importance_samples", "conv_kernel", "frames", "classes", "steps", "batch_sizes"}
QUICK = ("--", "loss", "loss.prior", "predictor", "encoder.conformer", "encoder.blstm", "decoding")
QUICK += (
    "decoder",
    "masking",
    "window_model",
    "window_loss",
    "vrnn",
    "vrnn.output",
    "vae",
    "vae.output",
    "bound",
)


def ends(where: str, name: str) -> list[int | float]:
    """The smallest and the largest number that a field may have, as it says of NaN."""
    said = re.search(
        r"be (a whole number, )?(at least|above) (\S+?)( and (at most|below) (\S+))?$",
        str(make(where, name, math.nan)),
    )
    if not said:
        return []
    inner = 0 if said[1] else 1e-6
    found = [float(said[3]) + (inner if said[2] == "above" else 0)]
    if said[4]:
        found.append(float(said[6]) - (inner if said[5] == "below" else 0))
    return [int(end) for end in found] if said[1] else found


@pytest.mark.parametrize("where", [w for w in CLASSES if w.split(":")[-1] in QUICK])
def test_the_ends_of_a_range_can_be_used(uses, where):
    number = 0
    for name in (name for section, name in FIELDS if section == where and name not in SIZES):
        for value in ends(where, name):
            others = {k: v for k, v in SMALL.get(where, {}).items() if k != name}
            part = make(where, name, value, others | changes_beside(where, name))
            if name in ("am_scale", "ctc_layers", "ctc_scales") and isinstance(part, str):
                continue  # each with another field
            if (where, name, value) == ("transducer:loss", "after_steps", 10**9):
                continue  # the loss is 0: refused in stage 4
            uses.use(where, name, part)
            number += 1
    print(f"{where}: {number} ends of ranges used")
    assert number > 0


def test_a_field_that_nothing_reads_is_found():
    part = ScheduleOptions()
    with watched(part) as read:
        learning_rate(dataclasses.replace(part, kind="noam"), 1, 0.5)
        dataclasses.asdict(part)
    assert read == {"kind", "peak", "warmup_steps"}
    with watched(part) as read:
        dataclasses.replace(part, peak=1.0)
    assert read == set()


def test_a_section_that_nothing_uses_is_found(uses):
    with pytest.raises(KeyError, match="pictures"):
        uses.use("conformer_ctc:pictures", "size", None)


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
