"""The 3D view in a real browser: drawn, rotated, played, by mouse, touch and keyboard, wide and narrow."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from browser_session import PHONE, WIDE, needs_browser, opened
from report_cases import shown_run

from remul_md.analysis.report import write_report

pytestmark = [*needs_browser, pytest.mark.slow]

PIXELS = """const c = document.getElementById("scene");
  const p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
  let drawn = 0, hash = 0;
  for (let i = 0; i < p.length; i += 4) if (p[i + 3] > 0) { drawn++; hash = (hash * 31 + p[i] + 7 * p[i + 1] + i) | 0; }
  return [drawn / (p.length / 4), hash];"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    analysis, content = shown_run()
    return write_report(analysis, tmp_path_factory.mktemp("molecule") / "report.html", content=content)


def pixels(browser) -> tuple[float, int]:
    share, key = browser.execute_script(PIXELS)
    return share, key


def press(browser, key: str) -> None:
    browser.execute_script(
        "document.getElementById('scene').dispatchEvent(new KeyboardEvent('keydown', {key: arguments[0]}))", key
    )


def pointer(browser, name: str, x: float, y: float, *, kind: str = "touch", number: int = 1) -> None:
    """An event of the pointer at a place relative to the corner of the canvas."""
    method = {"down": "mousePressed", "move": "mouseMoved", "up": "mouseReleased"}[name]
    left, top = browser.execute_script(
        "const b = document.getElementById('scene').getBoundingClientRect(); return [b.left, b.top]"
    )
    if kind == "mouse":
        button = {"button": "left", "clickCount": 1} if name != "move" else {"button": "left", "buttons": 1}
        browser.execute_cdp_cmd("Input.dispatchMouseEvent", {"type": method, "x": left + x, "y": top + y, **button})
        return
    points = [] if name == "up" else [{"x": left + x, "y": top + y, "id": number}]
    kinds = {"down": "touchStart", "move": "touchMove", "up": "touchEnd"}
    browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kinds[name], "touchPoints": points})


