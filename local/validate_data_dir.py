"""Check Kaldi data directories, and repair them if asked to."""

import sys
from pathlib import Path

from plateau.config import UserError, cli
from plateau.data.examination import is_valid, report
from plateau.data.repair import fix_data_dir
from plateau.data.validate import examine


def main(data_dirs: list[Path], fix: bool = False, allow_pipes: bool = False) -> None:
    """Check data directories; each problem is one line on stderr, and the exit status then is 1.

    Args:
        data_dirs: directories with wav.scp, text and utt2spk
        fix: repair what can be repaired; the files as they were go to DIR/.backup-N
        allow_pipes: accept shell commands in wav.scp; they are run, here and when audio is read
    """
    valid = True
    for path in data_dirs:
        try:
            known = None
            if fix:
                fixed = fix_data_dir(path, allow_pipes)
                known = fixed.audio
                report([problem for problem in fixed.problems if problem.fixable], mended=True)
                for utterance, why in fixed.dropped.items():
                    print(f"{path}: dropped '{utterance}': {why}", file=sys.stderr)
                if fixed.backup:
                    print(f"{fixed.backup}: the files as they were", file=sys.stderr)
            found = examine(path, allow_pipes, known)
        except UserError as error:
            print(error, file=sys.stderr)
            valid = False
            continue
        if is_valid(found):
            print(f"{path}: valid: {found.summary()}")
        else:
            valid = False
    sys.exit(0 if valid else 1)


if __name__ == "__main__":
    cli(main)
