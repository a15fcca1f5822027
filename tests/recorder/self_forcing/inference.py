"""Generate a video for every line of a file."""

import argparse
import os
from pathlib import Path

import torch
from pipeline import CausalInferencePipeline

parser = argparse.ArgumentParser()
for name in ("--config_path", "--checkpoint_path", "--data_path"):
    parser.add_argument(name)
parser.add_argument("--use_ema", action="store_true")
parser.add_argument("--output_folder")
parser.add_argument("--num_output_frames", type=int, default=12)
parser.add_argument("--local_attn_size", type=int, default=-1)
parser.add_argument("--sink_size", type=int, default=0)
parser.add_argument("--guidance", action="store_true")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

torch.manual_seed(args.seed)
torch.set_grad_enabled(False)
pipeline = CausalInferencePipeline(
    window=args.local_attn_size, sink=args.sink_size, guidance=args.guidance
)
prompts = Path(args.data_path).read_text().splitlines()
Path(args.output_folder).mkdir(parents=True, exist_ok=True)
os.chdir(args.output_folder)

for index, prompt in enumerate(prompts):
    noise = torch.randn([1, args.num_output_frames, 4, 8, 12])
    video = pipeline.inference(noise=noise, text_prompts=[prompt])
    torch.save(video, f"{index}.pt")
print("videos are written")
