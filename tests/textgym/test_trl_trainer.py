"""TRL's own GRPOTrainer on a tiny model that knows how to call the tool, and nothing else. Needs the extra ``trl``."""

import pytest

pytest.importorskip("trl", reason="TRL is not installed")

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils import get_json_schema
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_chat_template

from textgym.adapters import environment_factory, seed_dataset

CALL, END = '<tool_call>\n{"name": "write", "arguments": {"text": "', '"}}\n</tool_call>'
GROUP = 8


def tiny_model(texts):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, BpeTrainer(vocab_size=600, initial_alphabet=alphabet, show_progress=False))
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|pad|>",
        additional_special_tokens=["<|im_start|>"],
    )
    wrapped.add_tokens([CALL, END])
    wrapped.chat_template = qwen3_chat_template
    config = Qwen3Config(
        vocab_size=len(wrapped),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        eos_token_id=wrapped.eos_token_id,
        pad_token_id=wrapped.pad_token_id,
    )
    return wrapped, Qwen3ForCausalLM(config)


def teach_the_call(model, tokenizer, environment, rows, texts, steps):
    """Behaviour cloning of calls with random texts; afterwards the end of the conversation."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    generator, played = np.random.default_rng(0), environment()
    tools = [get_json_schema(played.write)]
    for _ in range(steps):
        row = rows[int(generator.integers(len(rows)))]
        content = row["prompt"][0]["content"] + played.reset(**row)
        prompt = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}],
            tools=tools,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
        )
        answers = [tokenizer.encode(f"{CALL}{generator.choice(texts)}{END}<|im_end|>") for _ in range(4)]
        length = max(map(len, answers))
        ids = torch.tensor(
            [prompt + one + [tokenizer.pad_token_id] * (length - len(one)) for one in answers],
        )
        labels = torch.tensor([[-100] * len(prompt) + one + [-100] * (length - len(one)) for one in answers])
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def train(tmp_path, environment, texts, steps, calls, **config):
    torch.manual_seed(0)
    tokenizer, model = tiny_model([environment.instructions, environment.write.__doc__, *texts] * 3)
    rows = seed_dataset(environment, 32)
    teach_the_call(model, tokenizer, environment, rows, texts, 100)
    arguments = GRPOConfig(
        output_dir=str(tmp_path),
        per_device_train_batch_size=4 * GROUP,
        num_generations=GROUP,
        max_steps=steps,
        max_tool_calling_iterations=calls,
        use_cpu=True,
        bf16=False,
        report_to=[],
        logging_steps=1,
        save_strategy="no",
        lr_scheduler_type="constant",
        **config,
    )
    trainer = GRPOTrainer(
        model=model,
        processing_class=tokenizer,
        args=arguments,
        train_dataset=rows,
        environment_factory=environment,
    )
    trainer.train()
    for start in range(0, len(trainer.environments), GROUP):
        group = trainer.environments[start : start + GROUP]
        prompts = {tuple(one.steps.info["tokens"][: (~one.steps.info["is_action"]).argmin() or None]) for one in group}
        assert len(prompts) == 1
    return [entry for entry in trainer.state.log_history if "reward" in entry]


@pytest.mark.slow
def test_the_mean_reward_rises_in_english(tmp_path):
    def good(prompts, completions, **columns):
        return [text.split().count("good") / 3 for text in completions]

    good.range = (0.0, 1.0)
    environment = environment_factory("TextGen-v0", prompts=["the food", "my day"], reward=good, max_new_tokens=3)
    texts = [
        f"{one} {two} {three}" for one in ("good", "bad", "the") for two in ("good", "bad") for three in ("a", "good")
    ]
    log = train(tmp_path, environment, texts, steps=16, calls=1, max_completion_length=48, learning_rate=4e-3)
    rewards = [entry["reward"] for entry in log]
    assert {entry["tools/failure_frequency"] for entry in log} == {0.0}
    assert np.mean(rewards[-4:]) > np.mean(rewards[:4]) + 0.1
    assert f"rewards/{environment.__name__}/mean" in log[0]


@pytest.mark.slow
@pytest.mark.parametrize("env_id", ["TextGen/Hangman-v0", "TextGen/Reverse-v0"])
def test_a_game_and_an_answer_run(tmp_path, env_id):
    game = "Hangman" in env_id
    texts = list("aeiou") if game else ["a b c d e f", "l e m b m j"]
    log = train(tmp_path, environment_factory(env_id), texts, 3, calls=2, max_completion_length=96, learning_rate=1e-4)
    assert len(log) == 3 and all(entry["tools/call_frequency"] > 0 for entry in log)
    assert all(0.0 <= entry["reward"] <= 1.0 and entry["tools/failure_frequency"] == 0.0 for entry in log)
