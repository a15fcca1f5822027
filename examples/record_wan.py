"""Record diffusers' Wan video transformer, tiny and with random weights: `record_wan.py DIR`.

With real weights it is the same: put the pipeline's call where the model's is.
"""

import argparse
from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

import headgrid

FRAMES, HEIGHT, WIDTH = 5, 6, 8


def make_model():
    torch.manual_seed(0)
    return WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=4,
        attention_head_dim=12,
        in_channels=4,
        out_channels=4,
        text_dim=16,
        freq_dim=32,
        ffn_dim=32,
        num_layers=3,
    ).eval()


@torch.no_grad()
def denoise(model, steps=2):
    latent = torch.randn(1, 4, FRAMES, HEIGHT, WIDTH)
    text = torch.randn(1, 7, 16)
    for step in range(steps, 0, -1):
        noise = model(latent, torch.tensor([500 * step]), text, return_dict=False)[0]
        latent = latent - 0.1 * noise
    return latent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", type=Path, help="where the captures go")
    folder = parser.parse_args().directory
    model = make_model()
    # A patch is 2 x 2, so a latent frame has (6 / 2) x (8 / 2) tokens. Every step sees all
    # frames; the last one is nearly clean.
    tokens = (HEIGHT // 2) * (WIDTH // 2)
    with headgrid.record(model, tokens_per_frame=tokens, forwards="last") as recording:
        denoise(model)
    for path in recording.save(folder):
        print(path)
