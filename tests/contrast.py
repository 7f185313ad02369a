"""How text on a page in a browser stands out, and what of its tables cannot be seen."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Browser, Page

SCHEMES = ("light", "dark")

_LEAST_CONTRAST = """() => {
  const canvas = Object.assign(document.createElement("canvas"), {width: 1, height: 1});
  const context = canvas.getContext("2d", {willReadFrequently: true});
  const over = (below, colour) => {
    context.fillStyle = below; context.fillRect(0, 0, 1, 1);
    context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    return `rgb(${[...context.getImageData(0, 0, 1, 1).data.slice(0, 3)]})`;
  };
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(x => x / 255)
      .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => element
    ? over(ground(element.parentElement), getComputedStyle(element).backgroundColor) : "white";
  let least = [99, ""];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let node; (node = walker.nextNode());) {
    const element = node.parentElement;
    if (!node.data.trim() || element.closest("style") || !element.checkVisibility()) continue;
    const style = getComputedStyle(element), below = ground(element);
    const colour = element.closest("svg") ? style.fill : style.color;
    const pair = [luminance(over(below, colour)), luminance(below)].sort((a, b) => a - b);
    const contrast = (pair[1] + 0.05) / (pair[0] + 0.05);
    if (contrast < least[0]) least = [contrast, node.data.trim()];
  }
  return least;
}"""

_CLIPPED = """() => {
  const found = [], width = document.documentElement.clientWidth;
  if (document.documentElement.scrollWidth > width) found.push("the page");
  for (const text of document.querySelectorAll("svg text")) {
    const box = text.getBoundingClientRect();
    if (box.right > width || box.left < 0) found.push(`a figure: ${text.textContent}`);
  }
  for (const table of document.querySelectorAll("table")) {
    const room = table.parentElement.getBoundingClientRect();
    for (const cell of table.querySelectorAll("tbody th, tbody td, tbody span, tbody small")) {
      const box = cell.getBoundingClientRect();
      const outside = box.right > room.right + 1 || box.left < room.left - 1;
      const cut = cell.scrollWidth > cell.clientWidth + 1 && cell.clientWidth > 0;
      if (outside || cut) found.push(`${table.ariaLabel}: ${cell.textContent}`);
    }
  }
  return found;
}"""


def shown(browser: Browser, html: str, scheme: Any = "light", width: int = 1280) -> Page:
    """Open a page of HTML, with everything unfolded."""
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})
    page.set_content(html)
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true; })")
    return page


def least_contrast(page: Page) -> tuple[float, str]:
    """Return the least contrast between a text and what is behind it, and that text."""
    contrast, text = page.evaluate(_LEAST_CONTRAST)
    return contrast, text


def clipped(page: Page) -> list[str]:
    """Return what of tables, figures or the page cannot be seen without scrolling sideways."""
    found: list[str] = page.evaluate(_CLIPPED)
    return found
