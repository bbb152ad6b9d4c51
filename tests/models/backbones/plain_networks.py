"""Networks of other programs, computed plainly from the tensors that they save, by the names that they give them."""

import torch
import torch.nn.functional as F

State = dict[str, torch.Tensor]

# --- EfficientNet-Lite0: (expand, channels, repeats, stride, kernel) of its stages
LITE0 = (
    (1, 16, 1, 1, 3),
    (6, 24, 2, 2, 3),
    (6, 40, 2, 2, 5),
    (6, 80, 3, 2, 3),
    (6, 112, 3, 1, 5),
    (6, 192, 4, 2, 5),
    (6, 320, 1, 1, 3),
)


def efficientnet_lite0_shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, channels: int) -> None:
        shapes.update({f"{name}.{leaf}": (channels,) for leaf in ("weight", "bias", "running_mean", "running_var")})

    shapes["_conv_stem.weight"] = (32, 3, 3, 3)
    norm("_bn0", 32)
    number, before = 0, 32
    for expand, channels, repeats, _, kernel in LITE0:
        for _ in range(repeats):
            block, inner = f"_blocks.{number}", before * expand
            if expand > 1:
                shapes[f"{block}._expand_conv.weight"] = (inner, before, 1, 1)
                norm(f"{block}._bn0", inner)
            shapes[f"{block}._depthwise_conv.weight"] = (inner, 1, kernel, kernel)
            norm(f"{block}._bn1", inner)
            shapes[f"{block}._project_conv.weight"] = (channels, inner, 1, 1)
            norm(f"{block}._bn2", channels)
            number, before = number + 1, channels
    shapes["_conv_head.weight"] = (1280, 320, 1, 1)
    norm("_bn1", 1280)
    shapes |= {"_fc.weight": (1000, 1280), "_fc.bias": (1000,)}
    return shapes


