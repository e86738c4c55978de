"""Fill holes in texts by what is heard; `local/fill.sh` calls it."""

from collections.abc import Iterator, Sequence
from contextlib import chdir
from dataclasses import dataclass, replace
from pathlib import Path

from local.align import choose_channel, read_audio_file, tell_of_audio
from masked_text.holes import hear, make_filler, word_intervals
from masked_text.options import Options
from masked_text.train import build_model
from plateau.alignment.spelling import Speller
from plateau.config import UserError, cli
from plateau.data.audio import check_there
from plateau.data.corpus import TRAIN
from plateau.data.features import make_cuts
from plateau.data.holes import MARKS, HoledText, parse_holes
from plateau.data.kaldi import Utterance, is_pipe, read_data_dir, read_table
from plateau.data.manifests import manifests_of
from plateau.data.tokens import UNKNOWN, read_lang
from plateau.decoding.evaluate import Decoded
from plateau.decoding.files import Interval, read_ctm, write_ctm
from plateau.decoding.holes import FilledText, HoleFiller, Tokens
from plateau.io import file_name, write_text
from plateau.ranges import at_least
from plateau.text import normalise, read_lines
from plateau.training.experiment import Experiment, corpus_of, lang_dir
from plateau.training.recipe import load_final

MAX_SECONDS = 60.0  # of an utterance: the model learnt on shorter ones, and sees all at once
ALTERNATIVES = 5  # of a word that is filled in
EPSILON = 0.0005  # seconds: files have milliseconds


@dataclass(frozen=True)
class Row:
    """A word that was filled in."""

    utterance: str
    word: Interval  # with its confidence
    alternatives: tuple[tuple[str, float], ...]  # likeliest first, itself among them

    def __str__(self) -> str:
        others = " ".join(f"{word}:{share:.3f}" for word, share in self.alternatives)
        word = self.word
        times = f"{word.start:.3f}\t{word.end:.3f}"
        return f"{self.utterance}\t{times}\t{word.label}\t{word.confidence:.3f}\t{others}"


@dataclass(frozen=True)
class Filled:
    """An utterance's text, its words with times, and those that were filled in."""

    text: str
    words: list[Interval]
    rows: list[Row]


def items_of(text: HoledText, speller: Speller) -> tuple[list[Tokens | None], list[int]]:
    """Words and holes as a model takes them, and the piece of the text that each is.

    Punctuation that nobody says is no item.

    Raises:
        ValueError: why not, in words.
    """
    items: list[Tokens | None] = []
    places, unknown = [], []
    for place, piece in enumerate(text.pieces):
        if piece.is_hole:
            items.append(None)
            places.append(place)
            continue
        tokens = tuple(speller.encode(piece.before))
        if speller.tokens.index(UNKNOWN) in tokens:
            unknown.append(normalise(piece.before))
        elif tokens:
            items.append(tokens)
            places.append(place)
    if unknown:
        raise ValueError(f"has words that the model cannot spell: {speller.lacking(unknown)}")
    if not items:
        raise ValueError("has no text; write ___ for what is to be found")
    if None not in items:
        raise ValueError(f"has no hole in its text; write {' or '.join(MARKS)} where one is")
    return items, places


def in_words(
    decoded: Decoded,
    filled: FilledText,
    text: HoledText,
    places: Sequence[int],
    speller: Speller,
    factor: int,
) -> Filled:
    """What was found, as people read it."""
    words, rows = [], []
    by_piece: dict[int, list[str]] = {n: [] for n, p in enumerate(text.pieces) if p.is_hole}
    intervals = word_intervals(decoded, filled, speller, factor)
    for word, interval in zip(filled.words, intervals, strict=True):
        place = places[word.item]
        if text.pieces[place].is_hole:
            by_piece[place].append(interval.label)
            ranked = tuple((speller.decode(t), p) for t, p in word.candidates[:ALTERNATIVES])
            rows.append(Row(decoded.id, interval, ranked))
        else:
            interval = interval._replace(label=normalise(text.pieces[place].before))
        words.append(interval)
    return Filled(text.filled(list(by_piece.values())), words, rows)


