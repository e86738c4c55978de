import ctypes
import random
import sys
from collections import Counter, defaultdict
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import soundfile

from plateau.config import UserError
from plateau.data.kaldi import Utterance, read_data_dir

SETS = ("train", "dev", "test_clean", "test_other")


@pytest.fixture(scope="module")
def modules(espeak):
    """The modules beside prepare.py."""
    return {name: sys.modules[name] for name in ("batch", "noise", "speech", "text")}


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    path.write_text("corpus: {hours: 0.02, dev_minutes: 0.1, test_minutes: 0.6, seed: 3}\n")
    return path


@pytest.fixture(scope="module")
def corpus(espeak, config, tmp_path_factory) -> Path:
    """A corpus of two batches of training and one of each other set."""
    folder = tmp_path_factory.mktemp("corpus")
    espeak.main(folder, config=config, nj=2)
    return folder


@pytest.fixture(scope="module")
def sets(corpus) -> dict[str, list[Utterance]]:
    return {name: read_data_dir(corpus / name) for name in SETS}


def contents(folder: Path) -> dict[str, bytes]:
    """All files but wav.scp, which has the folder's name in it."""
    files = (p for p in folder.rglob("*") if p.is_file() and p.name != "wav.scp")
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def in_words(utterance: Utterance, length: int, margin: int = 0) -> np.ndarray:
    """Where words are, (T,), each grown by ``margin`` samples."""
    mask = np.zeros(length, bool)
    for word in utterance.words:
        first = round(word.start * 16000)
        last = first + round(word.duration * 16000)
        mask[max(0, first - margin) : last + margin] = True
    return mask


def decibels(ratio: float) -> float:
    return 10 * np.log10(ratio)


def test_same_bytes_for_any_number_of_processes(espeak, config, corpus, tmp_path):
    espeak.main(tmp_path, config=config, nj=1)
    assert contents(tmp_path) == contents(corpus)
    espeak.main(tmp_path, config=config, hours=0.001, seed=4)  # over the first, other options
    assert len(read_data_dir(tmp_path / "train")) < 5
    assert len(list((tmp_path / "audio" / "train").iterdir())) < 5
    assert contents(tmp_path)["dev/text"] != contents(corpus)["dev/text"]


def test_what_espeak_speaks_does_not_depend_on_what_it_spoke_before(modules):
    speak = modules["speech"].synthesise
    for voice in modules["speech"].speakers(modules["speech"].TRAIN_VOICES).values():
        first = speak("CALL OSCAR", voice, 160, 50)
        speak("TURN OFF A LAMP", "gmw/en-US+Reed", 180, 40)
        again = speak("CALL OSCAR", voice, 160, 50)
        assert np.array_equal(first.samples, again.samples)
        assert first == replace(again, samples=first.samples)


def test_sizes_and_audio(sets):
    seconds = {"train": 72, "dev": 6, "test_clean": 36, "test_other": 36}
    for name, utterances in sets.items():
        lengths = []
        for u in utterances:
            info = soundfile.info(u.audio)
            assert (info.samplerate, info.channels, info.subtype) == (16000, 1, "PCM_16")
            lengths.append(info.duration)
        assert all(1.5 <= length <= 6 for length in lengths)
        batches = 2 if name == "train" else 1
        assert seconds[name] <= sum(lengths) <= seconds[name] + 6 * batches


def test_a_word_and_its_phones_for_each_written_word(sets):
    for u in (u for utterances in sets.values() for u in utterances):
        assert [word.label for word in u.words] == u.text.split()
        for word in u.words:
            inside = [
                p
                for p in u.phones
                if word.start - 1e-6 <= p.start
                and p.start + p.duration <= word.start + word.duration + 1e-6
            ]
            # the phones fill the word
            assert sum(p.duration for p in inside) == pytest.approx(word.duration, abs=1e-6)
            assert all(p.duration > 0 for p in inside)
        assert sum(p.duration for p in u.phones) == pytest.approx(
            sum(w.duration for w in u.words), abs=1e-6
        )


def test_words_that_espeak_joins_are_refused(modules):
    with pytest.raises(modules["speech"].WordMismatchError):
        modules["speech"].synthesise("LOOK IN THE BOX", "gmw/en", 160, 50)


