"""Kaldi data directories to Lhotse manifests and back.

Lhotse's own importer rounds durations to milliseconds, reads supervisions only beside `segments`
and knows no ctm; its exporter writes shell commands for all that is not WAV. Hence this one.
"""

from collections.abc import Iterable, Mapping, Sequence
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
from plateau.data import backend  # noqa: F401 (so that Lhotse reads audio as we do)
from plateau.data.audio import (
    AudioError,
    AudioInfo,
    inspect_audio,
    is_pipe,
    is_too_short,
    no_channel,
    too_short,
)
from plateau.data.kaldi import (
    END_TOLERANCE,
    Interval,
    Segment,
    Utterance,
    clipped,
    read_data_dir,
    write_data_dir,
)
from plateau.text import normalise

KINDS = {"words": "word", "phones": "phone"}  # field of `Utterance` → kind of Lhotse's alignment


def to_manifests(
    data_dir: Path,
    sampling_rate: int | None = None,
    allow_pipes: bool = False,
    nj: int = 1,
    known: Mapping[str, AudioInfo] | None = None,
) -> tuple[RecordingSet, SupervisionSet]:
    """Convert a data directory; texts and words normalised.

    A supervision is on the channel that its segment names, else on the first.

    Args:
        data_dir: a valid Kaldi data directory
        sampling_rate: resample, when the audio is read, recordings that have another one; Hz
        allow_pipes: run the shell commands in `wav.scp` (here once to see their length, and
            again whenever the audio is read)
        nj: threads that look at the recordings
        known: what is known of entries of `wav.scp`, which are then not looked at again

    Raises:
        UserError: a line cannot be read, or an utterance has no audio.
    """
    utterances = read_data_dir(data_dir, allow_pipes)
    recordings, supervisions, without = manifests_of(utterances, nj, known)
    for utterance in utterances:
        if utterance.id in without:
            found = utterance.segment.recording_id in recordings
            path = Path(data_dir) / ("segments" if found else "wav.scp")
            pipes = " --allow-pipes" if allow_pipes else ""
            raise UserError(
                f"{path}: {without[utterance.id]}\nmend it, or leave it out: "
                f"python local/validate_data_dir.py --fix{pipes} {data_dir}"
            )
    if sampling_rate is not None:
        recordings = recordings.resample(sampling_rate)
    return recordings, supervisions


def manifests_of(
    utterances: Sequence[Utterance], nj: int = 1, known: Mapping[str, AudioInfo] | None = None
) -> tuple[RecordingSet, SupervisionSet, dict[str, str]]:
    """Recordings and supervisions of those utterances that have audio.

    Args:
        utterances: of a data directory; the shell commands among their audio are run.
        nj: threads that look at the recordings.
        known: see `to_manifests`

    Returns:
        recordings, supervisions (see `to_manifests`), and why each other utterance has none, by id
    """
    audio = {utterance.segment.recording_id: utterance.audio for utterance in utterances}
    new = sorted(set(audio.values()) - (known or {}).keys())
    with ThreadPoolExecutor(nj) as pool:
        found = tqdm(pool.map(_info_or_fault, new), "audio", len(new), leave=False, disable=None)
        infos = {**(known or {}), **dict(zip(new, found, strict=True))}
    supervisions, without = [], {}
    for utterance in utterances:
        info = infos[utterance.audio]
        try:
            if isinstance(info, AudioError):
                # a command says itself what it was
                place = "" if is_pipe(utterance.audio) else f"{utterance.audio}: "
                raise ValueError(f"'{utterance.segment.recording_id}': {place}{info}")
            supervisions.append(_supervision(utterance, info))
        except ValueError as error:
            without[utterance.id] = str(error)
    return (
        RecordingSet.from_recordings(
            _recording(id, source, infos[source])
            for id, source in audio.items()
            if isinstance(infos[source], AudioInfo)
        ),
        SupervisionSet.from_segments(supervisions),
        without,
    )


def files_of(recordings: Iterable[Recording]) -> list[str]:
    """Paths of the audio files of recordings; shell commands are none."""
    sources = (source for recording in recordings for source in recording.sources)
    return [str(source.source) for source in sources if source.type == "file"]


def _info_or_fault(audio: str) -> AudioInfo | AudioError:
    try:
        return inspect_audio(audio)
    except AudioError as error:
        return error


def _recording(recording_id: str, audio: str, info: AudioInfo) -> Recording:
    kind, source = (
        ("command", audio.removesuffix("|").strip()) if is_pipe(audio) else ("file", audio)
    )
    return Recording(
        id=recording_id,
        sources=[AudioSource(kind, list(range(info.channels)), source)],
        sampling_rate=info.sampling_rate,
        num_samples=info.num_samples,
        duration=_rounded(info.duration),
    )


def _rounded(seconds: float) -> float:
    """As Lhotse rounds times: 0.454, not 0.45399999999999996."""
    return round(seconds, ndigits=8)


def _supervision(utterance: Utterance, info: AudioInfo) -> SupervisionSegment:
    """Supervision of an utterance in a recording.

    Raises:
        ValueError: the utterance lies outside of it, or is too short.
    """
    duration = _rounded(info.duration)
    segment = clipped(utterance.segment, duration)
    start, end = _rounded(segment.start), duration if segment.end is None else segment.end
    if not start < end <= duration:
        raise ValueError(
            f"'{utterance.id}' from {segment.start} to {end} s is "
            f"not inside of its recording, which has {duration} s (tolerance {END_TOLERANCE} s)"
        )
    if is_too_short(end - start):
        raise ValueError(f"'{utterance.id}' {too_short(end - start)}")
    if (segment.channel or 0) >= info.channels:
        raise ValueError(f"'{utterance.id}' {no_channel(segment.channel, info.channels)}")
    # Lhotse counts the times of alignments from the start of the recording, as a ctm does
    alignment = {
        kind: [
            AlignmentItem(normalise(i.label), _rounded(i.start), _rounded(i.duration))
            for i in intervals
        ]
        for field, kind in KINDS.items()
        if (intervals := getattr(utterance, field))
    }
    return SupervisionSegment(
        id=utterance.id,
        recording_id=segment.recording_id,
        start=start,
        duration=_rounded(end - start),
        channel=segment.channel or 0,
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
    recordings = {recording.id: recording for recording in recordings}
    audio = {id: _audio(recording) for id, recording in recordings.items()}
    utterances = []
    for supervision in supervisions:
        if supervision.recording_id not in audio:
            raise UserError(
                f"utterance '{supervision.id}': no recording '{supervision.recording_id}'; "
                "give the manifest of its recordings"
            )
        source = audio[supervision.recording_id]
        utterances.append(_utterance(supervision, source, recordings[supervision.recording_id]))
    if all(u.segment == Segment(u.id) for u in utterances):
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


def _utterance(supervision: SupervisionSegment, audio: str, recording: Recording) -> Utterance:
    channel = supervision.channel
    if isinstance(channel, list) and len(channel) == 1:
        (channel,) = channel
    if channel not in range(recording.num_channels):
        raise UserError(
            f"utterance '{supervision.id}': is on channel {channel} of {recording.num_channels}; a "
            "Kaldi directory has one channel for each utterance, so save that to a file first"
        )
    utterance_id = supervision.id
    speaker = supervision.speaker or utterance_id
    if utterance_id != speaker and not utterance_id.startswith(speaker + "-"):
        utterance_id = f"{speaker}-{utterance_id}"
    # less than half a sample of 48 kHz away from the end is the end
    to_end = abs(supervision.end - recording.duration) < 1e-5
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
        channel=None if recording.num_channels == 1 else channel,
        **timed,
    )
