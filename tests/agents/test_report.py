"""The report: its statistics by hand, what it says of a model, and the page itself in a browser."""

import json
import re

import numpy as np
import pytest
import torch
from rliable.metrics import aggregate_iqm as rliable_iqm
from rliable.metrics import probability_of_improvement as rliable_improvement
from typer.testing import CliRunner

from agents import DoubleDQN, make_vec_env
from agents.application.cli import app as textgym_app
from agents.application.report import report
from agents.application.report import statistics as st
from agents.application.report.charts import (
    COLOURS,
    DotChart,
    Line,
    LineChart,
    Row,
    Style,
    linear_ticks,
    log_ticks,
    styles,
)
from agents.application.report.command import Sources, build, find_sources
from agents.application.report.data import GROUPS, Comparison, agent_names, group_of, split_ablations
from agents.application.report.figures import (
    ablation_chart,
    aggregate_chart,
    learning_curve,
    sooner_chart,
    threshold_chart,
)
from agents.application.report.html import json_for_script, table, token_view
from agents.application.report.paper import save
from agents.application.report.svg import draw
from agents.application.report.tables import ablation_table, score_table, sooner_table
from agents.application.report.tokens import as_plain, play
from agents.application.train import train
from agents.saving.files import CommandError
from agents.saving.json_lines import append
from agents.saving.settings import resolve_settings
from benchmarks.ablation import described
from benchmarks.cells import Cell
from benchmarks.changes import ablation
from tests.browsing import css, resize
from textgym import env_ids, references

EVIL = '</script><img src=x onerror="document.title=1">&\u2028\u202eאב🦜'


def result(agent="ours", task="TextGen/Reverse-v0", seed=0, scores=(0.1, 0.5, 0.9), steps=1000, **cell):
    curve = [[steps * i, 2.0 * i, score] for i, score in enumerate(scores)]
    definition = Cell(agent, task, seed, **cell)
    return {
        "name": definition.name,
        "cell": vars(definition),
        "score": scores[-1],
        "curve": curve,
        "env_steps": curve[-1][0],
        "seconds": curve[-1][1],
        "updates": 1,
        "versions": {"python": "3"},
        "machine": {"platform": "here", "threads": 1},
    }


def results():
    best = references("TextGen-v0").best
    return [
        result(agent, task, seed, (0.05, last / 2, last))
        for agent, top in (("ours", 1.0), ("ppo-mlp", 0.4), (EVIL, 0.3))
        for task, scale in (("TextGen/Reverse-v0", 1.0), ("TextGen-v0", best))
        for seed in range(3)
        for last in [scale * (top - 0.05 * seed)]
    ]


def timings():
    row = {"name": EVIL, "unit": "steps/s", "value": 20.0, "other": 2.0, "against": "SB3", "ratio": 10.0}
    row |= {"bar": 5, "at_most": False, "met": True}
    return {"machine": {"threads": 1}, "figures": [row, {**row, "name": "the same", "other": None, "ratio": None}]}


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    settings = resolve_settings(
        "TextGen/Reverse-v0",
        env_args={"length": 3, "vocab_size": 5},
        agent={"policy_kwargs": {"features_dim": 16, "n_layers": 1, "n_heads": 2}, "learning_starts": 50},
        steps=160,
        n_envs=8,
    )
    return train(settings, tmp_path_factory.mktemp("runs") / "run").folder


@pytest.fixture(scope="module")
def page(tmp_path_factory, run_folder):
    folder = tmp_path_factory.mktemp("results")
    for one in [*results(), {"name": "throughput", **timings()}]:
        append(folder / "all.jsonl", one)
    return report([folder, run_folder], folder / "report.html", n_episodes=8)


# ------------------------------------------------------------------------------------------------ statistics


def test_interquartile_mean_leaves_out_a_quarter_at_each_end():
    assert st.iqm(np.array([0.0, 1.0, 2.0, 100.0])) == pytest.approx(1.5)
    assert st.iqm(np.array([0.0, 1.0, 5.0])) == pytest.approx(2.0)  # a quarter of three is no whole score
    scores = np.random.default_rng(0).normal(size=(7, 3))
    assert st.iqm(scores) == pytest.approx(rliable_iqm(scores))


