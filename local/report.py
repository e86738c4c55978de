"""Stage 8: write report/index.html, which shows an experiment and lets one listen to it."""

import dataclasses
import math
from importlib import import_module
from pathlib import Path

import torch
from lhotse import CutSet
from torch import Tensor, nn

from plateau.alignment.measures import true_times
from plateau.config import UserError, cli
from plateau.data.audio import check_there
from plateau.data.corpus import Corpus
from plateau.data.loading import Batch, load_batch
from plateau.data.manifests import files_of
from plateau.data.tokens import read_lang
from plateau.decoding.files import Interval, has_marks, read_ctm, spelt_words
from plateau.decoding.scoring import read_scores
from plateau.models.ctc import CtcModel
from plateau.models.masked_text import MaskedTextModel
from plateau.models.transducer import TransducerModel
from plateau.report.audio import load_samples
from plateau.report.experiment import write_report
from plateau.report.facts import about
from plateau.report.utterances import Shown, choose
from plateau.results import read_records
from plateau.training.experiment import Experiment, corpus_of, lang_dir, options_class
from plateau.training.recipe import load_final

MAX_UTTERANCES = 20  # a page is to be looked at


def posteriors(model: nn.Module, batch: Batch) -> Tensor | None:
    """Log-posteriors (N, T', V) of CTC, if the model has any.

    A transducer has them where it was trained with an auxiliary CTC loss; the uppermost is taken.
    """
    if isinstance(model, MaskedTextModel):
        model = model.ctc
    if isinstance(model, CtcModel):
        return model(batch.features, batch.lengths)[0]
    if isinstance(model, TransducerModel) and model.ctc:
        layer = max(map(int, model.ctc))
        features = model.norm(batch.features)
        *_, (inner,) = model.encoder.forward_layers(features, batch.lengths, [layer])
        return model.ctc[str(layer)](inner).float().log_softmax(-1)
    return None


def decoded(exp_dir: Path, corpus: Corpus, set_name: str, method: str) -> tuple[str, str]:
    """The set and method to show: as asked for, else the first set and its method of lowest WER.

    Raises:
        UserError: that is not decoded.
    """
    records = [r for path in exp_dir.glob("decode_*/metrics.json") for r in read_records(path)]
    if not records:
        raise UserError(f"{exp_dir}: nothing is decoded; run {Experiment(exp_dir).command}")
    wers = {(r["set"], r["method"]): r["value"] for r in records if r["metric"] == "wer"}
    all_of_them = sorted({(record["set"], record["method"]) for record in records})
    found = [pair for pair in all_of_them if set_name in ("", pair[0]) and method in ("", pair[1])]
    if not found:
        wanted = " by ".join(filter(None, (set_name, method)))
        there = ", ".join(map(" by ".join, all_of_them))
        raise UserError(f"{exp_dir}: there is no decoding of {wanted}; there are {there}")
    order = {name: place for place, name in enumerate(corpus.test_sets())}
    last = len(order)  # a set that is no longer there
    return min(found, key=lambda p: (order.get(p[0], last), wers.get(p, math.inf), p[1]))


def filled_words(exp_dir: Path, set_name: str) -> dict[str, list[Interval]]:
    """The texts of utterances whose holes were filled; those that were given have no confidence.

    Of several shares of masked words, the one in the middle.
    """
    folders = sorted(
        (path.parent for path in exp_dir.glob(f"decode_{set_name}_fill_*/filled.ctm")),
        key=lambda path: float(path.name.rpartition("_")[2]),
    )
    if not folders:
        return {}
    folder = folders[len(folders) // 2]
    found = read_ctm(folder / "filled.ctm")
    return {
        id: [word if word.start in starts else word._replace(confidence=None) for word in words]
        for id, words in read_ctm(folder / "hyp.ctm").items()
        for starts in [{word.start for word in found.get(id, ())}]
    }


@torch.no_grad()
def main(
    exp_dir: Path,
    utterances: str = "",
    set: str = "",
    method: str = "",
    worst: int = 2,
    median: int = 1,
) -> None:
    """Write report/index.html in an experiment's folder: one file, to be opened in a browser.

    Args:
        exp_dir: the experiment's folder, decoded
        utterances: ids of utterances to show, separated by commas
        set: which set they are of; without it, the first that is decoded
        method: which hypotheses; without it, those of the method with the lowest WER
        worst: show so many utterances with the highest WER; without any errors, the longest texts
        median: show so many from the middle, ranked by WER
    """
    experiment = Experiment(exp_dir)
    recipe = exp_dir.resolve().parent.name
    build_model = import_module(f"{recipe}.train").build_model
    options, model = load_final(experiment, options_class(recipe), build_model)
    decoding = experiment.options(type(options.decoding), "decoding")  # may be newer than the model
    options = dataclasses.replace(options, decoding=decoding)
    corpus, tokenizer = corpus_of(options), read_lang(lang_dir(options))
    set_name, method = decoded(exp_dir, corpus, set, method)
    decode_dir = experiment.decode_dir(set_name, method)
    cuts = {cut.id: cut for cut in corpus.cuts(set_name)}
    scored = {u.id: u for u in read_scores(decode_dir, cuts).utterances}
    named = utterances.replace(",", " ").split()
    if min(worst, median) < 0 or worst + median + len(named) > MAX_UTTERANCES:
        raise UserError(f"--worst, --median, --utterances: choose 0 to {MAX_UTTERANCES} utterances")
    reasons = choose(scored.values(), worst, median, named)

    heard = read_ctm(decode_dir / "hyp_tokens.ctm")
    known = {"true": true_times(corpus, set_name)}
    aligned = exp_dir / f"align_{set_name}" / "words.ctm"
    if aligned.exists():
        known["aligned"] = read_ctm(aligned)
    filled = filled_words(exp_dir, set_name)
    device = next(model.parameters()).device
    check_there(files_of(cut.recording for cut in cuts.values()))
    shown = []
    for id, why in reasons.items():
        if id not in cuts:
            command = experiment.command
            raise UserError(f"{corpus.manifest('cuts', set_name)}: no {id}; run {command}")
        batch = load_batch(CutSet.from_cuts([cuts[id]]), options.features).to(device)
        log_probs = posteriors(model, batch)
        tokens = heard.get(id, ())
        words = {kind: times[id] for kind, times in known.items() if id in times}
        words["heard"] = spelt_words(tokens, has_marks(tokenizer))
        if id in filled:
            words["filled"] = filled[id]
        shown.append(
            Shown(
                scored=scored[id],
                reasons=why,
                samples=load_samples(cuts[id]),
                sampling_rate=cuts[id].sampling_rate,
                features=batch.features[0],
                log_probs=None if log_probs is None else log_probs[0],
                subsampling_factor=model.encoder.subsampling_factor,
                tokens=tokens,
                words=words,
            )
        )
    facts = about(experiment, options, model, tokenizer.tokens)
    path = write_report(exp_dir, facts, shown, set_name, method, tokenizer.tokens)
    print(f"report: {path}, {path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    cli(main)
