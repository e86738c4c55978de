"""Stage 2: features of every set, and the training set's mean and variance."""

from pathlib import Path

from plateau.config import cli, load
from plateau.data.audio import check_there
from plateau.data.corpus import TRAIN, Corpus
from plateau.data.features import (
    FeatureOptions,
    compute_features,
    make_cuts,
    make_extractor,
    save_statistics,
)
from plateau.data.manifests import files_of
from plateau.io import replacing


def main(data_dir: Path, config: Path, nj: int = 1) -> None:
    """Compute features for the data directories of a corpus.

    Args:
        data_dir: the corpus's folder, data/NAME
        config: YAML file with a section `features`
        nj: processes that read audio
    """
    corpus = Corpus(data_dir)
    options = load(FeatureOptions, config, section="features")
    corpus.check_train()
    print(f"features by {make_extractor(options).name}, {options.num_mel_bins} bins")
    # Before the first archive is written anew.
    check_there(files_of(r for name in corpus.sets() for r in corpus.recordings(name)))
    for set_name in corpus.sets():
        cuts = make_cuts(
            corpus.recordings(set_name),
            corpus.supervisions(set_name),
            options,
            perturb=set_name == TRAIN,
        )
        if not options.on_the_fly:
            cuts = compute_features(cuts, options, corpus.fbank / set_name, num_workers=nj)
        if set_name == TRAIN:
            save_statistics(cuts, options, corpus.statistics)
        with replacing(corpus.manifest("cuts", set_name)) as temporary:
            cuts.to_file(temporary)
        hours = sum(cut.duration for cut in cuts) / 3600
        print(f"{set_name}: {len(cuts)} cuts, {hours:.2f} h")


if __name__ == "__main__":
    cli(main)
