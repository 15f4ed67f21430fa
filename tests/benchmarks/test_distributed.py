"""Runs through actors: the queue against arithmetic, timed runs, what chaos would notice."""

import json
from dataclasses import replace

import pytest

from agents.distributed import Actors
from benchmarks.actor_chaos import _Episodes, chaos, judge
from benchmarks.actor_queue import Layout, exchange_seconds, simulate
from benchmarks.actor_runs import Costs, SlowReward, costs, make_model, measure
from benchmarks.distributed import main, table_row
from benchmarks.learner_runs import measure_updates

COSTS = Costs(0.001, 0.0005, 0.002, 0.0003, 0.001, 30_000, 200.0, 8.0)


class TestQueue:
    def test_slow_rewards_make_actors_the_limit(self):
        one, many = (simulate(COSTS, Layout(n, updates_per_step=0.001, reward_seconds=0.05)) for n in (1, 16))
        report = 8 * COSTS.step_seconds + 16 * 0.05  # sixteen rows end once in eight steps
        assert one.texts_per_second == pytest.approx(16 / (report + COSTS.message_seconds), rel=0.02)
        assert many.texts_per_second == pytest.approx(16 * one.texts_per_second, rel=0.05)
        assert one.limit == many.limit == "actors" and one.actors_busy > 0.99

    def test_updates_make_the_learner_the_limit(self):
        expected = simulate(COSTS, Layout(64, updates_per_step=0.1))
        assert expected.updates_per_second == pytest.approx(1 / COSTS.update_seconds, rel=0.1)
        assert expected.texts_per_second == pytest.approx(expected.updates_per_second / (0.1 * 8), rel=0.01)
        assert expected.limit == "learner" and expected.learner_busy > 0.99

    def test_a_tight_bound_of_staleness_costs_throughput(self):
        loose, tight = (
            simulate(COSTS, Layout(8, reward_seconds=0.01, max_staleness=most, weights_every=1)) for most in (1000, 6)
        )
        assert tight.texts_per_second < 0.9 * loose.texts_per_second
        assert tight.limit == "staleness"

    def test_more_learners_share_the_updates_and_pay_for_the_exchange(self):
        rates = [simulate(COSTS, Layout(64, n)).updates_per_second for n in (1, 4, 16)]
        assert rates[0] < rates[1] < 4 * rates[0]
        assert exchange_seconds(COSTS, Layout(64)) == 0.0
        assert exchange_seconds(COSTS, Layout(64, 2)) == pytest.approx(30_000 / 1e9 + 1e-3)
        slow = replace(COSTS, weights_bytes=10**9)
        assert simulate(slow, Layout(64, 4)).updates_per_second < 1.0

    def test_a_row_of_the_table(self):
        row = {
            "reward_seconds": 0.05,
            "updates_per_step": 0.04,
            "n_actors": 1000,
            "n_learners": 4,
            "texts_per_second": 1234.5,
        }
        row |= {"updates_per_second": 99.6, "actors_busy": 0.5, "learner_busy": 1.0, "bytes_per_second": 2.5e6}
        assert (
            table_row({**row, "limit": "learner"})
            == "| 50 ms | 0.04 | 1,000 | 4 | 1,234 | 100 | 50% | 100% | 2.5 | learner |"
        )


class TestRuns:
    def test_the_reward_sleeps_for_each_text(self, monkeypatch):
        slept = []
        monkeypatch.setattr("time.sleep", slept.append)
        assert SlowReward(0.05)(["a"] * 3, ["a b", "a a", ""]) == [0.25, 0.125, 0.0]
        assert slept == [pytest.approx(0.15)]

    def test_a_timed_run(self):
        alone = measure(make_model(0.0, 4), 0, "threads", 0.3)
        run = measure(make_model(0.0, 4), 2, "threads", 0.3, max_staleness=10)
        for measured in (alone, run):
            assert measured.texts_per_second > 0 and 1 <= measured.tokens_per_text <= 16
        assert run.n_actors == 2 and run.staleness_max <= 10 and alone.staleness == 0

    def test_costs(self):
        found = costs(4, 8, "threads", seconds=0.2)
        assert 10 < found.episode_bytes < 2_000 and found.weights_bytes > 4 * 1_000
        assert all(value > 0 for value in found.as_dict().values())

    @pytest.mark.slow
    def test_updates_of_learners(self):
        one, two = (measure_updates(n, "threads", 16, 8, 0.3) for n in (1, 2))
        assert one.n_parameters == two.n_parameters > 1_000
        assert one.updates_per_second > 0 and two.updates_per_second > 0

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["rewards", "--actors", "0"], "--actors must be at least 1, got 0"),
            (["chaos", "--minutes", "0"], "--minutes"),
            (["learners", "--learners", "0"], "--learners must be at least 1, got 0"),
            (["rewards", "--learners", "2"], "--learners must be 1 for rewards, got 2"),
        ],
    )
    def test_errors(self, arguments, message, capsys):
        with pytest.raises(SystemExit):
            main(arguments)
        assert message in capsys.readouterr().err


class TestChaos:
    @pytest.fixture
    def watched(self, tmp_path):
        model = make_model(0.0, 4)
        with Actors(model, 2, max_staleness=50) as actors:
            watch = _Episodes(actors, 60, 0.5, 1e12, tmp_path, 0)
            model.learn(10**6, watch, log_interval=None)
        return model, watch

    def test_the_promise_is_kept(self, watched):
        model, watch = watched
        verdict = judge(model, watch, 60)
        assert 60 <= verdict["episodes"] == verdict["in_replay"] < 70
        assert verdict["twice"] == verdict["gaps"] == 0 and verdict["same_returns"]
        content = watch.content()
        watch.restore(content)
        assert judge(model, watch, 60) == verdict

    def test_what_is_wrong_is_noticed(self, watched):
        model, watch = watched
        watch.ids[5] = watch.ids[4]
        verdict = judge(model, watch, 60)
        assert verdict["twice"] == 1 and verdict["gaps"] >= 1
        watch.returns[3] += 0.1
        assert not judge(model, watch, 60)["same_returns"]

    @pytest.mark.slow
    def test_kills(self, tmp_path):
        result = chaos(tmp_path / "chaos", 0.5, "threads", 3, 1200, 3.0, 3.0)
        assert result["passed"], json.dumps(result)
        assert result["kills_of_actors"] > 0 and result["kept_all"]

    @pytest.mark.slow
    def test_kills_of_learners(self, tmp_path):
        result = chaos(tmp_path / "chaos", 1.5, "threads", 1, 1000, 5.0, 10.0, n_learners=2)
        assert result["passed"], json.dumps(result)
        assert result["kills_of_other_learners"] + result["kills_of_learner"] > 0
