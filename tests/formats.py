"""The table of readers: what each reads, and what its files are made of."""

import functools
import gzip
import importlib.util
import io
import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import soundfile
import torch
from lhotse import Recording, SupervisionSegment
from lhotse.cut import MonoCut

import conformer_ctc.options
import transducer.options
from plateau import config
from plateau.alignment.files import read_frames
from plateau.config import UserError
from plateau.data.audio import AudioError, inspect_audio, read_audio
from plateau.data.corpus import Corpus
from plateau.data.features import load_statistics
from plateau.data.kaldi import read_data_dir, read_durations, read_table
from plateau.data.lexicon import read_lexicon
from plateau.data.librispeech import read_librispeech
from plateau.data.manifests import to_manifests
from plateau.data.repair import fix_data_dir
from plateau.data.sequences import read_about, read_statistics
from plateau.data.tokens import TokenOptions, make_lang, read_lang
from plateau.data.validate import validate_data_dir
from plateau.decoding.files import read_ctm, read_trn
from plateau.decoding.scoring import read_scores
from plateau.decoding.stm import read_stm
from plateau.graphs.topology import read_fsa
from plateau.io import read_json
from plateau.ngram import read_arpa
from plateau.report.facts import read_epochs
from plateau.results import read_records
from plateau.text import read_lines, read_text
from plateau.training import checkpoint
from tests.fuzz import Reader


def script(path: str) -> ModuleType:
    """A module that is run as a script."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_folder(read: Callable[[Path], Any], up: int = 1) -> Callable[[Path], Any]:
    """A reader of a folder: ``up`` levels above the file."""
    return lambda path: read(path.parents[up - 1])


# Kaldi directories


def sound(format: str, subtype: str | None = None, channels: int = 1) -> bytes:
    """A file of 50 ms."""
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, (400, channels))
    file = io.BytesIO()
    soundfile.write(file, samples, 8000, format=format, subtype=subtype)
    return file.getvalue()


DATA_DIR = {
    "wav.scp": b"r1 {folder}/a.wav\nr2 {folder}/b.wav\n",
    "text": "s1-a hello world\ns1-b tɔ́ŋ\ns2-c again\n".encode(),
    "utt2spk": b"s1-a s1\ns1-b s1\ns2-c s2\n",
    "spk2utt": b"s1 s1-a s1-b\ns2 s2-c\n",
    "utt2dur": b"s1-a 0.03\ns1-b 0.02\ns2-c 0.05\n",
    "segments": b"s1-a r1 0.0 0.03\ns1-b r1 0.025 -1\ns2-c r2 0.01 0.04 0\n",
    "ctm": b"r1 1 0.0 0.01 hello\nr1 1 0.01 0.02 world 0.5\n;; remark\nr2 A 0.02 0.01 again\n",
    "phones.ctm": b"r1 1 0.0 0.01 h\nr1 1 0.01 0.02 w\nr2 A 0.02 0.01 a\n",
    "a.wav": sound("WAV"),
    "b.wav": sound("WAV"),
}
BAD_LINES = {
    "wav.scp": "lone",
    "text": "a\u00a0b c",
    "utt2spk": "lone",
    "spk2utt": "lone",
    "utt2dur": "x -1",
    "segments": "x r1 0 nan",
    "ctm": "r1 1 0.0 x hello",
    "phones.ctm": "r1 1",
}
KALDI = [
    *["r1", "r2", "s1-a", "s1-b", "s2-c", "s1", "s2", "hello", "again", "{folder}/a.wav", "|"],
    *["1", "A", "-1", "0.5", "0.02", "1e3", ";;", "0"],
]


def with_audio(read: Callable[[Path], Any]) -> Callable[[Path], Any]:
    """A reader of the directory, in which wav.scp says where the audio is."""

    def read_there(path: Path) -> None:
        scp = path.with_name("wav.scp")
        if scp.is_file():
            scp.write_bytes(scp.read_bytes().replace(b"{folder}", os.fsencode(path.parent)))
        read(path.parent)

    return read_there


def as_stage_1(folder: Path) -> None:
    """See what is wrong, repair it, and go on; what is repaired needs no repair."""
    assert all("\n" not in problem.finding for problem in validate_data_dir(folder))
    fix_data_dir(folder)
    assert not any(problem.fixable for problem in validate_data_dir(folder))
    read_data_dir(folder)
    to_manifests(folder)


def kaldi_files() -> list[Reader]:
    kaldi = "plateau.data.kaldi"
    durations = in_folder(read_durations)
    found = [
        Reader(f"{kaldi}.read_durations", durations, "utt2dur", DATA_DIR["utt2dur"], KALDI, "x -1")
    ]
    for name, bad in BAD_LINES.items():
        example = DATA_DIR[name]
        around = {other: content for other, content in DATA_DIR.items() if other != name}
        if not name.endswith("ctm"):
            found.append(Reader(f"{kaldi}.read_table", read_table, name, example, KALDI, bad))
        if name not in ("spk2utt", "utt2dur"):
            read = with_audio(read_data_dir)
            found.append(Reader(f"{kaldi}.read_data_dir", read, name, example, KALDI, bad, around))
        found.append(
            Reader(
                "plateau.data.validate.validate_data_dir",
                with_audio(as_stage_1),
                *(name, example, KALDI, None, around),
                share=0.3,
            )
        )
    return found


# Tokens, language models, graphs

LANG = {"tokens.txt": b"<blk> 0\n<unk> 1\nSIL 2\na 3\n", "lexicon.txt": b"a a\nb a a\n"}
WORDS = ["one", "two", "p", "0.5", "1.0", "<unk>", "!SIL", ";;;", "▁one", "a", "SIL", "0", "1", "3"]
ARPA = b"""\
\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.0\t<s>\t-0.5
-0.5\ta\t-0.3
-0.7\tb
-0.9\t</s>

