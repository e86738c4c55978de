"""Models, targets and priors as graphs."""

from itertools import product

import torch
from torch import Tensor

from plateau.graphs.composition import (
    bias_graph,
    clock,
    compose,
    memory_graph,
    prior_graph,
    total,
)
from plateau.graphs.graph import stack
from plateau.graphs.topology import STANDARD
from toy_peaky.experiment import Experiment, Results, Section
from toy_peaky.graph_pictures import graphs
from toy_peaky.options import Options
from toy_peaky.training import loss_and_gradient

RUNS, FRAMES = 4, 12


def _composed_loss(options: Options, parameters: dict[str, Tensor]) -> Tensor:
    """The loss (R,) as a difference of totals: of the model, and of its part that is the target."""
    bias, mem = parameters.get("bias"), parameters.get("mem")
    if mem is None:
        model, logits = compose(clock(RUNS, FRAMES, bias.shape[1]), bias_graph(bias)), bias[:, None]
    elif bias is None:
        model, logits = memory_graph(mem), mem
    else:
        model, logits = compose(memory_graph(mem), bias_graph(bias)), mem + bias[:, None]
    parts = [model, stack([options.graph] * RUNS)]
    if options.loss.startswith("sum_with_prior"):
        log_probs = logits.log_softmax(-1)  # (R, T, V), or (R, 1, V)
        log_prior = log_probs.exp().mean(1).log()  # (R, V)
        stopped = options.loss == "sum_with_prior_sg"
        parts.insert(1, prior_graph(log_prior.detach() if stopped else log_prior))
    whole = 0.0 if options.loss == "gen_sum" else total(model)
    path = total(compose(*parts), log_semiring=options.loss != "max")
    return whole - path


def _same_as_dense(results: Results) -> tuple[str, bool]:
    draw = torch.Generator().manual_seed(1)
    worst_loss = worst_gradient = 0.0
    losses = ("sum", "max", "sum_with_prior", "sum_with_prior_sg", "gen_sum")
    for topology, model, loss in product(STANDARD, ("bias", "mem", "mem+bias"), losses):
        options = Options(
            model=model, loss=loss, topology=topology, frames=FRAMES, seeds=f"0:{RUNS}"
        )
        shapes = {"bias": (options.num_labels,), "mem": (FRAMES, options.num_labels)}
        parameters = {
            name: torch.randn(
                RUNS, *shapes[name], generator=draw, dtype=torch.double
            ).requires_grad_()
            for name in model.split("+")
        }
        dense, gradients = loss_and_gradient(options, parameters)
        composed = _composed_loss(options, parameters)
        composed.sum().backward()
        worst_loss = max(worst_loss, (dense - composed).abs().max().item())
        for name, parameter in parameters.items():
            difference = (gradients[name] - parameter.grad).abs().max().item()
            worst_gradient = max(worst_gradient, difference)
    seen = f"7 topologies × 3 models × 5 losses, T = {FRAMES}: losses differ by {worst_loss:.0e}"
    return f"{seen} at most, gradients by {worst_gradient:.0e}", (
        max(worst_loss, worst_gradient) < 1e-4
    )


SECTION = Section(
    "Everything is a graph",
    """A target is a graph that accepts the frame labels that stand for it. A model is a graph, too:
a bias is one state with a loop for each label, a memory a chain of T positions with an arc for
each label, both at once their composition, and a prior one more graph composed in. The loss is the
total of the model minus that of its composition with the target. That is slow, and good to think
with; training takes the frames' scores against the target's graph, which is the same.""",
    (
        Experiment(
            name="composition",
            source="paper",
            claim="Losses and gradients from composed graphs are those of the frames' scores.",
            check=_same_as_dense,
            pictures=(graphs,),
            remark="k2 computes in float32. Both are held against enumeration in the tests.",
        ),
    ),
)
