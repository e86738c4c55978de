"""What the page says of an experiment beside its results: how it was made, with which options."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from plateau.config import UserError
from plateau.data.corpus import TRAIN, Corpus
from plateau.io import parse_json
from plateau.results import is_number
from plateau.text import read_lines
from plateau.training.experiment import Experiment, SpeechOptions, corpus_of

KNOWN = ("epoch", "step", "train_seconds")  # of every epoch


@dataclasses.dataclass(frozen=True)
class Option:
    """An option, as it is given after ``--``, with its default."""

    name: str
    value: str
    default: str


@dataclasses.dataclass(frozen=True)
class About:
    """An experiment.

    Args:
        facts: by what they are of, in order.
        options: all that it has.
        loss: how the loss is to be read; "" where it is a negative log-probability.
        epochs: the records of log/epochs.jsonl.
    """

    facts: Mapping[str, str]
    options: Sequence[Option]
    loss: str
    epochs: Sequence[Mapping[str, float]]


def about(
    experiment: Experiment, options: SpeechOptions, model: nn.Module, tokens: Sequence[str]
) -> About:
    """What is known of a trained experiment.

    Args:
        experiment: its folder has log/epochs.jsonl.
        options: that it was trained and decoded with.
        model: trained.
        tokens: names of its labels.

    Raises:
        UserError: nothing is trained.
    """
    epochs = read_epochs(experiment.path)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    facts = {
        "model": f"{parameters / 1e6:.2f} million parameters, encoder {options.encoder.kind}",
        "tokens": f"{len(tokens)} of kind {options.tokens.kind}, with blank and unknown",
        "training": training(epochs),
        **_sizes(corpus_of(options)),
    }
    speeds = options.features.perturb_speed
    if speeds and TRAIN in facts:
        facts[TRAIN] += f"; each also at {' and '.join(map(str, speeds))} times its speed"
    return About(facts, list_options(options), loss_remark(options, epochs[-1]["step"]), epochs)


def read_epochs(exp_dir: Path) -> list[dict[str, float]]:
    """The records of ``log/epochs.jsonl``, one for each epoch.

    Raises:
        UserError: there is none, or a line of another form.
    """
    path = exp_dir / "log" / "epochs.jsonl"
    lines = read_lines(path) if path.exists() else []
    if not lines:
        raise UserError(f"{path}: no epoch is trained; run {Experiment(exp_dir).command}")
    epochs = []
    for number, line in enumerate(lines, start=1):
        record = parse_json(line, f"{path}:{number}")
        if not (isinstance(record, dict) and all(is_number(record.get(name)) for name in KNOWN)):
            raise UserError(f"{path}:{number}: not a record with {', '.join(KNOWN)}")
        epochs.append(record)
    return epochs


def training(epochs: Sequence[Mapping[str, float]]) -> str:
    """How long an experiment was trained, by the records of log/epochs.jsonl."""
    last = epochs[-1]
    return f"{duration(last['train_seconds'])} for {len(epochs)} epochs, {last['step']} steps"


def _sizes(corpus: Corpus) -> dict[str, str]:
    """Hours and utterances of each set that is there, without copies at other speeds."""
    sizes, dev = {}, corpus.dev_set()
    for name in sorted(corpus.sets(), key=lambda name: (name != TRAIN, name != dev, name)):
        if corpus.manifest("supervisions", name).exists():
            seconds = [supervision.duration for supervision in corpus.supervisions(name)]
            sizes[name] = f"{duration(sum(seconds))} of speech, {len(seconds)} utterances"
    return sizes


def duration(seconds: float) -> str:
    """Seconds as hours and minutes, as minutes and seconds, or with a tenth."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def list_options(options: Any) -> list[Option]:
    """All options with their defaults, by names with dots, as they are given after ``--``."""
    values, defaults = (_flat(dataclasses.asdict(each)) for each in (options, type(options)()))
    return [Option(name, value, defaults.get(name, "")) for name, value in values.items()]


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            flat[f"{prefix}{name}"] = text
    return flat


def loss_remark(options: Any, steps: int) -> str:
    """Why the loss may be below 0, where it may be.

    Args:
        options: of any recipe; their section ``loss`` decides.
        steps: of the whole training.
    """
    loss = options.loss
    if loss.after_steps >= steps:
        return ""
    causes = []
    prior = getattr(loss, "prior", None)
    if prior is not None and prior.estimator != "none" and prior.scale > 0:
        causes.append(
            f"posteriors are divided by the label prior, to the power of {prior.scale:g} "
            "(loss.prior)"
        )
    if getattr(loss, "acoustic_scale", 1) < 1 and loss.viterbi < 1:
        causes.append(
            f"posteriors are taken to the power of {loss.acoustic_scale:g} (loss.acoustic_scale)"
        )
    if getattr(loss, "delay_penalty", 0) > 0 and getattr(loss, "kind", "") != "viterbi":
        causes.append(
            f"a token gains {loss.delay_penalty:g} nats for each frame earlier (loss.delay_penalty)"
        )
    if not causes:
        return ""
    since = f" from step {loss.after_steps} on" if loss.after_steps else ""
    return (
        f"The loss may be below 0:{since} it is no negative log-probability, for "
        f"{' and '.join(causes)}."
    )
