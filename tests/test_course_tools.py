"""Running, checking and rendering chapters, on small notebooks made here."""

from __future__ import annotations

import copy
import html
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests.browser import CHROMIUM

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / "tools"


def load(name: str):
    spec = importlib.util.spec_from_file_location(f"dimum_tools_{name}", TOOLS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


course, notebook_check, site = load("course"), load("notebook_check"), load("site")
ADDRESS = "https://github.com/someone/something"
PICTURE = """import matplotlib.pyplot as plt
from dimum_core.plots import show
figure, ax = plt.subplots(figsize=(1, 1))
ax.plot([0, value])
show(figure, "A line.", "A straight line that rises.")"""

FACTS = """print("1,442 images", "16 x 16 pixels", f"a measured {value / 7:.3f}", sep="\\n")"""


def chapter(path: Path, *code: str, title: str = "First steps") -> Path:
    parameters = new_code_cell("value = 3", metadata={"tags": ["parameters"]})
    notebook = new_notebook(
        cells=[
            new_markdown_cell(f"# {title}\n\nAbout $x_t$ and `$PATH`.\n\n{notebook_check.colab_link(path.name, ADDRESS)}"),
            new_code_cell(notebook_check.setup_source(ADDRESS), metadata={"jupyter": {"source_hidden": True}}), parameters,
            *map(new_code_cell, code),
            new_code_cell(FACTS, metadata={"tags": [notebook_check.COMPARED]}),
            new_markdown_cell("## Exercises\n\nOne.\n\n## Where to read on\n\nThere."),
        ],
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
            "dimum": {"title": title, "aims": ["see a line"], "minutes": 1, "smoke": {"value": 2}},
        },
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, path)
    return path


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """Two chapters, run once."""
    root = tmp_path_factory.mktemp("course")
    chapter(root / "notebooks" / "01_first.ipynb", "print(value)", PICTURE)
    chapter(root / "notebooks" / "02_second.ipynb", "value * 2", title="Second steps")
    course.run(root / "notebooks", root / "out")
    return root


def test_unchanged_chapters_are_not_run_again(executed, capsys):
    notebook = nbformat.read(executed / "out" / "01_first.ipynb", as_version=4)
    assert any(output.get("text") == "3\n" for cell in notebook.cells for output in cell.get("outputs", []))
    course.run(executed / "notebooks", executed / "out")
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == ["[1/2] 01_first ... unchanged", "[2/2] 02_second ... unchanged"]


def test_the_chapter_that_took_longest_begins_first(executed, tmp_path, capsys, monkeypatch):
    shutil.copytree(executed / "notebooks", tmp_path / "notebooks")
    for seconds, path in enumerate(sorted((tmp_path / "notebooks").iterdir()), start=5):
        notebook = nbformat.read(path, as_version=4)
        notebook.metadata.dimum.seconds = seconds
        nbformat.write(notebook, path)
    monkeypatch.setattr(course, "run_chapter", lambda notebook, out: (notebook.stem, "run", ""))
    course.run(tmp_path / "notebooks", tmp_path / "out2")
    assert [line.split()[1] for line in capsys.readouterr().out.splitlines()[1:]] == ["02_second", "01_first"]


def test_a_change_of_code_is_noticed(executed, tmp_path):
    path = chapter(tmp_path / "01_first.ipynb", "print(value)", PICTURE)
    before = course.fingerprint(path)
    assert before == course.fingerprint(executed / "notebooks" / "01_first.ipynb")
    assert before != course.fingerprint(chapter(tmp_path / "01_first.ipynb", "print(value + 0)", PICTURE))


