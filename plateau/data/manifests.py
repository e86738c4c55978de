"""Kaldi data directories to Lhotse manifests and back.

Lhotse's own importer rounds durations to milliseconds, reads supervisions only beside `segments`
and knows no ctm; its exporter writes shell commands for all that is not WAV. Hence this one.
"""

import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from lhotse import (
    AudioSource,
    MonoCut,
    Recording,
    RecordingSet,
    SupervisionSegment,
    SupervisionSet,
)
from lhotse.cut import MixedCut
from lhotse.supervision import AlignmentItem
from tqdm import tqdm

from plateau.config import UserError
from plateau.data.audio import inspect_audio
from plateau.data.kaldi import (
    END_TOLERANCE,
    Interval,
    Utterance,
    clipped,
    is_pipe,
    read_data_dir,
    write_data_dir,
)
from plateau.text import normalise

KINDS = {"words": "word", "phones": "phone"}  # field of `Utterance` → kind of Lhotse's alignment


def to_manifests(
    data_dir: Path, sampling_rate: int | None = None, allow_pipes: bool = False, nj: int = 1
) -> tuple[RecordingSet, SupervisionSet]:
    """Convert a data directory; supervisions are on channel 0, texts and words normalised.

    Args:
        data_dir: a valid Kaldi data directory
        sampling_rate: resample, when the audio is read, recordings that have another one; Hz
        allow_pipes: run the shell commands in `wav.scp` (here once to see their length, and
            again whenever the audio is read)
        nj: threads that look at the recordings

    Raises:
        UserError: a line cannot be read, or an utterance has no audio.
    """
    utterances = read_data_dir(data_dir, allow_pipes)
    recordings, supervisions, without = manifests_of(utterances, nj)
    for utterance in utterances:
        if utterance.id in without:
            known = utterance.segment.recording_id in recordings
            path = Path(data_dir) / ("segments" if known else "wav.scp")
            raise UserError(
                f"{path}: {without[utterance.id]}\n"
                f"mend it, or leave it out: python local/validate_data_dir.py --fix {data_dir}"
            )
    if sampling_rate is not None:
        recordings = recordings.resample(sampling_rate)
    return recordings, supervisions


def manifests_of(
    utterances: Sequence[Utterance], nj: int = 1
) -> tuple[RecordingSet, SupervisionSet, dict[str, str]]:
    """Recordings and supervisions of those utterances that have audio.

    Args:
        utterances: of a data directory; the shell commands among their audio are run.
        nj: threads that look at the recordings.

    Returns:
        recordings, supervisions (see `to_manifests`), and why each other utterance has none, by id
    """
    audio = {utterance.segment.recording_id: utterance.audio for utterance in utterances}
    with ThreadPoolExecutor(nj) as pool:
        found = pool.map(_recording_or_fault, audio.keys(), audio.values())
        found = list(tqdm(found, "audio", len(audio), leave=False, disable=None))
    recordings = dict(zip(audio, found, strict=True))
    supervisions, without = [], {}
    for utterance in utterances:
        recording = recordings[utterance.segment.recording_id]
        try:
            if isinstance(recording, ValueError):
                raise recording
            supervisions.append(_supervision(utterance, recording.duration))
        except ValueError as error:
            without[utterance.id] = str(error)
    return (
        RecordingSet.from_recordings(r for r in found if isinstance(r, Recording)),
        SupervisionSet.from_segments(supervisions),
        without,
    )


def _recording_or_fault(recording_id: str, audio: str) -> Recording | ValueError:
    try:
        return _recording(recording_id, audio)
    except ValueError as error:
        return error


def _recording(recording_id: str, audio: str) -> Recording:
    """Describe a recording without reading it all, unless it is a pipe's output.

    Raises:
        ValueError: names the recording and says why it has no audio.
    """
    if not is_pipe(audio):
        try:
            info = inspect_audio(audio)
        except ValueError as error:
            raise ValueError(f"'{recording_id}': {audio}: {error}") from None
        return Recording(
            id=recording_id,
            sources=[AudioSource("file", list(range(info.channels)), audio)],
            sampling_rate=info.sampling_rate,
            num_samples=info.num_samples,
            duration=info.duration,
        )
    command = audio.removesuffix("|").strip()
    done = subprocess.run(command, shell=True, capture_output=True, check=False)
    if done.returncode != 0:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise ValueError(f"'{recording_id}': '{command}' ends with {done.returncode}: {reason[0]}")
    try:
        recording = Recording.from_bytes(done.stdout, recording_id)
    except Exception as error:  # each of Lhotse's audio backends has exceptions of its own
        raise ValueError(f"'{recording_id}': no audio comes from '{command}': {error}") from None
    if recording.num_samples == 0:
        raise ValueError(f"'{recording_id}': no audio comes from '{command}'")
    channels = recording.sources[0].channels
    return replace(recording, sources=[AudioSource("command", channels, command)])


