"""How the studio looks: one type scale, one accent colour, light and dark, and the style sheets and scripts
of the page.

The colours are named once, in ``assets/page.css``; the Gradio theme below only points its own variables at
those names, so that native components and our own HTML can never drift apart. Fonts are the visitor's system
fonts: nothing is fetched from anywhere. This module knows no data and no handlers.
"""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from gradio.themes.base import Base

ASSETS = Path(__file__).with_name("assets")
STYLE_SHEETS = ("page.css", "strip.css", "chat.css", "judge.css", "context.css", "rooms.css")
HEAD_SCRIPTS = ("page.js", "markdown.js", "judge.js", "context.js")


def asset(name: str) -> str:
    """The text of a file in ``studio/assets``."""
    return (ASSETS / name).read_text(encoding="utf-8")


def head() -> str:
    """What stands in the page's head: the icon, the style sheets in the order in which they build on each
    other, and the
    scripts that every part of the page shares.

    The style sheets do not go through Gradio's ``css``, which rewrites selectors and loses some inside
    ``@media``.
    """
    icon = asset("icon.svg").replace("#", "%23").replace('"', "'").replace("\n", "")
    scripts = "\n".join(f"<script>{asset(name)}</script>" for name in HEAD_SCRIPTS)
    styles = "\n".join(asset(name) for name in STYLE_SHEETS)
    return f'<link rel="icon" href="data:image/svg+xml,{icon}">\n<style>{styles}</style>\n{scripts}'


def theme() -> Base:
    """A Gradio theme whose every colour is one of ours. `page.css` says what they are in light and in dark."""
    fonts = ("Helvetica Neue", "Arial", "sans-serif")
    shared = gr.themes.Base(font=fonts, font_mono=("Consolas", "monospace"), radius_size="md", text_size="md")
    return shared.set(**(_same_in_both_modes(_COLOURS) | _SHAPES))


_COLOURS = {
    "body_background_fill": "var(--paper)",
    "body_text_color": "var(--ink)",
    "body_text_color_subdued": "var(--ink-soft)",
    "background_fill_primary": "var(--surface)",
    "background_fill_secondary": "var(--paper)",
    "border_color_primary": "var(--line)",
    "border_color_accent": "var(--accent)",
    "color_accent_soft": "var(--accent-soft)",
    "link_text_color": "var(--accent)",
    "link_text_color_hover": "var(--accent)",
    "link_text_color_active": "var(--accent)",
    "link_text_color_visited": "var(--accent)",
    "block_background_fill": "transparent",
    "block_border_color": "transparent",
    "panel_background_fill": "transparent",
    "input_background_fill": "var(--surface)",
    "input_border_color": "var(--line-strong)",
    "input_border_color_focus": "var(--accent)",
    "button_primary_background_fill": "var(--accent)",
    "button_primary_background_fill_hover": "var(--accent)",
    "button_primary_text_color": "var(--on-accent)",
    "button_primary_border_color": "var(--accent)",
    "button_secondary_background_fill": "var(--surface)",
    "button_secondary_background_fill_hover": "var(--sunken)",
    "button_secondary_text_color": "var(--ink)",
    "button_secondary_border_color": "var(--line-strong)",
}

_SHAPES = {
    "color_accent": "var(--accent)",
    "block_border_width": "0px",
    "block_shadow": "none",
    "block_padding": "0px",
    "layout_gap": "0px",
    "button_border_width": "1px",
}


def _same_in_both_modes(colours: dict[str, str]) -> dict[str, str]:
    """Both modes use one name per colour; the name's meaning changes with the mode."""
    return colours | {f"{name}_dark": value for name, value in colours.items()}