def test_the_fingerprint_sees_package_and_data(tmp_path):
    path = chapter(tmp_path / "notebooks" / "01_first.ipynb", "print(value)")
    seen = {course.fingerprint(path, tmp_path)}
    for file in ("dimum_core/a.py", "data/b.npz", "constraints.txt"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        for content in ("x", "y"):
            (tmp_path / file).write_text(content)
            seen.add(course.fingerprint(path, tmp_path))
    assert len(seen) == 7


def test_a_failing_cell_ends_the_run_and_is_shown(tmp_path, capsys):
    chapter(tmp_path / "01_bad.ipynb", "before = 1", "raise ValueError('the reason why')")
    with pytest.raises(SystemExit) as ended:
        course.run(tmp_path, tmp_path / "out")
    shown = capsys.readouterr().out
    assert ended.value.code == 1
    assert "raise ValueError('the reason why')" in shown and "the reason why" in shown.split("ValueError")[-1]
    assert not (tmp_path / "out" / "01_bad.key").exists()


def test_stored_outputs_pass_the_check(executed, tmp_path):
    for path in (executed / "notebooks").iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    course.store(tmp_path, executed / "out")
    assert notebook_check.problems(tmp_path / "01_first.ipynb", ADDRESS) == []
    assert all(nbformat.read(path, as_version=4).metadata.dimum.seconds > 0 for path in tmp_path.glob("*.ipynb"))
    chapter(tmp_path / "01_first.ipynb", "print(value)")
    stored = (tmp_path / "01_first.ipynb").read_text()
    with pytest.raises(SystemExit, match="01_first has changed since it was run"):
        course.store(tmp_path, executed / "out")
    assert (tmp_path / "01_first.ipynb").read_text() == stored


def test_small_budgets_are_run_once_and_only_wrong_facts_are_found(executed, tmp_path):
    """As make test does. Both measure another number with their small budgets; the second stores one digit of a fact wrong."""
    stored = tmp_path / "stored"
    shutil.copytree(executed / "notebooks", stored)
    course.store(stored, executed / "out")
    second = stored / "02_second.ipynb"
    second.write_text(second.read_text().replace('"1,442 images\\n"', '"1,443 images\\n"'))  # the output, not the code
    course.write_smoke(stored, tmp_path / "smoke")
    assert "value = 2" in (tmp_path / "smoke" / "01_first.ipynb").read_text()
    words = f"-m pytest -q -p no:cacheprovider --nbval-lax --nbval-sanitize-with {ROOT / 'tests' / 'nbval.cfg'} smoke"
    said = subprocess.run([sys.executable, *words.split()], cwd=tmp_path, capture_output=True, text=True).stdout
    assert "1 failed, 10 passed" in said and "1,443 images" in said and "02_second.ipynb::Cell 4" in said, said


def test_what_was_written_with_small_budgets_is_never_stored(executed, tmp_path, capsys):
    shutil.copytree(executed / "notebooks", tmp_path / "notebooks")
    course.write_smoke(tmp_path / "notebooks", tmp_path / "smoke")
    with pytest.raises(SystemExit, match="01_first has changed since it was run"):
        course.store(tmp_path / "notebooks", tmp_path / "smoke")
    with pytest.raises(SystemExit):
        course.main(["smoke", "--store", "--only", "no chapter"])
    assert "only whole runs are stored" in capsys.readouterr().err


def break_it(notebook, how: str) -> None:
    picture = next(o for cell in notebook.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {}))
    printed = next(o for cell in notebook.cells for o in cell.get("outputs", []) if o.output_type == "stream")
    if how == "alt":
        picture.metadata["image/png"].pop("alt")
    elif how == "link":
        notebook.cells[0].source = "# First steps"
    elif how == "fold":
        notebook.cells[1].metadata.pop("jupyter")
    elif how == "path":
        printed.text = "/home/someone/file"
    elif how == "order":
        notebook.cells[2].execution_count = 9
    elif how == "parameters":
        notebook.cells[2].metadata.pop("tags")
    elif how == "exercises":
        notebook.cells[-1].source = "The end."
    elif how == "metadata":
        notebook.metadata.dimum.pop("minutes")
    elif how == "error":
        notebook.cells[2].outputs = [nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])]
    elif how == "facts":
        notebook.cells[-2].metadata.pop("tags")
    elif how == "size":
        printed.text = "x" * notebook_check.LIMIT


