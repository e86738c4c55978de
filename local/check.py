"""Stage 4: look for mistakes in data and options before hours are spent on training."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from lhotse import CutSet

from plateau.checks.changes import check_changes
from plateau.checks.preflight import (
    check_lengths,
    check_memory,
    check_model,
    check_overlap,
    check_statistics,
    check_training,
    check_transcripts,
    model_in_memory,
)
from plateau.config import cli
from plateau.data.corpus import TRAIN
from plateau.data.loading import BatchLoader, load_batch
from plateau.data.tokens import Tokenizer, read_lang
from plateau.decoding.run import cuts_to_decode, decode_batch
from plateau.training.checkpoint import set_seed
from plateau.training.experiment import (
    Experiment,
    SpeechOptions,
    corpus_of,
    lang_dir,
    options_class,
)
from plateau.training.selection import long_enough

TEXTS = 3  # whose losses are computed by hand


def main(exp_dir: Path) -> None:
    """Check an experiment; notes do not stop it, errors do.

    Args:
        exp_dir: the experiment's folder, with its config.yaml
    """
    recipe = exp_dir.resolve().parent.name
    options = Experiment(exp_dir).options(options_class(recipe))
    corpus = corpus_of(options)
    tokenizer = read_lang(lang_dir(options))
    check_statistics(corpus)
    if not corpus.test_sets():
        raise corpus.nothing_to_decode()
    # Read once: each is gone through several times.
    sets = {name: corpus.cuts(name).to_eager() for name in corpus.used_sets()}
    train = sets[TRAIN]
    for set_name in filter(None, (TRAIN, corpus.dev_set())):
        check_lengths(set_name, sets[set_name], options.loading.max_duration)
    notes = check_transcripts(TRAIN, train, tokenizer)
    for set_name in corpus.test_sets():
        notes += check_transcripts(set_name, sets[set_name], tokenizer)
        notes += check_overlap(set_name, sets[set_name], train)
    notes += check_recipe(recipe, exp_dir, options, tokenizer, sets)
    for note in notes:
        print(f"note: {note}")
    print(f"checked {len(train)} training utterances and {recipe}: ready to train")


def check_recipe(
    recipe: str,
    exp_dir: Path,
    options: SpeechOptions,
    tokenizer: Tokenizer,
    sets: Mapping[str, CutSet],
) -> list[str]:
    """What a recipe makes of the options: model, loss, a step of training, and decoding."""
    corpus = corpus_of(options)
    set_seed(options.training.seed)
    with model_in_memory("encoder.…, predictor.…, joiner.…"):
        build = import_module(f"{recipe}.train").build
        built = build(options)
    usable = {}
    for set_name in filter(None, (TRAIN, corpus.dev_set())):
        usable[set_name] = long_enough(
            sets[set_name],
            tokenizer,
            built.model.output_lengths,
            built.frames_needed,
            exp_dir / "log" / f"left_out_{set_name}.txt",
        )
        built.check(usable[set_name])
    loader = BatchLoader(usable[TRAIN], options.loading, options.features, shuffle=True)
    steps = options.training.epochs * loader.num_batches()
    notes = check_training(options.training, steps)
    for section in vars(options).values():  # as the loss: what of it comes after the end
        notes += section.check_steps(steps) if hasattr(section, "check_steps") else []
    by_duration = sorted(usable[TRAIN], key=lambda cut: cut.duration)
    few = CutSet.from_cuts(
        by_duration[i] for i in sorted({len(by_duration) * i // 8 for i in range(8)})
    )
    defaults = Experiment(exp_dir).defaults(options_class(recipe))
    parts = [CutSet.from_cuts(part) for part in (list(few)[::2], list(few)[1::2]) if part]
    batches = [load_batch(part, options.features) for part in parts]
    notes += check_changes(options, defaults, build, batches, options.training.seed)
    if texts := [text for cut in few if (text := cut.supervisions[0].text)][:TEXTS]:
        built.check_loss(texts)
    notes += check_model(
        built.model, built.loss_function, few, options.features, len(tokenizer.tokens)
    )
    # By every method, what is shortest.
    encode, searches = import_module(f"{recipe}.decode").decoder(
        built.model, options, options.decoding
    )
    shortest = min(
        (cuts_to_decode(corpus, set_name)[-1] for set_name in corpus.test_sets()),
        key=lambda cut: cut.duration,
    )
    batch = load_batch(CutSet.from_cuts([shortest]), options.features)
    decode_batch(batch, 1, encode, searches)
    number = max(1, int(options.loading.max_duration / by_duration[-1].duration))
    longest = load_batch(CutSet.from_cuts(by_duration[-number:]), options.features)
    check_memory(built.model, built.loss_function, longest, loader.memory_option)
    return notes


if __name__ == "__main__":
    cli(main)