def test_bootstrap_is_stratified_and_repeatable():
    low, high = np.zeros(4), np.ones(4)
    samples = st.resample([low, high], np.random.default_rng(0), n=50)
    assert [sample.shape for sample in samples] == [(50, 4), (50, 4)]
    assert (samples[0] == 0).all() and (samples[1] == 1).all()  # no run has gone to another task
    strata = [np.array([0.1, 0.4, 0.6]), np.array([0.2, 0.9])]
    first, again = (st.aggregate_iqm(strata, np.random.default_rng(3)) for _ in range(2))
    assert first == again
    assert first.low < first.value < first.high
    state = np.random.get_state()[1].copy()  # noqa: NPY002  # that nobody has drawn from it
    st.aggregate_iqm(strata, np.random.default_rng(3))
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002


def test_bootstrap_interval_covers_what_it_should():
    """Over many samples from a known distribution, some 95 % of the intervals hold its mean (fewer at n=20)."""
    random = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        low, high = st.interval(st.resample([random.normal(size=20)], random, n=400)[0].mean(axis=1))
        held += low <= 0.0 <= high
    assert 0.87 <= held / 200 <= 0.98


def test_probability_of_improvement_counts_pairs_and_halves_ties():
    ours, other = [np.array([1.0, 2.0])], [np.array([1.0, 0.0])]
    assert st.probability_of_improvement(ours, other, np.random.default_rng(0)).value == pytest.approx(3.5 / 4)
    two = st.probability_of_improvement([*ours, np.zeros(3)], [*other, np.ones(2)], np.random.default_rng(0))
    assert two.value == pytest.approx((3.5 / 4 + 0.0) / 2)  # each task counts the same
    random = np.random.default_rng(1)
    x, y = random.integers(0, 4, (5, 3)).astype(float), random.integers(0, 4, (6, 3)).astype(float)
    mine = st.probability_of_improvement(list(x.T), list(y.T), random).value
    assert mine == pytest.approx(rliable_improvement(x, y))
    with pytest.raises(ValueError, match=r"1 tasks.*got 2"):
        st.probability_of_improvement(ours, [*other, np.ones(2)], random)


def test_performance_profile_is_the_share_of_runs_at_or_above():
    strata = [np.array([0.0, 0.5, 1.0, 1.0]), np.array([0.5, 0.5])]
    share, low, high = st.performance_profile(strata, np.array([0.0, 0.5, 0.75, 1.1]), np.random.default_rng(0))
    assert share == pytest.approx([1.0, (0.75 + 1.0) / 2, 0.25, 0.0])
    assert (low <= share).all() and (share <= high).all()


def test_time_to_threshold_is_censored_not_dropped():
    curve = [[0, 0.0, 0.1], [10, 1.0, 0.6], [20, 2.0, 0.4]]
    assert st.first_reached(curve, 0.5, 0) == (10, True)
    assert st.first_reached(curve, 0.5, 1) == (1.0, True)
    assert st.first_reached(curve, 0.9, 0) == (20, False)


def test_median_time_by_hand():
    def runs(*pairs):
        return [st.Reached(at, solved) for at, solved in pairs]

    assert st.median_time(runs((1, True), (2, True), (9, True))) == 2
    # Waiting after 1: 2/3; the run watched until 2 leaves; after 3: 2/3 · (1 - 1/1) = 0.
    assert st.median_time(runs((1, True), (2, False), (3, True))) == 3
    assert st.median_time(runs((1, True), (5, False), (5, False))) is None  # dropping them would say 1
    assert st.median_time(runs((5, False))) is None
    assert st.median_time(runs((4, True), (4, True), (9, False), (9, False))) == 4


# ------------------------------------------------------------------------------------------------ results


def test_every_id_has_a_group():
    assert {group_of(env_id) for env_id in env_ids()} == set(GROUPS)
    assert group_of("TextGen/Copy-Sparse-v0") == "manipulation"
    assert group_of("TextGen-v0") == group_of("textgym:TextGen/Keywords-Hard-v0") == "generation"
    assert group_of("CartPole-v1") == "other"


