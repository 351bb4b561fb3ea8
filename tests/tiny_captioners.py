"""Makes small models that describe pictures, with random weights, laid out as published ones are. Needs torch."""

from __future__ import annotations

import json
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers

#: Words that they know; what they make of them is chance, but the same for the same picture.
WORDS = ("a", "red", "green", "blue", "dot", "cat", "sofa", "on", "black", "left", "right", "big", "small", "with")
#: Weights so large that pictures make a difference.
_SPREAD = 0.4


def make_blip(folder: Path, seed: int = 0) -> Path:
    """Two layers each, width 32, pictures of 32 pixels; its tokenizer is BERT's."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]  # as of BLIP's: it does not know what it begins with
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 64})
    )
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "BlipImageProcessor", "size": {"height": 32, "width": 32}, "resample": 3,
                "do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
                "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28], "processor_class": "BlipProcessor",
            }
        )
    )  # fmt: skip
    config = transformers.BlipConfig(
        text_config={
            "vocab_size": len(words) + 1, "hidden_size": 32, "encoder_hidden_size": 32, "intermediate_size": 64,
            "projection_dim": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64,
            "bos_token_id": len(words), "eos_token_id": 2, "sep_token_id": 3, "pad_token_id": 0,
        },
        vision_config={
            "hidden_size": 32, "intermediate_size": 64, "projection_dim": 32, "num_hidden_layers": 2,
            "num_attention_heads": 4, "image_size": 32, "patch_size": 8,
        },
        projection_dim=32, image_text_hidden_size=32,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = transformers.BlipForConditionalGeneration(config)
    _spread(model)
    model.save_pretrained(folder)
    return folder


def make_encoder_decoder(folder: Path, seed: int = 0) -> Path:
    """A ViT whose pictures a GPT-2 describes, with the older file for how pictures are prepared."""
    words = ["<|endoftext|>", *WORDS]
    tokenizer = Tokenizer(models.WordLevel({word: number for number, word in enumerate(words)}, "<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|endoftext|>", bos_token="<|endoftext|>"
    ).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 2, "do_resize": True,
                "do_normalize": True, "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5],
            }
        )
    )  # fmt: skip
    encoder = transformers.ViTConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
    )
    decoder = transformers.GPT2Config(
        n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=len(words), is_decoder=True,
        add_cross_attention=True, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    config = transformers.VisionEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    torch.manual_seed(seed)
    model = transformers.VisionEncoderDecoderModel(config)
    _spread(model)
    model.generation_config.decoder_start_token_id = 0
    model.generation_config.pad_token_id = 0
    model.generation_config.eos_token_id = 0
    model.save_pretrained(folder)
    return folder


def _spread(model: torch.nn.Module) -> None:
    with torch.no_grad():
        for name, one in model.named_parameters():
            if one.dim() > 1 and "position" not in name:
                one.normal_(0, _SPREAD)
