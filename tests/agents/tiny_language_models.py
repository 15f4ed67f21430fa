"""A language model, and an encoder, of a few thousand random weights, with their tokenizers, in folders."""

from pathlib import Path

WORDS = ("w0", "w1", "w2", "w3", "w4", "<eos>")
PROMPTS = ["w1 w2", "w0 w3", "w4"]


def save_llama(path: Path, seed: int = 0, words: tuple[str, ...] = WORDS, positions: int = 64) -> Path:
    """Write one whose last word ends texts."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    eos, end = words[-1], len(words) - 1
    tokenizer = Tokenizer(models.WordLevel({word: token for token, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=eos, bos_token=eos).save_pretrained(path)
    config = LlamaConfig(
        **{"vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
        **{"num_attention_heads": 2, "max_position_embeddings": positions, "initializer_range": 0.3},
        **{"bos_token_id": end, "eos_token_id": end},
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(path)
    return path


def save_bert(path: Path, seed: int = 0) -> Path:
    """Write one that reads the letters a to d."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcd"]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", cls_token="[CLS]").save_pretrained(path)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(path)
    return path