def test_scores_are_normalised_where_there_are_references():
    known = references("TextGen/Reverse-v0")
    comparison = Comparison([result(scores=(0.0, known.best)), result(scores=(0.0, 0.3), env_kwargs={"length": 3})])
    rated, unrated = comparison.tasks
    assert rated.scores("ours") == pytest.approx([1.0])
    assert unrated.scores("ours") == pytest.approx([0.3])
    assert comparison.rated == (rated,)
    assert rated.name != unrated.name


def test_curves_share_an_axis_that_ends_with_the_shortest():
    comparison = Comparison([result(scores=(0.0, 1.0), env_kwargs={"length": 3}) for _ in range(2)])
    axis, scores = comparison.tasks[0].curves("ours", 0)
    assert axis == pytest.approx([0, 1000]) and scores == pytest.approx(np.array([[0, 1], [0, 1]]))
    long = result(scores=(0.0, 0.5, 1.0), seed=1, env_kwargs={"length": 3})
    axis, scores = Comparison([comparison.results[0], long]).tasks[0].curves("ours", 0)
    assert axis[-1] == 1000
    assert scores[:, -1] == pytest.approx([1.0, 0.5])


def test_agents_with_other_arguments_are_other_agents():
    comparison = Comparison([result(), result(agent_kwargs={"n_steps": 3})])
    assert [style.label for style in comparison.styles.values()] == ["DoubleDQN (ours)", "DoubleDQN (ours) (n_steps=3)"]
    assert len({style.slot for style in comparison.styles.values()}) == 2


def test_arguments_are_named_only_where_an_agent_has_several():
    tuned = [result(agent_kwargs={"n_steps": 3}), result("ppo-mlp"), result("ppo-mlp", agent_kwargs={"gamma": 1.0})]
    assert agent_names(tuned) == ["ours", "ppo-mlp", "ppo-mlp (gamma=1.0)"]


def test_scores_at_equal_cost_are_read_off_the_curves():
    slow = result(scores=(0.0, 0.4, 0.8), steps=100, env_kwargs={"length": 3})  # ends at 200 steps, 4 s
    fast = result("ppo-mlp", scores=(0.0, 0.2, 0.3, 0.5), steps=1000, env_kwargs={"length": 3})  # 3,000 steps, 6 s
    (task,) = Comparison([slow, fast]).tasks
    assert (task.common_end(0), task.common_end(1)) == (200, 4)
    assert task.scores("ours") == task.scores("ours", 0) == task.scores("ours", 1) == pytest.approx([0.8])
    assert task.scores("ppo-mlp", 1) == pytest.approx([0.3])
    assert task.scores("ppo-mlp", 0) == pytest.approx([0.04])
    assert task.best == pytest.approx(0.8)
    slower = result("dqn-mlp", scores=(0.0, 0.1), steps=50, env_kwargs={"length": 3})
    (task,) = Comparison([slow, fast, slower]).tasks
    assert task.common_end(0) == 200 and task.scores("dqn-mlp", 0) == pytest.approx([0.1]), "its last score"


def test_how_much_sooner_by_hand():
    def runs(*pairs):
        return [st.Reached(at, solved) for at, solved in pairs]

    both = (runs((2, True)), runs((8, True)))
    other_never = (runs((1, True)), runs((16, False)))
    never = (runs((10, False)), runs((10, False)))
    found = st.sooner([both, other_never, never], floor=0.1)
    assert found == (pytest.approx((4 * 16) ** 0.5), 2, 1, 0, 1)
    assert st.sooner([(runs((9, False)), runs((3, True)))], 0.1)[:4] == (pytest.approx(1 / 3), 1, 0, 1)
    assert st.sooner([(runs((0, True)), runs((1, True)))], 0.1).ratio == pytest.approx(10)
    assert np.isnan(st.sooner([never], 0.1).ratio)


def test_time_to_nine_tenths_of_the_best_is_drawn_and_tabled():
    comparison = Comparison(
        [
            result(scores=(0.1, 0.95, 1.0)),
            result("ppo-mlp", scores=(0.1, 0.2, 0.3)),
            result("a2c-mlp", scores=(0.1, 0.5, 1)),
        ]
    )
    chart = sooner_chart(comparison, 1)
    assert [(row.label, row.value, row.text) for row in chart.rows] == [
        ("before PPO + MLP", 2.0, "2×, 1 task, of which 1 at least"),
        ("before A2C + MLP", 2.0, "2×, 1 task"),
    ]
    rows = {row[2]: row[3:] for row in sooner_table(comparison).rows}
    assert rows["PPO + MLP"] == ("> 4", "> 2,000", "0 of 1") and rows["DoubleDQN (ours)"] == ("2", "1,000", "1 of 1")


