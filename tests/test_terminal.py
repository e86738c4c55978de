"""Control characters of data do not reach a terminal."""

import io
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from tqdm import tqdm

from plateau.config import UserError, user_errors
from plateau.terminal import printable, printable_output

ROOT = Path(__file__).parent.parent
ESCAPE = "\x1b[31mred\x1b]0;title\x07"
SHOWN = r"\x1b[31mred\x1b]0;title\x07"


def test_all_control_characters_but_two_are_written_out():
    every = "".join(map(chr, range(0x3000)))
    left = {c for c in printable(every) if unicodedata.category(c) == "Cc"}
    assert left == {"\t", "\n"}
    assert printable(ESCAPE) == SHOWN
    assert printable("\x9b31m \r \x00 \x7f") == r"\x9b31m \r \x00 \x7f"
    assert printable("tab\tand\nline, ɔ́ 語") == "tab\tand\nline, ɔ́ 語"
    assert printable("caf\udce9") == r"caf\udce9"  # of a name that is not UTF-8


def test_what_is_printed_is_printable_and_streams_are_put_back(capsys):
    before = sys.stdout, sys.stderr
    with printable_output():
        print("word", ESCAPE)
        print(ESCAPE, file=sys.stderr)
        tqdm.write(f"epoch {ESCAPE}")
    assert (sys.stdout, sys.stderr) == before
    said = capsys.readouterr()
    assert said.out == f"word {SHOWN}\nepoch {SHOWN}\n"
    assert said.err == f"{SHOWN}\n"


def test_progress_bars_stay_on_their_line(monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(sys, "stderr", terminal)
    with printable_output():
        list(tqdm(range(2), desc=f"set {ESCAPE}", leave=False, mininterval=0, ncols=100))
    shown = terminal.getvalue()
    assert shown.startswith(f"\rset {SHOWN}") and shown.endswith("\r")
    assert "\x1b" not in shown and r"\r" not in shown


@pytest.mark.parametrize("error", [UserError(f"'{ESCAPE}'"), OSError(28, "No space", ESCAPE)])
def test_messages_of_errors_are_printable(error):
    with pytest.raises(SystemExit) as exit, user_errors():
        raise error
    assert SHOWN in exit.value.code and "\x1b" not in exit.value.code


def test_a_directory_with_escapes_is_told_printably(tmp_path):
    """Ids, words, names of audio files, and a name that is not UTF-8."""
    data = tmp_path / f"{ESCAPE}"
    data.mkdir()
    (data / "wav.scp").write_text(f"a {ESCAPE}.wav\n{ESCAPE} x.wav\n")
    (data / "text").write_text(f"a {ESCAPE}\n{ESCAPE} word\n")
    (data / "utt2spk").write_text(f"a a\n{ESCAPE} b\n")
    for option in ([], ["--fix"]):
        command = [sys.executable, "local/validate_data_dir.py", *option, str(data)]
        done = subprocess.run(command, capture_output=True, cwd=ROOT)
        assert done.returncode == 1 and b"Traceback" not in done.stderr
        assert b"\x1b" not in done.stdout + done.stderr
        assert rb"\x1b[31mred" in done.stderr
