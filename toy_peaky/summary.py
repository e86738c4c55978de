"""What runs came to, as text for the terminal."""

import dataclasses
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby, zip_longest
from statistics import median
from textwrap import wrap

from toy_peaky.catalogue.measures import histogram
from toy_peaky.experiment import Outcome, Section
from toy_peaky.options import Options
from toy_peaky.training import Result


def flags(options: Options) -> str:
    """The command line's flags that give these options: those that differ from the defaults."""
    words = []
    for field in dataclasses.fields(options):
        value, flag = getattr(options, field.name), field.name.replace("_", "-")
        if value == field.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", str(value)]
    return shlex.join(words)


def run_lengths(labels: Iterable[int]) -> str:
    """Labels as ``--input`` takes them: ``1x49 0x2 1x49``."""
    return " ".join(f"{label}x{len(list(run))}" for label, run in groupby(labels))


def summarise(results: Sequence[Result]) -> str:
    """One run in a few lines; of several the medians, and a histogram of how much is blank."""
    first = results[0]

    def middle(name: str) -> float:
        return median(getattr(result, name) for result in results)

    def shares(name: str) -> str:
        columns = zip(*(getattr(result, name) for result in results), strict=True)
        of_labels = [f"{label}: {median(column):.3f}" for label, column in enumerate(columns)]
        return "  ".join(of_labels) + " (blank)"

    lines = {
        "loss": f"{median(r.loss[0] for r in results):.6g} -> "
        f"{median(r.loss[-1] for r in results):.6g} nats, {len(first.loss)} steps",
        "avg softmax": shares("avg_softmax"),
        "avg soft alignment": shares("avg_soft_alignment"),
        "min p(blank)": f"{middle('min_blank_prob'):.3g}",
        "blank frames": f"{middle('num_blank_argmax'):g} by argmax, "
        f"{middle('num_blank_viterbi'):g} by Viterbi, of {len(first.viterbi)}",
        "peakiness": f"{middle('peakiness'):.3f}",
        "sharpness": f"{middle('sharpness'):.3f}, entropy {middle('entropy'):.3g} nats",
    }
    if first.fer_viterbi_to_ref is not None:
        lines["frame errors"] = (
            f"{100 * middle('fer_softmax_to_ref'):.1f} % by argmax, "
            f"{100 * middle('fer_viterbi_to_ref'):.1f} % by Viterbi"
        )
    if len(results) == 1:
        lines["Viterbi"] = run_lengths(first.viterbi)
    else:
        counts = " ".join(map(str, histogram(results)))
        lines["seeds by blank"] = f"{counts} (avg softmax 0 … 1 in bins of 5 %)"
    heading = f"{len(results)} seeds, medians" if len(results) > 1 else f"seed {first.seed}"
    return "\n".join([heading, *(f"{name:20}{value}" for name, value in lines.items())])


def describe(outcome: Outcome) -> str:
    """An experiment: its claim, its runs, what was seen, and whether the claim holds."""
    experiment = outcome.experiment
    parts = [f"{experiment.name} ({experiment.source})\nclaim: {experiment.claim}"]
    for name, results in outcome.results.items():
        setup = f"{name}: {flags(experiment.setups[name])}"
        parts.append(f"{setup}\n{summarise(results)}")
    verdict = f"seen:  {outcome.seen}\nholds: {'yes' if outcome.holds else 'no'}"
    parts.append(verdict + (f"\nremark: {experiment.remark}" if experiment.remark else ""))
    return "\n\n".join(parts)


def claims(
    sections: Sequence[Section], outcomes: Mapping[str, Outcome]
) -> list[dict[str, str | bool | float]]:
    """The table of claims for ``claims.json``; outcomes are by the name of the experiment."""
    return [
        {
            "name": experiment.name,
            "section": section.title,
            "source": experiment.source,
            "claim": experiment.claim,
            "seen": outcomes[experiment.name].seen,
            "holds": outcomes[experiment.name].holds,
            "remark": experiment.remark,
            "seconds": outcomes[experiment.name].seconds,
        }
        for section in sections
        for experiment in section.experiments
    ]


def claims_table(
    sections: Sequence[Section], outcomes: Mapping[str, Outcome], width: int = 100
) -> str:
    """The table claim, seen, holds, section by section.

    Args:
        sections: what to show, in this order.
        outcomes: by the name of the experiment.
        width: of the lines, in characters.
    """
    column = max(20, (width - len("    holds")) // 2)

    def cell(text: str) -> list[str]:
        unbroken = text.replace(" %", "\N{NO-BREAK SPACE}%").replace(
            " = ", "\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}"
        )
        return [line.replace("\N{NO-BREAK SPACE}", " ") for line in wrap(unbroken, column)]

    def row(claim: str, seen: str, holds: str) -> Iterator[str]:
        for left, right in zip_longest(cell(claim), cell(seen), fillvalue=""):
            yield f"{left:{column}}  {right:{column}}  {holds}".rstrip()
            holds = ""

    lines = list(row("claim", "seen", "holds"))
    for section in sections:
        lines += ["", section.title, "-" * len(section.title)]
        for experiment in section.experiments:
            outcome = outcomes[experiment.name]
            lines.append(f"[{experiment.name}, {experiment.source}]")
            lines += row(experiment.claim, outcome.seen, "yes" if outcome.holds else "NO")
            if experiment.remark and not outcome.holds:
                lines += wrap(f"Remark: {experiment.remark}", width)
    number = sum(outcome.holds for outcome in outcomes.values())
    return "\n".join([*lines, "", f"{number} of {len(outcomes)} claims hold."])
