"""What the pages of all experiments share, of an experiment whose names are hostile."""

from urllib.parse import unquote

import pytest

from plateau.config import UserError
from plateau.io import write_json, write_text
from plateau.report.facts import About, Option
from plateau.report.sections import link_to, write_page
from plateau.results import make_records
from tests.page import Page

HOSTILE = "<script>throw`x`</script>&\"'"
FILES = {"sequences.tsv": f"bounds {HOSTILE}", "writers.tsv": "of writers"}
CURVES = {"loss": (f"loss {HOSTILE}", f"nats {HOSTILE}")}


@pytest.fixture
def exp_dir(tmp_path):
    folder = tmp_path / "toy" / "vrnn" / "a <b>"
    write_text(folder / "config.yaml", "data_dir: data/toy\n")
    write_json(folder / "results.json", make_records(HOSTILE, "bound", bound_nats_per_step=-1.25))
    write_text(folder / "decode_a <b>_bound" / "sequences.tsv", "id\n")
    write_text(folder / "decode_a <b>_bound" / "writers.tsv", "")
    return folder


def page_of(exp_dir) -> tuple[str, Page]:
    epochs = [{"epoch": n, "train_loss": 3.0 / n, "dev_gain": -1.0 / n} for n in (1, 2)]
    options = [Option("a.b", HOSTILE, ""), Option("c", "1", "1")]
    about = About({"model": HOSTILE}, options, "", epochs)
    path = write_page(exp_dir, about, ["<p>mine</p>"], files=FILES, curves=CURVES, style="b {}")
    text = path.read_text(encoding="utf-8")
    return text, Page(text)


def test_texts_are_escaped_and_nothing_is_asked_for(exp_dir):
    text, page = page_of(exp_dir)
    # Fact, set, file, name and unit of a curve and the unit at its axis, option in both tables.
    assert page.text.count(HOSTILE) == 8
    tags = [tag for tag, _ in page.tags]
    assert tags.count("script") == 1 and "b" not in tags
    assert page.attributes("src") == []
    assert "url(" not in text and "http" not in text.replace("http-eq", "")


def test_results_files_curves_and_options_are_there_in_order(exp_dir):
    _, page = page_of(exp_dir)
    headings = ["Results", "files for other", "Learning curves", "mine", "Options 1 of 2 differ"]
    places = [page.text.index(heading) for heading in headings]
    assert places == sorted(places)
    assert f"set method nats a step {HOSTILE} bound -1.250" in page.text
    assert "nats a step the same over all steps" in page.text
    assert len(page.attributes("points", "polyline")) == 2
    assert "gain, mean over frames" in page.text  # what no name is given for


def test_files_are_linked_where_something_is_in_them(exp_dir):
    _, page = page_of(exp_dir)
    links = [link for link in page.attributes("href") if link[0] != "#"]
    assert [unquote(link) for link in links] == ["../decode_a <b>_bound/sequences.tsv"]
    assert "of writers" not in page.text
    assert link_to(exp_dir, "decode_a <b>_bound", "writers.tsv") == ""


def test_without_results_a_command_makes_them(exp_dir):
    (exp_dir / "results.json").unlink()
    with pytest.raises(UserError, match=r"results.json: no such file; make it with python local/"):
        page_of(exp_dir)
