"""Hyperparameter optimisation: spaces, samplers, resuming, parallel runs, failures, early stopping, the command."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from enum import Enum
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import yaml

from agents.application import tune as command
from agents.application.train import train
from agents.hyperparam_opt import DEFAULT_SPACE, Space, Stopping, Study, TrainObjective
from agents.saving.files import CommandError
from agents.saving.settings import resolve_settings
from agents.tuning.records import StudyFile
from tests.agents.objectives import VALLEY, deadly, fragile, killed_study, learner, slow_valley, valley

ROOT = Path(__file__).parents[2]
MIXED = {**VALLEY, "kind": ["a", "b", None], "flag": [True, False]}
ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}
TINY = {"policy_kwargs": {"features_dim": 8, "n_layers": 1, "n_heads": 2}, "learning_starts": 32}


def outcome(study):
    """What a study found out, without its times."""
    return [(run.trial, run.seed, run.params, run.state, run.score, run.reports) for run in study.runs]


class TestSpace:
    def test_samples_are_plain_values_within_bounds(self):
        space, random = Space(MIXED), np.random.default_rng(0)
        samples = [space.sample(random) for _ in range(500)]
        for sample in samples:
            space.check(sample)
            assert json.loads(json.dumps(sample)) == sample
        assert {type(sample["net.width"]) for sample in samples} == {int}
        widths = [sample["net.width"] for sample in samples]
        assert min(widths) == 1 and 55 < max(widths) <= 64 and 5 < np.median(widths) < 11, "even in logarithms"
        assert {sample["kind"] for sample in samples} == {"a", "b", None}

    def test_round_trip_through_scikit_optimize(self):
        space = Space(MIXED)
        point = space.sample(np.random.default_rng(1))
        assert space.from_skopt(space.to_skopt(point)) == point
        assert Space(space.as_data()).as_data() == space.as_data() == json.loads(json.dumps(space.as_data()))

    def test_dotted_names_reach_inside(self):
        params = {"a.b": 1, "a.c": 2, "d": 3}
        space = Space({name: [1, 2, 3] for name in params})
        assert space.arguments(params) == {"a": {"b": 1, "c": 2}, "d": 3}

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ({}, "space must be a mapping of argument names"),
            ([1], "space must be a mapping of argument names"),
            ({"x": 3}, "x must be a list of choices or a mapping with low and high, got 3"),
            ({"x": [1]}, r"x must list at least two choices, all different, got \[1\]"),
            ({"x": [1, 2, 1]}, "x must list at least two choices, all different"),
            ({"x": {"low": 0, "hi": 1}}, "x must have keys among low, high, log, type, got 'hi'"),
            ({"x": {"low": 0}}, "x.high must be a finite number, got None"),
            ({"x": {"low": "a", "high": 1}}, "x.low must be a finite number, got 'a'"),
            ({"x": {"low": 2, "high": 1}}, "x.high must be above low, 2, got 1"),
            ({"x": {"low": 0, "high": 1, "log": True}}, "x.low must be above 0 where log is true, got 0"),
            ({"x": {"low": 0, "high": 1, "log": "yes"}}, "x.log must be true or false, got 'yes'"),
            ({"x": {"low": 0, "high": 1, "type": "bool"}}, "x.type must be int or float, got 'bool'"),
            ({"x": {"low": 0.5, "high": 2, "type": "int"}}, "x must have whole numbers as low and high"),
            ({"x.": [1, 2]}, "space must have argument names as keys, got 'x.'"),
            ({"x": [1, 2], "x.y": [1, 2]}, "space must not have both 'x' and 'x.y'"),
        ],
    )
    def test_errors(self, data, message):
        with pytest.raises(ValueError, match=message):
            Space(data)

    def test_points_are_checked(self):
        with pytest.raises(ValueError, match=r"net.width must be an integer in \[1, 64\], got 2.5"):
            Space(VALLEY).check({"rate": 0.1, "net.width": 2.5})
        with pytest.raises(ValueError, match=r"params must have the names rate, net.width, got rate"):
            Space(VALLEY).check({"rate": 0.1})
        with pytest.raises(ValueError, match="flag must be one of True, False, got 1"):
            Space({"flag": [True, False]}).check({"flag": 1})

    def test_the_default_space_fits_the_agent(self):
        space = Space(DEFAULT_SPACE)
        objective = TrainObjective(ENV, ENV_ARGS)
        objective.check(space)
        assert objective.settings(space.arguments(space.sample(np.random.default_rng(0))), 0).env == ENV

    def test_unknown_arguments_of_the_agent(self):
        for name, message in (("lerning_rate", "did you mean learning_rate"), ("policy_kwargs.layers", "n_layers")):
            with pytest.raises(CommandError, match=f"--space.* takes no argument .*{message}"):
                TrainObjective(ENV).check(Space({name: [1, 2]}))


class TestSearch:
    @pytest.mark.slow
    def test_gp_beats_random_search(self):
        """On 3 seeds of 3, and by half of the distance to the optimum that is left on average."""
        left = {"gp": [], "random": []}
        for sampler, distances in left.items():
            for seed in range(3):
                study = Study(VALLEY, valley, sampler=sampler, seed=seed, n_initial=4)
                study.run(11)
                distances.append(-study.best.score)
        assert all(np.array(left["gp"]) < left["random"]), left
        assert np.mean(left["gp"]) < 0.5 * np.mean(left["random"]), left

    def test_repeats_with_the_seed_and_leaves_numpy_alone(self):
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        studies = [Study(MIXED, valley, seed=seed, n_initial=2) for seed in (0, 0, 1)]
        for study in studies:
            study.run(4)
        assert outcome(studies[0]) == outcome(studies[1]) != outcome(studies[2])
        assert (np.random.get_state()[1] == before).all()  # noqa: NPY002

    def test_both_samplers_begin_with_the_same_points(self):
        studies = [Study(VALLEY, valley, sampler=sampler, n_initial=3) for sampler in ("gp", "random")]
        for study in studies:
            study.run(4)
        gp, random = ([trial.params for trial in study.trials] for study in studies)
        assert gp[:3] == random[:3] and gp[3] != random[3]

    def test_points_of_a_batch_are_apart(self):
        study = Study(VALLEY, valley, n_initial=4, batch=4)
        study.run(4)
        asked = [study.ask(number) for number in range(4, 8)]
        rates = sorted(math.log10(params["rate"]) for params in asked)
        widths = sorted(params["net.width"] for params in asked)
        assert len({json.dumps(params) for params in asked}) == 4 and (
            rates[-1] - rates[0] > 0.5 or widths[-1] > 2 * widths[0]
        )
        with pytest.raises(ValueError, match="number must be in the batch of trial 4, the next one, got 8"):
            study.ask(8)

    def test_the_score_is_the_mean_over_seeds(self):
        study = Study(VALLEY, valley, seeds=3, seed=5)
        study.run(2)
        assert [run.seed for run in study.trials[0].runs] == [5, 1005, 2005]
        assert study.trials[1].score == pytest.approx(np.mean([run.score for run in study.trials[1].runs]))
        assert len({run.score for run in study.trials[1].runs}) == 3

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"seeds": 0}, "seeds must be an integer of at least 1, got 0"),
            ({"seed": -1}, "seed must be an integer of at least 0, got -1"),
            ({"sampler": "tpe"}, "sampler must be one of gp, random, got 'tpe'"),
            ({"stopping": "never"}, "stopping must be one of median, halving or None, got 'never'"),
            ({"n_initial": 0}, "n_initial must be an integer of at least 1"),
            ({"batch": 1.5}, "batch must be an integer of at least 1, got 1.5"),
        ],
    )
    def test_wrong_options(self, options, message):
        with pytest.raises(ValueError, match=message):
            Study(VALLEY, valley, **options)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"trials": 0}, "trials must be an integer of at least 1, got 0"),
            ({"trials": 1, "n_jobs": 0}, "n_jobs must be an integer of at least 1, got 0"),
            ({"trials": 1, "engine": "dask"}, "engine must be one of loky, ray, got 'dask'"),
        ],
    )
    def test_wrong_options_of_run(self, options, message):
        with pytest.raises(ValueError, match=message):
            Study(VALLEY, valley).run(**options)


class TestStudyFile:
    def study(self, path, **options):
        return Study(VALLEY, valley, path, **{"n_initial": 3, "seeds": 2, **options})

    def test_a_finished_study_does_nothing_and_can_be_extended(self, tmp_path):
        path = tmp_path / "new" / "study.jsonl"
        self.study(path).run(4)
        before = path.read_bytes()
        again, ran = self.study(path), []
        again.run(4, on_run=ran.append)
        assert ran == [] and path.read_bytes() == before
        again.run(6, on_run=ran.append)
        whole = self.study(None)
        whole.run(6)
        assert len(ran) == 4 and outcome(self.study(path)) == outcome(whole)

    @pytest.mark.parametrize("cut", [1, 40, "header"])
    def test_a_torn_last_line_is_left_out_with_a_warning(self, tmp_path, cut):
        path = tmp_path / "study.jsonl"
        self.study(path).run(4)
        text = path.read_bytes()
        path.write_bytes(text[:20] if cut == "header" else text[:-cut])
        with pytest.warns(UserWarning, match="the last line is cut short"):
            study = self.study(path)
        assert len(study.runs) == (0 if cut == "header" else 7)
        with pytest.warns(UserWarning, match="the last line is cut short"):
            study.run(4)
        whole = self.study(None)
        whole.run(4)
        assert outcome(self.study(path)) == outcome(whole)

    def test_damage_elsewhere_is_an_error(self, tmp_path):
        path = tmp_path / "study.jsonl"
        self.study(path).run(2)
        lines = path.read_text().splitlines()
        path.write_text("\n".join([*lines[:2], lines[2][:30], *lines[3:], ""]))
        with pytest.raises(ValueError, match=r"must hold a JSON value in every line, .* in line 3"):
            self.study(path)
        path.write_text("\n".join([lines[0], '{"trial": 0}', ""]))
        with pytest.raises(ValueError, match=r"must hold records of runs, .* in line 2"):
            self.study(path)
        path.write_text('{"env": "x"}\n')
        with pytest.raises(ValueError, match="must be a study file of format 1"):
            self.study(path)

    def test_another_study_is_refused(self, tmp_path):
        path = tmp_path / "study.jsonl"
        self.study(path).run(1)
        with pytest.raises(ValueError, match=r"seeds must be 2, as in the study .*study.jsonl, got 3"):
            self.study(path, seeds=3)
        with pytest.raises(ValueError, match=r"objective must be .*valley.* got .*slow_valley"):
            Study(VALLEY, slow_valley, path, n_initial=3, seeds=2)

    def test_an_interrupt_leaves_a_study_that_goes_on(self, tmp_path):
        def interrupted(arguments, seed, report):
            if len(study.runs) == 5:
                raise KeyboardInterrupt
            return valley(arguments, seed, report)

        study = self.study(tmp_path / "study.jsonl")
        study.objective = interrupted
        with pytest.raises(KeyboardInterrupt):
            study.run(4)
        resumed, whole = self.study(tmp_path / "study.jsonl"), self.study(None)
        assert len(resumed.runs) == 5
        resumed.run(4)
        whole.run(4)
        assert outcome(resumed) == outcome(whole)


@pytest.mark.slow
def test_kill_and_resume_equals_uninterrupted(tmp_path):
    path = tmp_path / "study.jsonl"
    code = "from tests.agents.objectives import killed_study as s; import sys; s(sys.argv[1]).run(10, n_jobs=2)"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], cwd=ROOT, start_new_session=True)
    while not path.exists() or path.read_bytes().count(b"\n") < 12:  # past the random points, in the middle of a trial
        assert process.poll() is None
        time.sleep(0.002)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    resumed, whole = killed_study(path), killed_study(None)
    assert 11 <= len(resumed.runs) < 20
    resumed.run(10)
    whole.run(10)
    assert outcome(resumed) == outcome(whole) and outcome(killed_study(path)) == outcome(whole)


class TestFailures:
    def study(self, objective, path=None, **options):
        return Study({"x": [0, 1, 2, 3, 4]}, objective, path, n_initial=12, **options)

    def test_failed_trials_are_recorded_with_their_errors(self, tmp_path):
        study = self.study(fragile, tmp_path / "study.jsonl")
        study.run(12)
        errors = {trial.params["x"]: (trial.state, trial.score, trial.error) for trial in study.trials}
        assert errors[0] == ("finished", 0.0, None) and errors[4] == ("finished", 4.0, None)
        assert errors[1] == ("failed", None, "RuntimeError: two lines")
        assert errors[2] == ("failed", None, "ValueError: the score must be finite, got nan")
        assert errors[3] == ("failed", None, "ValueError: the score must be finite, got nan")
        assert study.best.params == {"x": 4}
        assert outcome(self.study(fragile, tmp_path / "study.jsonl")) == outcome(study)
        study.run(14)
        assert len(study.trials) == 14, "the process is fitted to failed trials too"

    def test_the_process_avoids_what_fails(self):
        def half(arguments, seed, report):
            if arguments["rate"] > 1e-2:
                raise FloatingPointError
            return arguments["rate"]

        study = Study({"rate": {"low": 1e-5, "high": 1.0, "log": True}}, half, n_initial=6)
        study.run(12)
        assert 1e-3 < study.best.params["rate"] <= 1e-2
        assert sum(trial.state == "failed" for trial in study.trials[6:]) <= 4

    def test_nothing_but_failures(self):
        study = Study({"x": {"low": 0.0, "high": 1.0}}, lambda arguments, seed, report: 1 / 0, n_initial=2)
        study.run(4)
        assert study.best is None and [trial.state for trial in study.trials] == ["failed"] * 4

    def test_a_dead_worker_costs_its_own_run_alone(self):
        study = Study({"x": [0, 1]}, deadly, seed=1, batch=2)
        study.run(2, n_jobs=2)
        assert {trial.params["x"] for trial in study.trials} == {0, 1}
        for trial in study.trials:
            if trial.params["x"] == 0:
                assert trial.state == "finished"
            else:
                assert trial.state == "failed" and "the worker process died" in trial.error


def test_parallel_runs_find_what_serial_ones_find():
    serial, parallel = (Study(VALLEY, slow_valley, n_initial=4, batch=3, seeds=2) for _ in range(2))
    serial.run(7)
    parallel.run(7, n_jobs=2)
    assert outcome(serial) == outcome(parallel)


def test_ray_is_optional():
    if util.find_spec("ray"):
        pytest.skip("Ray is installed")
    with pytest.raises(ValueError, match="engine 'ray' needs Ray: pip install 'ray>=2'"):
        Study(VALLEY, valley).run(1, engine="ray")


class TestStopping:
    OTHERS = tuple([(1, value / 8), (2, value / 4), (4, value / 2)] for value in range(1, 7))

    def test_median(self):
        rule = Stopping("median", self.OTHERS)
        assert rule.should_stop([(1, 3 / 8)]) and not rule.should_stop([(1, 4 / 8)])
        assert not rule.should_stop([(1, 1.0), (2, 0.5)]), "its best score so far counts"
        assert rule.should_stop([(3, 3 / 4)]) and not rule.should_stop([(3, 4 / 4)]), "compared with the step before"

    def test_halving(self):
        rule = Stopping("halving", self.OTHERS)
        assert [rule.should_stop([(2, value / 4)]) for value in (3.5, 4.5, 5.5)] == [True, False, False]

    def test_too_few_others(self):
        assert not Stopping("median", self.OTHERS[3:]).should_stop([(1, -9.0)])
        assert not Stopping("median", self.OTHERS).should_stop([(5, -9.0)]), "nobody has got so far"
        assert not Stopping(None, self.OTHERS).should_stop([(1, -9.0)])

    @pytest.mark.parametrize("rule", ["median", "halving"])
    def test_study(self, tmp_path, rule):
        def study(path, n_jobs=1):
            made = Study({"x": {"low": 0.0, "high": 8.0}}, learner, path, stopping=rule, sampler="random", batch=2)
            made.run(16, n_jobs)
            return made

        done = study(tmp_path / "study.jsonl")
        stopped = [trial for trial in done.trials if trial.state == "stopped"]
        assert 4 <= len(stopped) <= 12 and all(trial.number >= 4 for trial in stopped)
        best = max(trial.params["x"] for trial in done.trials)
        assert done.best.params["x"] == best == done.best.score
        for trial in stopped:
            (run,) = trial.runs
            assert run.score == run.reports[-1][1] < run.params["x"]
        assert outcome(study(tmp_path / "study.jsonl")) == outcome(done) == outcome(study(None, n_jobs=2))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tune")
    space = folder / "space.yaml"
    space.write_text("learning_rate: {low: 1e-4, high: 1e-2, log: true}\nbatch_size: [2, 4]\n")
    objective = TrainObjective(ENV, ENV_ARGS, TINY, steps=240, n_envs=8)
    study = command.new_study(objective, folder / "out", space, seeds=2, n_initial=2)
    study.run(2)
    command.write_best(study)
    return study


class TestTraining:
    def test_runs_report_at_growing_shares(self, trained):
        assert [trial.state for trial in trained.trials] == ["finished"] * 2
        for run in trained.runs:
            assert [step for step, _ in run.reports] == [1 / 8, 1 / 4, 1 / 2] and 0 <= run.score <= 1

    def test_train_takes_the_best_and_repeats_its_score(self, trained, tmp_path):
        config = command.best_file(trained)
        settings = resolve_settings(config=config)
        arguments = trained.space.arguments(trained.best.params)
        assert {name: settings.agent[name] for name in arguments} == arguments
        assert settings.agent["policy_kwargs"] == TINY["policy_kwargs"] and settings.env_args == ENV_ARGS
        assert train(settings, tmp_path / "run").scores.mean == trained.best.runs[0].score

    def test_zoo_form(self, trained):
        entry = yaml.safe_load((command.best_file(trained).parent / "zoo.yaml").read_text())[ENV]
        assert entry["policy"] == "PerformerPolicy" and (entry["n_timesteps"], entry["n_envs"]) == (240, 8)
        assert entry["env_kwargs"] == ENV_ARGS and entry["batch_size"] == trained.best.params["batch_size"]

    def test_zoo_schedules(self):
        space = Space({"learning_rate.start": [0.1, 0.2]})
        objective = TrainObjective(ENV, agent={"learning_rate": {"end": 0.0}})
        assert objective.zoo_config({"learning_rate.start": 0.1}, space)[ENV]["learning_rate"] == "lin_0.1"
        objective = TrainObjective(ENV, agent={"learning_rate": {"end": 0.01}})
        assert objective.zoo_config({"learning_rate.start": 0.1}, space) is None

    def test_figures(self, trained, tmp_path):
        files = command.draw(trained, tmp_path / "figures")
        names = ["convergence", "partial_dependence", "parallel_coordinates"]
        assert [file.name for file in files] == [f"{name}.{suffix}" for name in names for suffix in ("png", "svg")]
        assert all(file.stat().st_size > 5_000 for file in files)
        assert files[0].read_bytes()[:4] == b"\x89PNG" and b"learning_rate" not in files[0].read_bytes()

    def test_figures_need_scores(self, tmp_path):
        study = command.new_study(TrainObjective(ENV, ENV_ARGS), tmp_path / "empty")
        with pytest.raises(CommandError, match="figures need at least two trials with a score"):
            command.draw(study, tmp_path)


def test_any_stage_of_the_file_can_be_read(tmp_path):
    """Whatever byte a kill falls on, what is read is a prefix of the records."""
    path = tmp_path / "study.jsonl"
    Study(VALLEY, valley, path, sampler="random").run(3)
    text, (_, runs) = path.read_bytes(), StudyFile(path).read()
    for length in range(0, len(text), 7):
        path.write_bytes(text[:length])
        whole = text[:length].count(b"\n")
        if text[:length].endswith(b"\n") or not length:
            assert StudyFile(path).read()[1] == runs[: max(0, whole - 1)]
        else:
            with pytest.warns(UserWarning, match="cut short"):
                assert StudyFile(path).read()[1] == runs[: max(0, whole - 1)]


class Colour(Enum):
    RED = 1


@pytest.mark.parametrize(
    "choices",
    [
        [(64,), (64, 64)],
        [((1, 2), "a"), [[1, 2], "b"]],
        [np.int64(3), np.float32(0.5)],
        np.array([3, 4]),
        [True, 1, 1.0, "1", None],
        [np.array([1, 2]), np.array([3])],
        [{"a": (1,)}, {"a": (2,)}],
        [Path("a"), "b"],
        [dict, list],
        [Colour.RED, math.sqrt],
    ],
    ids=str,
)
def test_what_a_study_takes_it_takes_again(choices, tmp_path):
    seen = []

    def objective(arguments, seed, report):
        seen.append(arguments["net"])
        return 0.0

    space = {"net": choices, "x": {"low": np.float64(0.1), "high": np.int64(2)}}
    for trials in (3, 6):
        study = Study(space, objective, tmp_path / "s.jsonl", sampler="random")
        study.run(trials)
    assert len(seen) == len(study.trials) == 6  # no trial was run twice
    options = choices.tolist() if isinstance(choices, np.ndarray) else choices

    def same(a, b):
        return type(a) is type(b) and (np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b)

    for value, trial in zip(seen, study.trials, strict=True):
        assert any(same(value, option) for option in options)
        assert same(trial.params["net"], value)


@pytest.mark.parametrize("choice", [object(), math.inf, {1: 2}, [math.nan]])
def test_choices_that_no_file_can_hold_are_refused_at_once(choice, tmp_path):
    with pytest.raises(ValueError, match="choices of net must be None, a finite number, a string"):
        Study({"net": [1, choice]}, valley, tmp_path / "s.jsonl")
    assert not (tmp_path / "s.jsonl").exists()
