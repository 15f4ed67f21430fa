"""``textgym validate`` of a language model: what TRL's trainer leaves, on the episodes of our own agents."""

import json
import shutil

import numpy as np
import pytest
import torch

from agents import make_vec_env
from agents.application.validate import as_json
from agents.application.validate_language_model import is_language_model, validate_language_model
from agents.double_dqn.evaluation import evaluate
from tests.agents.tiny_language_models import save_bert
from tests.textgym.test_trl_rollouts import TEMPLATE, byte_tokenizer, tiny_model
from textgym.adapters import TextSteps

ENV, ENV_ARGS = "TextGen/Reverse-v0", {"length": 2, "vocab_size": 3}


def save(folder, template=TEMPLATE, positions=1024, kind="llama"):
    """A model of random weights: a Llama that writes anything, or a GPT-2 that writes a, b and c."""
    tokenizer = byte_tokenizer(template)
    model = tiny_model(tokenizer, positions)
    if kind == "gpt2":
        from transformers import GPT2Config, GPT2LMHeadModel

        sizes = {"n_positions": positions, "n_embd": 16, "n_layer": 1, "n_head": 2, "resid_pdrop": 0.0}
        sizes |= {"initializer_range": 0.2, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "tie_word_embeddings": False}
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)
            model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes, **ends))
            model.transformer.ln_f.bias[0], model.transformer.ln_f.weight[0] = 1.0, 0.0
            model.lm_head.weight[:, 0] = -100.0
            model.lm_head.weight[tokenizer.convert_tokens_to_ids(["a", "b", "c"]), 0] = 0.0
    tokenizer.save_pretrained(folder)
    model.generation_config.repetition_penalty = 5.0  # a habit that is none of ours
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save(tmp_path_factory.mktemp("language_model") / "model")


class Blind:
    """Writes nothing."""

    def __init__(self, env):
        self.eos = env.get_attr("task")[0].eos_id

    def predict(self, observation, state=None, episode_start=None, deterministic=False):
        return np.full(len(observation), self.eos), None


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
@pytest.mark.parametrize("template", [TEMPLATE, None], ids=["chat", "plain"])
def test_it_is_what_generate_writes_on_the_agents_episodes(tmp_path, template, kind):
    folder = save(tmp_path / "model", template, kind=kind)
    assert is_language_model(folder)
    n = 1 if kind == "gpt2" else 6
    result, scores = validate_language_model(folder, ENV, ENV_ARGS, episodes=70, max_new_tokens=n, device="cpu")
    env = make_vec_env(ENV, 64, seed=0, env_kwargs=ENV_ARGS)
    assert result.prompts == evaluate(Blind(env), env, 70, seed=10_000).prompts  # 64 rows, of which six play twice
    assert scores.episodes == 70 and scores.mean == result.returns.mean() and scores.normalised is None
    assert kind == "llama" or 0 < scores.mean < 1

    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    steps = TextSteps(ENV, **ENV_ARGS)
    for seed, row in ((10_000, 0), (10_037, 37)):
        content = f"{steps.instructions}\n\n{steps.reset(seed=seed)}"
        text = f"{content}\n"
        if template:
            turn = [{"role": "user", "content": content}]
            text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        written = model.generate(**ids, max_new_tokens=n, do_sample=False, repetition_penalty=1.0)
        message = tokenizer.decode(written[0, ids.input_ids.shape[1] :], skip_special_tokens=True)
        _, reward, *_, info = steps.step(message)
        assert (result.returns[row], result.lengths[row]) == (reward, len(info["action_tokens"]))
        assert result.completions[row].startswith(message.replace("\n", "⏎"))


def test_greedy_and_sampled_are_repeatable_and_leave_the_global_stream_alone(folder):
    def texts(**options):
        state = torch.random.get_rng_state()
        result, _ = validate_language_model(folder, ENV, episodes=6, max_new_tokens=8, device="cpu", **options)
        assert torch.equal(torch.random.get_rng_state(), state)
        return result.completions

    greedy, sampled = texts(), texts(temperature=1.0)
    assert texts() == greedy and texts(temperature=1.0) == sampled != greedy
    assert texts(temperature=1.0, seed=3) != sampled


def test_the_command_and_its_file(folder, textgym, tmp_path):
    file = tmp_path / "scores.json"
    code, out, err = textgym(
        *("validate", folder, "--env", "TextGen/Hangman-v0", "--episodes", 5, "--temperature", 1.5, "--json", file),
        *("--max-new-tokens", 120, "--max-message-tokens", 2, "--device", "cpu"),
    )
    assert code == 0 and "rror" not in err, (out, err)  # transformers draws how far the loading is
    assert "on TextGen/Hangman-v0, sampled at temperature 1.5, seeds from 10000; " in out and "normalised" in out
    content = json.loads(file.read_text())
    options = {"episodes": 5, "temperature": 1.5, "max_new_tokens": 120, "max_message_tokens": 2, "device": "cpu"}
    result, scores = validate_language_model(folder, "TextGen/Hangman-v0", **options)
    assert content == json.loads(json.dumps(as_json(scores, result))) and len(content["results"]) == 5