def test_references_have_rows_of_their_own():
    comparison = Comparison([result()])
    blind = references("TextGen/Reverse-v0")
    *_, row = aggregate_chart(comparison, comparison.rated, "key", "title").rows
    assert row.label == "best without the prompt" and row.value == pytest.approx(blind.normalise(blind.blind))
    found = [row[1:5] for row in score_table(comparison).rows]
    assert found[:3] == [
        ("reference: random", "–", f"{blind.random:.3f}", "0.000"),
        ("reference: blind", "–", f"{blind.blind:.3f}", f"{blind.normalise(blind.blind):.3f}"),
        ("reference: best", "–", f"{blind.best:.3f}", "1.000"),
    ]


def test_styles_of_more_agents_than_colours():
    many = styles([f"agent {number}" for number in range(30)])
    assert {style.slot for style in many.values()} <= set(range(len(COLOURS)))


def test_charts_say_what_never_got_there():
    comparison = Comparison([result(scores=(0.1, 0.95)), result("ppo-mlp", scores=(0.1, 0.2))])
    chart = threshold_chart(comparison, comparison.tasks[0], 0.9, 1)
    ours, ppo = chart.rows
    assert (ours.value, ours.marks) == (2.0, ((2.0, True),))
    assert (ppo.value, ppo.marks) == (None, ((2.0, False),))
    assert ppo.text == "not within 2 s, 0 of 1 runs"
    assert "censored" in draw(chart)


def test_ablation_is_kept_apart_and_drawn():
    base, single = (ablation()[name] for name in ("base", "single in place of Double Q"))
    shown = [result(**vars(cell), scores=(0.0, 0.5)) for cell in base]
    shown += [result(**vars(cell), scores=(0.0, 0.7)) for cell in single]
    comparison, apart = split_ablations([*shown, result()], [described()])
    assert len(comparison) == 1
    ((of, found),) = apart
    assert of.name == "ablate" and len(found) == len(shown)
    (row,) = ablation_chart(found, of).rows
    spans = [references(cell.task).best - references(cell.task).random for cell in base]
    assert row.value == pytest.approx(sum(0.2 / span for span in spans) / len(spans))
    assert row.label == "single in place of Double Q"


def test_claims_are_a_forest_of_normalised_differences():
    def scored(cell, share):
        known = references(cell.task)
        return result(**vars(cell), scores=(9.0, known.random + share * (known.best - known.random)))

    base, single = ablation()["base"], ablation()["single in place of Double Q"]
    ran = [scored(cell, 0.8) for cell in base] + [scored(cell, 0.6 - 0.1 * cell.seed) for cell in single[:-1]]
    comparison, apart = split_ablations(ran, [described()])
    ((of, apart_results),) = apart
    assert comparison == [] and of.name == "ablate"
    (row,) = ablation_chart(apart_results, of).rows
    assert row.label == "single in place of Double Q"
    expected = [-0.2 - 0.1 * cell.seed for cell in single[:-1]]
    assert row.value == pytest.approx(np.mean(expected))
    assert row.value - row.low == pytest.approx(2 * np.std(expected, ddof=1) / len(expected) ** 0.5)
    found = ablation_table(apart_results, of)
    assert found.rows[0][:4] == ("base", "", "12", "0.800")
    assert found.rows[1][1].startswith("-0.291 ± 0.0") and found.rows[1][3] == "0.500"
    page, charts = build(Sources(ran, [of]))
    assert "What each part is worth" in page and [chart.key for chart in charts] == ["ablation-ablate"]


