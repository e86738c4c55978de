"""Stage 6: find the words of all windows of the test sets from the audio alone."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from masked_window.options import Options
from masked_window.train import build_model, hide, wanted, word_counts
from plateau.alignment.windows import windows_of
from plateau.config import cli
from plateau.data.loading import enough_memory
from plateau.data.tokens import Tokenizer, read_lang
from plateau.data.window_loading import WindowLoader
from plateau.data.windows import PADDING
from plateau.decoding.scoring import score, write_scores
from plateau.io import write_json
from plateau.models.window import WindowModel
from plateau.results import make_records
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.recipe import load_final

METHOD = "window"  # of the folders with scores


@torch.no_grad()
def evaluate(
    model: WindowModel,
    options: Options,
    set_name: str,
    counts: Tensor,
    decode_dir: Path,
) -> dict[str, float]:
    """Find the words of a set from the audio alone: all of them are masked.

    Each word is in one window. The windows begin where their first words are known to begin, and
    with window.padding=mask the model is told how many words there are; with ``token`` it is not,
    and a word too many or too few is an error. ``ref.trn`` and ``hyp.trn`` have a line for each
    window.

    Args:
        model: trained, in evaluation mode.
        options: of its training.
        set_name: of the corpus.
        counts: `word_counts`, of which the commonest word is the baseline.
        decode_dir: where to write.

    Returns:
        percent: ``masked_words_right``, of all words and of those at each place of a window;
        ``…_with_padding`` counts padding as a word, where the model has to say it;
        ``…_unigram`` are those of the commonest word; ``wer`` and ``cer``
    """
    windows = windows_of(corpus_of(options), set_name, options.window, options.window.words)
    tokenizer = read_lang(lang_dir(options))
    loader = WindowLoader(windows, options.features, tokenizer)
    device, predict = model.bias.device, options.window_model.predict
    references, hypotheses, rows = {}, {}, []
    for batch in loader.batches():
        with enough_memory(batch, loader.memory_option):
            batch = batch.to(device)
            given = hide(batch.words, model.mask_id, options, None)
            found = model(batch.features, batch.lengths, given).logits.argmax(2)  # (N, W)
        places = wanted(batch.words, given, model.mask_id, predict)
        rows.append(torch.stack([batch.words, found, places]).cpu())  # (3, N, W)
        for row, id in enumerate(batch.ids):
            own = places[row]
            references[id] = _text(tokenizer, batch.words[row, own].tolist())
            hypotheses[id] = _text(tokenizer, found[row, own].tolist())
    scores = score(references, hypotheses)
    write_scores(decode_dir, scores)
    words, found, places = torch.cat(rows, 1)  # (N, W) each
    figures = {"wer": scores.wer, "cer": scores.cer}
    figures |= shares_right(words, found, places.bool(), int(counts.argmax()))
    write_json(decode_dir / "metrics.json", make_records(set_name, METHOD, **figures))
    return figures


def _text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    return tokenizer.decode([id for id in ids if id != PADDING])


def shares_right(words: Tensor, found: Tensor, places: Tensor, commonest: int) -> dict[str, float]:
    """How many words are found, in percent; see `evaluate`.

    Args:
        words: (N, W), with PADDING.
        found: (N, W).
        places: (N, W) bool, what was to be found.
        commonest: the word that is said most often.
    """
    right = 100.0 * (words == found)
    said = places & (words != PADDING)
    name = "masked_words_right"
    figures = {name: float(right[said].mean())}
    if not torch.equal(said, places):
        figures[f"{name}_with_padding"] = float(right[places].mean())
    figures[f"{name}_unigram"] = float(100.0 * (words[said] == commonest).float().mean())
    for place in range(words.shape[1]):
        if said[:, place].any():
            figures[f"{name}_place_{place + 1}"] = float(right[:, place][said[:, place]].mean())
    return figures


def main(exp_dir: Path) -> None:
    """Evaluate the final model on all test sets, each into ``decode_<set>_window/``.

    Args:
        exp_dir: the experiment's folder, trained
    """
    experiment = Experiment(exp_dir)
    options, model = load_final(experiment, Options, build_model)
    counts = word_counts(options, read_lang(lang_dir(options)))
    counts[PADDING] = 0  # the baseline says a word
    corpus = corpus_of(options)
    if not corpus.test_sets():
        raise corpus.nothing_to_decode()
    folders = {name: experiment.decode_dir(name, METHOD) for name in corpus.test_sets()}
    experiment.set_aside(set(exp_dir.glob("decode_*")) - set(folders.values()))
    for name, folder in folders.items():
        evaluate(model, options, name, counts, folder)


if __name__ == "__main__":
    cli(main)
