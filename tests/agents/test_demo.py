"""The demo: games that repeat, what agents write, steered texts, and the page itself in a browser."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch

from agents import DoubleDQN, make_vec_env
from agents.application.demo import steer, views
from agents.application.demo.game import Game, position, take, undo
from agents.application.demo.watch import Agent, checked, load_agents, write
from agents.application.report.tokens import play
from agents.application.train import train
from agents.application.validate import export
from agents.saving.arguments import make_env
from agents.saving.files import CommandError
from agents.saving.settings import resolve_settings
from tests.browsing import css, resize

ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 3, "vocab_size": 5}
EVIL = "<img src=x onerror=\"document.title='1'\">'&אב"
WORDS = ("good", "bad", "day", "food", "the", "<eos>")
ENTER, BACKSPACE, RIGHT, CONTROL = "\ue007", "\ue003", "\ue014", "\ue009"


TINY = {"policy_kwargs": {"features_dim": 16, "n_layers": 1, "n_heads": 2}, "learning_starts": 50}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run, and its model on its own."""
    folder = tmp_path_factory.mktemp("runs")
    settings = resolve_settings(ENV, env_args=ENV_ARGS, agent=TINY, steps=160, n_envs=8)
    first = train(settings, folder / "first").folder
    return [first, export(first, folder / "second")]


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model")
    words = Tokenizer(models.WordLevel({word: token for token, word in enumerate(WORDS)}, unk_token="the"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", bos_token="<eos>").save_pretrained(path)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"vocab_size": 6, "bos_token_id": 5, "eos_token_id": 5}
    with torch.random.fork_rng():
        torch.manual_seed(1)
        LlamaForCausalLM(LlamaConfig(**sizes, **ids, initializer_range=0.3)).save_pretrained(path)
    return path


def goodness(prompts, completions, **_):
    return [text.split().count("good") / 4 for text in completions]


@pytest.fixture(scope="module")
def steered(language_model):
    task = {"prompts": ["the food", "the day"], "reward": goodness, "tokenizer": str(language_model)}
    env = make_vec_env("TextGen-v0", 8, seed=0, env_kwargs={**task, "max_new_tokens": 4})
    policy = {"model": str(language_model), "candidates": 4, "eta": 0.1, "width": 16}
    options = {"gamma": 1.0, "learning_starts": 64, "batch_size": 16, "device": "cpu", "seed": 0}
    return DoubleDQN("LanguageModelPolicy", env, policy_kwargs=policy, **options).learn(500)


# ------------------------------------------------------------------------------------------------ games


def test_a_game_is_the_environment():
    env = gym.make(f"textgym:{ENV}")
    observation, info = env.reset(seed=3)
    game, total, ended = Game(ENV, 3), 0.0, False
    while not ended:
        place = position(game)
        assert [token for token, _ in place.legal] == info["action_mask"].nonzero()[0].tolist()
        assert place.total == pytest.approx(total) and not place.ended
        token = place.legal[len(game.tokens)][0]
        game = take(game, token)
        observation, reward, ended, _, info = env.step(token)
        total += reward
    place = position(game)
    task = env.get_wrapper_attr("task")
    assert place.ended and place.legal == () and place.left == 0
    assert place.total == pytest.approx(total) and len(place.played) == len(game.tokens)
    assert place.prompt + " " + place.text == task.decode(observation)


def test_a_game_with_arguments():
    game = Game(ENV, 3, env_args=json.dumps(ENV_ARGS))
    assert len(position(game).prompt.split()) == ENV_ARGS["length"] and len(position(game).legal) == 6
    assert position(game) != position(Game(ENV, 3)) and position(take(game, 0)).played[0].text == "a"


def test_undo_leads_back():
    game = take(Game(ENV, 5), 2)
    assert undo(take(game, 0)) == game and position(undo(take(game, 0))) == position(game)
    assert undo(Game(ENV, 5)) == Game(ENV, 5)
    assert position(game).left == position(undo(game)).left - 1


def test_replies_of_the_environment():
    game = Game("TextGen/GuessNumber-v0", 0)
    while not any(one.reply for one in position(game).played):
        game = take(game, position(game).legal[0][0])
    place = position(game)
    assert place.played[-1].reply in place.text
    assert "tg-reply" in views.board(place)


def test_games_that_cannot_be():
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        position(Game(ENV, -1))
    with pytest.raises(ValueError, match="token must be legal after 0 tokens, got 99"):
        position(Game(ENV, 0, (99,)))
    eos = gym.make(f"textgym:{ENV}").get_wrapper_attr("task").eos_id
    with pytest.raises(ValueError, match="tokens must end with the episode, got 2 instead of 1"):
        position(Game(ENV, 0, (eos, 0)))


# ------------------------------------------------------------------------------------------------ agents


def test_agents_are_loaded_from_runs_and_models(runs):
    one, two = load_agents(runs)
    assert (one.name, two.name) == ("first", "second") and one.seed == two.seed >= 10_000
    assert write(one, 7).prompt == write(two, 7).prompt
    assert write(one, 7).steps == write(two, 7).steps
    assert load_agents([]) == []
    same = load_agents([runs[0], runs[0]])
    assert same[0].name != same[1].name


def test_what_an_agent_writes_is_what_the_report_shows(runs):
    (agent,) = load_agents(runs[:1])
    env = make_env(ENV, 1, 11, ENV_ARGS)
    expected = play(agent.model, env, 11)[0]
    found = write(agent, 11)
    assert (found.prompt, found.steps, found.total) == (expected.prompt, expected.steps, expected.total)
    slips = [write(agent, seed, slips=True) for seed in range(12)]
    assert any(episode.slips for episode in slips) and not any(write(agent, seed).slips for seed in range(3))
    assert write(agent, 4, slips=True).steps == write(agent, 4, slips=True).steps
    with pytest.raises(ValueError, match="seed must be at least 0, got -1"):
        write(agent, -1)


def test_agents_that_cannot_be_shown(runs, tmp_path, textgym):
    code, _, err = textgym("demo", *runs, runs[0], "--no-browser")
    assert code == 2 and "RUN_OR_MODEL must be given at most twice, got 3" in err and err.count("\n") == 1
    code, _, err = textgym("demo", tmp_path / "nowhere")
    assert code == 2 and "which does not exist" in err
    arguments = {"length": 2, "vocab_size": 5}
    model = DoubleDQN("PerformerPolicy", make_vec_env(ENV, 1, env_kwargs=arguments), **TINY)
    other = Agent("other", model, ENV, arguments)
    with pytest.raises(CommandError, match=r"must be of the first one's environment, TextGen/Reverse-v0 .*'length': 3"):
        checked([*load_agents(runs[:1]), other])
    with pytest.raises(CommandError, match="must be a model whose environment is known, got other"):
        checked([Agent("other", model)])
    with pytest.raises(CommandError, match=r"the model other must fit TextGen/Copy-v0, got TokenSequence"):
        checked([Agent("other", model, "TextGen/Copy-v0")])


def test_without_gradio_it_says_what_to_install(monkeypatch):
    from agents.application.demo.page import build

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(CommandError, match=r"textgym demo needs gradio: pip install -c constraints.txt -e '.\[demo\]'"):
        build()


# ------------------------------------------------------------------------------------------------ steering


def test_greedy_texts_are_those_of_steered_generate(steered, language_model):
    from transformers import AutoModelForCausalLM

    lm = AutoModelForCausalLM.from_pretrained(language_model)
    prompt = torch.tensor([[5, 4, 3]])
    given = {"max_new_tokens": 5, "do_sample": False, "pad_token_id": 5}
    texts = set()
    for strength in (0.0, 1.0, 4.0):
        with steered.steering(lm, strength):
            expected = lm.generate(prompt, **given)[0, 3:].tolist()
        found = steer.write(steered, "the food", strength, 5)
        assert [one.token for one in found.choices] == expected
        assert found.text == " ".join(WORDS[token] for token in expected if token != 5)
        assert found.divergence == pytest.approx(0.0, abs=1e-5) if strength == 0 else found.divergence > 0
        texts.add(found.text)
    assert len(texts) > 1, "the strength matters"


def test_values_and_probabilities_of_a_token(steered):
    (one,) = steer.write(steered, "the food", 2.0, 1).choices
    assert one.q is not None and one.q <= one.v and one.mean <= one.v
    assert [text for _, text, _ in one.alternatives] == [WORDS[token] for token, _, _ in one.alternatives]
    assert one.alternatives[0][2] == pytest.approx(one.v)
    assert one.steered > one.alone and 0 < one.alone < 1


def test_drawn_texts_repeat_and_leave_the_candidates(steered):
    first, again = (steer.write(steered, "the day", 1.0, 12, seed=3) for _ in range(2))
    assert first == again
    choices = [one for seed in range(12) for one in steer.write(steered, "the day", 1.0, 12, seed=seed).choices]
    outside = [one for one in choices if one.q is None]
    assert outside and all(one.alone == one.steered for one in outside)
    assert all(one.token not in {token for token, _, _ in one.alternatives} for one in outside)
    chips = views.steered_chips(steer.Steered(tuple(outside), "", 0.0))
    assert chips[0].value is None and ("Q", "not a candidate") in chips[0].facts


def test_a_saved_agent_that_steers(steered, tmp_path):
    steered.save(tmp_path / "steered")
    with pytest.raises(CommandError, match="--trust"):
        load_agents([tmp_path / "steered.zip"])
    (agent,) = load_agents([tmp_path / "steered.zip"], trust=True)
    assert agent.steers and agent.env_id is None
    assert steer.write(agent.model, "the food", 3.0) == steer.write(steered, "the food", 3.0)


def test_what_cannot_be_steered(steered, runs):
    for arguments, message in (
        ((-1.0, 3), "strength must be a finite number of at least 0, got -1.0"),
        ((1.0, 0), "n_tokens must be at least 1, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            steer.write(steered, "the", *arguments)
    with pytest.raises(ValueError, match="model must have a LanguageModelPolicy, got "):
        steer.write(load_agents(runs[:1])[0].model, "the")


# ------------------------------------------------------------------------------------------------ words on the page


def test_chips_carry_what_the_report_computed(runs):
    episode = write(load_agents(runs[:1])[0], 2, slips=True)
    best, mean = (views.episode_chips(episode, baseline) for baseline in ("best", "mean"))
    for step, over_best, over_mean in zip(episode.steps, best, mean, strict=True):
        assert over_best.value == step.q - step.v <= 0 and over_mean.value == pytest.approx(step.q - step.mean)
        assert [q for _, q, _ in over_best.alternatives] == [q for _, _, q in step.alternatives]
        assert step.slip or next(chosen for *_, chosen in over_best.alternatives)
    text = views.written(episode, "first", "mean")
    assert text.count("tg-tip") == len(episode.steps) and f"{episode.total:.3f}" in text


def test_colours_follow_signs_and_sizes():
    chips = [views.Chip("a", 0.2), views.Chip("b", -0.1), views.Chip("c", 0.0), views.Chip("d", None)]
    pattern = r'class="tg-token((?: [^"]*)?)".*?--share:([\d.]+).*?<small>(.*?)</small>'
    assert re.findall(pattern, views.tokens(chips, "x")) == [
        (" tg-warm", "1.00", "+0.200"),
        (" tg-cold", "0.50", "−0.100"),
        ("", "0.00", "0.000"),
        ("", "0.00", "–"),
    ]
    assert "nothing yet" in views.tokens([], "x")


def test_numbers():
    assert [views.number(value) for value in (-0.0001, 0.12345, -2.0)] == ["0.000", "0.123", "−2.000"]
    assert [views.signed(value) for value in (0.0001, 0.5, -0.5)] == ["0.000", "+0.500", "−0.500"]


def test_few_tokens_are_buttons_and_many_are_searched():
    place = position(Game(ENV, 0))
    assert views.legal_tokens(place).count("data-token") == len(place.legal)
    many = position(Game("TextGen/Summary-v0", 0))
    assert len(many.legal) > views.MOST_BUTTONS
    assert views.legal_tokens(many).count("<option") == len(many.legal) and "<button" not in views.legal_tokens(many)
    twins = replace(many, legal=(*((token, "x") for token in range(60)), (60, "y")))
    assert 'value="x (59)"' in views.legal_tokens(twins) and 'value="y"' in views.legal_tokens(twins)


def test_words_from_data_are_escaped():
    chip = views.Chip(EVIL, 0.1, ((EVIL, EVIL),), ((EVIL, 0.1, True),), EVIL)
    text = views.tokens([chip], EVIL) + views.prompt(EVIL) + views.facts([(EVIL, EVIL)])
    assert "<img" not in text and 'onerror="' not in text and text.count("&lt;img") >= 8


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture(scope="module")
def served(runs, steered):
    """The page's address, and the machines that the server has looked up."""
    pytest.importorskip("gradio", reason="gradio is not installed")
    from agents.application.demo.page import serve

    asked = set()
    look_up = socket.getaddrinfo
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            socket, "getaddrinfo", lambda host, *rest, **names: asked.add(host) or look_up(host, *rest, **names)
        )
        blocks, address = serve([*load_agents(runs), Agent("steered", steered)])
        yield address, asked
        blocks.close(verbose=False)


@pytest.fixture(scope="module")
def opened(browser, served):
    """The page, as tests leave it to each other: each opens the tab that it needs."""
    resize(browser, 1180)
    browser.get(served[0])
    wait(browser, lambda: seen(browser, ".tg-legal button"))
    return browser


def seen(driver, selector):
    return [one for one in css(driver, selector) if one.is_displayed()]


def wait(driver, condition, seconds=20):
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.ui import WebDriverWait

    waiting = WebDriverWait(driver, seconds, 0.05, ignored_exceptions=[StaleElementReferenceException])
    return waiting.until(lambda _: condition())


def text_of(driver, selector=".tg-text bdi"):
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].find(one => one.checkVisibility())?.textContent", selector
    )


def open_tab(driver, name):
    next(tab for tab in css(driver, "button[role=tab]") if tab.text == name).click()


def choose_task(driver, env_id):
    box = css(driver, "#task input")[0]
    box.click()
    box.send_keys(CONTROL + "a" + "\ue000", env_id)
    options = wait(driver, lambda: [one for one in seen(driver, "[role=option]") if one.text.split()[-1] == env_id])
    options[0].click()


def test_nobody_asks_another_machine(opened, served):
    address, asked = served
    names = opened.execute_script("return performance.getEntriesByType('resource').map(one => one.name)")
    assert len(names) > 10 and all(name.startswith((address, "data:")) for name in names)
    assert [entry for entry in opened.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert {str(host, "ascii") if isinstance(host, bytes) else host for host in asked} <= {"127.0.0.1", "localhost"}
    with urllib.request.urlopen(address) as answer:
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
    load = opened.execute_script("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    assert load < 10_000, "a third of a second on an idle core"


def test_browser_plays_by_mouse_and_keys(opened):
    open_tab(opened, "Play")
    place = position(Game(ENV, 0, env_args=json.dumps(ENV_ARGS)))  # the agents' own task
    assert text_of(opened, ".tg-prompt bdi") == place.prompt
    choose_task(opened, ENV)
    place = position(Game(ENV, 0))
    wait(opened, lambda: text_of(opened, ".tg-prompt bdi") == place.prompt)
    answer = place.prompt.split()[::-1]
    buttons = {button.text: button for button in seen(opened, ".tg-legal button")}
    assert len(buttons) == len(place.legal)
    buttons[answer[0]].click()
    wait(opened, lambda: text_of(opened) == answer[0])
    wait(opened, lambda: opened.switch_to.active_element.text == answer[0])  # the focus is where it was
    for letter in answer[1:4]:  # as fast as one types
        opened.switch_to.active_element.send_keys(letter)
    wait(opened, lambda: text_of(opened) == " ".join(answer[:4]))
    opened.switch_to.active_element.send_keys(BACKSPACE)
    wait(opened, lambda: text_of(opened) == " ".join(answer[:3]))
    css(opened, "#undo")[0].click()
    wait(opened, lambda: text_of(opened) == " ".join(answer[:2]))
    first = seen(opened, ".tg-legal button")[0]
    opened.execute_script("arguments[0].focus()", first)
    first.send_keys(RIGHT)
    assert opened.switch_to.active_element == seen(opened, ".tg-legal button")[1]
    seen(opened, ".tg-legal button")[-1].click()  # the end
    wait(opened, lambda: "The episode is over" in (text_of(opened, ".tg-end") or ""))
    css(opened, "#new")[0].click()
    wait(opened, lambda: text_of(opened, ".tg-prompt bdi") == position(Game(ENV, 1)).prompt)
    assert css(opened, "#seed input")[0].get_attribute("value") == "1"


def test_browser_searches_a_large_vocabulary(opened):
    open_tab(opened, "Play")
    css(opened, "#seed input")[0].send_keys(CONTROL + "a", "0")
    choose_task(opened, "TextGen/Summary-v0")
    wait(opened, lambda: seen(opened, "#legal input"))
    words = [text for _, text in position(Game("TextGen/Summary-v0", 0)).legal]
    opened.execute_script("document.querySelector('#legal input').focus()")

    def enter(*keys):
        opened.switch_to.active_element.send_keys(*keys)

    enter(words[3], ENTER)
    wait(opened, lambda: text_of(opened) == words[3])
    wait(opened, lambda: opened.switch_to.active_element.tag_name == "input")  # to go on typing
    enter("no such word", ENTER)
    wait(opened, lambda: seen(opened, "#legal input[aria-invalid=true]"))
    enter(CONTROL + "a" + "\ue000", words[5], ENTER)
    wait(opened, lambda: text_of(opened) == f"{words[3]} {words[5]}")
    wait(opened, lambda: opened.switch_to.active_element.tag_name == "input")
    enter(BACKSPACE)
    wait(opened, lambda: text_of(opened) == words[3])
    opened.execute_script(  # as a browser tells that a suggestion was chosen
        "const field = document.querySelector('#legal input'); field.value = arguments[0];"
        "field.dispatchEvent(new InputEvent('input', {bubbles: true, inputType: 'insertReplacementText'}))",
        words[7],
    )
    wait(opened, lambda: text_of(opened) == f"{words[3]} {words[7]}")


def test_browser_watches_an_agent(opened, runs):
    open_tab(opened, "Watch")
    (agent,) = load_agents(runs[:1])
    episode = write(agent, agent.seed)
    wait(opened, lambda: seen(opened, ".tg-token"))
    strip = seen(opened, ".tg-token")
    assert [one.text.splitlines()[0] for one in strip] == [step.text for step in episode.steps]
    assert strip[0].text.splitlines()[1] == views.signed(episode.steps[0].advantage_over_mean)
    opened.execute_script("arguments[0].focus()", strip[0])
    tip = strip[0].find_element("class name", "tg-tip")
    wait(opened, tip.is_displayed)
    assert all(views.number(q) in tip.text for _, _, q in episode.steps[0].alternatives)
    seen(opened, "input[value=best]")[0].click()
    wait(opened, lambda: seen(opened, ".tg-token")[0].text.splitlines()[1] == "0.000")
    next(one for one in seen(opened, "button") if one.text == "Next prompt").click()
    wait(opened, lambda: text_of(opened, ".tg-prompt bdi") == write(agent, agent.seed + 1).prompt)


def test_browser_puts_two_agents_side_by_side(opened, runs):
    open_tab(opened, "Side by side")
    wait(opened, lambda: len(seen(opened, ".tg-card")) == 2)
    cards = seen(opened, ".tg-card")
    assert [card.find_element("tag name", "h3").text for card in cards] == ["first", "second"]
    assert len({card.find_element("class name", "tg-prompt").text for card in cards}) == 1
    assert cards[0].location["y"] == cards[1].location["y"]


def test_browser_steers_a_language_model(opened, steered):
    open_tab(opened, "Steer")
    wait(opened, lambda: seen(opened, "#prompt input, #prompt textarea"))
    box = seen(opened, "#prompt input, #prompt textarea")[0]
    box.send_keys("the food", ENTER)
    wait(opened, lambda: text_of(opened, "#steered .tg-text bdi") == steer.write(steered, "the food").text)
    assert text_of(opened, "#alone .tg-text bdi") == steer.write(steered, "the food", 0.0).text
    strength = css(opened, "#strength input[type=range]")[0]
    strength.send_keys(RIGHT)
    wait(opened, lambda: text_of(opened, "#steered h3") == "Steered, strength 1.1")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_on_a_phone_and_in_the_dark(browser, served, scheme):
    resize(browser, 390, scheme, 844)
    browser.get(served[0])
    wait(browser, lambda: seen(browser, ".tg-legal button"))
    for name in ("Watch", "Side by side", "Steer"):
        open_tab(browser, name)
        wait(browser, lambda: seen(browser, ".tg-card, #prompt"))
        assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    ground = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (np.mean([int(part) for part in re.findall(r"\d+", ground)[:3]]) < 64) == (scheme == "dark")


def test_a_port_that_is_taken():
    pytest.importorskip("gradio", reason="gradio is not installed")
    from agents.application.demo.page import HOST, serve

    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(CommandError, match=f"--port must be a free port, got {port}"):
            serve(port=port)


@pytest.mark.slow
def test_the_command_serves_until_it_is_interrupted(runs):
    pytest.importorskip("gradio", reason="gradio is not installed")
    line = [sys.executable, "-m", "agents.application.cli", "demo", str(runs[0]), "--no-browser"]
    started = time.perf_counter()
    # A shell's background job ignores SIGINT, and what it starts would, too.
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=os.environ)
    finally:
        signal.signal(signal.SIGINT, heard)
    with process:
        try:
            address = process.stdout.readline().split()[0]
            with urllib.request.urlopen(address) as answer:
                assert answer.status == 200 and "TextGym" in answer.read().decode()
            print(f"the page after {time.perf_counter() - started:.1f} s")
            process.send_signal(signal.SIGINT)
            assert process.wait(20) == 130
        finally:
            process.kill()