def _supervision(utterance: Utterance, duration: float) -> SupervisionSegment:
    """Supervision of an utterance in a recording of so many seconds.

    Raises:
        ValueError: the utterance lies outside of it.
    """
    segment = clipped(utterance.segment, duration)
    end = duration if segment.end is None else segment.end
    if not segment.start < end <= duration:
        raise ValueError(
            f"'{utterance.id}' from {segment.start} to {end} s is "
            f"not inside of its recording, which has {duration} s (tolerance {END_TOLERANCE} s)"
        )
    # Lhotse counts the times of alignments from the start of the recording, as a ctm does
    alignment = {
        kind: [AlignmentItem(normalise(i.label), i.start, i.duration) for i in intervals]
        for field, kind in KINDS.items()
        if (intervals := getattr(utterance, field))
    }
    return SupervisionSegment(
        id=utterance.id,
        recording_id=segment.recording_id,
        start=segment.start,
        duration=round(end - segment.start, ndigits=8),  # as Lhotse rounds ends
        text=normalise(utterance.text),
        speaker=utterance.speaker,
        alignment=alignment or None,
    )


def alignment_in_cut(cut: MonoCut | MixedCut, kind: str) -> list[Interval]:
    """Alignment of a cut's utterances, with times in seconds from the start of the cut.

    Lhotse leaves the times of alignments as they were when it cuts a recording into pieces, so
    they still count from the start of the recording (perturbed in speed as the cut is).

    Args:
        cut: also mixed with noise or padded
        kind: word or phone
    """
    if isinstance(cut, MixedCut):
        return [
            replace(interval, start=interval.start + track.offset)
            for track in cut.tracks
            if isinstance(track.cut, MonoCut)
            for interval in alignment_in_cut(track.cut, kind)
        ]
    return [
        Interval(item.start - cut.start, item.duration, item.symbol)
        for supervision in cut.supervisions
        for item in (supervision.alignment or {}).get(kind, ())
    ]


def from_manifests(recordings: RecordingSet, supervisions: SupervisionSet, path: Path) -> None:
    """Write the utterances of Lhotse manifests as a Kaldi data directory.

    `segments` is written unless each utterance is a whole recording of the same name. Ids that
    do not start with their speaker get it as prefix, as Kaldi's sorting needs it.

    Raises:
        UserError: names the recording or the utterance that a Kaldi directory cannot hold.
    """
    audio = {recording.id: (_audio(recording), recording.duration) for recording in recordings}
    utterances = []
    for supervision in supervisions:
        if supervision.recording_id not in audio:
            raise UserError(
                f"utterance '{supervision.id}': no recording '{supervision.recording_id}'; "
                "give the manifest of its recordings"
            )
        utterances.append(_utterance(supervision, *audio[supervision.recording_id]))
    if all(u.segment.recording_id == u.id and u.start == 0 and u.end is None for u in utterances):
        utterances = [replace(utterance, recording_id=None) for utterance in utterances]
    write_data_dir(path, utterances)


def _audio(recording: Recording) -> str:
    """Entry of `wav.scp`; resampling is left out, since it is done again as needed."""
    transforms = [t if isinstance(t, dict) else t.to_dict() for t in recording.transforms or ()]
    changed = sorted({t["name"] for t in transforms} - {"Resample"})
    if changed or len(recording.sources) != 1:
        what = f"is changed by {', '.join(changed)}" if changed else "is not in one file"
        raise UserError(f"recording '{recording.id}' {what}; save its audio to a file first")
    source = recording.sources[0]
    if source.type not in ("file", "command"):
        raise UserError(f"recording '{recording.id}' is of type {source.type}, not file or command")
    return str(source.source) + (" |" if source.type == "command" else "")


def _utterance(supervision: SupervisionSegment, audio: str, duration: float) -> Utterance:
    if supervision.channel not in (0, [0]):
        raise UserError(
            f"utterance '{supervision.id}': is on channel {supervision.channel}; a Kaldi "
            "directory has mono recordings, so save that channel to a file first"
        )
    utterance_id = supervision.id
    speaker = supervision.speaker or utterance_id
    if utterance_id != speaker and not utterance_id.startswith(speaker + "-"):
        utterance_id = f"{speaker}-{utterance_id}"
    # less than half a sample of 48 kHz away from the end is the end
    to_end = abs(supervision.end - duration) < 1e-5
    timed = {
        field: tuple(
            Interval(item.start, item.duration, item.symbol)
            for item in (supervision.alignment or {}).get(kind, ())
        )
        for field, kind in KINDS.items()
    }
    return Utterance(
        id=utterance_id,
        speaker=speaker,
        text=supervision.text or "",
        audio=audio,
        recording_id=supervision.recording_id,
        start=supervision.start,
        end=None if to_end else supervision.end,
        **timed,
    )
