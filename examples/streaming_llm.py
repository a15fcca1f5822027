"""The attention sink of a language model: mean logits over many short sentences, some layers.

    python examples/streaming_llm.py MODEL -o figure.svg

MODEL is the name or folder of a causal language model of Hugging Face. This draws figure 2 of Xiao
et al., "Efficient Streaming Language Models with Attention Sinks" (ICLR 2024), for any such model.
Where it has a sink, heads of the later layers match the first token, whatever the sentence.
"""

import argparse
import sys
from itertools import product

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import headgrid

LENGTH = 16
PARTS = """
The old fisherman / A young teacher / My tired neighbour / Her little brother
walked along the river / waited at the station / looked through the window / sat under the trees
in the early morning / during the long storm / after the last lesson / before the evening meal
and thought of the sea / while some birds sang nearby / until all had gone home / as they often do
""".strip().splitlines()


def make_sentences(name, vocabulary):
    """Return 256 sentences of 16 tokens; random tokens where the model has no tokenizer."""
    texts = [" ".join(parts) for parts in product(*(part.split(" / ") for part in PARTS))]
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError):
        print(f"{name} has no tokenizer: the tokens are random", file=sys.stderr)
        return torch.randint(vocabulary, (len(texts), LENGTH))
    return tokenizer(texts, truncation=True, max_length=LENGTH, return_tensors="pt").input_ids


def choose_layers(count):
    """Return the first three layers, and four more up to the last at equal steps."""
    later = (2 + (count - 3) * n // 4 for n in (1, 2, 3, 4))
    return sorted({0, 1, 2, *later} & {*range(count)})


@torch.no_grad()
def record_means(model, sentences, layers):
    """Return a capture of each layer, the mean over the sentences."""
    with headgrid.record(model, tokens_per_frame=1, batch="mean", layers=layers) as recording:
        model.base_model(sentences)  # without the logits of the words to come
    return [
        headgrid.Capture.from_array(
            capture.full_frame_attention,
            layer=capture.layer_index,
            causal=True,
            query_name="Token",
            key_name="Token",
        )
        for capture in recording.captures
    ]


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", help="name or folder of a causal language model")
    parser.add_argument("-o", "--output", default="streaming_llm.svg", help="the figure to write")
    parser.add_argument("--head", type=int, default=0, help="which head of each layer")
    options = parser.parse_args()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(options.model).eval()
    config = model.config.get_text_config()
    sentences = make_sentences(options.model, config.vocab_size)
    layers = choose_layers(config.num_hidden_layers)
    captures = record_means(model, sentences, layers)
    title = f"Mean logits over {len(sentences)} sentences of {LENGTH} tokens"
    figure = headgrid.pick(captures, [f"{n}:{options.head}" for n in layers], title=title)
    print(headgrid.save(figure, options.output))


if __name__ == "__main__":
    main()