def test_silence_is_outside_of_words_and_sound_inside(sets):
    for u in sets["test_clean"]:
        samples, _ = soundfile.read(u.audio)
        words = in_words(u, len(samples))
        power = np.mean(samples[words] ** 2)
        # a resampling filter rings for less than a millisecond
        outside = samples[~in_words(u, len(samples), margin=16)]
        assert np.max(outside**2) < 1e-4 * power  # 40 dB below
        loud = samples**2 > 1e-4 * power
        for word in u.words:
            first = round(word.start * 16000)
            last = first + round(word.duration * 16000)
            assert decibels(np.mean(samples[first:last] ** 2) / power) > -20
            # sound begins and ends where the word does; a closure or an onset takes some time
            assert loud[first : first + 16 * 90].any()
            assert loud[last - 16 * 90 : last].any()


def test_pauses_are_measured_where_they_are(modules):
    # with and without gaps, what is sounding lasts equally long; the gaps are outside of words
    speak = modules["speech"].synthesise
    text = "SEVEN SIX SEVEN SIX"
    close = speak(text, "gmw/en-US+m3", 160, 50, 0)
    apart = speak(text, "gmw/en-US+m3", 160, 50, 20)
    sounding = [sum(word.duration for word in s.words) for s in (close, apart)]
    assert sounding[1] == pytest.approx(sounding[0], rel=0.15)
    gaps = [
        second.start - first.start - first.duration
        for first, second in zip(apart.words, apart.words[1:], strict=False)
    ]
    assert all(0.15 < gap < 0.35 for gap in gaps)


def test_vocabulary_is_in_an_hour_of_training(espeak, modules):
    vocabulary = modules["text"].vocabulary()
    assert len(vocabulary) >= 500
    for seed in (1, 2):
        jobs = espeak.batches(modules["batch"].SetOptions("train", 3600.0), seed, Path())
        # a minute has about twenty sentences; count on seventeen
        counts = Counter(word for job in jobs for text in job[4][:17] for word in text.split())
        assert set(counts) == vocabulary
    words = vocabulary - {"A"}
    assert all(word.isalpha() and word.isupper() and len(word) > 1 for word in words)


@pytest.mark.parametrize("accent", ["gb", "us", "sc", "rp", "la", "wm", "wi", "ny"])
def test_no_two_words_sound_alike(modules, accent):
    speech = modules["speech"]
    sounds = defaultdict(list)
    with speech.espeak() as library:
        library.espeak_TextToPhonemes.restype = ctypes.c_char_p
        voice = f"gmw/{speech.ACCENTS[accent]}".encode()
        assert library.espeak_SetVoiceByName(voice) == 0
        for word in modules["text"].vocabulary():
            text = ctypes.c_char_p(word.lower().encode())
            ipa = library.espeak_TextToPhonemes(ctypes.byref(text), speech.UTF8, speech.IPA)
            sounds[ipa.decode().translate({ord("ˈ"): None, ord("ˌ"): None})].append(word)
    assert [words for words in sounds.values() if len(words) > 1] == []


def test_no_sentence_is_in_two_sets(modules, sets):
    texts = {name: {u.text for u in utterances} for name, utterances in sets.items()}
    for name in SETS:
        maker = modules["text"].SentenceMaker(random.Random(0), name)
        texts[name].update(islice(maker, 300))
    for n, name in enumerate(SETS):
        for other in SETS[n + 1 :]:
            assert not texts[name] & texts[other]


def test_voices(modules, sets):
    speech = modules["speech"]
    training = speech.speakers(speech.TRAIN_VOICES)
    unseen = speech.speakers(speech.UNSEEN_VOICES)
    assert len(training) >= 30
    variants = [{voice.split("+")[1] for voice in v.values()} for v in (training, unseen)]
    assert not variants[0] & variants[1]
    for name, utterances in sets.items():
        voices = unseen if name == "test_other" else training
        assert {u.speaker for u in utterances} <= set(voices)
    sounds = {
        speech.synthesise("SEVEN", voice, 160, 50).samples.tobytes()
        for voice in [*training.values(), *unseen.values()]
    }
    assert len(sounds) == len(training) + len(unseen)


