"""Results as JSON, CSV, tables, plots and a page."""

import csv
import dataclasses
import io
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pytest
from tests.unit.cli.bench.figures_made import answered, figures, level, run

from llmop.cli.bench import page, picture, plots, results, tables
from llmop.cli.bench.loads import Mode
from llmop.cli.bench.measures import Sample
from llmop.cli.bench.startup import Startup
from llmop.cli.errors import ConfigError

FAILED = figures(
    [answered(0.0, 0.5, 0.02), Sample(due_at=0.0, ended_at=1.0, error="status 503", message="no replica")]
)
STARTUP = Startup(
    deployment="chat",
    image="/i.sif",
    at="2026-11-28T09:00:00Z",
    job="17",
    steps={"replica": 0.02, "running": 1.5, "answered": 4.25},
)
EVERYTHING = dataclasses.replace(
    run(level(1, 50), level(8, 200), level(2, 9, mode=Mode.POISSON), level(1, 5, mode=Mode.TRACE), FAILED),
    startups=(STARTUP,),
)


def test_results_come_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    results.write(path, results.to_json(EVERYTHING))
    assert EVERYTHING == results.read(path)
    assert [path] == list(tmp_path.iterdir())
    assert 0o600 == stat.S_IMODE(path.stat().st_mode) & 0o600


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "llmctl-bench/1"}', "\xff"])
def test_what_is_no_result_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(ConfigError, match=r"other\.json"):
        results.read(path)


def test_csv_has_a_row_for_each_measurement_in_seconds() -> None:
    rows = list(csv.DictReader(io.StringIO(results.to_csv([EVERYTHING]))))
    assert ["closed", "closed", "poisson", "trace", "closed"] == [row["mode"] for row in rows]
    names = ("level", "ttft_p50", "tokensPerSecond", "ttft_count", "windowSeconds")
    assert [8, 0.08, 200, 120, 10] == [float(rows[1][name]) for name in names]
    assert ("status 503: 1", "1.0") == (rows[4]["errors"], rows[4]["timeScale"])


def test_csv_holds_no_formula_of_a_name() -> None:
    text = results.to_csv([run(level(1, 5, model='=HYPERLINK("http://x")'))])
    assert "'=HYPERLINK" in next(csv.reader(io.StringIO(text.splitlines()[1])))[1]


def test_runs_are_told_apart_by_their_label() -> None:
    rows = tables.of_figures([run(level(1, 50), label="direct"), run(level(1, 45), label="gateway")])
    assert ["RUN", "direct", "gateway"] == [row[0] for row in rows]
    assert "MODEL" == tables.of_figures([run(level(1, 50))])[0][0]


def test_remarks_name_errors_and_saturation_and_every_place_of_a_warning() -> None:
    grown = [level(1, 50), level(8, 200), level(64, 201)]
    few = dataclasses.replace(level(2, 60), warnings=("fewer",))
    found = tables.remarks([run(*grown, few, dataclasses.replace(few, cell=grown[0].cell), FAILED)])
    assert "m 128:3 x 2, 1 streams: fewer" in found
    assert "m 128:3 x 1 streams: 1 failed with status 503, such as: no replica" in found
    assert "m 128:3: saturated at 8, with 200.0 of at most 201.0 tokens/s" in found


def test_startups_are_medians_of_the_rounds() -> None:
    slow = dataclasses.replace(STARTUP, steps={"replica": 0.04, "answered": 6.25})
    header, row = tables.of_startups([STARTUP, slow])
    cells = dict(zip(header, row, strict=True))
    assert ("yes", "2", "0.03", "1.50", "-", "5.25") == tuple(
        cells[name] for name in ("CONTAINER", "ROUNDS", "REPLICA", "RUNNING", "READY", "ANSWERED")
    )


def test_what_each_step_took_is_the_median_of_its_own_time() -> None:
    """Here the queue took 1.48 and 3.9 s, and the rest 2.75 and 1.25 s: medians of the sums would mix the two."""
    other = dataclasses.replace(STARTUP, steps={"replica": 0.1, "running": 4.0, "answered": 5.25})
    header, row = tables.of_steps([STARTUP, other])
    cells = dict(zip(header, row, strict=True))
    assert ("0.06", "-", "2.69", "2.00") == tuple(
        cells[name] for name in ("REPLICA", "SUBMITTED", "RUNNING", "ANSWERED")
    )


