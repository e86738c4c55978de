"""A change that changes nothing: options that differ from the default ones, and do nothing.

An option of a part that is not used (``encoder.blstm.dim`` of a Conformer) makes an experiment that
is the one before, whose result says nothing of it. So each is taken back alone, to see whether that
makes another model or another loss.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch

from plateau.config import T, UserError
from plateau.training.checkpoint import set_seed
from plateau.training.experiment import SpeechOptions
from plateau.training.interfaces import AnyBatch
from plateau.training.recipe import Recipe

# Of data and of how it is gone through: these make no other model, or are other data.
OTHERS = {field.name for field in fields(SpeechOptions)} | {"decoding", "kind", "frames"}
# Schedules, which may differ in steps that are not looked at, and bounds that are seldom reached.
RARE = ("_steps", "floor")
END = 10**9  # a step at which all of a loss counts
NOISE = 1.0  # that is added to parameters, so that a model is as sure of itself as a trained one


def check_changes(
    options: T,
    defaults: T | None,
    build: Callable[[T], Recipe],
    batches: Sequence[AnyBatch],
    seed: int,
) -> list[str]:
    """Name the options of model and loss that differ from the default ones and change nothing.

    That is: all parameters have the same names, shapes and values, and the losses of the batches in
    training mode are the same, with the same random numbers: at the first step, and with other
    parameters when all of the loss counts. What `RARE` names is passed over, and what cannot be
    taken back alone. A probability that is nearly the same may make the same draws in so few
    utterances, so the note says on how many it is seen.

    Args:
        options: of the experiment
        defaults: of its corpus and recipe; None: there are none
        build: makes the recipe of options
        batches: two, of a few utterances, long ones and short ones: of one alone, an average over
            batches is what it is whatever the weights
        seed: of all that is random
    """
    different = [] if defaults is None else differing(options, defaults)
    names = [name for name in different if not name.endswith(RARE)]
    if not names:
        return []
    seen = f"{sum(len(batch.ids) for batch in batches)} {batches[0].things}"
    changed = _observed(options, build, batches, seed)
    notes = []
    for name in names:
        now, before = (_value(o, name) for o in (options, defaults))
        try:
            taken_back = _observed(_with(options, name, before), build, batches, seed)
        except UserError:  # of options that belong together
            continue
        if _same(changed, taken_back):
            notes.append(
                f"{name} is {_shown(now)} in place of {_shown(before)}, and that changes neither "
                f"the untrained model nor its loss on {seen}; is the part used that it is of?"
            )
    return notes


def differing(options: Any, defaults: Any, prefix: str = "") -> Iterator[str]:
    """Full names of the fields that differ, but for those in `OTHERS`."""
    for field in fields(options):
        if prefix or field.name not in OTHERS:
            one, other = getattr(options, field.name), getattr(defaults, field.name)
            name = f"{prefix}{field.name}"
            if is_dataclass(one):
                yield from differing(one, other, f"{name}.")
            elif one != other:
                yield name


def _value(options: Any, name: str) -> Any:
    for part in name.split("."):
        options = getattr(options, part)
    return options


def _with(options: T, name: str, value: Any) -> T:
    """The options with another value of a field; raises `UserError` where that cannot be."""
    first, _, rest = name.partition(".")
    new = _with(getattr(options, first), rest, value) if rest else value
    return replace(options, **{first: new})


def _shown(value: Any) -> str:
    return str(list(value)) if isinstance(value, tuple) else str(value) or "''"


def _observed(
    options: T, build: Callable[[T], Recipe], batches: Sequence[AnyBatch], seed: int
) -> tuple[dict[str, torch.Tensor], list[float]]:
    """Parameters of the untrained model of these options, and losses of the batches."""
    set_seed(seed)
    built = build(options)
    model = built.model.train()
    parameters = {name: value.detach().clone() for name, value in model.named_parameters()}
    losses = []
    for step in (0, END):
        set_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters() if step else ():
                parameter.add_(NOISE * torch.randn_like(parameter))
            for name, buffer in model.named_buffers():
                if name.rpartition(".")[2] == "steps":
                    buffer.fill_(step)
        for _ in range(2):  # what is estimated over an epoch counts in the next
            losses += [built.loss_function(model, batch).total.item() for batch in batches]
            for module in model.modules():
                if hasattr(module, "finish_epoch"):
                    module.finish_epoch()
    return parameters, losses


def _same(one: tuple[dict, list[float]], other: tuple[dict, list[float]]) -> bool:
    parameters, losses = one
    others, other_losses = other
    return (
        parameters.keys() == others.keys()
        and all(torch.equal(value, others[name]) for name, value in parameters.items())
        and losses == other_losses
    )
