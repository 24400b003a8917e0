"""Look at the built site in a real browser: chromium, headless, at the width of a phone and of a desk, light and dark.

    python tools/site_check.py [build/site]

Says of every page what the console complains of, pictures that do not load or have no text, requests that leave the site, text
whose contrast is below 4.5 (3 for large text), and content that is wider than the window. Prints nothing more if all is well.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
from html import unescape
from pathlib import Path

WIDTHS, THEMES = (390, 1280), ("light", "dark")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--allow-file-access-from-files", "--enable-logging=stderr", "--v=0")
AUDIT = """<script>
addEventListener("load", () => setTimeout(() => {
  const found = [], seen = new Set();
  const say = text => { if (!seen.has(text) && found.length < 12) { seen.add(text); found.push(text); } };
  const rgb = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = c => c.slice(0, 3).map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, k) => sum + v * [0.2126, 0.7152, 0.0722][k], 0);
  const ground = element => {
    for (let e = element; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.5) return c;
    }
    return THEME === "dark" ? [18, 18, 18] : [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement, style = getComputedStyle(element);
    if (!walker.currentNode.data.trim() || !element.getClientRects().length) continue;
    if (element.closest("svg, script, style, .skip")) continue;
    const pair = [light(rgb(style.color)), light(ground(element))].sort((a, b) => b - a), size = parseFloat(style.fontSize);
    const ratio = (pair[0] + 0.05) / (pair[1] + 0.05), large = size >= 24 || (size >= 18.6 && style.fontWeight >= 600);
    const what = element.className || element.parentElement.className;
    if (ratio < (large ? 3 : 4.5)) say(`contrast ${ratio.toFixed(1)} of <${element.localName} class="${what}">`);
  }
  for (const image of document.images) {
    if (!image.alt) say("a picture has no text");
    if (!image.naturalWidth) say(`a picture does not load: ${image.src.slice(0, 60)}`);
  }
  for (const entry of performance.getEntriesByType("resource")) {
    if (!/^(file|data):/.test(entry.name)) say(`requests ${entry.name.slice(0, 80)}`);
  }
  const wide = document.documentElement.scrollWidth - innerWidth;
  if (wide > 1) say(`it is ${wide} pixels wider than the window`);
  parent.postMessage([PLACE, found], "*");
}, 300));
</script>"""
WRAPPER = """<!doctype html><title>audit</title><pre id="said"></pre><script>
const said = {};
addEventListener("message", event => {
  said[event.data[0]] = event.data[1];
  document.getElementById("said").textContent = JSON.stringify(said);
});
</script>"""


def audit(pages: list[Path], chromium: str) -> list[str]:
    """What is wrong with these pages, a line each."""
    with tempfile.TemporaryDirectory(dir=pages[0].parent) as folder, tempfile.TemporaryDirectory() as profile:
        frames = {f"{page.name}, {width} px, {theme}": audited_copy(page, Path(folder), width, theme)
                  for page in pages for width in WIDTHS for theme in THEMES}
        wrapper = Path(folder) / "wrapper.html"
        wrapper.write_text(WRAPPER + "".join(frames.values()), "utf-8")
        run = subprocess.run(
            [chromium, *FLAGS, f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom", wrapper.as_uri()],
            capture_output=True, encoding="utf-8", timeout=400,
        )
    said = re.search(r'<pre id="said">(.*?)</pre>', run.stdout, re.DOTALL)
    said = json.loads(unescape(said[1])) if said and said[1] else {}
    found = [f"{place}: {problem}" for place in frames for problem in said.get(place, ["the browser did not get to its end"])]
    found += [f"console: {line.split('CONSOLE', 1)[1][:200]}" for line in run.stderr.splitlines() if "CONSOLE" in line]
    return found


def audited_copy(page: Path, folder: Path, width: int, theme: str) -> str:
    """A copy of the page that examines itself, in a frame of this width."""
    copy = folder / f"{page.stem}-{width}-{theme}.html"
    place = json.dumps(f"{page.name}, {width} px, {theme}")
    script = AUDIT.replace("PLACE", place).replace("THEME", json.dumps(theme))
    text = page.read_text(encoding="utf-8").replace("<head>", '<head><base href="../">', 1).replace(' loading="lazy"', "")
    text = text.replace("<html ", f'<html data-theme="{theme}" ', 1)
    copy.write_text(text.replace("</body>", script + "</body>"), "utf-8")
    return f'<iframe width="{width}" height="900" src="{copy.name}"></iframe>'


def main(arguments: list[str]) -> int:
    site = (Path(arguments[0]) if arguments else Path(__file__).parent.parent / "build" / "site").resolve()
    if not CHROMIUM:
        raise SystemExit("There is no chromium to look with: apt-get install chromium.")
    pages = sorted(site.glob("*.html"))
    found = [problem for k in range(0, len(pages), 4) for problem in audit(pages[k:k + 4], CHROMIUM)]
    print("\n".join(found) if found else f"{len(pages)} pages at {len(WIDTHS)} widths, light and dark: nothing to complain of")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