@pytest.mark.parametrize(("how", "said"), [
    ("alt", "has no text"), ("link", "link to Colab"), ("fold", "set-up cell, folded"),
    ("path", "path of the machine"), ("order", "one run from top"),
    ("parameters", "tagged parameters"), ("exercises", "'## Exercises'"), ("metadata", "dimum.minutes"),
    ("error", "ended in an error"), ("facts", "0 exact facts are compared, of 3"), ("size", "2.0 MB|2.1 MB"),
])
def test_each_breach_of_the_conventions_is_named(executed, tmp_path, how, said):
    path = tmp_path / "01_first.ipynb"
    executed_copy = nbformat.read(executed / "out" / "01_first.ipynb", as_version=4)
    nbformat.write(executed_copy, path)
    assert notebook_check.problems(path, ADDRESS) == []
    break_it(executed_copy, how)
    nbformat.write(executed_copy, path)
    found = "\n".join(notebook_check.problems(path, ADDRESS))
    assert any(part in found for part in said.split("|")), found


def test_write_brings_link_and_set_up_cell_up_to_date(tmp_path):
    path = chapter(tmp_path / "01_first.ipynb", "print(value)")
    notebook_check.write(path, "https://github.com/moved/elsewhere")
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells[0].source.count("in Colab](") == 1 and "moved/elsewhere" in notebook.cells[0].source
    assert "About $x_t$ and `$PATH`.\n\n**No machine for it?**" in notebook.cells[0].source
    assert "moved/elsewhere" in notebook.cells[1].source and notebook.cells[1].metadata["jupyter"]["source_hidden"]


def test_the_site_has_cards_links_texts_and_formulas(executed, tmp_path):
    index = site.build(executed / "out", tmp_path / "site", tmp_path).read_text()
    first, second = ((tmp_path / "site" / f"{name}.html").read_text() for name in ("01_first", "02_second"))
    assert index.count('class="card"') == 2 and "see a line" in index and "1 minutes" in index
    assert 'alt="A straight line that rises."' in index and 'role="img" aria-label="A straight line that rises."' in first
    assert (tmp_path / "site" / "pictures" / "01_first.png").read_bytes().startswith(b"\x89PNG")
    assert 'rel="next" href="02_second.html"' in first and 'rel="prev" href="01_first.html"' in second
    assert "<math" in first and "<code>$PATH</code>" in first
    assert first.count("Open this chapter in Colab") == 1 and "No machine for it" not in first
    assert 'href="http://localhost:8888/lab/tree/notebooks/01_first.ipynb"' in first  # where `make lab` serves the clone
    assert '<li><a href="#Exercises">Exercises</a></li>' in first and first.count('aria-current="page"') == 1
    assert 'title="First steps" aria-current="page">01</a>' in first
    assert "google.colab" not in first and not re.search(r"http://(?!www\.w3\.org|localhost:8888)", first)
    assert (tmp_path / "site" / "downloads" / "01_first.ipynb").exists() and 'href="downloads/01_first.ipynb" download' in first
    slides = (tmp_path / "site" / "01_first-slides.html").read_text()
    assert slides.count('class="slide"') >= 2 and "print(value)" not in slides
    assert 'aria-label="A straight line that rises."' in slides
    search = (tmp_path / "site" / "search.html").read_text()
    assert '"at": "01_first.html#Exercises"' in search and "01 First steps: Exercises" in search


def test_the_site_refuses_a_picture_without_text(executed, tmp_path):
    notebook = nbformat.read(executed / "out" / "01_first.ipynb", as_version=4)
    break_it(notebook, "alt")
    nbformat.write(notebook, tmp_path / "01_first.ipynb")
    with pytest.raises(SystemExit, match="no text for those who cannot see it"):
        site.build(tmp_path, tmp_path / "site")