@pytest.mark.parametrize(("size", "dark"), [(WIDE, False), (PHONE, True)])
def test_it_is_drawn_and_fits(browser, report, size, dark):
    opened(browser, report, size=size, dark=dark)
    assert [entry for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    share, _ = pixels(browser)
    assert 0.02 < share < 0.7
    assert browser.execute_script("return document.documentElement.scrollWidth") <= size[0]
    too_wide = browser.execute_script(
        """return [...document.querySelectorAll("#molecule *, dl *")].filter(
             e => e.getBoundingClientRect().right > window.innerWidth + 1).map(e => e.tagName + e.id)"""
    )
    assert too_wide == []
    small = browser.execute_script(
        "return [...document.querySelectorAll('#molecule button')].map(b => b.getBoundingClientRect().height)"
    )
    assert len(small) == 3
    assert min(small) >= 40  # a finger hits it
    lines = browser.execute_script("return document.querySelector('#spectrum').data.map(trace => trace.name)")
    assert lines == ["motion in this run", "harmonic, at the minimum"]


def test_the_slider_moves_the_molecule_and_says_the_time(browser, report):
    analysis, content = shown_run()
    view = content.molecule
    opened(browser, report, size=WIDE)
    seen = {pixels(browser)[1]}
    for frame in (123, 499):
        browser.execute_script(
            "const s = document.getElementById('frame'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
            str(frame),
        )
        seen.add(pixels(browser)[1])
        moment = browser.find_element("id", "moment").text
        assert moment.startswith(f"{view.time_ps[frame]:.3f} ps, frame {view.frames[frame]} of 601")
    assert len(seen) == 3
    browser.find_element("id", "worst-frame").click()
    row = int(np.argmax(analysis.rotational.error_meV_per_A))
    worst = int(analysis.rotation_frames[row])
    moment = browser.find_element("id", "moment").text
    assert f"frame {worst} of 601: measured in this frame" in moment
    errors = analysis.rotational.atom_error_meV_per_A[row]
    table = [cell.text for cell in browser.find_elements("css selector", "#worst-atoms td")]
    order = np.argsort(-errors)[:3]
    assert table[::2] == [f"{content.molecule.symbols[atom]}{atom}" for atom in order]
    np.testing.assert_allclose([float(text) for text in table[1::2]], errors[order], rtol=0.06)
    # A point of the plot leads to its frame.
    browser.execute_script(
        "document.dispatchEvent(new CustomEvent('show-time', {detail: arguments[0]}))", float(analysis.time_ps[300])
    )
    assert abs(float(browser.find_element("id", "moment").text.split()[0]) - analysis.time_ps[300]) < 0.002


def test_play_runs_until_it_is_paused(browser, report):
    from selenium.webdriver.support.ui import WebDriverWait

    opened(browser, report, size=WIDE)
    button, canvas = browser.find_element("id", "play"), browser.find_element("id", "scene")
    before = pixels(browser)[1]
    button.click()
    assert "Pause" in button.text
    WebDriverWait(browser, 20).until(lambda _: int(canvas.get_attribute("data-frame")) >= 3)
    assert pixels(browser)[1] != before
    button.click()
    stopped = canvas.get_attribute("data-frame")
    browser.execute_async_script("setTimeout(arguments[0], 300)")
    assert canvas.get_attribute("data-frame") == stopped
    assert "Play" in button.text


@pytest.mark.parametrize("kind", ["mouse", "touch", "keys"])
def test_it_turns_and_comes_back(browser, report, kind):
    opened(browser, report, size=WIDE if kind == "mouse" else PHONE)
    browser.execute_script("document.getElementById('scene').scrollIntoView({block: 'center'})")
    start = pixels(browser)[1]
    scrolled = browser.execute_script("return window.scrollY")
    if kind == "keys":
        press(browser, "ArrowRight")
        rotated = pixels(browser)[1]
        press(browser, "+")
        assert pixels(browser)[1] != rotated
    else:
        pointer(browser, "down", 20, 20, kind=kind)
        pointer(browser, "move", 60, 60, kind=kind)
        pointer(browser, "up", 60, 60, kind=kind)
        rotated = pixels(browser)[1]
    assert rotated != start
    assert browser.execute_script("return window.scrollY") == scrolled  # the finger rotated it, not the page
    browser.execute_script("document.getElementById('home').click()")
    assert pixels(browser)[1] == start


def test_an_atom_tells_its_number_without_colour(browser, report):
    """The atom under the pointer: its number is that of the analysis, and a ring marks it."""
    analysis, content = shown_run()
    opened(browser, report, size=PHONE)
    browser.execute_script("document.getElementById('scene').scrollIntoView({block: 'center'})")
    width, height = browser.execute_script(
        "const c = document.getElementById('scene'); return [c.clientWidth, c.clientHeight]"
    )
    before = pixels(browser)[1]
    for across, down in product((0, 25, -25, 50, -50, 75, -75), repeat=2):  # as a finger would look for one
        place = (0.5 * width + across, 0.5 * height + down)
        pointer(browser, "down", *place)
        pointer(browser, "up", *place)
        text = browser.find_element("id", "picked").text
        if "meV" in text:
            break
    name, value = text.removesuffix(" meV/Å").split(": rotational error ")
    atom = [f"{symbol}{number}" for number, symbol in enumerate(content.molecule.symbols)].index(name)
    assert float(value) == pytest.approx(analysis.rotational.atom_error_meV_per_A[0, atom], rel=0.06)
    assert pixels(browser)[1] != before


def test_elements_have_their_colours_and_errors_lie_over_them_on_demand(browser, report):
    opened(browser, report, size=WIDE)
    red = """const c = document.getElementById("scene");
      const p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data;
      let n = 0;
      for (let i = 0; i < p.length; i += 4) if (p[i] > 150 && p[i + 1] < 90 && p[i + 2] < 90) n++;
      return n;"""
    assert browser.execute_script(red) > 200  # the oxygen
    before = pixels(browser)[1]
    scale = browser.find_element("id", "scale")
    assert not scale.is_displayed()
    browser.execute_script("document.getElementById('errors').click()")
    assert pixels(browser)[1] != before
    assert scale.is_displayed()
    assert "meV/Å" in scale.text
    browser.execute_script("document.getElementById('errors').click()")
    assert pixels(browser)[1] == before