def test_report_needs_something_to_report_on(tmp_path):
    with pytest.raises(CommandError, match="must exist, got"):
        report([tmp_path / "nothing"], tmp_path / "page.html")
    path = tmp_path / "broken.jsonl"
    path.write_text('{"name": "throughput", "figures": 3, "machine": {}}\n{"cut')
    for given in (tmp_path, path, tmp_path / "broken"):
        with pytest.raises(CommandError, match=r"run folder.*results"):
            find_sources([given])
    path.write_text("{\n}\n")
    with pytest.raises(CommandError, match=r"broken.jsonl must hold a JSON value in every line, got '\{' in line 1"):
        find_sources([path])
    with pytest.raises(CommandError, match="--episodes must be at least 1, got 0"):
        report([tmp_path], tmp_path / "page.html", n_episodes=0)


# ------------------------------------------------------------------------------------------------ tokens


def test_token_view_agrees_with_the_model(run_folder):
    model = DoubleDQN.load(run_folder / "model.zip")
    env = make_vec_env("TextGen/Reverse-v0", 12, env_kwargs={"length": 3, "vocab_size": 5})
    episodes = play(model, env, seed=77)
    assert [any(step.slip for step in episode.steps) for episode in episodes][::2] == [False] * 6
    assert any(episode.slips for episode in episodes)
    prompt_length = 3
    for episode in episodes:
        steps = episode.steps
        # Another way to the same values: one pass of the encoder over the finished text, its head at each prefix.
        with torch.no_grad():
            places = torch.arange(prompt_length - 1, prompt_length - 1 + len(steps))[None]
            tokens = torch.from_numpy(episode.observation[None]).long()
            q_values = model.q_net.head(model.q_net.features_at(tokens, places))[0].numpy()
        assert [step.q for step in steps] == pytest.approx(
            [q_values[index, step.token] for index, step in enumerate(steps)], abs=1e-5
        )
        assert [step.v for step in steps] == pytest.approx(q_values.max(axis=1).tolist(), abs=1e-5)
        for index, step in enumerate(steps):
            assert episode.observation[prompt_length + index] == step.token
            assert step.advantage == pytest.approx(step.q - step.v)
            assert [q for _, _, q in step.alternatives] == sorted(q_values[index], reverse=True)[:5] or np.allclose(
                [q for _, _, q in step.alternatives], sorted(q_values[index], reverse=True)[:5], atol=1e-5
            )
            following = steps[index + 1].v if index + 1 < len(steps) else 0.0
            assert step.td_error == pytest.approx(step.reward + model.gamma * following - step.q)
            if not step.slip:
                assert step.advantage == 0.0
        assert episode.total == pytest.approx(sum(step.reward for step in steps))
    # Greedy episodes are those that the model's own predict() writes.
    observations = env.envs.reset(seed=77)[0]
    actions, _ = model.predict(observations, deterministic=True)
    assert [episode.steps[0].token for episode in episodes][::2] == actions.tolist()[::2]
    assert play(model, env, seed=77)[1].steps == episodes[1].steps


def test_illegal_tokens_are_no_alternatives(run_folder):
    model = DoubleDQN.load(run_folder / "model.zip")
    observations = make_vec_env("TextGen/Reverse-v0", 2, env_kwargs={"length": 3, "vocab_size": 5}).reset()
    masks = np.zeros((2, 6), bool)
    masks[:, 2] = True
    values = model.action_values(observations, masks)
    assert np.isfinite(values).sum(axis=1).tolist() == [1, 1]


def test_replies_of_a_game_stand_between_its_tokens():
    env = make_vec_env("TextGen/GuessNumber-v0", 2)
    model = DoubleDQN("PerformerPolicy", env, seed=0, policy_kwargs={"features_dim": 16, "n_layers": 1, "n_heads": 2})
    episodes = as_plain(play(model, env, seed=0))
    steps = [step for episode in episodes for step in episode["steps"]]
    assert any(step["reply"] for step in steps)
    json.loads(json_for_script(episodes))


# ------------------------------------------------------------------------------------------------ the page


def test_page_is_one_small_file_that_loads_nothing(page):
    text = page.read_text("utf-8")
    assert len(text.encode()) < 6_000_000
    assert not re.search(r"https?:", text)
    addresses = re.findall(r' (?:src|href)="([^"]*)"', text)
    assert len(addresses) > 8 and all(address == "data:," or address[0] == "#" for address in addresses)
    assert "url(" not in text and "@import" not in text and "fetch(" not in text
    assert "default-src 'none'" in text
    for section in ("overview", "curves", "scores", "profile", "reaching", "throughput", "run-1", "methods"):
        assert f'<section id="{section}"' in text


