"""The page of a run: what is in it, what is shown first, and in a real browser that it decides as the run did."""

import base64
import hashlib
import re
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from helpers import scans_of, write_recipe
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import fsseg
from fsseg import FssegError
from fsseg.evaluation.files import read_decisions
from fsseg.evaluation.scores import CaseScore
from fsseg.prediction.files import read_volume
from fsseg.report.viewer import choose_exhibits, ideal_priors, run_lengths
from fsseg.runs.results import Results

CHANGES = {
    "default": {},
    "together": {"protocol.name": "ep2_multi"},
    "reference": {"mode": "reference"},
}


@pytest.fixture(scope="module")
def finished(finished_run):
    """Runs by the name of their change."""
    return lambda name: finished_run(CHANGES[name])


@pytest.fixture(scope="module")
def root(finished):
    return scans_of(finished("default"))


@given(arrays(bool, (5, 7)))
def test_run_lengths_hold_the_mask(mask):
    """Runs alternate and begin outside, so that repeating them gives the mask back."""
    lengths = run_lengths(mask)
    back = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(mask.shape)
    assert np.array_equal(back, mask) and all(length > 0 for length in lengths[1:])


@given(st.integers(0, 64))
def test_ideal_priors_give_each_slice_its_number_of_pixels(count):
    margins = np.random.default_rng(0).normal(size=(1, 1, 8, 8)).astype(np.float32)
    actual = (np.arange(64) < count).reshape(1, 1, 8, 8)
    (prior,) = ideal_priors(margins, actual, aligned=False)
    assert (margins > -prior).sum() == count


def test_the_worst_cases_come_first_and_then_the_best():
    """Oracles do not count, a case with several supports counts by its worst, and each case stands once."""
    dice = {"a": 50, "b": 90, "c": 10, "d": 70, "e": 30}
    scores = [
        CaseScore(
            "OCP" if oracle else "CE-T", oracle, 0, 0, case, "organ", support, (0,), hits, 100, 100
        )
        for case, of_case in dice.items()
        for support, more in (("x", 0), ("y", 5))
        for oracle, hits in ((False, of_case + more), (True, 100 - of_case))
    ]
    results = Results(Path(), scores, ["organ"], {})
    chosen = choose_exhibits(results, 3)
    assert [(one.case, one.support_case) for one in chosen] == [("c", "x"), ("e", "x"), ("b", "x")]
    assert [one.case for one in choose_exhibits(results, 9)] == ["c", "e", "a", "d", "b"]


def test_the_page_holds_everything_and_loads_nothing(finished, tmp_path):
    page = fsseg.write_report(finished("default"), tmp_path / "r.html").read_text(encoding="utf-8")
    for part in (
        "CE-T",
        "LinEst",
        "OCP *",
        "too few for a test",
        "Every class by itself",
        "Calibration",
        'id="prior"',
    ):
        assert part in page
    assert set(re.findall(r"https?://[^\s\"'<>)]+", page)) <= {
        "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink", "http://www.w3.org/2000/svg\\",
    }  # fmt: skip
    assert not re.findall(r"<(?:link|script|img)[^>]+(?:src|href)=\"(?!data:)", page)
    labels = set(re.findall(r'<label for="([^"]+)"', page))
    assert labels == {"case", "view", "slice", "scoring", "prior"}  # every control has one


def test_the_policy_names_the_one_script_of_the_page(finished, tmp_path):
    """By its digest: a script that a name or a reader's program put into the page would not run."""
    page = fsseg.write_report(finished("default"), tmp_path / "r.html").read_text(encoding="utf-8")
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    [script] = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}';" in policy and "default-src 'none'" in policy
    bare = fsseg.write_report(finished("default"), tmp_path / "bare.html", scans=False)
    assert "script-src 'none'" in bare.read_text(encoding="utf-8")


def test_a_report_follows_no_link_out_of_the_run(finished, tmp_path):
    """A stranger's run directory says where its page lies only as long as that is within it."""
    copy = shutil.copytree(finished("default").path, tmp_path / "run")
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    (copy / "report.html").symlink_to(mine)
    with pytest.raises(FssegError, match="is a link out of the run directory"):
        fsseg.write_report(copy, scans=False)
    assert mine.read_text() == "mine"


def test_without_scans_there_are_none_in_the_page(finished, tmp_path):
    results = finished("default")
    page = fsseg.write_report(results.path, tmp_path / "r.html", scans=False).read_text(
        encoding="utf-8"
    )
    assert 'id="data"' not in page and "canvas" not in page.split("</style>")[1] and "CE-T" in page


def test_names_are_text_and_not_markup(root, tmp_path):
    changes = {"variants.0.name": "<b>&</script>"}
    results = fsseg.run(
        fsseg.load_recipe(write_recipe(tmp_path, root), changes), runs_dir=tmp_path / "runs"
    )
    page = fsseg.write_report(results, cases=1).read_text(encoding="utf-8")
    assert "<b>" not in page and page.count("</script>") == 2 and "&lt;b&gt;" in page