\\2-grams:
-0.2\t<s> a
-0.1\ta </s>

\\end\\
"""
ARPA_PIECES = [
    *["\\data\\", "\\end\\", "\\1-grams:", "\\2-grams:", "ngram 1=2", "-1.0", "a", "<s>", "</s>"]
]


def encode(lang_dir: Path) -> None:
    tokenizer = read_lang(lang_dir)
    tokenizer.decode(tokenizer.encode("a b yes"))


@functools.cache
def bpe_model() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        make_lang(Path(folder), ["yes no yes", "no no"], TokenOptions("char"))
        return (Path(folder) / "bpe.model").read_bytes()


def language_files() -> list[Reader]:
    lang = in_folder(encode)
    ngram = script("local/make_ngram.py")
    return [
        Reader(
            "plateau.data.lexicon.read_lexicon",
            read_lexicon,
            *("lexicon.txt", b"one w ah n\ntwo t uw\n", WORDS, "lone"),
        ),
        *(
            Reader(
                "plateau.data.tokens.read_lang",
                *(lang, f"lang_phone/{name}", content, WORDS, None),
                {f"lang_phone/{other}": LANG[other] for other in LANG if other != name},
            )
            for name, content in LANG.items()
        ),
        Reader("plateau.data.tokens.read_lang", lang, "lang_char/bpe.model", bpe_model()),
        Reader("plateau.ngram.read_arpa", read_arpa, "lm.arpa", ARPA, ARPA_PIECES, "x y"),
        Reader(
            "local.make_ngram.main",
            lambda path: ngram.main(path, path.with_name("lm")),
            *("text", b"a one two\nb three\n", WORDS),
        ),
        Reader(
            "plateau.graphs.topology.read_fsa",
            *(read_fsa, "fsa.txt", b"0 1 3 -0.5\n1 1 0\n1 2 2\n2 0.25\n"),
            *(["0", "1", "2", "-1", "0.5", "#", "1000000000"], "0 1 x"),
        ),
    ]


# Transcripts and alignments

TRN = "yes no (a)\n (b)\nœ (c)\n".encode()
TRN_PIECES = ["yes", "(a)", "(", ")", "(b)", "(c)"]
STM = """\
;; a remark
r1 1 s1 0.000 1.500 <o,f0,male> yes no
;; kaldi utterance s2-b
;; kaldi text {no}
r1 A s2 1.5 2 ｛no｝
r2 1 s2 0 1e1 IGNORE_TIME_SEGMENT_IN_SCORING
r2 2 s2 0 1
""".encode()
STM_PIECES = [
    *["r1 1 s 0 1 yes\n", "r1 B s 1 2 <o> no\n", ";; kaldi utterance s-x\n", ";; kaldi text a\n"],
    *["r1", "1", "A", "s", "0.5", "1.25", "<o,f0>", "<o", ";;", ";", "-1", "nan", "1e9", "yes"],
]
LIBRISPEECH = b"1-2-0000 YES NO\n1-2-0001 IT'S\n"


def transcripts() -> list[Reader]:
    align, mboshi = script("local/align.py"), script("egs/mboshi/prepare.py")
    return [
        Reader("plateau.text.read_text", read_text, "x", b"a\nb\n", WORDS, "a\0b"),
        Reader("plateau.text.read_lines", read_lines, "x", b"a\nb\n", WORDS, "a\0b"),
        Reader(
            "plateau.decoding.files.read_ctm",
            *(read_ctm, "words.ctm", b"a 1 0.000 0.250 yes 0.500\na 1 0.250 0.250 no\n"),
            *(KALDI, "a 1 0.0 nan no"),
        ),
        Reader(
            "plateau.decoding.files.read_trn", read_trn, "hyp.trn", TRN, TRN_PIECES, "no no (a)"
        ),
        Reader(
            "plateau.decoding.stm.read_stm",
            *(read_stm, "x.stm", STM, STM_PIECES, "r1 1 s1 0.0 x yes"),
        ),
        Reader(
            "plateau.data.librispeech.read_librispeech",
            in_folder(read_librispeech, 3),
            *("1/2/1-2.trans.txt", LIBRISPEECH, ["1-2-0000", "1-2-0002", "YES"], "1-3-0000 NO"),
            {f"1/2/1-2-000{n}.flac": b"fLaC" for n in range(2)},
        ),
        *(
            Reader(
                "plateau.decoding.scoring.read_scores",
                *(in_folder(read_scores), name, TRN, TRN_PIECES, "no id", {other: TRN}),
            )
            for name, other in (("ref.trn", "hyp.trn"), ("hyp.trn", "ref.trn"))
        ),
        Reader(
            "plateau.alignment.files.read_frames",
            *(read_frames, "frames.txt", b"a 0 3 7\nb\n"),
            *(["a", "b", "0", "7", "-1", "1.5"], "c " + "9" * 5000),
        ),
        Reader(
            "local.align.read_audio_file",
            lambda path: align.read_audio_file(path.with_name("a.wav"), None, path),
            *("said.txt", b"one two\n", WORDS),
        ),
        Reader(
            "egs.mboshi.prepare.read_intervals",
            *(mboshi.read_intervals, "x.wrd", b"0.0 0.5 one\n0.5 1.0 two\n", KALDI, "0.0 inf one"),
        ),
    ]


# Options

CONFIG = b"""\
data_dir: data/x
test_sets: [dev, test]
corpus: {hours: 1.5}
features:
  num_mel_bins: 80
  perturb_speed: [0.9, 1.1]
