"""Align audio with a trained experiment; `local/align.sh` calls it."""

import importlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import replace
from pathlib import Path

from lhotse import CutSet, RecordingSet, SupervisionSet

from plateau.alignment.run import Aligner, align_cuts
from plateau.config import UserError, cli
from plateau.data.audio import check_there
from plateau.data.features import make_cuts
from plateau.data.kaldi import Utterance, is_pipe, read_data_dir
from plateau.data.manifests import manifests_of
from plateau.io import file_name, replacing
from plateau.text import normalise, read_text, without_odd_characters
from plateau.training.experiment import Experiment

ROOT = Path(__file__).parents[1]


def load(exp_dir: Path) -> Aligner:
    """The aligner of an experiment, by the recipe that its path names."""
    return importlib.import_module(f"{exp_dir.parent.name}.align").load(exp_dir)


def read_audio_file(audio: Path, text: str | None, text_file: Path | None) -> Utterance:
    """One recording as an utterance, named like the file.

    Raises:
        UserError: not one text, or it cannot be read.
    """
    if (text is None) == (text_file is None):
        raise UserError(f"{audio}: say what is said there, with either --text or --text-file")
    if text_file is not None:
        text = read_text(text_file)
    try:
        str(audio.absolute()).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(audio).decode("utf-8", "replace")
        raise UserError(
            f"{shown}: the file's name is not UTF-8; rename it, or its folder"
        ) from None
    name = re.sub(r"\s+", "_", normalise(without_odd_characters(audio.stem))) or "audio"
    return Utterance(name, name, text, str(audio))


def choose_channel(
    recordings: RecordingSet, supervisions: SupervisionSet, channel: int | None
) -> tuple[SupervisionSet, list[str]]:
    """The utterances on this channel, and lines of those whose recording does not have it.

    None: each on the channel that its directory names, else on the first.
    """
    if channel is None:
        return supervisions, []
    kept, left_out = [], []
    for supervision in supervisions:
        number = recordings[supervision.recording_id].num_channels
        if channel < number:
            kept.append(replace(supervision, channel=channel))
        else:
            left_out.append(f"{supervision.id} has {number} channels, from 0; --channel {channel}")
    return SupervisionSet.from_segments(kept), left_out


def tell_of_audio(
    recordings: RecordingSet, supervisions: SupervisionSet, sampling_rate: int
) -> None:
    """Say what is done to recordings before they are aligned."""
    for rate, count in sorted(Counter(r.sampling_rate for r in recordings).items()):
        if rate != sampling_rate:
            print(f"resampled from {rate} Hz to the model's {sampling_rate} Hz: {count} recordings")
    several = {recording.id for recording in recordings if recording.num_channels > 1}
    taken = {(s.channel, s.recording_id) for s in supervisions if s.recording_id in several}
    for channel, count in sorted(Counter(channel for channel, _ in taken).items()):
        print(f"with several channels, of which --channel {channel} is taken: {count} recordings")


def align(
    exp_dir: Path, utterances: Sequence[Utterance], out: Path, name: str, channel: int | None
) -> int:
    """Align utterances, write all files, and return how many could be aligned."""
    aligner = load(exp_dir)
    features = replace(aligner.options.features, on_the_fly=True)
    aligner = replace(aligner, options=replace(aligner.options, features=features))
    recordings, supervisions, without = manifests_of(utterances, nj=4)
    left_out = [f"{id} has no audio: {reason}" for id, reason in without.items()]
    supervisions, others = choose_channel(recordings, supervisions, channel)
    tell_of_audio(recordings, supervisions, features.sampling_rate)
    left_out += others
    cuts = make_cuts(recordings, supervisions, features) if len(supervisions) else []
    with replacing(out / "recordings.jsonl.gz") as temporary:
        recordings.to_file(temporary)
    return align_cuts(aligner, CutSet.from_cuts(cuts), supervisions, out, name, left_out)


def main(
    exp_dir: Path,
    data: Path,
    text: str | None = None,
    text_file: Path | None = None,
    out: Path | None = None,
    channel: int | None = None,
    allow_pipes: bool = False,
) -> None:
    """Align a Kaldi data directory, or one audio file, with a trained experiment.

    The files are those of stage 7, with the errors in metrics.json where the directory has a ctm.
    Utterances that cannot be aligned are named, on screen and in left_out.txt; the exit status is 1
    where none can be.

    Args:
        exp_dir: exp/<corpus>/<recipe>/<exp>, trained; data/<corpus> is needed too
        data: the directory, or the file
        text: what is said in the file
        text_file: a file with what is said in the file, UTF-8
        out: folder for the result; without it, EXP_DIR/aligned/<name of the data>
        channel: of recordings that have several, from 0; without it the one that segments names,
            else the first
        allow_pipes: let wav.scp hold shell commands
    """
    if channel is not None and channel < 0:
        raise UserError(f"--channel {channel}: channels count from 0")
    if not data.exists():
        raise UserError(f"{data}: no such data directory or audio file")
    if data.is_dir():
        if text is not None or text_file is not None:
            raise UserError(f"{data}: a data directory has its own text; leave out --text")
        utterances = read_data_dir(data, allow_pipes)
        files = {u.audio for u in utterances if not is_pipe(u.audio)}
        if not any(Path(file).exists() for file in files):  # else those without are left out
            check_there(sorted(files))
    else:
        utterances = [read_audio_file(data, text, text_file)]
    utterances = [
        u if is_pipe(u.audio) else replace(u, audio=str(Path(u.audio).absolute()))
        for u in utterances
    ]
    exp_dir = exp_dir.resolve()
    if not (ROOT / exp_dir.parent.name / "align.py").is_file():
        raise UserError(f"{exp_dir}: not an experiment, which is exp/<corpus>/<recipe>/<exp>")
    name = data.resolve().name if data.is_dir() else utterances[0].id
    out = (exp_dir / "aligned" / file_name(name) if out is None else out).absolute()
    # An experiment names its corpus as seen from the folder that has data/ and exp/.
    with chdir(Experiment(exp_dir).root):
        if not align(exp_dir, utterances, out, name, channel):
            raise UserError(f"{data}: nothing could be aligned; see {out / 'left_out.txt'}")


if __name__ == "__main__":
    cli(main)