def test_the_site_shows_no_progress_bars(tmp_path):
    path = chapter(tmp_path / "01_first.ipynb", "3 + 4")
    notebook = nbformat.read(path, as_version=4)
    bars = ("attacks:  50%|#####  | 1/2", "plan: 0model [00:00, ?model/s]")  # the second as tqdm writes it where nothing is to do
    widgets = [{"application/vnd.jupyter.widget-view+json": {"model_id": "1"}, "text/plain": bar} for bar in bars]
    notebook.cells[-2].outputs = [
        new_output("stream", name="stderr", text="steps: 10%|# | 1/10"),
        *(new_output("display_data", data=widget) for widget in widgets),
        new_output("execute_result", data={"text/plain": "7"}, execution_count=1),
    ]
    nbformat.write(notebook, path)
    page = site.read_chapter(path).body
    assert "%|" not in page and "0model" not in page and "<pre>7</pre>" in page.replace("\n", "")


def test_a_solution_is_folded_away_on_the_site(tmp_path):
    solution = '# @title Solution of 01.1 (unfold it) {"display-mode": "form"}\n# solution\nanswer = 1\n# end solution'
    chapter(tmp_path / "01_first.ipynb", solution)
    page = site.read_chapter(tmp_path / "01_first.ipynb").body
    assert re.search(r"(?s)<details><summary>Solution of 01.1</summary>.*?answer.*?</details>", page)


def test_what_answers_a_bet_is_folded_until_the_reader_has_a_guess(tmp_path):
    path = chapter(tmp_path / "01_first.ipynb", "picture", "table", "printed", "later")
    notebook = nbformat.read(path, as_version=4)
    picture, table, printed, later = [next(cell for cell in notebook.cells if cell.source == name)
                                      for name in ("picture", "table", "printed", "later")]
    picture.outputs = [new_output("display_data", {"image/png": "iVBORw0="}, metadata={"image/png": {"alt": "It is 7."}})]
    table.outputs = [new_output("execute_result", {"text/html": "<b>7</b>"}, execution_count=1)]
    printed.outputs, later.outputs = [new_output("stream", text="done")], copy.deepcopy(picture.outputs)
    notebook.cells.insert(notebook.cells.index(picture), new_markdown_cell("**Before you look:** what will it be?"))
    notebook.cells.insert(notebook.cells.index(later), new_markdown_cell("It is seven."))
    nbformat.write(notebook, path)
    assert "before one has a guess" in "\n".join(notebook_check.problems(path, ADDRESS))
    notebook_check.write(path, ADDRESS)
    assert "before one has a guess" not in "\n".join(notebook_check.problems(path, ADDRESS))
    marks = {cell.source: sorted(cell.metadata.get("jupyter", {})) for cell in nbformat.read(path, 4).cells}
    assert marks["picture"] == ["outputs_hidden", "source_hidden"] and marks["table"] == ["outputs_hidden"]
    assert marks["printed"] == marks["later"] == []
    page = site.read_chapter(path).body
    assert re.search(r'(?s)<details class="bet"><summary>I have a guess: show me</summary>.*?It is 7\..*?</details>', page)
    assert page.count("I have a guess") == 1  # for both


def test_no_command_of_latex_survives_in_a_formula():
    formulas = sys.modules["formulas"]
    latex = r"a $x_t|c$ `$PATH` $$\mathbb E\,\big\lVert x \big\rVert + \Big\| y \Big\| + \Big\langle z\Big\rangle\sim\mathcal N$$"
    held = formulas.with_mathml(latex)
    page = formulas.typeset(sys.modules["reading"].render([new_markdown_cell(held, id="held")]))
    heard = [html.unescape(re.sub(r"<[^>]+>|\s", "", m)) for m in re.findall(r"<math.*?</math>", page, re.DOTALL)]
    assert heard == ["xt\N{DIVIDES}c", "E\u2225x\u2225+\u2225y\u2225+\u27e8z\u27e9\u223cN"]
    assert page.count('class="katex-html" aria-hidden="true"') == 2 and page.count('class="katex-display"') == 1
    assert '<span class="mord mathbb">E</span>' in page and "$PATH" in page and "data-tex" not in page and "\\" not in page
    formulas.check_formulas(page, "here")
    with pytest.raises(SystemExit, match=r"cannot draw the formula \$\\nonsense\$ \(Undefined control sequence"):
        formulas.with_mathml(r"$\nonsense$")


