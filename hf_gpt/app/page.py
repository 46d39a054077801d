"""The page of the app: writing, judging, comparing."""

import html
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from hf_gpt.app.controls import NO_JUDGE, SAMPLING, length_and_seed, sampling_controls
from hf_gpt.app.judge import Judge
from hf_gpt.app.sessions import Writer
from hf_gpt.app.settings import MOST_CHARACTERS, explain
from hf_gpt.app.work import Work


# Texts that are written at a time, over all who look at the page.
_AT_A_TIME = 4
_EXAMPLES = 4


def make_page(gradio: Any, writers: Mapping[str, Writer], judge: Judge | None) -> Any:
    """The page as `gradio.Blocks`.

    Args:
        gradio: The library, which only the app imports.
        writers: Models by name, at least one.
        judge: The discriminator, if there is one.
    """
    work = Work(writers, judge)
    with _quiet_blocks(gradio)(title="hf-gpt", analytics_enabled=False) as page:
        gradio.Markdown(f"# hf-gpt\n{_sentence(list(writers), judge)}")
        with gradio.Tab("Write"):
            _write_tab(gradio, work)
        with gradio.Tab("Judge"):
            _judge_tab(gradio, work)
        with gradio.Tab("Compare"):
            _compare_tab(gradio, work)

        def leave(request: gradio.Request) -> None:
            work.running.stop(request.session_hash)

        page.unload(leave)
    return page


def _write_tab(gradio: Any, work: Work) -> None:
    names = list(work.writers)
    writer = work.writers[names[0]]
    with gradio.Row():
        with gradio.Column(scale=2, min_width=320):
            name = gradio.Dropdown(names, value=names[0], label="Model", visible=len(names) > 1)
            prompt = gradio.Textbox(label="Prompt", lines=3, placeholder=_invitation(writer))
            with gradio.Row(elem_classes="examples"):
                examples = [gradio.Button(value, visible=bool(value), size="sm") for value in _padded(writer.examples)]
            with gradio.Row():
                button = gradio.Button("Write", variant="primary", min_width=100)
                stop = gradio.Button("Stop", min_width=100)
            text = gradio.Textbox(label="Written", lines=8, interactive=False, buttons=["copy"], elem_id="written")
            status = gradio.HTML(elem_classes="status")
            keep = gradio.Button("Use this seed again", size="sm", visible=False, elem_classes="keep")
            verdict = gradio.HTML(elem_classes="verdict")
        with gradio.Column(scale=1, min_width=320):
            length, seed = length_and_seed(gradio, writer.most_new_tokens)
            sampling = sampling_controls(gradio, work.judge is not None)
    last_seed = gradio.State()

    def write(request: gradio.Request, name: str, prompt: str, length: Any, seed: Any, *sampling: Any) -> Iterator[Any]:
        for *shown, used in work.write(request.session_hash, name, prompt, length, seed, sampling):
            yield *shown, used, gradio.Button(visible=True)

    wanted = [name, prompt, length, seed, *sampling]
    outputs = [text, status, verdict, last_seed, keep]
    shared = {"concurrency_limit": _AT_A_TIME, "concurrency_id": "writing"}
    button.click(write, wanted, outputs, api_name="write", show_progress="hidden", **shared)
    for example in examples:
        example.click(None, example, prompt, js="text => text", api_visibility="private").then(
            write, wanted, outputs, api_visibility="private", show_progress="hidden", **shared
        )
    keep.click(lambda used: str(used), last_seed, seed, api_visibility="private", queue=False)
    _stops(gradio, work, stop, "write", status)
    _bounds(gradio, work, [name], prompt, length)

    def offer(name: str) -> list[Any]:
        chosen = work.writers[name]
        buttons = [gradio.Button(value, visible=bool(value)) for value in _padded(chosen.examples)]
        return [gradio.Textbox(placeholder=_invitation(chosen)), *buttons]

    name.change(offer, name, [prompt, *examples], api_visibility="private", queue=False)


def _judge_tab(gradio: Any, work: Work) -> None:
    judge = work.judge
    given = gradio.Textbox(
        label="Real or generated? Paste a text",
        lines=8,
        interactive=judge is not None,
        info=f"at most {MOST_CHARACTERS:,} characters",
    )
    with gradio.Row():
        ask = gradio.Button("Judge", variant="primary", min_width=100, interactive=judge is not None)
        stop = gradio.Button("Stop", min_width=100, interactive=judge is not None)
    answer = gradio.HTML(f"<p>{html.escape(judge.trust if judge else NO_JUDGE)}</p>", elem_classes="verdict")
    if judge is None:
        return

    def verdict(request: gradio.Request, text: str) -> str:
        return work.verdict(request.session_hash, text)

    ask.click(verdict, given, answer, api_name="judge", show_progress="hidden", concurrency_limit=_AT_A_TIME)
    _stops(gradio, work, stop, "judge", answer)


