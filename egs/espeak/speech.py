"""Synthetic speech with exact times: espeak-ng called as a library.

The library comes from the package espeakng-loader. Structures, constants and functions as declared
in espeak-ng's `speak_lib.h`, API revision 12 (https://github.com/espeak-ng/espeak-ng).
"""

import _ctypes
import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from os.path import relpath
from typing import NamedTuple

import numpy as np
from scipy.signal import resample_poly

from plateau.config import UserError
from plateau.data.kaldi import Interval

SAMPLE_RATE = 16000  # Hz, of what `synthesise` returns
NATIVE_RATE = 22050  # Hz, of espeak's voices
SYNCHRONOUS, UTF8 = 2, 1  # output mode, encoding of texts
PHONE_EVENTS, IPA, DO_NOT_EXIT = 1, 2, 0x8000  # options of espeak_Initialize
LIST_END, WORD, PHONE = 0, 1, 7  # types of events
RATE, PITCH, WORD_GAP = 1, 3, 7  # parameters

ACCENTS = {
    "gb": "en",
    "us": "en-US",
    "sc": "en-GB-scotland",
    "rp": "en-GB-x-rp",
    "la": "en-GB-x-gbclan",
    "wm": "en-GB-x-gbcwmd",
    "wi": "en-029",
    "ny": "en-US-nyc",
}
# espeak's variants are made of formants, pitch and timbre, each a speaker of its own. Left out are
# whispers, robots, voices with an echo (which sounds after the word's end) and near duplicates.
TRAIN_VOICES = {
    "gb": "f1 Alex m1 steph Mario rob",
    "us": "Andrea m3 max grandma Gene Nguyen",
    "sc": "belinda m4 quincy f1 Reed miguel",
    "rp": "steph m5 Michael shelby Diogo",
    "la": "anika m7 travis Andrea klatt3",
    "wm": "grandma m8 boris belinda Alex",
    "wi": "shelby anika m1 Henrique m3",
}
# No variant of these is in training, and New York's accent is not either.
UNSEEN_VOICES = {
    "gb": "m6 Annie",
    "us": "robert linda",
    "sc": "aunty Mike",
    "rp": "Denis",
    "la": "pedro",
    "ny": "adam sandro",
}


def speakers(voices: dict[str, str]) -> dict[str, str]:
    """Map speaker ids like ``us_f1`` to names of espeak's voices like ``gmw/en-US+f1``."""
    return {
        f"{accent}_{variant.lower()}": f"gmw/{ACCENTS[accent]}+{variant}"
        for accent, variants in voices.items()
        for variant in variants.split()
    }


class WordMismatchError(ValueError):
    """Espeak's word events are not the written words, one to one (it joins pairs like IN THE)."""


@dataclass(frozen=True)
class Speech:
    """An utterance.

    Args:
        samples: (T,) float64 in [-1, 1), 16 kHz
        words: seconds from the start of ``samples``; silences are outside of them
        phones: IPA without stress marks; each lies in a word
    """

    samples: np.ndarray
    words: tuple[Interval, ...]
    phones: tuple[Interval, ...]


class Event(NamedTuple):
    """What starts at a sample: a word (``span`` in the text), or a phone (no label: a pause)."""

    type: int
    sample: int
    span: tuple[int, int]
    label: str


class _Id(ctypes.Union):
    _fields_ = (
        ("number", ctypes.c_int),
        ("name", ctypes.c_char_p),
        ("string", ctypes.c_char * 8),
    )


class _Event(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),  # in characters, from 1
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    )


_Callback = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event)
)


@contextmanager
def espeak() -> Iterator[ctypes.CDLL]:
    """Load the library, and unload it afterwards.

    Its state (pitch flutter, random numbers, phase) lives on from one utterance to the next and
    cannot be set; a freshly loaded library makes an utterance a function of its arguments. Loading
    takes about a millisecond.
    """
    try:
        import espeakng_loader
    except ImportError:
        raise UserError(
            "espeakng-loader is missing: pip install espeakng-loader, or use --corpus yesno"
        ) from None
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    # espeak keeps paths in 160 bytes, and an environment's absolute path can be longer
    data = min(espeakng_loader.get_data_path(), relpath(espeakng_loader.get_data_path()), key=len)
    try:
        options = PHONE_EVENTS | IPA | DO_NOT_EXIT
        if library.espeak_Initialize(SYNCHRONOUS, 0, data.encode(), options) != NATIVE_RATE:
            raise UserError(f"espeak-ng does not start with its data in {data}; is the path long?")
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        library.srand(1)  # breath is made with the C library's random numbers
        yield library
        library.espeak_Terminate()
    finally:
        _ctypes.dlclose(library._handle)


