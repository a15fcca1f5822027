"""Generator, text encoder and VAE, and the loop that makes a video block by block."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn
from wan.modules.causal_model import CausalWanModel

STEPS = (1000, 750, 500, 250)


class EncoderLayer(nn.Module):
    def forward(self, x):
        q = x.unflatten(2, (2, -1)).transpose(1, 2)
        return x + F.scaled_dot_product_attention(q, q, q).transpose(1, 2).flatten(2)


class WanTextEncoder(nn.Module):
    def __init__(self, layers=4):
        super().__init__()
        self.layers = nn.Sequential(*(EncoderLayer() for _ in range(layers)))

    def forward(self, text_prompts):
        seeds = [sum(map(ord, text)) for text in text_prompts]
        rows = [torch.randn(48, 16, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return {"prompt_embeds": self.layers(torch.stack(rows))}


class AttentionBlock(nn.Module):
    def forward(self, x):
        q = x.flatten(2).transpose(1, 2)[:, None]
        return x + F.scaled_dot_product_attention(q, q, q)[:, 0].transpose(1, 2).view_as(x)


class WanVAEWrapper(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Sequential(AttentionBlock())

    def decode_to_pixel(self, latent):
        return self.decoder(latent.flatten(0, 1)).unflatten(0, latent.shape[:2])


class WanDiffusionWrapper(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.model = CausalWanModel(**options)

    def forward(
        self, noisy_image_or_video, conditional_dict, timestep, kv_cache=None, current_start=None
    ):
        flow = self.model(
            noisy_image_or_video.permute(0, 2, 1, 3, 4), t=timestep,
            context=conditional_dict["prompt_embeds"], seq_len=32760, kv_cache=kv_cache,
            current_start=current_start,
        )  # fmt: skip
        return noisy_image_or_video - 0.1 * flow.permute(0, 2, 1, 3, 4)


class CausalInferencePipeline(nn.Module):
    def __init__(self, num_frame_per_block=3, guidance=False, **options):
        super().__init__()
        self.generator = WanDiffusionWrapper(**options)
        self.text_encoder, self.vae = WanTextEncoder(), WanVAEWrapper()
        self.num_frame_per_block, self.guidance = num_frame_per_block, guidance
        self.frame_seq_length = 24

    def inference(self, noise, text_prompts):
        texts = [text_prompts] + [[""] * len(text_prompts)] * self.guidance
        conditions = [self.text_encoder(text_prompts=text) for text in texts]
        layers = len(self.generator.model.blocks)
        caches = [[{"k": {}, "v": {}, "frames": []} for _ in range(layers)] for _ in conditions]
        output, start = [], 0
        for latents in noise.split(self.num_frame_per_block, dim=1):
            for step in (*STEPS, 0):
                timestep = torch.full(latents.shape[:2], step)
                moved = [
                    self.generator(
                        noisy_image_or_video=latents, conditional_dict=condition,
                        timestep=timestep, kv_cache=cache,
                        current_start=start * self.frame_seq_length,
                    )
                    for condition, cache in zip(conditions, caches, strict=True)
                ]  # fmt: skip
                latents = latents if step == 0 else sum(moved) / len(moved)
            output.append(latents)
            start += latents.shape[1]
        return self.vae.decode_to_pixel(torch.cat(output, dim=1))
