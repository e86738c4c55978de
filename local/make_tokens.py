"""Stage 3: the tokens that a model emits, from the training transcripts."""

from pathlib import Path

from plateau.config import cli, load
from plateau.data.corpus import TRAIN, Corpus
from plateau.data.tokens import TokenOptions, make_lang


def main(data_dir: Path, config: Path) -> None:
    """Make the token folder of a corpus.

    Args:
        data_dir: the corpus's folder, data/NAME
        config: YAML file with a section `tokens`
    """
    corpus = Corpus(data_dir)
    options = load(TokenOptions, config, section="tokens")
    texts = list(corpus.texts(TRAIN))
    tokenizer = make_lang(data_dir / options.lang, texts, options)
    print(f"{data_dir / options.lang}: {len(tokenizer.tokens)} tokens")


if __name__ == "__main__":
    cli(main)
