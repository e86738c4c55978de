"""Repair a Kaldi data directory as `plateau.data.validate` found it."""

import shutil
from pathlib import Path

from plateau.config import UserError
from plateau.data.examination import Examination
from plateau.data.kaldi import REQUIRED
from plateau.data.validate import FILES, examine, inverse
from plateau.io import write_text


def fix_data_dir(path: Path, allow_pipes: bool = False) -> Examination:
    """Repair a data directory; never touches the audio.

    Sorts, drops repeated and malformed lines and the utterances that lack something, ends segments
    where their recording ends, takes reserved names and odd characters out of texts and ids, makes
    `spk2utt` anew. The files as they were go to ``path/.backup-<n>``, the first n that is free.

    Args:
        path: of the directory
        allow_pipes: run the shell commands of `wav.scp`; what needs one that fails is left out

    Returns:
        What was found: `problems` (the fixable ones are now mended) and `dropped`.

    Raises:
        UserError: a file is missing, or no utterance would be left. Nothing is changed then.
    """
    path = Path(path)
    found = examine(path, allow_pipes)
    for problem in found.problems:
        if problem.kind in ("missing", "empty"):
            raise UserError(f"{problem}\nNothing was changed: a repair needs {', '.join(REQUIRED)}")
        if problem.kind == "encoding" and not problem.fixable:
            raise UserError(f"{problem}\nNothing was changed: a repair would lose such lines")
    if not any(problem.fixable for problem in found.problems):
        return found
    found.backup = _back_up(path)
    kept = {
        name: [line for _, line in sorted(table.items())] for name, table in found.lines.items()
    }
    kept |= found.ctms
    kept["spk2utt"] = [f"{key} {value}" for key, value in inverse(found).items()]
    for name, lines in kept.items():
        if found.has(name) or name == "spk2utt":
            write_text(path / name, "".join(line + "\n" for line in lines))
    return found


def _back_up(path: Path) -> Path:
    """Copy the files to the first free ``.backup-<n>``, which appears only when it is whole."""
    number = 1
    while (backup := path / f".backup-{number}").exists():
        number += 1
    partial = path / ".backup-partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in FILES:
        if (path / name).is_file():
            shutil.copy2(path / name, partial / name)
    return partial.rename(backup)
