"""The page of the app: writing, judging, comparing."""

from collections.abc import Iterator, Mapping
from typing import Any

from hf_gpt.app.sessions import Judge, Settings, Writer
from hf_gpt.generation.guidance.guided_generate import GUIDANCE
from hf_gpt.reporting.plots import LIGHT_COLOURS


FREE = "none"
_NO_JUDGE = "Start the app with --discriminator to have texts judged."
_CSS = (
    f":root{{{LIGHT_COLOURS}}}"
    ".dark{--series-0:#78aee8;--series-1:#f0975a}"
    ".tokens{white-space:pre-wrap;overflow-wrap:anywhere;font:.95rem/1.7 ui-monospace,Consolas,monospace;margin:0}"
    ".verdict{min-height:3rem}"
)


def launch_options(gradio: Any) -> dict[str, Any]:
    """What `launch` takes for a page that loads nothing from elsewhere."""
    # Fonts by name alone: the library's own come from a server.
    theme = gradio.themes.Default(
        primary_hue="teal", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    return {"theme": theme, "css": _CSS, "footer_links": [], "ssr_mode": False}


def make_page(gradio: Any, writers: Mapping[str, Writer], judge: Judge | None) -> Any:
    """The page as `gradio.Blocks`.

    Args:
        gradio: The library, which only the app imports.
        writers: Models by name, at least one.
        judge: The discriminator, if there is one.
    """
    names = list(writers)

    def write(name: str, prompt: str, *values: Any) -> Iterator[tuple[str, str]]:
        try:
            text = prompt
            for text in writers[name].write(prompt, _settings(values), judge):
                yield text, ""
        except ValueError as error:
            raise gradio.Error(str(error)) from error
        yield text, judge.verdict(text) if judge else ""

    def compare(first: str, second: str, prompt: str, *values: Any) -> Iterator[tuple[str, str, str, str]]:
        left = right = ("", "")
        for left in write(first, prompt, *values):
            yield (*left, *right)
        for right in write(second, prompt, *values):
            yield (*left, *right)

    with gradio.Blocks(title="hf-gpt", analytics_enabled=False) as page:
        gradio.Markdown(f"# hf-gpt\n{_sentence(names, judge)}")
        with gradio.Tab("Write"):
            with gradio.Row():
                with gradio.Column(scale=2):
                    name = gradio.Dropdown(names, value=names[0], label="Model")
                    prompt = gradio.Textbox(label="Prompt", lines=3, placeholder="Left out: an unconditional sample")
                    with gradio.Row():
                        button = gradio.Button("Write", variant="primary")
                        stop = gradio.Button("Stop")
                    text = gradio.Textbox(
                        label="Written", lines=8, interactive=False, buttons=["copy"], elem_id="written"
                    )
                    verdict = gradio.HTML(label="What the discriminator sees", elem_classes="verdict")
                with gradio.Column(scale=1):
                    values = _controls(gradio, judge)
            writing = button.click(write, [name, prompt, *values], [text, verdict], api_name="write")
            stop.click(None, cancels=[writing])
        with gradio.Tab("Judge"):
            given = gradio.Textbox(label="Real or generated? Paste a text", lines=8, interactive=judge is not None)
            ask = gradio.Button("Judge", variant="primary", interactive=judge is not None)
            answer = gradio.HTML("" if judge else f"<p>{_NO_JUDGE}</p>", elem_classes="verdict")
            if judge is not None:
                ask.click(judge.verdict, given, answer, api_name="judge")
        with gradio.Tab("Compare"):
            asked = gradio.Textbox(label="Prompt", lines=2)
            start = gradio.Button("Write with both", variant="primary")
            chosen, outputs = [], []
            with gradio.Row():
                for position in range(2):
                    with gradio.Column():
                        model = names[min(position, len(names) - 1)]
                        chosen.append(gradio.Dropdown(names, value=model, label=f"Model {position + 1}"))
                        outputs.append(gradio.Textbox(label="Written", lines=8, interactive=False))
                        outputs.append(gradio.HTML(elem_classes="verdict"))
            with gradio.Accordion("Sampling", open=False):
                shared = _controls(gradio, judge)
            start.click(compare, [*chosen, asked, *shared], outputs, api_name="compare")
    return page


def _controls(gradio: Any, judge: Judge | None) -> list[Any]:
    """The controls of sampling, in the order of `Settings`."""
    ways = [FREE, *(GUIDANCE if judge else ())]
    return [
        gradio.Slider(1, 1000, value=100, step=1, label="Most new tokens"),
        gradio.Slider(0, 2, value=1.0, step=0.05, label="Temperature", info="0 takes the likeliest token"),
        gradio.Slider(0.05, 1, value=1.0, step=0.05, label="Top-p"),
        gradio.Slider(0, 200, value=0, step=1, label="Top-k", info="0 samples from all"),
        gradio.Slider(0, 0.5, value=0.0, step=0.01, label="Min-p"),
        gradio.Slider(1, 2, value=1.0, step=0.05, label="Repetition penalty"),
        gradio.Number(value=0, precision=0, minimum=0, label="Seed", info="the same seed gives the same text"),
        gradio.Dropdown(ways, value=FREE, label="Guided by the discriminator", info=None if judge else _NO_JUDGE),
        gradio.Slider(2, 64, value=8, step=1, label="Candidates", info="texts that the discriminator chooses from"),
    ]


def _settings(values: tuple[Any, ...]) -> Settings:
    length, temperature, top_p, top_k, min_p, penalty, seed, guidance, candidates = values
    return Settings(
        int(length),
        temperature,
        top_p,
        int(top_k),
        min_p,
        penalty,
        int(seed or 0),
        None if guidance == FREE else guidance,
        int(candidates),
    )


def _sentence(names: list[str], judge: Judge | None) -> str:
    many = f"{len(names)} models" if len(names) > 1 else f"The model {names[0]}"
    return f"{many}, {'and a discriminator that judges what they write' if judge else 'without a discriminator'}."
