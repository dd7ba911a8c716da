"""The report in a real browser: no script error, no empty plot, no sideways scrolling on a phone."""

from __future__ import annotations

from dataclasses import replace

import pytest
from browser_session import PHONE, WIDE, needs_browser, opened
from report_cases import EVALUATION, analysed_run, drawn_parity, side_by_side, training_rows

from remul_md.analysis.report import RunContent, write_report, write_side_by_side

pytestmark = [*needs_browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return write_report(
        analysed_run(),
        folder / "report.html",
        evaluation=EVALUATION,
        training=training_rows(),
        content=RunContent(parity=drawn_parity()),
        provenance={"potential": "a-potential-with-a-very-long-name-" * 5, "sha256": "0123456789abcdef" * 4},
    )


@pytest.mark.parametrize("size", [WIDE, PHONE])
@pytest.mark.parametrize("dark", [False, True])
def test_every_plot_is_drawn_and_nothing_overflows(browser, report, size, dark):
    opened(browser, report, size=size, dark=dark)
    errors = [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]
    assert errors == []
    plots = browser.execute_script(
        """return [...document.querySelectorAll(".plot")].map(plot => ({
             key: plot.id,
             expected: plot.data.filter(trace => trace.type !== "heatmap").length,
             densities: [plot.data.filter(trace => trace.type === "heatmap").length,
               plot.querySelectorAll(".heatmaplayer image").length],
             lengths: [...plot.querySelectorAll(".scatterlayer .trace")].map(trace =>
               [...trace.querySelectorAll("path.js-line")].reduce((n, p) => n + p.getAttribute("d").length, 0)
               + trace.querySelectorAll("path.point").length),
             width: plot.querySelector("svg").getBoundingClientRect().width,
             room: plot.getBoundingClientRect().width,
           }))"""
    )
    assert len(plots) == 8
    assert [plot["densities"] for plot in plots if plot["densities"] != [0, 0]] == [[1, 1], [1, 1]]
    for plot in plots:
        assert len(plot["lengths"]) == plot["expected"] >= 1, plot
        assert min(plot["lengths"]) >= 7, plot  # a line of two points is the shortest there is
        assert 200 < plot["width"] <= plot["room"] + 1, plot
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    too_wide = browser.execute_script(
        """return [...document.querySelectorAll("main, main *")].filter(e => !e.closest("svg, .hidden")
             && e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.tagName + "." + e.className)"""
    )
    assert too_wide == []


def test_the_page_asks_no_network(browser, report):
    import json

    opened(browser, report, size=WIDE)
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert report.as_uri() in asked
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_colours_follow_the_scheme_and_verdicts_do_not_rest_on_colour(browser, report):
    opened(browser, report, size=WIDE)
    inks = []
    for scheme in ("light", "dark"):  # the reader switches while the page is open
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        inks.append(
            browser.execute_async_script(
                "const done = arguments[0]; setTimeout(() => done([getComputedStyle(document.body).backgroundColor,"
                " document.querySelector('#net-torque').data[0].line.color]), 500)"
            )
        )
    assert inks[0][0] != inks[1][0]
    assert inks[0][1] != inks[1][1]
    badges = [element.text for element in browser.find_elements("css selector", ".badge")]
    assert {"✓ Yes", "✗ No"} < set(badges)
    marks = browser.execute_script(
        "return document.querySelector('#rotational-error').data.map(trace => trace.marker.symbol)"
    )
    assert len(set(marks)) == 2


CONTRASTS = """const parse = c => (c.match(/[\\d.]+/g) || []).map(Number);
  const bright = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const behind = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor);
    if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  return [...document.querySelectorAll("main *")].filter(e => e.getClientRects().length && !e.closest(".hidden")
      && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim())).map(e => {
    const style = getComputedStyle(e), inside = e.closest("svg") !== null;
    const [a, b] = [bright(parse(inside ? style.fill : style.color)), bright(behind(e))];
    return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), e.textContent.trim().slice(0, 40)];
  });"""


@pytest.mark.parametrize("dark", [False, True])
def test_all_text_can_be_read(browser, report, dark):
    """Also that of the plots and of what is folded: contrast of at least 4.5 (WCAG 2, level AA)."""
    opened(browser, report, size=WIDE, dark=dark)
    found = browser.execute_script(CONTRASTS)
    assert len(found) > 100
    assert [each for each in found if each[0] < 4.5] == []


def test_runs_side_by_side_fit_and_can_be_read(browser, tmp_path):
    shown = [replace(each, name=f"{each.name}-{k}") for k in range(2) for each in side_by_side()]
    page = write_side_by_side(shown, tmp_path / "page.html", comparisons={}, reference="shown-1")
    for size, dark in ((WIDE, True), (PHONE, False)):
        opened(browser, page, size=size, dark=dark)
        assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
        assert [each for each in browser.execute_script(CONTRASTS) if each[0] < 4.5] == []
        drawn = browser.execute_script(
            """return [...document.querySelectorAll(".plot")].map(plot => [plot.data.length,
                 plot.querySelectorAll(".scatterlayer .trace").length])"""
        )
        assert len(drawn) >= 3
        assert all(wanted == found for wanted, found in drawn)


@pytest.mark.parametrize("size", [WIDE, PHONE])
def test_the_table_of_contents_stays_and_leads(browser, report, size):
    opened(browser, report, size=size)
    links = browser.execute_script(
        "return [...document.querySelectorAll('nav a')].map(a => [a.hash.slice(1), a.getBoundingClientRect().top])"
    )
    assert [key for key, _ in links] == ["accuracy", "energy", "symmetry", "stability", "domain", "origin"]
    assert len({round(top) for _, top in links}) == 1  # one line
    for key, _ in links[1:4]:
        browser.execute_script(f"document.querySelector('nav a[href=\"#{key}\"]').click()")
        nav, heading = browser.execute_script(
            "return [document.querySelector('nav').getBoundingClientRect(),"
            f" document.querySelector('#{key} h2').getBoundingClientRect()].map(box => [box.top, box.bottom])"
        )
        assert abs(nav[0]) <= 1
        assert nav[1] - 1 <= heading[0] < 200


def test_the_page_is_short(browser, report):
    opened(browser, report, size=(1400, 900))
    assert browser.execute_script("return document.documentElement.scrollHeight") < 4850  # it was 9,700
    assert report.stat().st_size < 6e6