def test_numbers_are_spelled_as_they_are_read(modules):
    text = modules["text"]
    small = text.WORDS["digit"] + text.WORDS["teen"]
    value = {word: n for n, word in enumerate(small)}
    value.update({word: 10 * n for n, word in enumerate(text.WORDS["ten"], start=2)})
    for number in range(10000):
        total = part = 0
        for word in text.spell(number).split():
            if word == "thousand":
                total, part = 1000 * part, 0
            elif word == "hundred":
                part *= 100
            elif word != "and":
                part += value[word]
        assert total + part == number
    days = [text.spell_ordinal(day) for day in range(1, 32)]
    assert len(set(days)) == 31
    assert (days[0], days[19], days[20], days[29]) == (
        *("first", "twentieth"),
        *("twenty first", "thirtieth"),
    )


@pytest.mark.parametrize("kind", ["white", "pink", "brown", "hum", "babble"])
def test_noise_is_mixed_at_the_ratio_asked_for(modules, kind):
    noise = modules["noise"]
    rng = np.random.default_rng(0)
    speech = np.zeros(16000)
    speech[4000:12000] = rng.standard_normal(8000)
    active = speech != 0
    if kind == "babble":
        sound = noise.babble([rng.standard_normal(n) for n in (700, 20000)], 16000, rng)
    elif kind == "hum":
        sound = noise.hum(16000, 16000, rng)
    else:
        sound = noise.coloured(kind, 16000, 16000, rng)
    added = noise.mix(speech, active, sound, 12.0) - speech
    measured = decibels(np.mean(speech[active] ** 2) / np.mean(added**2))
    assert measured == pytest.approx(12.0, abs=1e-6)


@pytest.mark.parametrize(("kind", "slope"), [("white", 0), ("pink", -10), ("brown", -20)])
def test_colours_fall_by_their_slope_in_decibels_a_decade(modules, kind, slope):
    sound = modules["noise"].coloured(kind, 160000, 16000, np.random.default_rng(0))
    power = np.abs(np.fft.rfft(sound)) ** 2  # bins of 0.1 Hz
    low, high = (np.mean(power[f * 10 - 200 : f * 10 + 200]) for f in (400, 4000))
    assert decibels(high / low) == pytest.approx(slope, abs=1)


def test_signal_to_noise_ratios_of_the_sets(sets):
    def measured(utterance: Utterance) -> float:
        samples, _ = soundfile.read(utterance.audio)
        noise = np.mean(samples[~in_words(utterance, len(samples), margin=160)] ** 2)
        both = np.mean(samples[in_words(utterance, len(samples))] ** 2)
        return decibels(max(both - noise, 1e-12) / max(noise, 1e-12))

    ratios = {name: np.array([measured(u) for u in sets[name]]) for name in SETS}
    assert (ratios["test_clean"] > 40).all()
    # noise is measured in the silences alone, where babble and brown noise may be louder or softer
    assert ((ratios["test_other"] > 1) & (ratios["test_other"] < 27)).all()
    assert 9 < np.median(ratios["test_other"]) < 16
    assert 0.25 < np.mean(ratios["train"] < 38) < 0.75
    assert (ratios["train"] > 1).all()


def test_a_run_that_dies_leaves_no_directory_that_looks_finished(espeak, tmp_path, monkeypatch):
    config = tmp_path / "config.yaml"
    config.write_text("corpus: {hours: 0.001, dev_minutes: 0.05, test_minutes: 0.05}\n")
    espeak.main(tmp_path / "data", config=config)

    class Died(Exception):
        pass

    def die(*_, **__):
        raise Died

    monkeypatch.setattr(espeak, "ProcessPoolExecutor", die)
    with pytest.raises(Died):
        espeak.main(tmp_path / "data", config=config)
    for name in SETS:
        with pytest.raises(UserError):
            read_data_dir(tmp_path / "data" / name)


def test_mistakes_are_told(espeak, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="made here"):
        espeak.main(tmp_path, corpus_dir=tmp_path)
    with pytest.raises(UserError, match="--nj 0"):
        espeak.main(tmp_path, nj=0)
    with pytest.raises(UserError, match="above 0"):
        espeak.main(tmp_path, hours=0.0)
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)  # as if it were not installed
    with pytest.raises(UserError, match="pip install espeakng-loader, or use --corpus yesno"):
        espeak.main(tmp_path)
    assert not list(tmp_path.iterdir())