class _Page(HTMLParser):
    """Everything that could leave the page, and whether elements are closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def test_the_page_stands_alone_and_is_whole() -> None:
    text = page.html([EVERYTHING])
    found = _Page(text)
    assert [] == found.wrong + found.open
    assert set() == found.tags & {"script", "link", "img", "iframe", "object", "image", "use"}
    assert set() == found.attributes & {"href", "src", "style", "xlink:href"}
    assert set() == {word for word in ("url(", "@import", "//cdn") if word in text}
    assert "prefers-color-scheme: dark" in text
    for words in ("Closed loop", "Open loop", "Traces", "From apply to the first token", "status 503"):
        assert words in text


def test_what_others_have_named_does_not_become_markup() -> None:
    text = page.html([run(level(1, 5, model="<script>alert(1)</script>"), label='"><b>')])
    assert "script" not in _Page(text).tags
    assert "b" not in _Page(text).tags


def test_a_plot_has_a_mark_for_each_point_within_its_frame() -> None:
    line = plots.Line(name="m", number=0, points=((1, 5.0), (8, 50.0), (128, 5000.0)))
    text = plots.svg(plots.Chart(title="t", x="streams", y="ms", lines=(line,), is_log_x=True))
    picture = ElementTree.fromstring(text)
    circles = picture.findall(".//circle")
    assert 3 == len(circles)
    places = [(float(each.attrib["cx"]), float(each.attrib["cy"])) for each in circles]
    assert places == sorted(places, key=lambda place: (place[0], -place[1]))
    assert all(0 <= x <= 460 and 0 <= y <= 300 for x, y in places)
    assert "(log)" in text


@pytest.mark.parametrize(
    "points", [((1, 0.0),), ((1, 3.0),), ((1, 0.0), (2, 0.0)), ((1, 0.0), (2, 900.0)), ((5, 1e-9), (5, 1e9))]
)
def test_a_plot_can_show_single_points_zeros_and_extremes(points: tuple[tuple[float, float], ...]) -> None:
    text = plots.svg(
        plots.Chart(
            title="t", x="x", y="y", lines=(plots.Line(name="m", number=9, points=points),), is_log_x=True
        )
    )
    ElementTree.fromstring(text)
    assert not re.search(r"nan|inf", text)


def test_a_plot_of_nothing_is_nothing() -> None:
    assert "" == plots.svg(plots.Chart(title="t", x="x", y="y", lines=()))


def test_the_load_at_which_a_model_is_saturated_has_a_ring() -> None:
    grown = [level(1, 50), level(8, 200), level(64, 201)]
    text = page.html([run(*grown)])
    assert 1 == text.count('r="8"') == text.count("<title>m 128:3: saturated at 8</title>")
    assert 'r="8"' not in page.html([run(*grown[:2])])


def test_a_server_that_was_slowed_down_is_told() -> None:
    made = run(level(1, 50))
    slowed = dataclasses.replace(made, conditions=dataclasses.replace(made.conditions, time_scale=8.0))
    words = "the server was 8 times slower than what it stands for"
    assert [False, True] == [any(words in each for each in tables.remarks([one])) for one in (made, slowed)]


def test_the_picture_stands_alone_with_four_plots_and_a_legend() -> None:
    text = picture.svg([run(level(1, 50), level(8, 200), level(2, 9, model="<b>&"))])
    root = ElementTree.fromstring(text)
    titles = [each.text for each in root.iterfind("{*}svg/{*}title")]
    assert ["Time to first token", "Between tokens", "End to end", "Tokens"] == titles
    assert {"m 128:3", "<b>& 128:3"} == {each.text for each in root.iterfind("{*}text")}
    assert set() == {word for word in ("url(", "@import", "href", "<script") if word in text}
    places = [(each.get("x"), each.get("y")) for each in root.iterfind("{*}svg")]
    assert len(places) == len(set(places)) == 6


def test_there_is_no_picture_without_a_closed_loop() -> None:
    assert "" == picture.svg([run(level(2, 9, mode=Mode.POISSON))])


def test_a_run_that_is_called_like_its_model_is_not_named_twice() -> None:
    ((name, _),) = tables.rows_of([run(level(1, 50), label="m")])
    assert "m 128:3" == name
