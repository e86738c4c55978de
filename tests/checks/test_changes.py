"""Options that do nothing are named, and no others."""

import pytest

import conformer_ctc.options
import conformer_ctc.train
import transducer.options
import transducer.train
from plateau.checks.changes import check_changes, differing
from plateau.config import resolve
from plateau.models.ctc import CtcModel
from plateau.models.transducer import TransducerModel
from plateau.training.recipe import Recipe
from tests.training.toy import make_cut_set
from tests.use_options import TOKENIZER

FEATURES, VOCAB = 20, 5
SMALL = [
    *["encoder.conformer.dim=8", "encoder.conformer.num_layers=2", "encoder.conformer.num_heads=2"],
    *["encoder.conformer.feedforward_dim=8", "encoder.blstm.dim=8", "encoder.blstm.num_layers=1"],
]
OF_TRANSDUCER = ["predictor.dim=8", "joiner.dim=8", "loss.ctc_layers=[1]", "loss.ctc_scales=[0.5]"]


@pytest.fixture(scope="module")
def cuts(tmp_path_factory):
    """Six utterances with features, of words that the tokenizer has."""
    folder = tmp_path_factory.mktemp("changes")
    found = make_cut_set(folder, count=6)
    texts = ["ab", "cc ab", "ab cc ab", "cc", "ab ab", "cc ab"]
    for cut, text in zip(found, texts, strict=True):
        cut.supervisions[0].text = text
    return found


def build_ctc(options):
    model = CtcModel(FEATURES, VOCAB, options.encoder, options.loss.prior)
    return Recipe(model, conformer_ctc.train.make_loss(model, TOKENIZER, options.loss))


def build_transducer(options):
    model = TransducerModel(
        *(FEATURES, VOCAB, options.encoder, options.predictor, options.joiner),
        options.loss.ctc_layers,
    )
    return Recipe(model, transducer.train.make_loss(model, TOKENIZER, options.loss))


RECIPES = {
    "ctc": (conformer_ctc.options.Options, build_ctc, SMALL),
    "transducer": (transducer.options.Options, build_transducer, SMALL + OF_TRANSDUCER),
}


def named(cuts, recipe, overrides, base=()):
    """Names of the options that the notes are of."""
    kind, build, small = RECIPES[recipe]
    defaults = resolve(kind, {}, [*small, *base])
    options = resolve(kind, {}, [*small, *base, *overrides])
    notes = check_changes(options, defaults, build, cuts, seed=1)
    for note in notes:
        assert note.endswith("nor its loss on 6 utterances; is the part used that it is of?")
    return [note.split(" ")[0] for note in notes]


def test_what_is_said(cuts):
    kind, build, small = RECIPES["transducer"]
    defaults = resolve(kind, {}, small)
    options = resolve(kind, {}, [*small, "loss.focal_factor=2"])
    assert check_changes(options, defaults, build, cuts, 1) == [
        "loss.focal_factor is 2.0 in place of 0.0, and that changes neither the untrained model "
        "nor its loss on 6 utterances; is the part used that it is of?"
    ]


PRIOR = ["loss.prior.estimator=moving_average"]
IDLE = [
    ("ctc", ["encoder.blstm.dim=16"], ()),
    ("ctc", ["encoder.conformer.dropout=0.5"], ["encoder.kind=blstm"]),
    ("ctc", ["loss.prior.scale=0.7"], ()),
    ("ctc", ["loss.prior.decay=0.5"], ["loss.prior.estimator=batch"]),
    ("transducer", ["loss.focal_factor=2"], ()),
    ("transducer", ["loss.label_smoothing=0.1"], ["loss.kind=full"]),
    ("transducer", ["loss.aligner=transducer"], ()),
    ("transducer", ["predictor.context=1"], ["predictor.kind=lstm"]),
    ("transducer", ["loss.prune_range=3"], ["loss.kind=full"]),
]


@pytest.mark.parametrize(("recipe", "overrides", "base"), IDLE)
def test_what_does_nothing_is_named(cuts, recipe, overrides, base):
    assert named(cuts, recipe, overrides, base) == [overrides[0].partition("=")[0]]


EFFECTIVE = [
    ("ctc", ["encoder.kind=blstm"], ()),
    ("ctc", ["encoder.conformer.dropout=0.5"], ()),
    ("ctc", ["encoder.conformer.identity_start=false"], ()),
    ("ctc", ["loss.topology=silence"], ()),
    ("ctc", ["loss.viterbi=0.5"], ()),
    # What counts later, or with a model that is sure of itself.
    ("ctc", ["loss.viterbi=0.5", "loss.after_steps=100", "loss.warm_up_steps=10"], ()),
    ("ctc", ["loss.delay_penalty=0.01"], ["loss.after_steps=1000"]),
    ("ctc", [*PRIOR, "loss.after_steps=1000"], ()),
    ("ctc", ["loss.prior.estimator=epoch"], PRIOR),
    ("ctc", ["loss.prior.source=soft_alignments"], PRIOR),
    ("ctc", ["loss.prior.floor=0.001"], PRIOR),
    ("ctc", ["loss.prior.decay=0.5"], PRIOR),
    ("ctc", ["loss.prior.scale=0.31"], PRIOR),
    ("transducer", ["loss.kind=full"], ()),
    ("transducer", ["loss.topology=rna"], ()),
    ("transducer", ["loss.lm_scale=0.2"], ()),
    ("transducer", ["loss.simple_scale=0.4"], ["loss.after_steps=100"]),
    ("transducer", ["loss.prune_range=3"], ()),
    ("transducer", ["loss.focal_factor=2"], ["loss.kind=viterbi"]),
    ("transducer", ["loss.aligner=transducer"], ["loss.kind=viterbi"]),
    ("transducer", ["predictor.context=1"], ()),
    ("transducer", ["loss.ctc_scales=[0.6]"], ()),
    # Neither can be taken back without the other.
    ("transducer", ["loss.ctc_layers=[1,2]", "loss.ctc_scales=[0.5,1]"], ()),
    # Of a schedule, and of data and training: nobody asks.
    ("ctc", ["loss.after_steps=10", "loss.warm_up_steps=5", "training.epochs=1"], ()),
    ("ctc", ["features.num_mel_bins=40", "decoding.beam=2", "loading.num_workers=0"], ()),
]


@pytest.mark.parametrize(("recipe", "overrides", "base"), EFFECTIVE)
def test_what_does_something_is_not_named(cuts, recipe, overrides, base):
    assert named(cuts, recipe, overrides, base) == []


def test_of_several_only_those_that_do_nothing_are_named(cuts):
    overrides = [
        "encoder.blstm.dim=16",
        "loss.viterbi=0.1",
        "loss.prior.decay=0",
        "loss.topology=hmm",
    ]
    assert named(cuts, "ctc", overrides) == ["encoder.blstm.dim", "loss.prior.decay"]


def test_an_experiment_with_the_default_options_costs_nothing(cuts):
    options = resolve(conformer_ctc.options.Options, {}, SMALL)

    def build(options):
        raise AssertionError

    assert list(differing(options, options)) == []
    assert check_changes(options, options, build, cuts, 1) == []
