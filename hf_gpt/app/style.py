"""Look of the app: fonts and colours that need no connection, phone and desk, light and dark."""

from typing import Any

from hf_gpt.reporting.plots import LIGHT_COLOURS


_CSS = (
    f":root{{{LIGHT_COLOURS};--ink:#23272e}}"
    """
.dark{--series-0:#78aee8;--series-1:#f0975a;--ink:#e3e6ea;--color-accent:#2dd4bf!important}
.gradio-container{width:100%;max-width:1200px!important;margin:0 auto!important}
.tokens{white-space:pre-wrap;overflow-wrap:anywhere;font:.95rem/1.7 ui-monospace,Consolas,monospace;margin:.5rem 0 0}
.tokens span{border-radius:3px}
.status,.verdict{padding:0!important}.verdict{min-height:3rem}
.verdict p,.status p{margin:.15rem 0;overflow-wrap:anywhere}
.muted{color:var(--body-text-color-subdued);font-size:.875rem}
.wrong{border-left:4px solid var(--series-1);padding:.2rem .7rem}
.keep{align-self:flex-start;width:auto!important;flex-grow:0;margin-left:.8rem}
.examples{flex-wrap:wrap;gap:.4rem}
.examples button{flex:0 1 auto;min-width:0!important;font-weight:400;font-size:.875rem;white-space:normal;
text-align:left}
"""
)


def launch_options(gradio: Any) -> dict[str, Any]:
    """What `launch` takes for a page that loads nothing from elsewhere and takes no file."""
    # Fonts by name alone: the library's own come from a server.
    theme = gradio.themes.Default(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    theme = theme.set(
        # The library's greys and its teal under white are hard to read.
        color_accent="*primary_700",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_title_text_color="*neutral_700",
        block_title_text_color_dark="*neutral_200",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_hover_dark="*primary_800",
    )
    return {"theme": theme, "css": _CSS, "footer_links": [], "ssr_mode": False, "max_file_size": 1}