def doubtful_places(directory: Path, speller: Speller, id: str, text: HoledText) -> list[int]:
    """The pieces of an utterance's text that an alignment calls doubtful.

    Raises:
        ValueError: the alignment is of another text.
    """
    doubtful = [line.split() for line in read_lines(directory / "doubtful.txt")]
    starts = [float(fields[1]) for fields in doubtful if fields[0] == id]
    aligned = read_ctm(directory / "words.ctm").get(id, [])
    places = [
        place
        for place, piece in enumerate(text.pieces)
        if not piece.is_hole and speller.encode(piece.before)
    ]
    if len(places) != len(aligned):
        raise ValueError(
            f"has {len(places)} words, and in {directory / 'words.ctm'} {len(aligned)}"
        )
    return [
        place
        for place, word in zip(places, aligned, strict=True)
        if any(abs(word.start - start) < EPSILON for start in starts)
    ]


def fill(
    filler: HoleFiller,
    heard: Iterator,
    texts: dict[str, HoledText],
    speller: Speller,
    factor: int,
) -> Iterator[tuple[str, Filled | str]]:
    """Each utterance with what was found, or why nothing was."""
    for utterance in heard:
        id = utterance.decoded.id
        try:
            items, places = items_of(texts[id], speller)
        except ValueError as error:
            yield id, f"{id} {error}"
            continue
        filled = filler.fill(utterance.log_probs, utterance.memory, items)
        if filled is None:
            yield id, f"{id} is too short for its text: no audio is left for the holes"
        else:
            yield id, in_words(utterance.decoded, filled, texts[id], places, speller, factor)


def main(
    exp_dir: Path,
    data: Path,
    text: Path | None = None,
    doubtful: Path | None = None,
    out: Path | None = None,
    marks: str = ",".join(MARKS),
    max_words: int = 0,
    channel: int | None = None,
    allow_pipes: bool = False,
) -> None:
    """Fill holes in the text of a Kaldi data directory, or of one audio file.

    Words that are given stay as they are written. OUT gets `text` (of a directory lines
    "<utterance> <text>"; of a file the text, which is printed, too), `filled.tsv` (utterance,
    start, end, word, confidence, alternatives), `words.ctm` and `left_out.txt`. The exit status is
    1 where nothing was filled.

    Args:
        exp_dir: exp/<corpus>/masked_text/<exp>, trained; data/<corpus> is needed too
        data: the directory, or the file
        text: of a file: what is said there, with holes; of a directory: in place of its text
        doubtful: folder of an alignment (align_<set>): words in its doubtful.txt are holes, too
        out: folder for the result; without it, EXP_DIR/filled/<name of the data>
        marks: what stands for a hole, parted by commas
        max_words: in a hole, at most; 0: decoding.max_words of the experiment
        channel: of recordings that have several, from 0; without it the one that segments names,
            else the first
        allow_pipes: let wav.scp hold shell commands
    """
    if max_words and max_words not in at_least(1, 100):
        raise UserError(f"--max-words {max_words}: it must be {at_least(1, 100)}")
    if channel is not None and channel < 0:
        raise UserError(f"--channel {channel}: channels count from 0")
    if not data.exists():
        raise UserError(f"{data}: no such data directory or audio file")
    if data.is_dir():
        utterances = read_data_dir(data, allow_pipes)
        check_there(sorted({u.audio for u in utterances if not is_pipe(u.audio)})[:1])
        raw = {u.id: u.text for u in utterances}
        if text is not None:
            given = read_table(text, "text")
            if missing := sorted(given.keys() - raw.keys()):
                raise UserError(f"{text}: {data} has no utterance '{missing[0]}'")
            utterances = [u for u in utterances if u.id in given]
            raw = given
    else:
        utterances = [read_audio_file(data, None, text)]
        raw = {u.id: u.text for u in utterances}
    utterances = [
        u if is_pipe(u.audio) else replace(u, audio=str(Path(u.audio).absolute()))
        for u in utterances
    ]
    exp_dir = exp_dir.resolve()
    if exp_dir.parent.name != "masked_text" or not (exp_dir / "config.yaml").exists():
        raise UserError(f"{exp_dir}: not an experiment of masked_text: exp/<corpus>/masked_text/…")
    name = data.resolve().name if data.is_dir() else utterances[0].id
    out = (exp_dir / "filled" / file_name(name) if out is None else out).absolute()
    doubtful = None if doubtful is None else doubtful.absolute()
    texts = {id: parse_holes(raw[id], [m for m in marks.split(",") if m]) for id in raw}
    # An experiment names its corpus as seen from the folder that has data/ and exp/.
    with chdir(Experiment(exp_dir).root):
        fill_utterances(exp_dir, utterances, texts, doubtful, out, max_words, channel)


