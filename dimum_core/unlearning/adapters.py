"""Which weights of a network train: all, those of some name, or low-rank updates through peft."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import DimumError, TrainingError
from ..models.low_rank import has_attached

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def train_only(unet: nn.Module, part: str) -> None:
    """Freeze every weight whose name does not have `part` in it; what is frozen already stays so."""
    named = [(name, p) for name, p in unet.named_parameters() if p.requires_grad]
    for name, parameter in named:
        parameter.requires_grad_(part in name)
    if not any(part in name for name, _ in named):
        raise TrainingError(f"This method trains the weights with {part!r} in their names, and this network has none of them.")


def has_attention(unet: nn.Module) -> bool:
    """Whether there is anything that low-rank updates can be added to."""
    return any(name.endswith(ATTENTION) for name, _ in unet.named_modules())


def add_lora(unet: nn.Module, rank: int, seed: int) -> None:
    """Freeze the network, and add low-rank updates to its attention that are zero at first (Hu et al. 2021, arXiv 2106.09685)."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise DimumError("lora_rank needs peft: pip install -e '.[stable-diffusion]'.") from error
    if not has_attention(unet):
        raise TrainingError("Low-rank updates are of attention's matrices, and this network has none: leave lora_rank at 0.")
    unet.requires_grad_(False)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        inject_adapter_in_model(LoraConfig(r=rank, lora_alpha=rank, target_modules=list(ATTENTION)), unet)
    for parameter in unet.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # peft makes them like the weights, and bf16 would lose small steps


def merged(unet: nn.Module) -> nn.Module:
    """The network with its low-rank updates added to its weights, and every weight free to train again."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(unet.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            if not layer.disable_adapters:  # what is switched off takes no part in what the network draws
                layer.merge()
            unet.set_submodule(name, layer.get_base_layer())
    vars(unet).pop("peft_config", None)  # peft's note, which would go with every copy
    return unet.requires_grad_(True)


def weights_of(network: nn.Module) -> Tensor:
    """All weights as one vector, float32, on the CPU, attached low-rank updates added. Nothing is held twice meanwhile."""
    layers = {}
    if has_attached(network):
        from peft.tuners.tuners_utils import BaseTunerLayer

        attached = {name: part for name, part in network.named_modules() if isinstance(part, BaseTunerLayer)}
        layers = {f"{name}.base_layer.weight": part for name, part in attached.items() if not part.disable_adapters}
    named = [(name, weight.detach()) for name, weight in network.named_parameters() if ".lora_" not in name]
    sizes = [weight.numel() for _, weight in named]
    vector = torch.empty(sum(sizes))
    for (name, weight), place in zip(named, vector.split(sizes), strict=True):
        updates = [layers[name].get_delta_weight(adapter) for adapter in layers[name].active_adapters] if name in layers else []
        place.copy_(sum(updates, start=weight).detach().flatten())
    return vector