def test_data_is_escaped(page):
    text = page.read_text("utf-8")
    assert "<img" not in text and "&lt;img" in text
    packed = text.count('<figure data-panel="')
    assert packed == len(re.findall(r'<figure data-panel="[^"]*"( hidden><script type="text/plain"|><h3)>', text))
    # The page's own script, the data of its one run, and figures that nobody sees at first.
    assert text.count("</script>") == 2 + text.count('<script type="text/plain">')
    view = token_view("key", [{"prompt": EVIL}])
    assert view.count("</script>") == 1
    inside = re.search(r"<script[^>]*>(.*)</script>", view).group(1)
    assert json.loads(inside) == [{"prompt": EVIL}]
    assert "<" not in inside and "\u2028" not in inside
    chart = LineChart(EVIL, EVIL, EVIL, EVIL, (Line(Style(EVIL, 0), np.arange(2.0), np.arange(2.0)),))
    rows = DotChart(EVIL, EVIL, EVIL, (Row(EVIL, EVIL, Style(EVIL, 0), 1.0),))
    assert "<img" not in draw(chart) + draw(rows)


def test_same_input_gives_the_same_page(page):
    sources = find_sources([page.parent])
    assert build(sources)[0] == build(sources)[0]


def test_learning_curve_lies_within_its_axes():
    chart = learning_curve(Comparison(results()), Comparison(results()).tasks[0], 0)
    drawn = draw(chart)
    width, height = map(float, re.search(r'viewBox="0 0 (\d+) (\d+)"', drawn).groups())
    points = re.findall(r"(?<=[ML])(-?[\d.]+) (-?[\d.]+)", drawn)
    assert len(points) > 10
    assert all(0 <= float(x) <= width and 0 <= float(y) <= height for x, y in points)


def test_ticks():
    assert linear_ticks(0, 1) == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert linear_ticks(-0.1, 0.1)[0] == -0.1
    assert log_ticks(1, 1000) == pytest.approx([1, 10, 100, 1000])
    assert len(log_ticks(20, 90)) >= 2


def test_figures_for_papers(tmp_path, page):
    _, charts = build(find_sources([page.parent]))
    chosen = {chart.key: chart for chart in charts if chart.key in ("aggregate", "profile", "throughput")}
    written = save(chosen.values(), tmp_path)
    assert len(written) == 6 and all(path.stat().st_size > 1000 for path in written)


def test_command(tmp_path, run_folder):
    out = tmp_path / "page.html"
    done = CliRunner().invoke(textgym_app, ["report", str(run_folder), "--out", str(out), "--episodes", "2"])
    assert done.exit_code == 0, done.output
    assert f"wrote {out}" in done.output
    assert "run-1" in out.read_text("utf-8")


def test_table_aligns_numbers_only():
    from agents.application.report.charts import Table

    text = table(Table(("name", "value"), (("<b>", "1"),), frozenset({1})))
    assert "<td>&lt;b&gt;</td><td class=n>1</td>" in text


# ------------------------------------------------------------------------------------------------ in a browser


@pytest.fixture
def opened(browser, page):
    resize(browser, 1180)
    browser.get(page.as_uri())
    return browser


def test_browser_opens_it_without_an_error_or_a_request(opened):
    assert opened.get_log("browser") == []
    assert opened.execute_script("return document.body.dataset.ready") == "true"
    assert opened.execute_script("return performance.getEntriesByType('resource').length") == 0
    assert opened.title == "TextGym: benchmark report"  # nothing that came with the data has run
    shown = [chart for chart in css(opened, "svg.chart") if chart.is_displayed()]
    assert len(shown) >= 8
    assert all(chart.size["width"] > 200 and chart.size["height"] > 60 for chart in shown)


