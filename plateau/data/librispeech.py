"""LibriSpeech as it is published: ``<speaker>/<chapter>/<speaker>-<chapter>.trans.txt``, and FLACs.

Panayotov et al. 2015, "LibriSpeech: an ASR corpus based on public domain audio books".
"""

from pathlib import Path

from plateau.config import UserError
from plateau.data.kaldi import Utterance
from plateau.text import name_of, odd_characters, read_lines

LAYOUT = "<speaker>/<chapter>/<speaker>-<chapter>.trans.txt"


def is_librispeech(root: Path) -> bool:
    """Whether a folder is one of its sets, such as ``dev-clean``."""
    return any(root.glob("*/*/*.trans.txt"))


def read_librispeech(root: Path) -> list[Utterance]:
    """Read a set: each utterance is a FLAC beside its transcript; a speaker is a reader.

    Args:
        root: the folder of a set, such as ``LibriSpeech/dev-clean``

    Raises:
        UserError: names the line of a transcript that is not of the form, or has no audio; audio
            without transcript; a folder without transcripts.
    """
    utterances = []
    for transcript in sorted(root.glob("*/*/*.trans.txt")):
        chapter = transcript.parent
        speaker = chapter.parent.name
        prefix = f"{speaker}-{chapter.name}"
        if transcript.name != f"{prefix}.trans.txt":
            raise UserError(f"{transcript}: its place is that of {prefix}.trans.txt")
        audio = {path.stem: path for path in sorted(chapter.glob("*.flac"))}
        ids = set()
        for number, line in enumerate(read_lines(transcript), start=1):
            id, *text = line.split(maxsplit=1)[:2] or [""]
            what = ""
            if not id.startswith(f"{prefix}-") or not text:
                what = f"'{line}' is not: {prefix}-NUMBER TEXT"
            elif odd := odd_characters(id):
                what = f"the id has {name_of(odd[0])}; take it out"
            elif id in ids:
                what = f"'{id}' is there for the second time"
            elif id not in audio:
                what = f"{id}.flac is not beside it"
            if what:
                raise UserError(f"{transcript}:{number}: {what}")
            ids.add(id)
            utterances.append(Utterance(id, speaker, text[0], str(audio[id].resolve())))
        if more := sorted(audio.keys() - ids):
            raise UserError(f"{transcript}: {len(more)} FLACs have no line, as {more[0]}.flac")
    if not utterances:
        raise UserError(f"{root / LAYOUT}: none is there; name a set, as LibriSpeech/dev-clean")
    return utterances
