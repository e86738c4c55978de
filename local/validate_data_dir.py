"""Check Kaldi data directories, and repair them if asked to."""

import sys
from collections import Counter
from pathlib import Path

from plateau.config import UserError, cli
from plateau.data.validate import Problem, examine, fix_data_dir

SHOWN = 20  # problems of a kind that are printed


def main(data_dirs: list[Path], fix: bool = False, allow_pipes: bool = False) -> None:
    """Check data directories; each problem is one line on stderr, and the exit status then is 1.

    Args:
        data_dirs: directories with wav.scp, text and utt2spk
        fix: repair what can be repaired; the files as they were go to DIR/.backup-N
        allow_pipes: accept shell commands in wav.scp; they run when the audio is read
    """
    valid = True
    for path in data_dirs:
        try:
            if fix:
                fixed = fix_data_dir(path)
                report([problem for problem in fixed.problems if problem.fixable], mended=True)
                for utterance, why in fixed.dropped.items():
                    print(f"{path}: dropped '{utterance}': {why}", file=sys.stderr)
                if fixed.backup:
                    print(f"{fixed.backup}: the files as they were", file=sys.stderr)
            found = examine(path, allow_pipes)
        except UserError as error:
            print(error, file=sys.stderr)
            valid = False
            continue
        report(found.problems)
        errors = sum(not problem.warning for problem in found.problems)
        if errors:
            print(f"{path}: {errors} problems", file=sys.stderr)
            valid = False
        else:
            print(f"{path}: valid: {found.summary()}")
    sys.exit(0 if valid else 1)


def report(problems: list[Problem], mended: bool = False) -> None:
    """Print problems on stderr, the first of each kind, then the number of the others."""
    count = Counter()
    start = "mended: " if mended else ""
    for problem in problems:
        count[problem.path, problem.kind] += 1
        if count[problem.path, problem.kind] <= SHOWN:
            print(f"{start}{problem.finding if mended else problem}", file=sys.stderr)
    for (path, kind), number in count.items():
        if number > SHOWN:
            print(f"{start}{path}: {number - SHOWN} more of kind '{kind}'", file=sys.stderr)


if __name__ == "__main__":
    cli(main)
