"""Stages 1 to 8 on tones, by the scripts' own command lines; what they leave keeps the contracts.

DESIGN's contracts: Kaldi directories, Lhotse manifests, token folder, experiment directory.
"""

import json
import re
from pathlib import Path

import kaldialign
import pytest
import torch
from click.testing import CliRunner
from lhotse import CutSet, SupervisionSet
from lhotse.bin.modes import cli as lhotse_cli

from conformer_ctc.options import DecodingOptions
from plateau.training import checkpoint
from tests.job import SETS, assert_watched, check_nbest, run, run_job, start, trn
from tests.sclite import counts, needs_sclite

EXP_DIR = Path("exp/toy/conformer_ctc/x")
METHODS = DecodingOptions().methods
METRICS = ("wer", "cer", "rtf_batch_16", "rtf_batch_1")


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """The folder of a finished job."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    patch = pytest.MonkeyPatch()
    patch.chdir(tmp_path_factory.mktemp("job"))
    run_job("conformer_ctc", EXP_DIR, [])
    yield Path.cwd()
    patch.undo()
    torch.set_num_threads(threads)


pytestmark = pytest.mark.slow


def test_manifests_are_readable_by_lhotses_own_program(job):
    for set_name, count in SETS.items():
        path = job / f"data/toy/manifests/toy_cuts_{set_name}.jsonl.gz"
        described = CliRunner().invoke(lhotse_cli, ["cut", "describe", str(path)])
        assert described.exit_code == 0, described.output
        count = 2 * count if set_name == "train" else count  # a copy at another speed
        assert re.search(rf"Cuts count: *│ *{count} ", described.output), described.output
        cuts = CutSet.from_file(path)
        assert all(cut.load_features().shape == (cut.num_frames, 20) for cut in cuts)
        for kind in ("recordings", "supervisions"):
            assert (job / f"data/toy/manifests/toy_{kind}_{set_name}.jsonl.gz").exists()


def test_tokens_are_in_icefalls_form(job):
    lines = (job / "data/toy/lang_char/tokens.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split() for line in lines]
    assert [int(number) for _, number in pairs] == list(range(len(lines)))
    assert pairs[0] == ["<blk>", "0"]
    assert {token for token, _ in pairs} == {"<blk>", "<unk>", "▁", "a", "b", "c"}
    assert (job / "data/toy/lang_char/bpe.model").exists()


def test_the_experiment_has_what_the_contract_says(job):
    exp_dir = job / EXP_DIR
    checkpoints = list((exp_dir / "checkpoints").iterdir())
    assert {path.suffix for path in checkpoints} == {".safetensors"}
    names = {path.stem for path in checkpoints}
    assert names == {"epoch-7", "epoch-8", "before-last", "last", "averaged"}
    state = checkpoint.load(exp_dir / "checkpoints/averaged.safetensors")
    assert state["options"]["data_dir"] == "data/toy"
    assert_watched(exp_dir / "tensorboard", "blank_fraction", 8)
    epochs = (exp_dir / "log/epochs.jsonl").read_text().splitlines()
    losses = [json.loads(line)["dev_loss"] for line in epochs]
    assert len(losses) == 8
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("set_name", ["dev", "test"])
def test_scores_are_those_of_the_transcripts(job, set_name, method):
    decode_dir = job / EXP_DIR / f"decode_{set_name}_{method}"
    references, hypotheses = trn(decode_dir / "ref.trn"), trn(decode_dir / "hyp.trn")
    text = (job / f"data/toy/{set_name}/text").read_text().splitlines()
    assert references == {line.split()[0]: line.split()[1:] for line in text}
    assert references.keys() == hypotheses.keys()
    errors = sum(
        kaldialign.edit_distance(references[name], hypotheses[name])["total"] for name in references
    )
    wer = 100 * errors / sum(map(len, references.values()))
    records = json.loads((job / EXP_DIR / "results.json").read_text())
    found = {
        r["metric"]: r["value"] for r in records if (r["set"], r["method"]) == (set_name, method)
    }
    assert found.keys() == set(METRICS)
    assert min(found["rtf_batch_16"], found["rtf_batch_1"]) > 0
    assert found["wer"] == pytest.approx(wer, abs=1e-3)
    assert (decode_dir / "wer.txt").read_text().startswith(f"%WER {wer:.2f} [ {errors} /")


@pytest.mark.parametrize("method", METHODS)
def test_the_ctms_spell_the_hypotheses_within_the_utterances(job, method):
    decode_dir = job / EXP_DIR / f"decode_test_{method}"
    hypotheses = trn(decode_dir / "hyp.trn")
    durations = {
        cut.id: cut.duration
        for cut in CutSet.from_file(job / "data/toy/manifests/toy_cuts_test.jsonl.gz")
    }
    spelt = {name: "" for name in hypotheses}
    previous = ("", 0.0)
    for line in (decode_dir / "hyp_tokens.ctm").read_text(encoding="utf-8").splitlines():
        name, channel, start, duration, token, confidence = line.split()
        assert channel == "1" and 0 <= float(confidence) <= 1
        # A frame after subsampling by 4; the first begins with the audio, not 15 ms before it.
        end = float(start) + float(duration)
        assert float(duration) == (0.04 if float(start) else 0.025) or end == durations[name]
        assert (name, float(start)) > previous
        assert end <= durations[name]
        previous = (name, float(start))
        spelt[name] += token
    assert {name: word.replace("▁", " ").split() for name, word in spelt.items()} == hypotheses
    assert any(hypotheses.values())
    words = {name: [] for name in hypotheses}
    for line in (decode_dir / "hyp.ctm").read_text(encoding="utf-8").splitlines():
        words[line.split()[0]].append(line.split()[4])
    assert words == hypotheses


@needs_sclite
@pytest.mark.parametrize("kind", ["trn", "ctm"])
@pytest.mark.parametrize("method", METHODS)
def test_sclite_finds_the_same_errors(job, method, kind):
    decode_dir = job / EXP_DIR / f"decode_test_{method}"
    found = counts(decode_dir, kind)
    total = (decode_dir / "wer.txt").read_text().splitlines()[0]
    assert f" [ {found['errors']} / {found['words']}, " in total


def test_prefix_beam_search_gives_nbest_lists(job):
    with_lists = {path.parent.name for path in (job / EXP_DIR).glob("decode_*/nbest.txt")}
    assert with_lists == {"decode_dev_prefix_beam", "decode_test_prefix_beam"}
    for name in with_lists:
        check_nbest(job / EXP_DIR / name)


def test_alignments_are_where_the_tones_are(job):
    run("conformer_ctc/align.py", str(EXP_DIR), "--sets", "test")
    align_dir = job / EXP_DIR / "align_test"
    truth = [line.split() for line in (job / "data/toy/test/ctm").read_text().splitlines()]
    words = [line.split() for line in (align_dir / "words.ctm").read_text().splitlines()]
    assert [(w[0], w[4]) for w in words] == [(t[0], t[4]) for t in truth]
    supervisions = {s.id: s for s in SupervisionSet.from_file(align_dir / "supervisions.jsonl.gz")}
    assert len(supervisions) == SETS["test"]
    for (name, _, begin, duration, word, confidence), true in zip(words, truth, strict=True):
        # The token for a word's start is heard in the pause of 50 ms before it, or a frame earlier.
        assert -0.09 < float(begin) - float(true[2]) < 0.04
        end, true_end = (float(w[2]) + float(w[3]) for w in ((0, 0, begin, duration), true))
        assert abs(end - true_end) < 0.04
        assert 0.5 < float(confidence) <= 1
        items = supervisions[name].alignment["word"]
        (item,) = (i for i in items if abs(i.start - float(begin)) < 1e-3)
        assert (item.symbol, item.score) == (word, pytest.approx(float(confidence), abs=1e-3))
        assert item.end <= supervisions[name].end
        assert (align_dir / f"{name}.TextGrid").exists()
    metrics = {
        r["metric"]: r["value"] for r in json.loads((align_dir / "metrics.json").read_text())
    }
    assert metrics["word_end_error_ms"] < 30
    assert 0.5 < metrics["sharpness"] <= 1
    assert 0 < metrics["entropy_nats"] < 1
    assert (align_dir / "left_out.txt").read_text() == ""
    assert (align_dir / "doubtful.txt").read_text() == ""


def test_another_topology_with_a_prior(job):
    exp_dir = Path("exp/toy/conformer_ctc/prior")
    loss = ["topology=silence", "viterbi=0.2", "prior.estimator=epoch", "warm_up_steps=4"]
    decoding = ["decoding.methods=[lexicon]", "decoding.prior_scale=0.2"]
    start("conformer_ctc", exp_dir, [f"loss.{x}" for x in loss] + decoding)
    run("local/check.py", str(exp_dir))
    run("conformer_ctc/train.py", str(exp_dir))
    run("conformer_ctc/decode.py", str(exp_dir))
    run("conformer_ctc/align.py", str(exp_dir), "--sets", "dev", "--prior-scale", "0.1")
    assert len((job / exp_dir / "align_dev/words.ctm").read_text().splitlines()) >= SETS["dev"]
    with pytest.raises(AssertionError, match="the model has no label prior"):
        run("conformer_ctc/align.py", str(EXP_DIR), "--prior-scale", "0.1")
    state = checkpoint.load(job / exp_dir / "checkpoints/averaged.safetensors")["model"]
    assert float(state["prior.prior"].sum()) == pytest.approx(1.0)
    assert float(state["prior.prior"][1]) < 0.05  # <unk>, which is never said
    tokens = (job / exp_dir / "decode_test_lexicon/hyp_tokens.ctm").read_text().splitlines()
    # Posteriors divided by a prior are no probabilities, and most would be above 1.
    assert sum(float(line.split()[5]) < 0.9995 for line in tokens) > len(tokens) / 2
    records = json.loads((job / exp_dir / "decode_test_lexicon/metrics.json").read_text())
    assert next(r["value"] for r in records if r["metric"] == "wer") < 100


def test_results_json_is_a_list_of_records(job):
    records = json.loads((job / EXP_DIR / "results.json").read_text())
    assert all(set(r) == {"set", "method", "metric", "value"} for r in records)
    expected = {(s, m, f) for s in ("dev", "test") for m in METHODS for f in METRICS}
    expected.add(("train", "conformer_ctc", "train_seconds"))
    assert {(r["set"], r["method"], r["metric"]) for r in records} == expected


def test_decoding_takes_the_model_from_the_run_and_its_own_options_from_the_config(job):
    """Another encoder in config.yaml does not matter any more; other ways to decode do."""
    config = job / EXP_DIR / "config.yaml"
    before = config.read_text()
    before_greedy = (job / EXP_DIR / "decode_dev_greedy" / "hyp.trn").read_bytes()
    after = before.replace("num_layers: 1", "num_layers: 2").replace("beam: 8", "beam: 2")
    config.write_text(after.replace("  - 16\n", "").replace("nbest: 3", "nbest: 0"))
    run("conformer_ctc/decode.py", str(EXP_DIR))
    records = json.loads((job / EXP_DIR / "decode_dev_greedy" / "metrics.json").read_text())
    assert [r["metric"] for r in records] == ["wer", "cer", "rtf_batch_1"]
    assert not list((job / EXP_DIR).glob("decode_*/nbest.txt"))
    assert (job / EXP_DIR / "decode_dev_greedy" / "hyp.trn").read_bytes() == before_greedy
    config.write_text(before.replace("prior_scale: 0.0", "prior_scale: 0.5"))
    with pytest.raises(AssertionError, match="the model has no label prior"):
        run("conformer_ctc/decode.py", str(EXP_DIR))
    config.write_text(before)
