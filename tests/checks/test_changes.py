"""Options that do nothing are named, and no others."""

import pytest
import torch
from lhotse import CutSet

pytest.importorskip("k2")

import conformer_ctc.options
import conformer_ctc.train
import transducer.options
import transducer.train
import vrnn.options
import vrnn.train
from plateau.checks.changes import check_changes, differing
from plateau.config import resolve
from plateau.data.features import FeatureOptions
from plateau.data.loading import load_batch
from plateau.data.sequence_loading import SequenceBatch
from plateau.models.ctc import CtcModel
from plateau.models.transducer import TransducerModel
from plateau.models.vae import Vae
from plateau.models.vrnn import Vrnn
from plateau.training.recipe import Recipe
from tests.training.toy import make_cut_set
from tests.use_options import TOKENIZER
from vrnn.model import SequenceModel

FEATURES, VOCAB = 20, 5
SMALL = [
    *["encoder.conformer.dim=8", "encoder.conformer.num_layers=2", "encoder.conformer.num_heads=2"],
    *["encoder.conformer.feedforward_dim=8", "encoder.blstm.dim=8", "encoder.blstm.num_layers=1"],
]
OF_TRANSDUCER = ["predictor.dim=8", "joiner.dim=8", "loss.ctc_layers=[1]", "loss.ctc_scales=[0.5]"]


@pytest.fixture(scope="module")
def batches(tmp_path_factory):
    """Two of three utterances each, of words that the tokenizer has."""
    folder = tmp_path_factory.mktemp("changes")
    found = make_cut_set(folder, count=6)
    texts = ["ab", "cc ab", "ab cc ab", "cc", "ab ab", "cc ab"]
    for cut, text in zip(found, texts, strict=True):
        cut.supervisions[0].text = text
    parts = (CutSet.from_cuts(list(found)[n::2]) for n in range(2))
    return [load_batch(part, FeatureOptions()) for part in parts]


def build_ctc(options):
    model = CtcModel(FEATURES, VOCAB, options.encoder, options.loss.prior)
    return Recipe(model, conformer_ctc.train.make_loss(model, TOKENIZER, options.loss))


def build_transducer(options):
    model = TransducerModel(
        *(FEATURES, VOCAB, options.encoder, options.predictor, options.joiner),
        options.loss.ctc_layers,
    )
    return Recipe(model, transducer.train.make_loss(model, TOKENIZER, options.loss))


def build_latent(options):
    core = Vae(3, options.vae) if options.model == "vae" else Vrnn(3, options.vrnn)
    model = SequenceModel(core, 3)
    return Recipe(model, vrnn.train.make_loss(model, options.bound))


def sequences():
    """Two batches of strokes."""
    lengths = torch.tensor([5, 3])
    values = [torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(n)) for n in range(2)]
    return [
        SequenceBatch(torch.cat([x[..., :2], x[..., 2:].gt(0).float()], 2), lengths, ["a", "b"])
        for x in values
    ]


RECIPES = {
    "ctc": (conformer_ctc.options.Options, build_ctc, SMALL),
    "transducer": (transducer.options.Options, build_transducer, SMALL + OF_TRANSDUCER),
}


def named(batches, recipe, overrides, base=()):
    """Names of the options that the notes are of."""
    kind, build, small = RECIPES[recipe]
    defaults = resolve(kind, {}, [*small, *base])
    options = resolve(kind, {}, [*small, *base, *overrides])
    notes = check_changes(options, defaults, build, batches, seed=1)
    for note in notes:
        assert note.endswith("nor its loss on 6 utterances; is the part used that it is of?")
    return [note.split(" ")[0] for note in notes]


def test_what_is_said(batches):
    kind, build, small = RECIPES["transducer"]
    defaults = resolve(kind, {}, small)
    options = resolve(kind, {}, [*small, "loss.focal_factor=2"])
    assert check_changes(options, defaults, build, batches, 1) == [
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
def test_what_does_nothing_is_named(batches, recipe, overrides, base):
    assert named(batches, recipe, overrides, base) == [overrides[0].partition("=")[0]]


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
def test_what_does_something_is_not_named(batches, recipe, overrides, base):
    assert named(batches, recipe, overrides, base) == []


OF_LATENTS = [  # overrides, what they are compared with, and whether they do nothing
    (["vae.hidden_dim=9"], [], True),
    (["vrnn.output.bins=9"], [], True),
    (["vrnn.output.masked_dim=9"], [], True),
    (["vrnn.output.masked_dim=9"], ["vrnn.output.autoregressive=true"], False),
    (["vrnn.latent_dim=9"], ["vrnn.kind=rnn"], True),
    (["vrnn.latent_dim=9"], [], False),
    (["bound.kl_weight=0.5"], ["vrnn.kind=rnn"], True),
    (["bound.kl_weight=0.5"], [], False),
    (["bound.free_nats=0.5", "bound.free_nats_steps=0"], [], False),
    (["bound.kl_schedule=linear"], [], False),
    (["bound.analytic_kl=false"], [], False),
    (["model=vae", "vae.output.kind=strokes"], [], False),
    (["frames.frame_length=80", "kind=frames", "loading.batch_size=3"], [], False),
]


@pytest.mark.parametrize(("overrides", "base", "idle"), OF_LATENTS)
def test_models_with_latent_variables(overrides, base, idle):
    small = ["vrnn.hidden_dim=8", "vrnn.feature_dim=8", "vrnn.latent_dim=2", *base]
    defaults = resolve(vrnn.options.Options, {}, small)
    options = resolve(vrnn.options.Options, {}, [*small, *overrides])
    notes = check_changes(options, defaults, build_latent, sequences(), 1)
    assert [note.split(" ")[0] for note in notes] == [overrides[0].split("=")[0]] * idle
    assert all("nor its loss on 4 sequences; is" in note for note in notes)


def test_of_several_only_those_that_do_nothing_are_named(batches):
    overrides = [
        "encoder.blstm.dim=16",
        "loss.viterbi=0.1",
        "loss.prior.decay=0",
        "loss.topology=hmm",
    ]
    assert named(batches, "ctc", overrides) == ["encoder.blstm.dim", "loss.prior.decay"]


def test_an_experiment_with_the_default_options_costs_nothing(batches):
    options = resolve(conformer_ctc.options.Options, {}, SMALL)

    def build(options):
        raise AssertionError

    assert list(differing(options, options)) == []
    assert check_changes(options, options, build, batches, 1) == []
    assert check_changes(options, None, build, batches, 1) == []