def synthesise(text: str, voice: str, rate: int, pitch: int, gap: int = 0) -> Speech:
    """Speak a text.

    Args:
        text: words parted by single spaces
        voice: an espeak voice, e.g. ``gmw/en-US+f1``
        rate: words per minute, 80 to 450
        pitch: 0 to 99; 50 is the voice's own
        gap: pause between words, units of 10 ms at the default rate

    Raises:
        WordMismatchError: espeak does not speak the words one by one; take another text.
    """
    blocks: list[np.ndarray] = []
    events: list[Event] = []

    @_Callback
    def receive(samples, count, found) -> int:
        if count > 0:
            blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        index = 0
        while (event := found[index]).type != LIST_END:
            index += 1
            if event.type in (WORD, PHONE):
                span = (event.text_position - 1, event.text_position - 1 + event.length)
                label = event.id.string.decode() if event.type == PHONE else ""
                events.append(Event(event.type, event.sample, span, label.strip("ˈˌ")))
        return 0

    with espeak() as library:
        library.espeak_SetSynthCallback(receive)
        if library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise UserError(f"espeak-ng has no voice '{voice}'")
        for parameter, value in ((RATE, rate), (PITCH, pitch), (WORD_GAP, gap)):
            library.espeak_SetParameter(parameter, value, 0)
        # in lower case, or espeak would spell what it takes for an acronym
        spoken = text.lower().encode()
        library.espeak_Synth(spoken, len(spoken) + 1, 0, 1, 0, UTF8, None, None)
    spans = [match.span() for match in re.finditer(r"\S+", text)]
    if [event.span for event in events if event.type == WORD] != spans:
        raise WordMismatchError(text)
    native = np.concatenate(blocks) / 32768
    words, phones = _intervals(events, len(native), text)
    samples = resample_poly(native, 320, 441)  # 22050 Hz · 320 / 441 = 16 kHz
    return Speech(samples, words, phones)


Spans = list[tuple[int, int, str]]  # start and end in samples, label


def _intervals(
    events: list[Event], length: int, text: str
) -> tuple[tuple[Interval, ...], tuple[Interval, ...]]:
    """Words and phones of espeak's events.

    A phone lasts until the next event. Between a word's event and that of its first phone lies the
    first phone's closure or onset, which belongs to both, unless a pause is before it: then nothing
    sounds until the first phone's event. Inside a word, an event without a label is a glide, which
    goes to the phone after it: the one before the last vowel of MARIA. Espeak makes a final liquid
    as the end of the vowel before it, with no length of its own; the two are then one phone, e.g.
    ɔːl in CALL.
    """
    words: Spans = []
    phones: Spans = []
    silent, initial, onset = True, True, 0
    last = Event(LIST_END, length, (0, 0), "")
    for event, following in pairwise([*events, last]):
        start, end = event.sample, following.sample
        if event.type == WORD:
            onset, initial = start, True
            words.append((start, start, text[slice(*event.span)]))
        elif not event.label:
            silent = silent or end > start
        else:
            if not initial:
                start = phones[-1][1]
            elif not silent:
                start = onset
            if end > start:
                phones.append((start, end, event.label))
            elif initial:
                raise WordMismatchError(f"a first phone without length in '{text}'")
            else:
                start, _, label = phones.pop()
                phones.append((start, end, label + event.label))
            words[-1] = (start if initial else words[-1][0], end, words[-1][2])
            silent, initial = False, False
    if any(start == end for start, end, _ in words):
        raise WordMismatchError(f"a word without sound in '{text}'")
    return _timed(words), _timed(phones)


def _timed(spans: Spans) -> tuple[Interval, ...]:
    """Intervals in seconds, at whole samples of 16 kHz, of spans in samples of 22050 Hz."""

    def resampled(position: int) -> int:
        return round(position * SAMPLE_RATE / NATIVE_RATE)

    return tuple(
        Interval(
            resampled(start) / SAMPLE_RATE,
            (resampled(end) - resampled(start)) / SAMPLE_RATE,
            label,
        )
        for start, end, label in spans
    )
