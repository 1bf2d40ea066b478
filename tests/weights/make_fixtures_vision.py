"""Writes fixtures/vision.npz: what other libraries' networks give for the weights of `filled`.

    python tests/weights/make_fixtures_vision.py          # torch, torchvision, timm, transformers
    python tests/weights/make_fixtures_vision.py SIMCLR   # TensorFlow; google-research/simclr there

Made with torch 2.13.0, torchvision 0.28.0, timm 1.0.31, transformers 5.23.0, tensorflow 2.21.0 with
tf_keras. For each network, the shapes of its tensors as text, its input's side, its features, and
the mean of each stage over pixels or tokens.
"""

import json
import os
import sys
import tempfile
import types
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from filled import fill, images

FILE = Path(__file__).parent / "fixtures" / "vision.npz"


def keep(name, shapes, side, features, stages):
    old = dict(np.load(FILE)) if FILE.exists() else {}
    old = {key: array for key, array in old.items() if not key.startswith(f"{name}:")}
    old[f"{name}:shapes"] = np.array(json.dumps({n: list(shape) for n, shape in shapes.items()}))
    old[f"{name}:side"], old[f"{name}:features"] = np.array(side), np.asarray(features)
    for i, stage in enumerate(stages):
        old[f"{name}:stage{i}"] = np.asarray(stage)
    np.savez_compressed(FILE, **old)
    print(name, np.shape(features), [np.shape(s) for s in stages])


def torch_networks():
    import torch

    # torchvision's compiled part may be for another build of torch; nothing here needs it.
    sys.modules["torchvision._meta_registrations"] = types.ModuleType("")
    import timm
    import torchvision
    from timm.models.vision_transformer import VisionTransformer

    def prepare(model):
        model.eval().requires_grad_(False)
        state = {n: t for n, t in model.state_dict().items() if t.is_floating_point()}
        for name, tensor in state.items():
            tensor.copy_(torch.tensor(fill(name, tuple(tensor.shape))))
        return {name: tuple(tensor.shape) for name, tensor in state.items()}

    def run(name, model, side, parts, features=None):
        shapes, kept = prepare(model), []
        for part in parts:
            part.register_forward_hook(lambda module, inputs, output: kept.append(output))
        out = model(torch.tensor(images(side)).permute(0, 3, 1, 2))
        out = out if features is None else features(out)
        stages = [k.mean((2, 3)) if k.ndim == 4 else k.mean(1) for k in kept]
        keep(name, shapes, side, out, stages)

    net = torchvision.models.resnet18()
    net.fc = torch.nn.Identity()
    run("torchvision-18", net, 64, [net.layer1, net.layer2, net.layer3, net.layer4])
    for name, fields in {
        "timm-vit": {},
        "timm-vit-mean": {"class_token": False, "global_pool": "avg", "fc_norm": False},
        "timm-vit-registers": {"reg_tokens": 2, "no_embed_class": True, "init_values": 0.1},
    }.items():
        net = VisionTransformer(
            img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=1, num_classes=0, **fields
        )
        run(name, net, 32, list(net.blocks))
    table = torch.tensor(fill("table", (1, 5, 5, 8))).permute(0, 3, 1, 2)
    for side in (3, 5, 8):
        scale = (side + 0.1) / 5
        resized = torch.nn.functional.interpolate(
            table, scale_factor=(scale, scale), mode="bicubic", recompute_scale_factor=False
        )
        keep(f"dino-positions-{side}", {}, side, resized[0].permute(1, 2, 0), [])
    print(timm.__version__, torchvision.__version__, torch.__version__)


def transformers_networks():
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import ResNetConfig, ResNetModel, ViTConfig, ViTModel

    def run(name, model, side, **options):
        with tempfile.TemporaryDirectory() as folder:  # names in files differ from those in memory
            model.save_pretrained(folder)
            file = Path(folder) / "model.safetensors"
            saved = load_file(file)
            state = {n: t for n, t in saved.items() if t.is_floating_point()}
            new = {key: torch.tensor(fill(key, tuple(t.shape))) for key, t in state.items()}
            save_file(saved | new, file, {"format": "pt"})
            model = type(model).from_pretrained(folder, **options)
        model.eval().requires_grad_(False)
        out = model(torch.tensor(images(side)).permute(0, 3, 1, 2), output_hidden_states=True)
        stages = [h.mean((2, 3)) if h.ndim == 4 else h.mean(1) for h in out.hidden_states[1:]]
        features = out.pooler_output[:, :, 0, 0] if side == 64 else out.last_hidden_state[:, 0]
        keep(name, {n: tuple(t.shape) for n, t in state.items()}, side, features, stages)

    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[32, 64, 128, 256], depths=[3, 4, 6, 3],
        layer_type="bottleneck",
    )  # fmt: skip
    run("transformers-resnet", ResNetModel(config), 64)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        image_size=32, patch_size=8,
    )  # fmt: skip
    run("transformers-vit", ViTModel(config, add_pooling_layer=False), 32, add_pooling_layer=False)


