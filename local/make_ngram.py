"""An n-gram language model of transcripts, for decoding with words."""

from pathlib import Path

from plateau.config import UserError, cli
from plateau.ngram import estimate
from plateau.text import normalise, read_lines


def read_sentences(path: Path) -> list[list[str]]:
    """Words of each utterance of a Kaldi `text` file of any name; those without words left out.

    Raises:
        UserError: the file cannot be read, or has no words.
    """
    sentences = [normalise(line).split()[1:] for line in read_lines(path)]
    sentences = [words for words in sentences if words]
    if not sentences:
        raise UserError(f"{path}: no words; a line is an utterance's id and its words")
    return sentences


def main(text: Path, arpa: Path, order: int = 3, test: Path | None = None) -> None:
    """Estimate an n-gram model from a Kaldi text file, and write it in ARPA format.

    Args:
        text: file with lines "<utterance> <word> [<word> …]", e.g. data/espeak/train/text
        arpa: the file to write
        order: longest n-gram, 1 to 5
        test: another such file, to print the model's perplexity on it
    """
    sentences = read_sentences(text)
    tested = [] if test is None else read_sentences(test)
    try:
        model = estimate(sentences, order)
    except UserError as error:
        raise UserError(f"{text}: {error}") from None
    model.write_arpa(arpa)
    sizes = ", ".join(f"{size} {n}-grams" for n, size in enumerate(model.sizes, start=1))
    print(f"{arpa}: {sizes} of {len(sentences)} sentences")
    if tested:
        perplexity, unknown = model.perplexity(tested)
        words = sum(map(len, tested))
        print(f"{test}: perplexity {perplexity:.4g}, {unknown} of {words} words unknown, left out")


if __name__ == "__main__":
    cli(main)
