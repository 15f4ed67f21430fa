"""The layout of the page, its events, and its server, which only this machine reaches."""

# Annotations are values here: gradio reads those of event handlers, and it is loaded inside functions, because it takes
# seconds and belongs to an extra.
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import wraps
from importlib.resources import files
from pathlib import Path
from typing import Any

from agents.application.demo import views
from agents.application.demo.game import Game, position, take, undo
from agents.application.demo.watch import Agent, load_agents, write
from agents.saving.arguments import one_line
from agents.saving.files import CommandError
from textgym import env_ids

HOST = "127.0.0.1"
FIRST_TASK = "TextGen/Reverse-v0"
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'"
)
"""A browser asks nothing of any other machine: https://developer.mozilla.org/docs/Web/HTTP/CSP."""
_BASELINES = [("the mean legal token", "mean"), ("the best legal token", "best")]
_EVENT: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
_LOCK = threading.Lock()


def open_page(paths: Sequence[Path], port: int | None = None, browser: bool = True, trust: bool = False) -> None:
    """Serve the page until Ctrl-C.

    Args:
        paths: Run folders or models, at most two.
        port: Where; None for the first free port from 7860.
        browser: Whether to open it in a browser.
        trust: See :func:`agents.application.loading.load_model`.

    Raises:
        CommandError: If gradio is missing, a model can't be shown, or the port is not free.
    """
    agents = load_agents(paths, trust)
    blocks, address = serve(agents, port, browser)
    print(f"{address} shows the page, to this machine alone; Ctrl-C ends it", flush=True)
    try:
        while True:
            time.sleep(60)
    finally:
        blocks.close(verbose=False)


def serve(agents: Sequence[Agent] = (), port: int | None = None, browser: bool = False) -> tuple[Any, str]:
    """Serve the page in a thread.

    Args:
        agents: Agents to show: see :func:`agents.application.demo.watch.checked`.
        port: See :func:`open_page`.
        browser: Likewise.

    Returns:
        The page, a ``gradio.Blocks`` that ``close()`` ends, and its address.

    Raises:
        CommandError: If gradio is missing, or the port is not free.
    """
    blocks = build(agents)
    import gradio as gr
    from starlette.middleware import Middleware

    fonts: Any = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}  # none is fetched
    try:
        _, address, _ = blocks.launch(
            server_name=HOST,
            server_port=port,
            share=False,
            inbrowser=browser,
            prevent_thread_lock=True,
            quiet=True,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            footer_links=[],
            theme=gr.themes.Base(primary_hue="blue", **fonts),
            css=_file("page.css"),
            app_kwargs={"middleware": [Middleware(_Local)]},
        )
    except OSError as error:
        raise CommandError(f"--port must be a free port, got {port}: {one_line(error)}") from None
    return blocks, address