def fill_utterances(
    exp_dir: Path,
    utterances: Sequence[Utterance],
    texts: dict[str, HoledText],
    doubtful: Path | None,
    out: Path,
    max_words: int,
    channel: int | None,
) -> None:
    """Fill the holes of all utterances, write the files, and tell what was found.

    Raises:
        UserError: nothing was.
    """
    experiment = Experiment(exp_dir)
    options, model = load_final(experiment, Options, build_model)
    decoding = experiment.options(Options).decoding
    decoding = replace(decoding, max_words=max_words or decoding.max_words)
    tokenizer = read_lang(lang_dir(options))
    speller = Speller(tokenizer)
    left_out = []
    if doubtful is not None:
        for id, text in texts.items():
            try:
                texts[id] = text.with_holes(doubtful_places(doubtful, speller, id, text))
            except ValueError as error:
                left_out.append(f"{id} {error}")
    features = replace(options.features, on_the_fly=True)
    recordings, supervisions, without = manifests_of(utterances, nj=4)
    left_out += [f"{id} has no audio: {reason}" for id, reason in without.items()]
    supervisions, others = choose_channel(recordings, supervisions, channel)
    tell_of_audio(recordings, supervisions, features.sampling_rate)
    cuts = list(make_cuts(recordings, supervisions, features)) if len(supervisions) else []
    long = [
        f"{cut.id} has {cut.duration:.0f} s, and at most {MAX_SECONDS:.0f} s are filled; cut it "
        "with a file segments"
        for cut in cuts
        if cut.duration > MAX_SECONDS
    ]
    left_out += others + long
    cuts = [cut for cut in cuts if cut.duration <= MAX_SECONDS]
    filler = make_filler(model, tokenizer, corpus_of(options).texts(TRAIN), decoding)
    factor = model.encoder.subsampling_factor
    done: dict[str, Filled] = {}
    for id, found in fill(filler, hear(model, cuts, features), texts, speller, factor):
        if isinstance(found, str):
            left_out.append(found)
        else:
            done[id] = found
    rows = [row for id in sorted(done) for row in done[id].rows]
    write_text(out / "text", "".join(f"{id} {normalise(done[id].text)}\n" for id in sorted(done)))
    header = "utterance\tstart\tend\tword\tconfidence\talternatives\n"
    write_text(out / "filled.tsv", header + "".join(f"{row}\n" for row in rows))
    write_ctm(out / "words.ctm", {id: done[id].words for id in done})
    write_text(out / "left_out.txt", "".join(f"{line}\n" for line in sorted(left_out)))
    if len(utterances) == 1 and done:
        (only,) = done.values()
        write_text(out / "text", only.text)
        print(only.text.rstrip("\n"))
        for row in rows:
            print(str(row).partition("\t")[2])
    print(f"{len(rows)} words filled in {len(done)} utterances, in {out}")
    for line in sorted(left_out)[:20]:
        print(f"left out {line}")
    if not done:
        raise UserError(f"nothing was filled; see {out / 'left_out.txt'}")


if __name__ == "__main__":
    cli(main)