def _compare_tab(gradio: Any, work: Work) -> None:
    names = list(work.writers)
    first = names[0], names[min(1, len(names) - 1)]
    prompt = gradio.Textbox(label="Prompt", lines=2, placeholder="What both go on from")
    with gradio.Row():
        start = gradio.Button("Write with both", variant="primary", min_width=100)
        stop = gradio.Button("Stop", min_width=100)
    note = gradio.HTML(elem_classes="status")
    chosen, outputs, samplings = [], [], []
    with gradio.Row():
        for position, model in enumerate(first, 1):
            with gradio.Column(min_width=320):
                chosen.append(gradio.Dropdown(names, value=model, label=f"Model {position}"))
                outputs.append(gradio.Textbox(label=f"Written by {position}", lines=8, interactive=False))
                outputs.append(gradio.HTML(elem_classes="status"))
                outputs.append(gradio.HTML(elem_classes="verdict"))
                with gradio.Accordion(f"Sampling of {position}", open=False):
                    samplings.append(sampling_controls(gradio, work.judge is not None))
    with gradio.Row():
        length, seed = length_and_seed(gradio, work.room(first, ""))

    def compare(
        request: gradio.Request, first: str, second: str, prompt: str, length: Any, seed: Any, *sampling: Any
    ) -> Iterator[Any]:
        half = len(SAMPLING)
        parts = [sampling[:half], sampling[half:]]
        for *shown, _ in work.compare(request.session_hash, [first, second], prompt, length, seed, parts):
            yield *shown, ""

    wanted = [*chosen, prompt, length, seed, *samplings[0], *samplings[1]]
    start.click(
        compare,
        wanted,
        [*outputs, note],
        api_name="compare",
        show_progress="hidden",
        concurrency_limit=_AT_A_TIME,
        concurrency_id="writing",
    )
    _stops(gradio, work, stop, "compare", note)
    _bounds(gradio, work, chosen, prompt, length)


def _stops(gradio: Any, work: Work, button: Any, part: str, shown: Any) -> None:
    """Makes a button stop a part of the page for whoever presses it."""

    def stop(request: gradio.Request) -> str:
        return work.stop(request.session_hash, part)

    # Not in the queue: it may be full of what is to be stopped.
    button.click(stop, None, shown, queue=False, api_visibility="private", show_progress="hidden")


def _bounds(gradio: Any, work: Work, names: Sequence[Any], prompt: Any, length: Any) -> None:
    """Keeps the length within what the chosen models have room for after the prompt."""
    wanted = gradio.State(length.value)

    def bound(prompt: str, wanted: int, *names: str) -> Any:
        most = work.room(names, prompt)
        return gradio.Slider(maximum=most, value=min(wanted, most))

    quiet = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
    length.input(lambda value: value, length, wanted, **quiet)
    changes = [prompt.change, *(name.change for name in names)]
    gradio.on(changes, bound, [prompt, wanted, *names], length, trigger_mode="always_last", **quiet)


def _quiet_blocks(gradio: Any) -> type:
    """Blocks whose faults are told in a line on the page, and leave no traceback in the terminal."""

    class QuietBlocks(gradio.Blocks):
        async def process_api(self, *args: Any, **kwargs: Any) -> Any:
            try:
                return await super().process_api(*args, **kwargs)
            except gradio.Error as error:
                # The library's own, of a value that a control cannot have.
                error.print_exception = False
                raise
            except Exception as error:
                said = explain(error).partition(" Original error:")[0]
                print(f"error: {said}", file=sys.stderr, flush=True)
                raise gradio.Error(html.escape(said), print_exception=False) from error

    return QuietBlocks


def _padded(examples: Sequence[str]) -> list[str]:
    return [*examples, *[""] * _EXAMPLES][:_EXAMPLES]


def _invitation(writer: Writer) -> str:
    if writer.is_chat:
        return "Ask something, or choose a question below"
    return "The start of a text. Choose one below, or leave it empty for a text of the model's own"


def _sentence(names: Sequence[str], judge: Judge | None) -> str:
    many = f"{len(names)} models" if len(names) > 1 else f"The model {names[0]}"
    return f"{many}, {'and a discriminator that judges what they write' if judge else 'without a discriminator'}."