def build(agents: Sequence[Agent] = ()) -> Any:
    """The page's layout: a ``gradio.Blocks``.

    Raises:
        CommandError: If gradio is missing.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # it would report each start, and ask for newer versions
    try:
        import gradio as gr
    except ModuleNotFoundError as error:
        raise CommandError(
            f"textgym demo needs gradio: pip install -c constraints.txt -e '.[demo]' ({one_line(error)})"
        ) from None
    writers = [agent for agent in agents if not agent.steers]
    steering = [agent for agent in agents if agent.steers]
    with gr.Blocks(title="TextGym", analytics_enabled=False) as blocks:
        gr.HTML(
            '<header class="tg-top"><h1>TextGym</h1>'
            "<p>Write text one token at a time, and see what it earns.</p></header>"
        )
        with gr.Tab("Play", id="play"):
            _play_tab(blocks, writers)
        if writers:
            with gr.Tab("Watch", id="watch"):
                _watch_tab(blocks, writers[:1])
        if len(writers) > 1:
            with gr.Tab("Side by side", id="compare"):
                _watch_tab(blocks, writers)
        for agent in steering:
            with gr.Tab("Steer" if len(steering) == 1 else f"Steer {agent.name}"):
                _steer_tab(agent)
        if not agents:
            gr.HTML(
                '<p class="tg-note">“textgym demo RUN” shows what a trained agent writes; two runs, both of them.</p>'
            )
    return blocks


def _play_tab(blocks: Any, writers: Sequence[Agent]) -> None:
    import gradio as gr

    tasks = _tasks(writers)
    first = next(iter(tasks)) if writers else FIRST_TASK
    game = gr.State(Game(FIRST_TASK, 0))
    with gr.Row():
        task = gr.Dropdown(list(tasks), value=first, label="Task", scale=3, min_width=280, elem_id="task")
        seed = gr.Number(0, label="Seed of the prompt", precision=0, minimum=0, scale=1, elem_id="seed")
    board = gr.HTML(elem_id="board")
    buttons = gr.HTML(elem_id="legal", js_on_load=_file("page.js"))
    with gr.Row():
        back = gr.Button("Undo", elem_id="undo")
        again = gr.Button("New episode", variant="primary", elem_id="new")
    shown = [game, board, buttons]

    def show(now: Game) -> list[Any]:
        place = position(now)
        return [now, views.board(place), views.legal_tokens(place)]

    @_one_at_a_time
    def start(name: str, number: float | None) -> list[Any]:
        return show(replace(tasks[name], seed=int(number or 0)))

    @_one_at_a_time
    def next_episode(name: str, number: float | None) -> list[Any]:
        number = int(number or 0) + 1
        return [number, *show(replace(tasks[name], seed=number))]

    @_one_at_a_time
    def press(now: Game, event: gr.EventData) -> list[Any]:
        return show(take(now, event.token))

    @_one_at_a_time
    def step_back(now: Game) -> list[Any]:
        return show(undo(now))

    gr.on([blocks.load, task.input, seed.input], start, [task, seed], shown, **_EVENT, trigger_mode="always_last")
    # Several at once wait for their turn, so that no letter of a fast typist is lost.
    each = _EVENT | {"trigger_mode": "multiple", "concurrency_id": "game"}
    buttons.select(press, game, shown, **each)
    gr.on([back.click, buttons.delete], step_back, game, shown, **each)
    again.click(next_episode, [task, seed], [seed, *shown], **each)


def _tasks(writers: Sequence[Agent]) -> dict[str, Game]:
    """Name → its first game: the agents' own task, where its arguments are not the id's own, and every id."""
    own: dict[str, Game] = {}
    for agent in writers[:1]:
        given = ", ".join(f"{name}={value}" for name, value in sorted(agent.env_args.items()))
        name = f"{agent.env_id} ({given})" if given else str(agent.env_id)
        own[name] = Game(str(agent.env_id), 0, env_args=json.dumps(agent.env_args))
    return own | {env_id: Game(env_id, 0) for env_id in env_ids() if env_id not in own}


def _watch_tab(blocks: Any, agents: Sequence[Agent]) -> None:
    import gradio as gr

    with gr.Row(elem_classes="tg-columns"):
        seed = gr.Number(agents[0].seed, label="Seed of the prompt", precision=0, minimum=0)
        baseline = gr.Radio(_BASELINES, value="mean", label="Advantage over", min_width=280)
        slips = gr.Checkbox(False, label="with random slips", info="Some tokens are drawn at random.")
    with gr.Row(elem_classes="tg-columns"):
        texts = [gr.HTML() for _ in agents]
    again = gr.Button("Next prompt", variant="primary")

    @_one_at_a_time
    def show(number: float | None, over: views.Baseline, random: bool) -> list[str] | str:
        texts = [views.written(write(agent, int(number or 0), random), agent.name, over) for agent in agents]
        return texts if len(texts) > 1 else texts[0]

    @_one_at_a_time
    def following(number: float | None) -> int:
        return int(number or 0) + 1

    inputs = [seed, baseline, slips]
    events = [blocks.load, seed.input, baseline.input, slips.input]
    gr.on(events, show, inputs, texts, **_EVENT, trigger_mode="always_last")
    again.click(following, seed, seed, **_EVENT).then(show, inputs, texts, **_EVENT)


def _steer_tab(agent: Agent) -> None:
    import gradio as gr

    from agents.application.demo import steer

    prompt = gr.Textbox(label="Your prompt", lines=1, max_lines=1, submit_btn="Write", elem_id="prompt")
    with gr.Row(elem_classes="tg-columns"):
        strength = gr.Slider(
            0, 5, 1, step=0.1, label="Strength", info="0 is the model alone.", min_width=280, elem_id="strength"
        )
        length = gr.Slider(1, 128, 24, step=1, label="Tokens", info="At most.", min_width=280)
    with gr.Row(elem_classes="tg-columns"):
        drawn = gr.Checkbox(False, label="draw the tokens", info="Otherwise the likeliest one each time.")
        seed = gr.Number(0, label="Seed of the drawing", precision=0, minimum=0)
        baseline = gr.Radio(_BASELINES, value="mean", label="Advantage over", min_width=280)
    with gr.Row(elem_classes="tg-columns"):
        texts = [gr.HTML(elem_id=name) for name in ("steered", "alone")]

    @_one_at_a_time
    def show(
        text: str, force: float, n_tokens: int, random: bool, number: float | None, over: views.Baseline
    ) -> list[str]:
        given: dict[str, Any] = {"n_tokens": int(n_tokens), "seed": int(number or 0) if random else None}
        steered = steer.write(agent.model, text, force, **given)
        alone = steer.write(agent.model, text, 0.0, **given)
        return [
            views.continued(steered, f"Steered, strength {force:g}", over),
            views.continued(alone, "The model alone", over),
        ]

    events = [prompt.submit, strength.change, length.change, drawn.input, seed.input, baseline.input]
    inputs = [prompt, strength, length, drawn, seed, baseline]
    gr.on(events, show, inputs, texts, **_EVENT, trigger_mode="always_last")


def _one_at_a_time(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Handlers wait for each other, because they share environments and models; what is wrong is shown in one line."""

    @wraps(handler)
    def handled(*arguments: Any) -> Any:
        import gradio as gr

        try:
            with _LOCK:
                return handler(*arguments)
        except (CommandError, ValueError, OSError, ImportError) as error:
            raise gr.Error(one_line(error), print_exception=False) from None

    return handled


def _file(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


class _Local:
    """Adds the policy to every answer of the server (ASGI)."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [*message.get("headers", ()), (b"content-security-policy", _POLICY.encode())]
                message = {**message, "headers": headers}
            await send(message)

        await self.app(scope, receive, send_with_policy)
