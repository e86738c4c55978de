"""A Kaldi data directory, or a set of LibriSpeech as published, as one stm; and back."""

from collections.abc import Sequence
from pathlib import Path

import soundfile

from plateau.config import UserError, cli
from plateau.data.kaldi import Utterance, read_table, write_data_dir
from plateau.data.librispeech import LAYOUT, is_librispeech, read_librispeech
from plateau.data.manifests import manifests_of, to_manifests
from plateau.decoding.stm import Segment, read_stm, to_utterances, write_stm

SUFFIXES = {f".{format.lower()}" for format in soundfile.available_formats()} | {
    *(".aif", ".aifc", ".opus", ".sph", ".sf", ".nist")
}


def segments_of(source: Path, allow_pipes: bool, nj: int) -> list[Segment]:
    """The utterances of a folder; the audio is looked at, for it alone knows where it ends.

    Raises:
        UserError: it is neither of both kinds, or there is something wrong in it.
    """
    if (source / "wav.scp").exists():
        _, supervisions = to_manifests(source, allow_pipes=allow_pipes, nj=nj)
    elif is_librispeech(source):
        _, supervisions, without = manifests_of(read_librispeech(source), nj)
        if without:
            raise UserError(f"{source}: {next(iter(without.values()))}")
    else:
        raise UserError(
            f"{source}: neither a Kaldi data directory, with wav.scp, nor a set of LibriSpeech, "
            f"with {LAYOUT}"
        )
    return [
        Segment(s.recording_id, s.speaker, s.start, s.end, s.text, s.channel, utterance=s.id)
        for s in supervisions
    ]


def audio_of(place: Path, recordings: Sequence[str]) -> dict[str, str]:
    """Entries of `wav.scp` for recordings, as far as there are such.

    Args:
        place: a `wav.scp`, a folder that has one, or a folder in and below which files have the
            names of recordings
        recordings: their ids

    Raises:
        UserError: no such place; two files have the name of a recording.
    """
    if place.name == "wav.scp" or (place / "wav.scp").exists():
        return read_table(place if place.name == "wav.scp" else place / "wav.scp")
    if not place.is_dir():
        raise UserError(f"--audio {place}: neither a folder nor a wav.scp")
    wanted, found = set(recordings), {}
    for path in sorted(place.resolve().rglob("*")):
        if path.stem in wanted and path.suffix.lower() in SUFFIXES and path.is_file():
            if path.stem in found:
                raise UserError(
                    f"--audio {place}: two files of the recording '{path.stem}', "
                    f"{found[path.stem]} and {path}; leave one"
                )
            found[path.stem] = str(path)
    return found


def to_data_dir(stm: Path, target: Path, audio: Path | None) -> list[Utterance]:
    """Write a data directory of an stm.

    Raises:
        UserError: there is one already; the stm or its audio are not as they must be.
    """
    if target.is_file() or (target / "wav.scp").exists():
        raise UserError(f"{target}: is there already; name a new data directory")
    if audio is None:
        raise UserError("give --audio: the folder of the recordings, or the wav.scp they came from")
    segments = read_stm(stm)
    found = audio_of(audio, [segment.recording for segment in segments])
    try:
        utterances = to_utterances(segments, found)
    except UserError as error:
        raise UserError(f"{stm}: {error}; looked for it in {audio}") from None
    write_data_dir(target, utterances)
    if ignored := len(segments) - len(utterances):
        print(f"{stm}: {ignored} segments are not to be scored, and were left out")
    return utterances


def main(
    source: Path, target: Path, audio: Path | None = None, allow_pipes: bool = False, nj: int = 4
) -> None:
    """Write the stm TARGET of a folder SOURCE, or the data directory TARGET of an stm SOURCE.

    A folder is a Kaldi data directory, or a set of LibriSpeech. Times are whole milliseconds. The
    stm has the utterances' ids in comments; its words with times, a ctm, are not in it.

    Args:
        source: a folder, or an stm
        target: the stm, or a new data directory with wav.scp, segments, text, utt2spk and spk2utt
        audio: of an stm: the folder of the recordings, or the wav.scp they came from
        allow_pipes: run the shell commands in wav.scp, to see how long their audio is
        nj: threads that look at the recordings
    """
    if not source.is_dir():
        utterances = to_data_dir(source, target, audio)
        recordings = {utterance.recording_id for utterance in utterances}
        hours = sum(utterance.end - utterance.start for utterance in utterances) / 3600
    elif target.suffix != ".stm":
        raise UserError(f"{source} is a folder, and {target} not the name of an stm, which ends so")
    else:
        utterances = segments_of(source, allow_pipes, nj)
        write_stm(target, utterances)
        recordings = {segment.recording for segment in utterances}
        hours = sum(segment.end - segment.start for segment in utterances) / 3600
    print(f"{target}: {len(utterances)} segments of {len(recordings)} recordings, {hours:.2f} h")


if __name__ == "__main__":
    cli(main)