@pytest.mark.parametrize("left", [r"<p>the loss \lVert x</p>", "<td>$$x$$</td>"])
def test_a_page_on_which_a_command_of_latex_survives_is_refused(left):
    check = sys.modules["formulas"].check_formulas
    check(r"<pre>\lVert</pre><p><code>$$</code> for $5</p><script>'\lVert'</script>", "here")
    with pytest.raises(SystemExit, match="here: .* would stand on the page"):
        check(left, "here")


def test_slides_show_the_display_formulas_of_a_section(tmp_path):
    path = chapter(tmp_path / "01_first.ipynb", "3 + 4")
    notebook = nbformat.read(path, as_version=4)
    notebook.cells.insert(2, new_markdown_cell("## Much\n\none\n\ntwo\n\nthree\n\n$$x = 1$$\n\nfour"))
    notebook.cells.insert(3, new_markdown_cell("five\n\n$$y = 2$$\n\n| a | b |\n|---|---|\n| 6 | 7 |"))
    for made in ("<table>8</table>", "<figure>9</figure>"):
        notebook.cells.insert(4, new_code_cell("secret()", outputs=[new_output("display_data", {"text/html": made})]))
    nbformat.write(notebook, path)
    shown = "".join(site.slides(site.read_chapter(path)))
    assert shown.count('display="block"') == 2 and "three" in shown and "four" not in shown and "five" not in shown
    assert re.search(r"(?s)<td>6</td>.*<figure>9</figure>.*<table>8</table>", shown) and "secret" not in shown


def test_a_link_that_leads_nowhere_is_refused(executed, tmp_path):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "glossary.md").write_text("# Glossary\n\n## A word\n\n[there](glossary.md#a-word) and $x_t$")
    built = site.build(executed / "out", tmp_path / "site", docs).parent
    page = (built / "glossary.html").read_text()
    assert 'href="glossary.html#a-word"' in page and "<math" in page
    for link in ("nowhere.md", "glossary.md#no-such-word"):
        (docs / "glossary.md").write_text(f"# Glossary\n\n[there]({link})")
        with pytest.raises(SystemExit, match="leads nowhere"):
            site.build(executed / "out", tmp_path / "site", docs)


@pytest.mark.skipif(not CHROMIUM, reason="needs a browser")
def test_the_site_is_sound_in_a_real_browser(executed, tmp_path):
    check = load("site_check")
    built = site.build(executed / "out", tmp_path / "site", tmp_path).parent
    assert check.audit([built / "index.html", built / "01_first.html", built / "search.html"], CHROMIUM) == []
    (built / "bad.html").write_text(
        '<!doctype html><html lang="en"><head></head><body><p style="color:#ddd;background:#fff">faint</p><img src="no.png">'
        '<div style="width:2000px">wide</div><script>throw new Error("broken")</script></body></html>'
    )
    said = "\n".join(check.audit([built / "bad.html"], CHROMIUM))
    assert all(words in said for words in ("contrast 1.", "does not load", "has no text", "wider than", "console:", "broken")), said


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.stem)
def test_with_a_gpu_a_chapter_draws_more_and_is_the_same_otherwise(path, monkeypatch):
    cells = nbformat.read(path, as_version=4).cells
    source, = (cell.source for cell in cells if "parameters" in cell.metadata.get("tags", []))

    def numbers(gpu: bool) -> dict:
        names: dict = {}
        monkeypatch.setattr("torch.cuda.is_available", lambda: gpu)
        exec(source, names)
        return {name: value for name, value in names.items() if name not in ("gpu", "torch", "__builtins__")}

    here, there = numbers(False), numbers(True)
    changed = {name for name in here if here[name] != there[name]}
    assert changed and all(there[name] >= 4 * here[name] for name in changed)
