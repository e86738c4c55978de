import base64
import re
from urllib.parse import unquote

import pytest

pytest.importorskip("k2")

from plateau.graphs.graph import arcs_of
from plateau.graphs.topology import STANDARD, chain, standard_segments
from plateau.report.page import commit
from tests.page import Page
from toy_peaky import report
from toy_peaky.experiment import Experiment, Section, run
from toy_peaky.graph_pictures import graphs
from toy_peaky.options import Options
from toy_peaky.pictures import loss_curves, posteriors_over_time
from toy_peaky.report import write_report

EVIL = """<script>alert("1 & 2")</script> 'quoted' & "more" """
MEM = Options(frames=8, steps=12, target="0 1", input="2 2 0 0 1 1 1 2")

SECTIONS = (
    Section(
        "First & foremost",
        f"It starts with `code <b>` and {EVIL}.\n\nThen see `bad_one`, arXiv 2105.14849, B* a+ B*.",
        (
            Experiment(
                "good_one",
                "notes",
                f"claims {EVIL}",
                lambda results: (f"saw {EVIL}", True),
                {"a": MEM, "b <i>": MEM},
                snapshots=tuple(range(10)),
                pictures=(posteriors_over_time, loss_curves),
            ),
            Experiment("counted", "paper", "nothing to train", lambda _: ("9", True)),
        ),
    ),
    Section(
        "Second",
        "And ends.",
        (
            Experiment(
                "bad_one",
                "open question",
                "claims more",
                lambda results: ("saw less", False),
                {"a": MEM},
                snapshots=(0,),
                pictures=(graphs,),
                remark=f"but {EVIL}",
            ),
            Experiment("not_tried", "notes", "nobody knows", lambda _: ("", True)),
        ),
    ),
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The page's text, and its folder."""
    outcomes = {
        experiment.name: run(experiment)
        for section in SECTIONS
        for experiment in section.experiments
        if experiment.name != "not_tried"
    }
    path = write_report(SECTIONS, outcomes, tmp_path_factory.mktemp("exp"))
    assert path.parts[-2:] == ("report", "index.html")
    return path.read_text(encoding="utf-8"), path.parent


@pytest.fixture(scope="module")
def page(written):
    return Page(written[0])


def test_page_is_well_formed(written, page):
    assert written[0].startswith("<!DOCTYPE html>\n<html lang=")
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert not any(re.search(r"\s", name) for name in ids)
    for tag in ("html", "head", "body", "main", "title", "h1"):
        assert sum(name == tag for name, _ in page.tags) == 1
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "b", "i"}


def test_page_needs_no_other_file(written, page):
    text, directory = written
    assert all(source.startswith("data:image/") for source in page.attributes("src"))
    assert "url(" not in text and "@import" not in text
    names = {name for _, attributes in page.tags for name in attributes}
    assert not {name for name in names if name.startswith("on") or name == "srcset"}
    assert str(directory.parent) not in text
    ids = page.attributes("id")
    links = page.attributes("href")
    assert "#section-second" in links
    for link in links:
        if link.startswith("#"):
            assert unquote(link[1:]) in ids
        elif link.startswith("https:"):
            assert link == "https://arxiv.org/abs/2105.14849"
        else:
            assert (directory / link).is_file()


def test_pictures_are_in_the_page_and_in_files(written, page):
    _, directory = written
    images = {}
    for source in page.attributes("src", "img"):
        kind, content = source.split(";base64,")
        images[base64.b64decode(content, validate=True)] = kind
    files = {path.read_bytes(): path for path in (directory / "figures").iterdir()}
    assert images.keys() == files.keys()
    assert sorted(path.name for path in files.values()) == [
        "bad_one_graphs.png",
        "good_one.gif",
        "good_one_loss_curves.png",
        "good_one_posteriors_over_time.png",
    ]
    for content, path in files.items():
        assert images[content] == f"data:image/{path.suffix[1:]}"
        assert content.startswith(b"\x89PNG" if path.suffix == ".png" else b"GIF89a")
    alternatives = page.attributes("alt", "img")
    assert len(alternatives) == len(set(alternatives)) == 4
    assert all(text.endswith(".") and len(text) > 30 for text in alternatives)


def test_text_is_escaped(page):
    shown = " ".join(EVIL.split())
    for before in ("claims ", "saw ", "but ", "code <b> and "):
        assert before + shown in page.text
    assert "b <i>" in page.text


def test_page_tells_the_story_in_order(page):
    text = page.text
    places = [
        text.index(part)
        for part in (
            "2 of 3 claims hold",
            "First & foremost It starts with",
            "good_one ✓ holds claim",
            "counted ✓ holds claim",
            "Second And ends",
            "bad_one ✗ does not hold claim claims more source open question seen saw less",
            "not_tried not run claim nobody knows",
            "Commit",
        )
    ]
    assert places == sorted(places)
    for name in ("good_one", "counted", "bad_one", "not_tried"):
        assert name in page.attributes("id", "article")
        assert f"python toy_peaky/run.py {name}" in text
    assert "--frames 8" in text


def test_table_has_a_row_for_each_experiment(written):
    text, _ = written
    table = Page(text[text.index("<table>") : text.index("</table>") + len("</table>")])
    rows = [
        re.sub(r"<[^>]+>", " ", row)
        for row in re.findall("<tr>(.*?)</tr>", text.split("</table>")[0], re.DOTALL)
    ]
    verdicts = [row.split()[-2:] for row in rows if "one" in row or "nobody" in row]
    assert verdicts == [["✓", "holds"], ["not", "hold"], ["not", "run"]]
    assert table.attributes("href") == ["#good_one", "#counted", "#bad_one", "#not_tried"]


def test_marks_within_text():
    def inline(text: str) -> str:
        return report._inline(text, {"bad_one"})

    assert inline("`a < b` and `bad_one`") == (
        '<code>a &lt; b</code> and <a href="#bad_one"><code>bad_one</code></a>'
    )
    assert inline("up *peaky*, B* a+ B*, 2 * 3 * 4, `B* *x*`") == (
        "up <em>peaky</em>, B* a+ B*, 2 * 3 * 4, <code>B* *x*</code>"
    )
    assert inline("(arXiv 2105.14849)") == (
        '(<a href="https://arxiv.org/abs/2105.14849">arXiv 2105.14849</a>)'
    )


def test_graphs_are_written_for_graphviz(written):
    _, directory = written
    for name in STANDARD:
        text = (directory / "graphs" / f"{name}.gv").read_text(encoding="utf-8")
        assert text.lstrip().startswith("digraph")
        drawn = re.findall(r"(\d+) -> (\d+) \[label=\"?(-?\d+)", text)
        arcs = {
            (str(a.source), str(a.target), str(a.label))
            for a in arcs_of(chain(standard_segments(name)))
        }
        assert set(drawn) == arcs


def test_commit(monkeypatch):
    assert re.fullmatch(r"[0-9a-f]{7,}( with changes)?", commit())
    monkeypatch.setenv("PATH", "")
    assert commit() == "unknown"


def test_report_can_be_written_again(tmp_path):
    first = write_report(SECTIONS[1:], {}, tmp_path)
    page = Page(first.read_text(encoding="utf-8"))
    assert "0 of 0 claims hold" in page.text
    assert write_report(SECTIONS[1:], {}, tmp_path) == first
    assert sorted(path.name for path in first.parent.iterdir()) == [
        "figures",
        "graphs",
        "index.html",
    ]