def test_what_is_no_language_model(folder, textgym, tmp_path):
    def fails(message, *arguments):
        code, out, err = textgym("validate", *arguments, "--device", "cpu")
        assert code == 2 and message in err.splitlines()[-1] and "Traceback" not in err, (out, err)

    env = ("--env", ENV)
    fails("--env must name the environment", folder)
    fails("--episodes must be at least 1, got 0", folder, *env, "--episodes", 0)
    fails("--max-new-tokens must be at least 1, got 0", folder, *env, "--max-new-tokens", 0)
    fails("--model is for steered language models", folder, *env, "--model", folder)
    fails("--temperature must be a finite number of at least 0, got -1", folder, *env, "--temperature", -1)
    fails("context of 1024 tokens is too short for a prompt of", folder, *env, "--max-new-tokens", 1000)
    bare = shutil.copytree(folder, tmp_path / "bare")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (bare / name).unlink(missing_ok=True)
    fails("must hold the language model's tokenizer, too", bare, *env)
    fails("must hold a causal language model, such as LlamaForCausalLM, got", save_bert(tmp_path / "bert"), *env)
    broken = shutil.copytree(folder, tmp_path / "broken")
    (broken / "model.safetensors").write_bytes(b"nothing")
    fails("can't be read", broken, *env)
    (tmp_path / "empty").mkdir()
    fails("RUN_OR_MODEL must be a run folder", tmp_path / "empty", *env)
    fails("--temperature is for language models", tmp_path / "empty", *env, "--temperature", 1)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/model"}')
    fails("must be a folder with a language model (nothing is downloaded), got 'someone/model'", adapter, *env)
    (adapter / "adapter_config.json").write_text("{}")
    fails("can't be read", adapter, *env)


def test_a_model_of_ours_is_none(tmp_path):
    (tmp_path / "config.json").write_text('{"format": 1, "policy": "PerformerPolicy"}')
    assert not is_language_model(tmp_path) and not is_language_model(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text("[" * 100_000)
    assert not is_language_model(tmp_path)


def test_an_adapter(folder, tmp_path):
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))
    wrapped.save_pretrained(tmp_path / "adapter")
    wrapped.merge_and_unload().save_pretrained(tmp_path / "merged")
    byte_tokenizer().save_pretrained(tmp_path / "merged")
    options = {"episodes": 4, "max_new_tokens": 16, "device": "cpu"}
    assert is_language_model(tmp_path / "adapter")
    adapted, _ = validate_language_model(tmp_path / "adapter", ENV, **options)
    assert adapted.completions == validate_language_model(tmp_path / "merged", ENV, **options)[0].completions
    assert adapted.completions != validate_language_model(folder, ENV, **options)[0].completions


@pytest.mark.slow
def test_what_grpo_has_learned_is_there(tmp_path):
    """One letter is worth something, the model learns to write it, and the saved folder earns what training earned."""
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    from transformers import AutoModelForCausalLM

    from textgym.adapters import TokenRollouts
    from textgym.tokenizers import CharacterTokenizer

    def good(prompts, completions, **columns):
        return [text.count("a") / 4 for text in completions]

    good.range = (0.0, 1.0)
    arguments = {"prompts": ["one", "two"], "reward": good, "max_new_tokens": 4}
    arguments["tokenizer"] = CharacterTokenizer("abcd", "onetw")
    rollouts = TokenRollouts("TextGen-v0", **arguments)
    torch.manual_seed(0)
    trainer = trl.GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(save(tmp_path / "before", kind="gpt2")),
        processing_class=byte_tokenizer(),
        args=trl.GRPOConfig(
            output_dir=str(tmp_path / "trained"),
            **{"per_device_train_batch_size": 32, "num_generations": 8, "max_completion_length": 4, "max_steps": 8},
            **{"use_cpu": True, "bf16": False, "report_to": [], "save_strategy": "no", "learning_rate": 0.02},
            **{"logging_steps": 1, "lr_scheduler_type": "constant"},
        ),
        train_dataset=rollouts.dataset(64),
        rollout_func=rollouts,
        reward_funcs=rollouts.episode_return,
    )
    trainer.train()
    rewards = [entry["reward"] for entry in trainer.state.log_history if "reward" in entry]
    assert rewards[-1] > rewards[0] + 0.3
    trainer.save_model()
    options = {"episodes": 32, "max_new_tokens": 4, "device": "cpu", "temperature": 1.0}

    def mean_of(name):
        assert is_language_model(tmp_path / name)
        return validate_language_model(tmp_path / name, "TextGen-v0", arguments, **options)[1].mean

    assert mean_of("trained") == pytest.approx(rewards[-1], abs=0.15)
    assert mean_of("before") == pytest.approx(rewards[0], abs=0.15)