def test_what_cannot_be_shown_is_one_sentence(finished, tmp_path, root):
    results = finished("default")
    with pytest.raises(FssegError, match="got 0 cases, expected at least one"):
        fsseg.write_report(results, tmp_path / "r.html", cases=0)
    with pytest.raises(FssegError, match="there is no row 'CET'.*did you mean 'CE-T'"):
        fsseg.write_report(results, tmp_path / "r.html", baseline="CET")
    with pytest.raises(FssegError, match="there is no run"):
        fsseg.write_report(tmp_path / "none")
    other = shutil.copytree(root, tmp_path / "other")
    scan = nibabel.load(other / "image_1.nii.gz")
    nibabel.save(
        nibabel.Nifti1Image(np.asanyarray(scan.dataobj) + 1, scan.affine), other / "image_1.nii.gz"
    )
    copy = shutil.copytree(results.path, tmp_path / "run")
    recipe = (copy / "recipe.toml").read_text().replace(str(root), str(other))
    (copy / "recipe.toml").write_text(recipe)
    with pytest.raises(
        FssegError,
        match="the scans of fold 0 are not those that were evaluated.*put the scans back",
    ):
        fsseg.write_report(copy, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()


def test_a_run_without_margins_says_so(root, tmp_path):
    recipe = fsseg.load_recipe(write_recipe(tmp_path, root), {"protocol.save_margins": False})
    page = fsseg.write_report(fsseg.run(recipe, runs_dir=tmp_path / "runs")).read_text(
        encoding="utf-8"
    )
    assert "keeps no margins" in page and 'id="data"' not in page


# ---- in a browser ----


@pytest.fixture(scope="module")
def chromium():
    """A browser; made when the first test asks for it."""
    webdriver = pytest.importorskip("selenium.webdriver")
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1200,1600"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    driver = webdriver.Chrome(options=options, service=service)
    yield driver
    driver.quit()


def choose(driver, name, place):
    """Sets a control as its user would leave it."""
    driver.execute_script(
        "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        "e.dispatchEvent(new Event(e.tagName === 'SELECT' ? 'change' : 'input', {bubbles: true}));",
        name, str(place),
    )  # fmt: skip


def shares(margins, priors, *, reference, oracle=False):
    """Labels from stored margins and a prior for each way, in plain numpy on what torch resized in double precision."""
    maps = torch.from_numpy(margins).double()
    if reference and not oracle:
        raised = torch.cat([torch.zeros_like(maps[:1]), maps + torch.tensor(priors)[:, None, None]])
        large = F.interpolate(
            raised.softmax(dim=0)[None], size=(64, 64), mode="bilinear", align_corners=True
        )[0]
        return large.numpy().argmax(axis=0)
    large = F.interpolate(maps[None], size=(64, 64), mode="bilinear", align_corners=reference)[
        0
    ].numpy()
    raised = large + np.array(priors)[:, None, None]
    return np.where(raised.max(axis=0) > 0, raised.argmax(axis=0) + 1, 0)


def told(labels, truth, names):
    """The page's words for the Dice of each way."""
    words = []
    for way, name in enumerate(names, start=1):
        total = (labels == way).sum() + (truth == way).sum()
        both = ((labels == way) & (truth == way)).sum()
        words.append(f"{name} {200 * both / total:.1f} %" if total else f"{name} –")
    return ", ".join(words) if len(names) > 1 else words[0].removeprefix(f"{names[0]} ")


@pytest.mark.browser
@pytest.mark.parametrize("name", CHANGES)
def test_the_viewer_decides_as_python_does(finished, chromium, tmp_path, root, name):
    """For every slice of a case and several priors; and for every row its own prior."""
    results, reference = finished(name), name == "reference"
    driver = chromium
    driver.get(fsseg.write_report(results, tmp_path / "r.html", cases=2).as_uri())
    exhibits = choose_exhibits(results, 2)
    exhibit = exhibits[-1]
    choose(driver, "case", len(exhibits) - 1)
    decided = [
        one
        for one in read_decisions(results.path / "fold0" / "training0")
        if (one.case, one.support_case) == (exhibit.case, exhibit.support_case)
    ]
    volume = read_volume(
        root / f"image_{exhibit.case}.nii.gz", root / f"label_{exhibit.case}.nii.gz"
    )
    values, seen = {"bright": 1, "dark": 2}, set()
    for view, names in enumerate(
        [["bright"], ["dark"]] if name != "together" else [decided[0].classes]
    ):
        choose(driver, "view", view)
        rows = [one for one in decided if one.classes == names]
        shown = driver.find_element("id", "scoring").find_elements("tag name", "option")
        for scoring, option in enumerate(shown):
            choose(driver, "scoring", scoring)
            of = next(one for one in rows if one.variant in option.text.split(": ")[-1].split("; "))
            margins = of.margins()
            low, high = (
                float(driver.find_element("id", "prior").get_attribute(end))
                for end in ("min", "max")
            )
            for z in (0, 2, 4):
                choose(driver, "slice", z)
                truth = sum(
                    (volume.labels[z] == values[n]) * way for way, n in enumerate(names, start=1)
                )
                for prior in (low, -0.37, 0.0, 0.81, high):
                    choose(driver, "prior", prior)
                    prior = float(driver.find_element("id", "prior").get_attribute("value"))
                    expected = told(
                        shares(margins[z], [prior] * len(names), reference=reference), truth, names
                    )
                    assert driver.find_element("id", "dice").text == expected
                    seen.add(expected)
                for one in rows:
                    oracle = one.variant in results.oracles
                    labels = shares(
                        one.margins()[z], one.priors[z], reference=reference, oracle=oracle
                    )
                    cells = driver.find_elements("css selector", f'tr[data-row="{one.variant}"] td')
                    if not oracle:  # whose prior lies between two pixels that rounding may swap
                        assert cells[0].text == told(labels, truth, names)
                    assert cells[1].text == ", ".join(f"{prior:.2f}" for prior in one.priors[z])
    assert len(seen) > 5
    assert driver.get_log("browser") == []


@pytest.mark.browser
def test_the_page_works_by_keyboard_asks_for_nothing_and_marks_the_priors(
    finished, chromium, tmp_path
):
    import json

    from selenium.webdriver import Keys

    driver = chromium
    driver.get_log("performance")
    driver.get(fsseg.write_report(finished("default"), tmp_path / "r.html").as_uri())
    pixels = "return document.getElementById('canvas').toDataURL()"
    slider, prior = driver.find_element("id", "slice"), driver.find_element("id", "prior")
    before, told_before = (
        driver.execute_script(pixels),
        driver.find_element("id", "slice-told").text,
    )
    slider.send_keys(Keys.ARROW_RIGHT)
    assert driver.find_element("id", "slice-told").text != told_before
    assert driver.execute_script(pixels) != before
    value = float(prior.get_attribute("value"))
    prior.send_keys(Keys.ARROW_RIGHT)
    assert float(prior.get_attribute("value")) == pytest.approx(value + 0.01)
    assert driver.find_element("id", "dice").text in prior.get_attribute("aria-valuetext")
    marks = driver.find_elements("css selector", "#marks button")
    assert [mark.get_attribute("data-mark") for mark in marks] == ["ideal", "CE-T", "OCP"]
    marks[0].send_keys(Keys.ENTER)
    ideal = float(marks[0].text.split()[-1])
    assert float(prior.get_attribute("value")) == pytest.approx(ideal, abs=0.006)
    asked = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    urls = {
        m["params"]["request"]["url"] for m in asked if m["method"] == "Network.requestWillBeSent"
    }
    assert urls and all(url.startswith(("file:///", "data:")) for url in urls)
    assert [url for url in urls if url.startswith("file:")] == [(tmp_path / "r.html").as_uri()]
    assert driver.get_log("browser") == []


@pytest.mark.browser
def test_dark_light_and_narrow(finished, chromium, tmp_path):
    """The page follows the system's colours, and a phone scrolls tables, not the page."""
    driver = chromium
    driver.get(fsseg.write_report(finished("default"), tmp_path / "r.html").as_uri())
    colours = []
    for scheme in ("light", "dark"):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
        colours.append(
            driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        )
    assert colours[0] == "rgb(255, 255, 255)" and colours[1] != colours[0]
    size = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    finally:
        driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.browser
def test_no_script_runs_but_the_pages_own(finished, chromium, tmp_path):
    """Scripts, attributes and links that were put into the page afterwards; its own viewer still works."""
    file = fsseg.write_report(finished("default"), tmp_path / "r.html")
    page = file.read_text(encoding="utf-8")
    foreign = (
        "<script>document.title = 'script'</script>"
        "<img src='data:,' onerror=\"document.title = 'attribute'\">"
        "<a id='foreign' href=\"javascript:document.title = 'link'\">x</a>"
        "<iframe srcdoc=\"<script>parent.document.title = 'frame'</script>\"></iframe>"
    )
    file.write_text(page.replace("<main>", f"<main>{foreign}"), encoding="utf-8")
    chromium.get(file.as_uri())
    chromium.find_element("id", "foreign").click()
    assert chromium.title == finished("default").path.name
    assert len(chromium.find_elements("css selector", "#marks button")) > 1
    refused = [
        entry for entry in chromium.get_log("browser") if "Security Policy" in entry["message"]
    ]
    assert len(refused) >= 3
