"""Networks that read the ground truth, and need only pass it on."""

from dataclasses import replace
from statistics import mean

import torch

from toy_peaky.catalogue.measures import (
    EVEN,
    UNEVEN,
    centred,
    frame_error,
    is_peaky,
    percent,
    shares,
    spread,
)
from toy_peaky.experiment import Experiment, Results, Section
from toy_peaky.options import Options
from toy_peaky.pictures import loss_curves, loss_map, posteriors_over_time
from toy_peaky.training import loss_and_gradient

LINEAR = Options(model="linear", bias=False, classes=1)
THREE = replace(LINEAR, classes=3)
IDENTITY = replace(THREE, bias=True, input=UNEVEN, init="identity", steps=1000)
FREE = Options(model="model_free", classes=1)


def _peaky_with_errors(results: Results) -> tuple[str, bool]:
    seen, holds = [], True
    for name, (run,) in results.items():
        seen.append(f"{name}: {shares(run)}; frame error {percent(run.fer_softmax_to_ref)}")
        only_blank = run.num_blank_argmax == len(run.viterbi)  # so every label's frame is wrong
        holds &= is_peaky(run) and only_blank
    return "; ".join(seen), holds


def _peaky(results: Results) -> tuple[str, bool]:
    runs = [run for group in results.values() for run in group]
    peaky, error = mean(map(is_peaky, runs)), frame_error(runs)
    seen = f"{percent(peaky)} of {len(runs)} runs peaky; {spread(runs)}"
    return f"{seen}; frame error {percent(error)}", peaky == 1


def _leaves_the_solution(results: Results) -> tuple[str, bool]:
    seen, holds = [], True
    for name, (run,) in results.items():
        right = run.snapshots[0].posteriors.argmax(-1).tolist() == IDENTITY.input_labels
        after = run.fer_softmax_to_ref
        seen.append(f"{name}: {percent(after)} (loss {run.loss[0]:.1f} → {run.loss[-1]:.2f})")
        holds &= right and after > 0 and run.loss[-1] < run.loss[0]
    return f"frame error at last, 0 at first: {', '.join(seen)}", holds


def _towards_the_truth(n: int) -> bool:
    # Whether the first gradient step from zero moves θ of input 0 towards label 0.
    options = replace(FREE, input=centred(n))
    _, gradient = loss_and_gradient(options, {"theta": torch.zeros(1, 2)})
    return gradient["theta"][0, 0].item() < 0


def _gradient_and_end(results: Results) -> tuple[str, bool]:
    first = [n for n in range(1, 11) if _towards_the_truth(n)]
    wrong = [name for name, (run,) in results.items() if run.fer_softmax_to_ref > 0]
    seen = f"the first step goes the right way for n = {first}, and the end is wrong for "
    return seen + ", ".join(wrong), first == [1, 2, 3] and not {"n = 1", "n = 2", "n = 3"} & {
        *wrong
    }


SECTION = Section(
    "A network that has the answer at hand",
    """The input is the ground truth: label 0 for the frames of label 0, blank for those of blank. A
linear layer that copies it has no error. CTC from zero weights does not find it: at the first step
blank is likelier in both inputs, and the layer learns blank for both. The paper proves it for n
blanks, 2 n labels, n blanks.""",
    (
        Experiment(
            name="ffnn_sum",
            source="paper, simulation 4.13",
            claim="A linear layer without bias, zero start, n = 4: converges to peaky, with an "
            "error in every frame of the label.",
            check=_peaky_with_errors,
            setups={"n = 4": replace(LINEAR, input=centred(4))},
            snapshots=(0, 1, 2, 5, 10, 20),
            pictures=(posteriors_over_time,),
        ),
        Experiment(
            name="linear_sum",
            source="notes",
            claim="linear, no bias, ground truth even or not, zero start, sum: peaky.",
            check=_peaky_with_errors,
            setups={"even": replace(THREE, input=EVEN), "uneven": replace(THREE, input=UNEVEN)},
            snapshots=(0, 5),
            pictures=(posteriors_over_time,),
        ),
        Experiment(
            name="n3_n4",
            source="notes",
            claim="n = 3 is not peaky, n = 4 is.",
            check=_gradient_and_end,
            setups={
                f"n = {n}": replace(FREE, input=centred(n), steps=500) for n in (1, 2, 3, 4, 5, 10)
            },
            remark="It holds for the gradient at the uniform point, which is what the counts "
            "tell: up to n = 3 it points to label 0 in label 0's frames. It does not hold for the "
            "end of training: for n = 2 and 3 blank takes over on the way.",
        ),
        Experiment(
            name="loss_map_discriminative",
            source="paper",
            claim="In the plane of θ for the two inputs, descent from zero leads to blank for "
            "both.",
            check=_peaky_with_errors,
            setups={"n = 10": replace(FREE, input=centred(10), steps=300)},
            pictures=(loss_map,),
        ),
        Experiment(
            name="linear_identity",
            source="notes",
            claim="linear with bias, ground truth uneven, started at the identity, sum: goes away "
            "from the perfect solution (SGD and Adam, even with a low learning rate), while the "
            "loss goes down.",
            check=_leaves_the_solution,
            setups={
                "sgd 0.1": replace(IDENTITY, lr=0.1),
                "sgd 0.001": replace(IDENTITY, lr=0.001),
                "adam 0.1": replace(IDENTITY, optimizer="adam", lr=0.1),
                "adam 0.001": replace(IDENTITY, optimizer="adam", lr=0.001),
            },
            snapshots=(0,),
            remark="True of SGD at both learning rates, not of Adam: it divides the bias's large "
            "gradient by its size, and stays.",
            pictures=(loss_curves,),
        ),
        Experiment(
            name="blstm_sum",
            source="notes",
            claim="blstm, ground truth uneven, normal start of scale 0.01, sum: always peaky.",
            check=_peaky,
            setups={
                "blstm": Options(
                    model="blstm",
                    classes=3,
                    input=UNEVEN,
                    init="normal",
                    rnd_scale=0.01,
                    steps=200,
                    seeds="0:20",
                )
            },
            snapshots=(0, 10, 50),
            pictures=(posteriors_over_time,),
        ),
    ),
)