def efficientnet_lite0(state: State, images: torch.Tensor) -> torch.Tensor:  # [B, 3, S, S] -> [B, 1280, h, w]
    """Features in front of the pooling. Convolutions pad as TensorFlow's "SAME"."""

    def convolve(x: torch.Tensor, name: str, stride: int = 1, groups: int = 1) -> torch.Tensor:
        weight = state[f"{name}.weight"]
        kernel = weight.shape[-1]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + kernel - x.shape[-1], 0)
        x = F.pad(x, [total // 2, total - total // 2] * 2)
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        mean, variance = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        return F.batch_norm(x, mean, variance, state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-3)

    x = F.relu6(norm(convolve(images, "_conv_stem", stride=2), "_bn0"))
    number = 0
    for expand, _, repeats, first_stride, _ in LITE0:
        for repeat in range(repeats):
            block, shortcut = f"_blocks.{number}", x
            if expand > 1:
                x = F.relu6(norm(convolve(x, f"{block}._expand_conv"), f"{block}._bn0"))
            stride = first_stride if repeat == 0 else 1
            x = convolve(x, f"{block}._depthwise_conv", stride, groups=x.shape[1])
            x = F.relu6(norm(x, f"{block}._bn1"))
            x = norm(convolve(x, f"{block}._project_conv"), f"{block}._bn2")
            x = x + shortcut if repeat else x
            number += 1
    return F.relu6(norm(convolve(x, "_conv_head"), "_bn1"))


# --- DINOv2 under the names of Hugging Face's transformers


def huggingface_dinov2_shapes(
    width: int, depth: int, grid: int, patch: int = 14, *, registers: int = 0, gated: int = 0
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of all tensors; `gated`: hidden channels of a SwiGLU, where there is one."""
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.cls_token": (1, 1, width),
        "embeddings.mask_token": (1, width),
        "embeddings.position_embeddings": (1, grid**2 + 1, width),
        "embeddings.patch_embeddings.projection.weight": (width, 3, patch, patch),
        "embeddings.patch_embeddings.projection.bias": (width,),
        "layernorm.weight": (width,),
        "layernorm.bias": (width,),
    }
    if registers:
        shapes["embeddings.register_tokens"] = (1, registers, width)
    for number in range(depth):
        layer = f"encoder.layer.{number}"
        linear = {f"attention.attention.{name}": (width, width) for name in ("query", "key", "value")}
        linear["attention.output.dense"] = (width, width)
        linear |= (
            {"mlp.weights_in": (2 * gated, width), "mlp.weights_out": (width, gated)}
            if gated
            else {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
        )
        for name, shape in linear.items():
            shapes[f"{layer}.{name}.weight"], shapes[f"{layer}.{name}.bias"] = shape, shape[:1]
        for name in ("norm1", "norm2"):
            shapes[f"{layer}.{name}.weight"] = shapes[f"{layer}.{name}.bias"] = (width,)
        shapes[f"{layer}.layer_scale1.lambda1"] = shapes[f"{layer}.layer_scale2.lambda1"] = (width,)
    return shapes


def huggingface_dinov2(state: State, images: torch.Tensor, heads: int) -> torch.Tensor:  # -> [B, D, h, w]
    """The last hidden state of the patches, for images as large as the position embeddings are for."""
    width = state["layernorm.weight"].shape[0]

    def linear(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])

    def norm(x: torch.Tensor, name: str) -> torch.Tensor:
        return F.layer_norm(x, (width,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-6)

    def split(x: torch.Tensor) -> torch.Tensor:  # [B, N, D] -> [B, heads, N, D / heads]
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)

    projection = "embeddings.patch_embeddings.projection"
    weight = state[f"{projection}.weight"]
    patches = F.conv2d(images, weight, state[f"{projection}.bias"], stride=weight.shape[-1])
    size = patches.shape[-2:]
    x = torch.cat([state["embeddings.cls_token"].expand(len(images), -1, -1), patches.flatten(2).mT], dim=1)
    x = x + state["embeddings.position_embeddings"]
    if "embeddings.register_tokens" in state:
        registers = state["embeddings.register_tokens"].expand(len(images), -1, -1)
        x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
    for number in range(sum(name.endswith("layer_scale1.lambda1") for name in state)):
        layer = f"encoder.layer.{number}"
        y = norm(x, f"{layer}.norm1")
        query, key, value = (
            split(linear(y, f"{layer}.attention.attention.{part}")) for part in ("query", "key", "value")
        )
        attention = torch.softmax(query @ key.mT / (width // heads) ** 0.5, dim=-1)
        y = (attention @ value).transpose(1, 2).flatten(2)
        x = x + state[f"{layer}.layer_scale1.lambda1"] * linear(y, f"{layer}.attention.output.dense")
        y = norm(x, f"{layer}.norm2")
        if f"{layer}.mlp.fc1.weight" in state:
            y = linear(F.gelu(linear(y, f"{layer}.mlp.fc1")), f"{layer}.mlp.fc2")
        else:
            gate, hidden = linear(y, f"{layer}.mlp.weights_in").chunk(2, dim=-1)
            y = linear(F.silu(gate) * hidden, f"{layer}.mlp.weights_out")
        x = x + state[f"{layer}.layer_scale2.lambda1"] * y
    tokens = norm(x, "layernorm")[:, -size.numel() :]
    return tokens.mT.unflatten(-1, size)


def made_up(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    """Random tensors of these shapes, such that a deep network neither dies nor explodes; variances are positive."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, shape in shapes.items():
        x = torch.randn(shape, generator=generator)
        if name.endswith(("running_var", "lambda1")):
            state[name] = 0.5 + x.abs()
        elif len(shape) == 1:
            state[name] = 0.1 * x if name.endswith(("bias", "running_mean")) else 1 + 0.1 * x
        else:
            state[name] = x / x[0].numel() ** 0.5
    return state