def test_browser_switches_axes_and_agents(opened):
    from selenium.webdriver.support.ui import WebDriverWait

    def visible():
        return [chart.get_attribute("data-unit") for chart in css(opened, "#curves svg") if chart.is_displayed()]

    visible_units = {unit for unit in visible() if unit}
    assert visible_units == {"seconds of training"}
    hidden = "#curves figure[data-panel=steps]"
    assert css(opened, f"{hidden} > script") and not css(opened, f"{hidden} svg"), "what nobody sees is not laid out"
    css(opened, "#curves input[value=steps]")[0].find_element("xpath", "..").click()
    WebDriverWait(opened, 20).until(lambda driver: css(driver, f"{hidden} svg"))
    assert {unit for unit in visible() if unit} == {"environment steps"}
    button = css(opened, "#curves .legend button")[0]
    button.click()
    assert button.get_attribute("aria-pressed") == "false"
    assert not any(line.is_displayed() for line in css(opened, "#curves .s0 .line"))


def test_browser_reads_values_with_the_arrow_keys(opened):
    chart = next(chart for chart in css(opened, "#curves svg.lines") if chart.is_displayed())
    opened.execute_script("arguments[0].focus()", chart)
    chart.send_keys("\ue014")  # right
    tip = chart.find_element("xpath", "..").find_element("class name", "tip")
    assert tip.is_displayed() and "DoubleDQN (ours): " in tip.text


def test_browser_prints_what_is_chosen_and_reads_unpacked_figures(opened):
    css(opened, "#overview input[value=steps]")[0].find_element("xpath", "..").click()
    css(opened, "#curves input[value=steps]")[0].find_element("xpath", "..").click()
    opened.execute_script("dispatchEvent(new Event('beforeprint'))")
    assert not css(opened, "figure:not([hidden]) > script")
    assert "at equal environment steps" in css(opened, "#overview figure[data-panel=steps] h3")[0].text
    chart = css(opened, "#curves figure[data-panel=steps] svg.lines")[0]
    opened.execute_script("arguments[0].focus()", chart)
    chart.send_keys("\ue010")  # the end
    tip = chart.find_element("xpath", "..").find_element("class name", "tip")
    assert tip.is_displayed() and "2,000 environment steps" in tip.text
    assert opened.get_log("browser") == []


def test_browser_token_view_answers_clicks_and_keys(opened):
    def chosen():
        (box,) = css(opened, ".tokens [aria-selected=true]")
        return css(opened, ".tokens [role=option]").index(box)

    boxes = css(opened, ".tokens [role=option]")
    assert chosen() == 0
    boxes[1].click()
    assert chosen() == 1
    heading = css(opened, ".detail h3")[0].text
    assert heading.startswith("Token 2 of ") and heading.endswith(boxes[1].find_element("tag name", "bdi").text)
    opened.switch_to.active_element.send_keys("\ue012")  # left
    assert chosen() == 0 and opened.switch_to.active_element == boxes[0]
    opened.switch_to.active_element.send_keys("\ue015")  # down: the next episode
    assert css(opened, ".episodes [aria-selected=true]")[0] == css(opened, ".episodes [role=option]")[1]
    data = json.loads(css(opened, "#run-1-data")[0].get_attribute("textContent"))
    assert [float(box.text) for box in css(opened, ".tokens small")] == pytest.approx(
        [step["q"] for step in data[1]["steps"]], abs=6e-4
    )
    css(opened, ".metric input[value=reward]")[0].find_element("xpath", "..").click()
    assert [float(box.text) for box in css(opened, ".tokens small")] == pytest.approx(
        [step["reward"] for step in data[1]["steps"]], abs=6e-4
    )


@pytest.mark.parametrize("width", [390, 1180])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_on_a_phone_and_in_the_dark(opened, width, scheme):
    resize(opened, width, scheme)
    assert opened.execute_script("return document.documentElement.scrollWidth") <= width
    ink, ground = (
        [int(part) for part in re.findall(r"\d+", opened.execute_script(script))[:3]]
        for script in (
            "return getComputedStyle(document.body).color",
            "return getComputedStyle(document.body).backgroundColor",
        )
    )
    assert (sum(ink) > sum(ground)) == (scheme == "dark")
    assert contrast(ink, ground) >= 7
    for light, dark in COLOURS:
        colour = dark if scheme == "dark" else light
        assert contrast([int(colour[i : i + 2], 16) for i in (1, 3, 5)], ground) >= 3


def contrast(one, two):
    """Contrast ratio of two colours, as WCAG 2 defines it."""

    def luminance(colour):
        parts = [c / 255 for c in colour]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)
