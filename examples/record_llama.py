"""Record a Llama-type model while it generates, lines as frames: `record_llama.py DIR`.

Tiny and with random weights; grouped-query attention, a cache that grows, and
one token a step. With real weights only the first function changes.
"""

import argparse
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import headgrid

PROMPT_TOKENS, NEW_TOKENS, LINE = 18, 12, 6


def make_model():
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_hidden_layers=3,
        intermediate_size=64,
        vocab_size=100,
    )
    return LlamaForCausalLM(config).eval()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the captures go")
    folder = parser.parse_args().directory
    model = make_model()
    prompt = torch.randint(1, 100, (1, PROMPT_TOKENS))
    # The last token is made but never fed back, so no frame of it exists.
    tokens = PROMPT_TOKENS + NEW_TOKENS - 1
    ends = [*range(0, tokens, LINE), tokens]
    with headgrid.record(model, segments=ends) as recording:
        model.generate(
            prompt, max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False
        )
    for path in recording.save(folder):
        print(path)
