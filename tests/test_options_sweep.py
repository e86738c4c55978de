"""Every field of every options class with sixteen bad values: refused by name, or they can be used.

The fields are found in the classes, so a new one is covered, and one without a range fails.
"""

import dataclasses
import importlib.util
import math
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from plateau.config import UserError
from plateau.training.schedule import ScheduleOptions, learning_rate
from tests.use_options import SHORT, Uses, changes_beside, watched

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
    sys.path.insert(0, str(ROOT / "egs/espeak"))
    for corpus in ("espeak", "fsdd", "mboshi", "yesno"):
        spec = importlib.util.spec_from_file_location(
            f"sweep_{corpus}", ROOT / "egs" / corpus / "prepare.py"
        )
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        found[f"{corpus}:corpus"] = getattr(module, f"{corpus.capitalize()}Options")
    sys.path.pop(0)
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
    "conformer_ctc:training": {"epochs": 2} | SHORT,
    "conformer_ctc:encoder.conformer": {"dim": 8, "num_layers": 1, "num_heads": 2},
    "transducer:encoder.conformer": {"dim": 8, "num_layers": 1, "num_heads": 2},
    "conformer_ctc:encoder.blstm": {"dim": 8, "num_layers": 1},
    "transducer:encoder.blstm": {"dim": 8, "num_layers": 1},
    "transducer:predictor": {"dim": 8},
    "transducer:decoding": {"methods": ("greedy", "modified_beam", "fast_beam")},
}
# Sections that both recipes have, and that are used in the same way in both.
SHARED = ("features", "tokens", "loading", "training", "training.schedule")
SHARED += ("training.spec_augment",)


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
    recipe, _, section = where.partition(":")
    if recipe == "transducer" and section in SHARED:
        assert CLASSES[where] is CLASSES[f"conformer_ctc:{section}"]
        return
    counts: Counter[str] = Counter()
    for name, value in taken(where):
        beside = changes_beside(where, name)
        small = {k: v for k, v in SMALL.get(where, {}).items() if k != name}
        part = make(where, name, value, small | beside)
        if isinstance(part, str):
            assert len(part.splitlines()) == 1, part
            counts["refused beside other fields"] += 1
            continue
        with watched(part) as read:
            try:
                uses.use(where, name, part)
                counts["used"] += 1
            except UserError as error:
                assert isinstance(value, str), (name, value, error)  # names of what is not there
                assert 1 <= len(str(error).splitlines()) <= 3
                counts["refused before training"] += 1
        assert name in read, f"{where}: nothing reads {name} (={value!r}); see BESIDE"
    print(f"{where}: {dict(counts)}")
    assert counts.total() == len(taken(where))


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
