import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from conformer_ctc.options import Options
from plateau import config
from plateau.config import UserError

ROOT = Path(__file__).parents[2]
EXP_DIR = Path("exp/toy/conformer_ctc/x")


@pytest.fixture
def configure(load_script, tmp_path, monkeypatch, capsys):
    """A function that runs it in a folder with configurations that differ in epochs and beam."""
    monkeypatch.chdir(tmp_path)
    for path, epochs in (
        ("conformer_ctc/conf/default.yaml", 11),
        ("egs/toy/conf/conformer_ctc.yaml", 12),
        ("my.yaml", 13),
    ):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(f"training:\n  epochs: {epochs}\n")
    script = load_script("configure")

    def run(*arguments: str, corpus: str = "toy") -> dict:
        command = ["configure.py", "--corpus", corpus, "--recipe", "conformer_ctc"]
        monkeypatch.setattr(sys, "argv", [*command, "--exp-dir", str(EXP_DIR), *arguments])
        script.main()
        return yaml.safe_load((EXP_DIR / "config.yaml").read_text())

    run.printed = lambda: capsys.readouterr().out
    return run


def test_options_of_the_corpus_come_before_those_of_the_recipe(configure):
    assert configure()["training"]["epochs"] == 12
    assert configure(corpus="other")["training"]["epochs"] == 11


def test_options_of_the_user_come_before_those_of_the_corpus(configure):
    assert configure("--config", "my.yaml")["training"]["epochs"] == 13
    assert configure("--config", "my.yaml", "--keep")["training"]["epochs"] == 13


def test_options_of_the_experiment_are_kept_on_demand(configure):
    configure("--", "training.epochs=14", "decoding.beam=3")
    kept = configure("--keep", "--", "decoding.beam=4")
    assert (kept["training"]["epochs"], kept["decoding"]["beam"]) == (14, 4)
    # Without --keep they are not: the experiment has its name from its overrides.
    assert configure()["training"]["epochs"] == 12
    # Kept, but there is none yet.
    (EXP_DIR / "config.yaml").unlink()
    assert configure("--keep")["training"]["epochs"] == 12


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda values: None, "without all sections"),
        (lambda values: {}, "without all sections"),
        (lambda values: {"training": values["training"]}, "without corpus, features, tokens, "),
        (lambda values: values | {"encoder": None}, "without encoder\n"),
        (
            lambda values: values | {"training": {"epochs": 3}},
            r"without training\.schedule, training\.spec",
        ),
        (lambda values: {k: v for k, v in values.items() if k != "corpus"}, "without corpus\n"),
        (lambda values: 5, "int at the top"),
    ],
)
def test_an_experiment_that_lost_options_is_not_taken_for_a_default_one(configure, change, said):
    """Case: config.yaml is emptied, or sections are gone. The trained model stays where it is."""
    path = EXP_DIR / "config.yaml"
    values = change(configure("--", "training.epochs=14"))
    path.write_text("" if values is None else yaml.safe_dump(values))
    before = path.read_bytes()
    with pytest.raises(UserError, match=f"config.yaml: {said}"):
        configure("--keep")
    assert path.read_bytes() == before
    # What the message says helps.
    assert configure("--keep", "--config", "my.yaml")["training"]["epochs"] == 13
    assert configure("--keep")["training"]["epochs"] == 13


def test_an_experiment_whose_options_are_gone_keeps_its_model(configure):
    configure("--", "training.epochs=14")
    (EXP_DIR / "config.yaml").unlink()
    (EXP_DIR / "checkpoints").mkdir()
    with pytest.raises(UserError, match=r"config\.yaml: no such file, though .*checkpoints is"):
        configure("--keep")
    assert not (EXP_DIR / "config.yaml").exists()
    assert configure("--keep", "--config", "my.yaml")["training"]["epochs"] == 13


def test_overrides_come_first(configure):
    options = configure(
        "--config", "my.yaml", "--", "training.epochs=15", "encoder.conformer.dim=32"
    )
    assert options["training"]["epochs"] == 15
    assert options["encoder"]["conformer"]["dim"] == 32


def test_all_options_are_stored_with_their_values(configure):
    stored = configure("--", "corpus.hours=0.05", "features.perturb_speed=[0.9, 1.1]")
    assert stored["data_dir"] == "data/toy"
    assert stored["corpus"] == {"hours": 0.05}
    assert stored["features"]["perturb_speed"] == [0.9, 1.1]
    options = config.load(Options, EXP_DIR / "config.yaml")
    assert options.training.epochs == 12
    assert options.encoder == Options().encoder
    assert options.features.perturb_speed == (0.9, 1.1)


def test_sets_are_kept_until_others_are_named(configure):
    stored = configure("--dev-set", "valid", "--test-sets", "a, b")
    assert (stored["dev_set"], stored["test_sets"]) == ("valid", ["a", "b"])
    stored = configure("--keep", "--test-sets", "c")
    assert (stored["dev_set"], stored["test_sets"]) == ("valid", ["c"])
    stored = configure()
    assert (stored["dev_set"], stored["test_sets"]) == ("", [])


@pytest.mark.parametrize(
    ("override", "lang"),
    [
        ("tokens.vocab_size=70", "lang_bpe_70"),
        ("tokens.kind=char", "lang_char"),
        ("tokens.kind=phone tokens.lexicon=x", "lang_phone"),
    ],
)
def test_it_prints_the_kind_of_data_and_the_token_folder(configure, override, lang):
    configure("--", *override.split())
    assert configure.printed() == f"speech {lang}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--", "training.epoch=3"], "training.epoch"),
        (["--", "training.epochs=many"], "training.epochs"),
        (["--", "training.schedule.kind=step"], "training.schedule.kind"),
        (["--", "training.epochs"], "'training.epochs' is not of the form field.name=value"),
        (["--", "data_dir=data/other"], "data_dir follows from --corpus"),
        (["--config", "none.yaml"], "none.yaml: no such file"),
        (["--config", "bad.yaml"], "bad.yaml"),
    ],
)
def test_mistakes_name_the_field_and_overwrite_nothing(configure, arguments, message):
    Path("bad.yaml").write_text("trainig:\n  epochs: 3\n")
    configure("--", "training.epochs=14")
    before = (EXP_DIR / "config.yaml").read_bytes()
    with pytest.raises(UserError) as error:
        configure(*arguments)
    assert message in str(error.value)
    assert str(error.value).count("\n") < 3
    assert (EXP_DIR / "config.yaml").read_bytes() == before
    assert [path.name for path in EXP_DIR.iterdir()] == ["config.yaml"]


def test_there_is_no_such_recipe(load_script, monkeypatch, tmp_path):
    command = ["configure.py", "--corpus", "toy", "--recipe", "hmm", "--exp-dir", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(UserError, match=r"--recipe hmm: there is no hmm/options\.py"):
        load_script("configure").main()


def test_as_a_program_a_mistake_is_a_line_and_a_status(configure, tmp_path):
    command = [sys.executable, ROOT / "local/configure.py", "--corpus", "toy"]
    command += ["--recipe", "conformer_ctc", "--exp-dir", "exp", "--", "training.epoch=3"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stdout == ""
    assert "training.epoch" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "exp").exists()