def transformers_pairs():
    """CLIP and SigLIP: config.json, and both sides' features of images and of `texts`."""
    import torch
    from filled import texts
    from safetensors.torch import load_file, save_file
    from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

    sizes = {
        "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }  # fmt: skip
    text = sizes | {
        "vocab_size": 40, "max_position_embeddings": 10, "bos_token_id": 2, "eos_token_id": 38,
        "pad_token_id": 1,
    }  # fmt: skip
    vision = sizes | {"image_size": 16, "patch_size": 4}
    for name, config in {
        "clip": CLIPConfig(
            text_config=text | {"projection_dim": 12},
            vision_config=vision | {"projection_dim": 12},
            projection_dim=12,
        ),
        "siglip": SiglipConfig(text_config=text, vision_config=vision),
    }.items():
        kind = CLIPModel if name == "clip" else SiglipModel
        with tempfile.TemporaryDirectory() as folder:
            kind(config).save_pretrained(folder)
            saved = load_file(Path(folder) / "model.safetensors")
            new = {key: torch.tensor(fill(key, tuple(t.shape))) for key, t in saved.items()}
            save_file(new, Path(folder) / "model.safetensors", {"format": "pt"})
            written = (Path(folder) / "config.json").read_text()
            model = kind.from_pretrained(folder).eval().requires_grad_(False)
        out = model(
            pixel_values=torch.tensor(images(16)).permute(0, 3, 1, 2),
            input_ids=torch.tensor(texts()),
        )
        shapes = {key: tuple(tensor.shape) for key, tensor in saved.items()}
        keep(f"pair-{name}", shapes, 16, out.logits_per_image, [out.image_embeds, out.text_embeds])
        np.savez_compressed(
            FILE, **dict(np.load(FILE)), **{f"pair-{name}:config": np.array(written)}
        )


def google_networks(repository):
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    import tensorflow.compat.v1 as tf
    from absl import flags

    tf.disable_v2_behavior()
    flags.DEFINE_float("sk_ratio", 0.0, "")
    flags.DEFINE_float("se_ratio", 0.0, "")
    flags.DEFINE_boolean("global_bn", False, "")
    flags.DEFINE_float("batch_norm_decay", 0.9, "")
    flags.DEFINE_string("train_mode", "pretrain", "")
    flags.DEFINE_integer("fine_tune_after_block", -1, "")
    flags.FLAGS(["x"])
    source = (Path(repository) / "resnet.py").read_text()
    for channels in ("64", "128", "256", "512"):  # narrow networks, which need whole channels
        source = source.replace(
            f"{channels} * width_multiplier", f"int({channels} * width_multiplier)"
        )
    theirs = {}
    exec(compile(source, "resnet.py", "exec"), theirs)
    for name, sk_ratio, cifar in (
        ("v1", 0.0, False),
        ("v2", 0.0625, False),
        ("v2-cifar", 0.0625, True),
    ):
        flags.FLAGS.sk_ratio = sk_ratio
        with tf.Graph().as_default() as graph, tf.Session() as session:
            side = 28 if cifar else 60  # both come to odd sides
            x = tf.placeholder(tf.float32, [2, side, side, 3])
            with tf.variable_scope("base_model"):
                y = theirs["resnet_v1"](50, 0.125, cifar_stem=cifar)(x, is_training=False)
            shapes = {}
            for variable in tf.global_variables():
                key = variable.name.removesuffix(":0")
                shapes[key] = tuple(variable.shape.as_list())
                session.run(tf.assign(variable, fill(key, shapes[key])))
            maps = [graph.get_tensor_by_name(f"base_model/block_group{i}:0") for i in range(1, 5)]
            *stages, features = session.run([*maps, y], {x: images(side)})
            keep(f"google-{name}", shapes, side, features, [s.mean((1, 2)) for s in stages])


if len(sys.argv) > 1:
    google_networks(sys.argv[1])
else:
    torch_networks()
    transformers_networks()
    transformers_pairs()