training:
  epochs: 3
  seed: 1
"""
YAML = [
    *["data_dir", "features", "training", "corpus", "test_sets", "num_mel_bins", "epochs", ":"],
    *["- ", "[", "]", "{", "}", "? ", "!!python/object:x", "!!set", "|", ">", "~", "true", "<<"],
    *["2020-13-45", "1:99", "0x", "0b", "!!int x", "!!timestamp x", "!!binary x", "!!float x"],
    *["encoder", "kind", "loss", "prior", "1e3", ".nan", "-.inf", "'", '"', "#", "---", "...", "%"],
    "[" * 2000,
    "{a: " * 500,
    "- " * 500,
]
OVERRIDES = [
    *["training.epochs=3", "features.num_mel_bins=", "encoder.kind=conformer", "corpus.hours=2"],
    *[
        "help=1",
        "h=",
        "training.help=x",
        "encoder.help=x",
        "training=",
        "training={}",
        "training=x",
    ],
    *["test_sets=[a,b]", "test_sets=", "=", "corpus=", "[[", "{a: ", "!!python/x", "-", "null"],
    *["features.perturb_speed=", "data_dir=", "tokens.lexicon=", "loss.prior.scale="],
]


def resolved(path: Path, recipe: ModuleType) -> None:
    """As every stage reads it; and what is written is read back."""
    options = config.load(recipe.Options, path)
    written = path.with_name("written.yaml")
    config.save(options, written)
    assert config.load(recipe.Options, written) == options


def overridden(path: Path) -> None:
    """Each line is an override of the command line."""
    base = path.with_name("config.yaml")
    config.load(conformer_ctc.options.Options, base, overrides=read_lines(path))


def options() -> list[Reader]:
    sets = script("local/sets.py")
    return [
        Reader("plateau.config.read_yaml", config.read_yaml, "config.yaml", CONFIG, YAML),
        *(
            Reader(
                "plateau.config.load",
                functools.partial(resolved, recipe=recipe),
                *(f"{recipe.__name__}.yaml", CONFIG, YAML),
                share=0.4,
            )
            for recipe in (conformer_ctc.options, transducer.options)
        ),
        Reader(
            "plateau.config.load",
            *(overridden, "overrides", b"training.epochs=3\nfeatures.perturb_speed=[0.9]\n"),
            *(OVERRIDES, None, {"config.yaml": CONFIG}),
            share=0.4,
        ),
        Reader(
            "local.sets.main",
            lambda path: sets.main(path.parent, path),
            *("config.yaml", b"dev_set: ''\ntest_sets: []\n", YAML, None),
            {"train/wav.scp": b"", "dev/wav.scp": b""},
        ),
    ]


# What a run leaves

RECORDS = json.dumps(
    [{"set": "test", "method": "greedy", "metric": m, "value": 1.5} for m in ("wer", "cer")],
    indent=1,
).encode()
EPOCHS = b"""\
{"epoch": 1, "train_seconds": 30.5, "step": 7}
{"epoch": 2, "train_seconds": 61, "step": 9}
"""
JSON = [
    *["[", "]", "{", "}", ",", ":", '"set"', '"method"', '"metric"', '"value"', '"wer"', "null"],
    *["1.5", "NaN", "-Infinity", "1e999", "true", '"\\ud800"', '"a\\u0000"', '"mean"', '"std"'],
    *['"train_seconds"', '"epoch"', '"step"', "[" * 5000, "0" * 5000],
]
METRICS = "decode_test_greedy/metrics.json"


@functools.cache
def saved() -> bytes:
    """A checkpoint, whatever its form."""
    with tempfile.TemporaryDirectory() as folder:
        checkpoint.save(state(), Path(folder) / "x.pt")
        return (Path(folder) / "x.pt").read_bytes()


def state() -> dict[str, Any]:
    return {"model": {"weight": torch.arange(6.0).reshape(2, 3)}, "step": 7, "options": {"a": 0.5}}


def load_equal(path: Path) -> None:
    """What is changed in a checkpoint must not go by unnoticed."""
    found = checkpoint.load(path, needed=["model"])
    assert torch.equal(found["model"].pop("weight"), state()["model"]["weight"])
    assert found == {"model": {}, "step": 7, "options": {"a": 0.5}}


def manifest(kind: str) -> Reader:
    """A manifest of Lhotse; the file is what is in it, uncompressed."""
    cut = MonoCut("u", 0.0, 1.0, 0, [SupervisionSegment("u", "r", 0.0, 1.0, text="yes")])
    cut.recording = Recording("r", [], 8000, 8000, 1.0)
    part = {"recordings": cut.recording, "supervisions": cut.supervisions[0], "cuts": cut}[kind]
    line = json.dumps(part.to_dict()).encode() + b"\n"

    def read(path: Path) -> None:
        packed = path.with_name(f"x_{kind}_train.jsonl.gz")
        if path.is_dir():
            packed.mkdir()
        elif path.exists():
            packed.write_bytes(gzip.compress(path.read_bytes(), 1))
        list(getattr(Corpus(path.parents[1]), kind)("train"))

    pieces = [line, '"id"', '"start"', '"duration"', '"type"', '"MonoCut"', *JSON]
    return Reader(f"plateau.data.corpus.Corpus.{kind}", read, "x/manifests/plain", line, pieces)


def figures() -> list[Reader]:
    exp = "exp/x/conformer_ctc/y"
    compare, results, report = (script(f"local/{n}.py") for n in ("compare", "results", "report"))
    gather = in_folder(results.main, 2)
    chosen = in_folder(lambda folder: report.decoded(folder, Corpus(folder), "", ""), 2)
    epochs = f"{exp}/log/epochs.jsonl"
    return [
        Reader("plateau.io.read_json", read_json, "x.json", RECORDS, JSON),
        Reader("plateau.results.read_records", read_records, "results.json", RECORDS, JSON),
        Reader(
            "plateau.data.features.load_statistics",
            *(load_statistics, "statistics.json", b'{"mean": [1.5, -2], "std": [0.5, 1]}', JSON),
        ),
        Reader(
            "plateau.data.sequences.read_statistics",
            in_folder(read_statistics),
            *("statistics.json", b'{"mean": [1.5, -2], "std": [0.5, 1]}', JSON),
        ),
        Reader(
            "plateau.data.sequences.read_about",
            in_folder(read_about),
            *("about.json", b'{"kind": "images", "shape": [8, 8]}', [*JSON, '"kind"', '"shape"']),
        ),
        Reader(
            "plateau.report.facts.read_epochs",
            *(in_folder(read_epochs, 2), "log/epochs.jsonl", EPOCHS, JSON, "x"),
        ),
        Reader(
            "local.results.main", gather, epochs, EPOCHS, JSON, "x", {f"{exp}/{METRICS}": RECORDS}
        ),
        Reader(
            "local.results.main", gather, f"{exp}/{METRICS}", RECORDS, JSON, None, {epochs: EPOCHS}
        ),
        Reader(
            "local.compare.main",
            *(lambda path: compare.main([path.parent]), f"{exp}/results.json", RECORDS, JSON),
        ),
        Reader("local.report.decoded", chosen, f"{exp}/{METRICS}", RECORDS, JSON),
        *map(manifest, ("recordings", "supervisions", "cuts")),
        Reader("plateau.training.checkpoint.load", load_equal, "last.pt", saved()),
    ]


# Audio

SOUNDS = {
    "stereo.wav": sound("WAV", "FLOAT", channels=2),
    **{name: sound(name.upper()) for name in ("wav", "flac", "au", "aiff", "caf", "ogg", "mp3")},
    **{"sph": sound("NIST"), "w64": sound("W64"), "rf64": sound("RF64")},
    "opus": sound("OGG", "OPUS"),
}
CHUNKS = [
    *[b"RIFF", b"WAVEfmt ", b"data", b"LIST", b"fLaC", b".snd", b"FORM", b"AIFF", b"SSND", b"COMM"],
    *[b"caff", b"desc", b"OggS", b"ID3", b"Xing", b"NIST_1A\n", b"sample_count -i 99999"],
    *[b"\x10\0\0\0", b"\x01\0\x01\0", b"\xff\xfb"],
]


def hear(path: Path) -> None:
    """What was inspected is what is read."""
    try:
        info = inspect_audio(str(path))
    except AudioError as error:  # without the name, which its callers have
        raise UserError(f"{path}: {error}") from None
    samples, rate = read_audio(path)
    assert samples.shape == (info.channels, info.num_samples) and rate == info.sampling_rate
    assert np.isfinite(samples).all()


def sounds() -> list[Reader]:
    return [
        Reader("plateau.data.audio.inspect_audio", hear, f"a.{name}", content, CHUNKS, share=1.5)
        for name, content in SOUNDS.items()
    ] + [
        Reader(
            "plateau.data.audio.read_audio",
            *(read_audio, "a.wav", SOUNDS["wav"], CHUNKS),
            errors=(AudioError,),
        )
    ]


READERS = [
    *kaldi_files(),
    *language_files(),
    *transcripts(),
    *options(),
    *figures(),
    *sounds(),
]
