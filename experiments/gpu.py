"""The papers' size on one GPU, in one command: what a laptop cannot train, unlearned, attacked and measured within minutes.

    make gpu                                                       # or
    python experiments/gpu.py --out build/gpu [--minutes 25] [--only STAGE ...] [--tiny]

Stages run in order of value, each within its share of the minutes; what a stage has finished is written at once and not computed
again, so that a run which is cut short keeps it and the next one goes on: a training to the steps that were chosen when it began,
the attacks with those that are missing. CIFAR-10 must be on the machine (DIMUM_DATA names its
folder), or is downloaded. In the end everything small enough to carry away lies in OUT/parts: one archive, in pieces of 15 MB
(`cat part-* | tar xz`).

--tiny makes every stage a matter of seconds, on a CPU as well: it tries the path, and its figures mean nothing. An OUT that was
begun with it is refused without it (OUT/settings.json says).
"""

from __future__ import annotations

import argparse
import json
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rows import check_settings, read_rows, write_rows

from dimum_core import evaluate, load_dataset, load_pipeline, relearn, unlearn
from dimum_core.files import write_atomically
from dimum_core.judges import load_judge
from dimum_core.judges.presets import JUDGE_PRESETS
from dimum_core.judges.training import train_judge
from dimum_core.models.cards import provenance, read_card
from dimum_core.models.checkpoints import save_checkpoint
from dimum_core.models.conditions import conditions_of
from dimum_core.models.denoiser import PRESETS, Preset
from dimum_core.models.history import History, remember
from dimum_core.pictures import image_grid, save_picture
from dimum_core.pretraining import DenoisingObjective, base_card, encoded_both_ways, history_after, new_model
from dimum_core.resuming import STATE_FILE
from dimum_core.training import TrainConfig, train

METHODS = (
    "random-label", "esd", "selective-amnesia", "salun", {"method": "dimum", "alternative": "class"},
    {"method": "dimum", "alternative": "generated"},
)
RATES, ATTACK_STEPS, TARGET, RETRAINED = (3e-5, 1e-4, 3e-4), 2_000, "automobile", "retrained"
PIECE = 15_000_000


@dataclass(frozen=True)
class Run:
    """out: results folder; tiny: seconds in place of minutes."""

    out: Path
    tiny: bool

    def data(self, without: str | None = None):
        data = load_dataset("cifar10-mini" if self.tiny else "cifar10")
        return data if without is None else data.without(without)


def fitted(preset: Preset, data, seconds: float, out: Path, tiny: bool, **settings) -> TrainConfig:
    """A schedule that ends when the seconds do, and decays to zero. Its steps are kept in `out`: with others, which another timing
    would choose, a training that was cut short could not go on."""
    config = replace(preset.training, decay=True, **settings | ({"batch_size": 4} if tiny else {}))
    chosen = out / "steps.json"
    if not chosen.exists():
        steps = 3 if tiny else steps_within(preset, data, config, seconds)
        write_atomically(chosen, json.dumps(steps).encode("utf-8"))
    return replace(config, steps=json.loads(chosen.read_text("utf-8")))


def steps_within(preset: Preset, data, config: TrainConfig, seconds: float) -> int:
    """How many steps the seconds allow: a few are timed, compilation aside."""
    def run(steps: int) -> float:
        started = time.monotonic()
        trained(preset, data, replace(config, steps=steps), None)
        return time.monotonic() - started

    run(3)
    each = max(1e-4, (run(60) - run(10)) / 50)
    return max(100, int(seconds / each))


def trained(preset: Preset, data, config: TrainConfig, out: Path | None):
    model, pipe = new_model(preset, data, config.seed)
    if torch.cuda.is_available():
        model.compile()
    latents = encoded_both_ways(pipe.codec, data) if pipe.codec.latent else None
    objective = DenoisingObjective(
        data, config.batch_size, conditions_of(pipe), preset.label_dropout, preset.flip, encoded=latents
    )
    result = train(model, objective, config, out=out, resume=out is not None, progress=out is not None)
    return pipe, result


def base(run: Run, name: str, seconds: float, without: str | None = None, **settings) -> dict:
    """Train, save in float16, judge 1,000 samples at several guidance scales."""
    preset, data, folder = PRESETS[name], run.data(without), run.out / (f"{name}-without-{without}" if without else name)
    config = fitted(preset, data.train, seconds, folder, run.tiny, **settings)
    pipe, result = trained(preset, data.train, config, folder)
    remember(pipe, history_after(History(), config, data.train, run.data().train, without))
    save_checkpoint(pipe, folder, base_card(preset, config, data.train, without, result), "float16")
    result.log.to_csv(folder / "log.csv", index=False)
    save_picture(image_grid(pipe, rows=1 if run.tiny else 8), run.out / f"{folder.name}.png", scale=2)
    judge = load_judge(run.out / "cifar10-judge") if (run.out / "cifar10-judge").exists() else None
    reference, per_class, steps = (None, 6, 2) if run.tiny else (run.data(), 100, 20)
    scales = {
        str(scale): evaluate(
            load_pipeline(folder), target=without, data=reference, judge=judge, per_class=per_class, guidance_scale=scale,
            num_inference_steps=steps, progress=False,
        ).as_dict()["metrics"] for scale in ((2.0,) if run.tiny else (1.0, 1.5, 2.0, 3.0, 4.0))
    }
    (folder / STATE_FILE).unlink(missing_ok=True)  # not before: whoever is stopped while measuring need not train again
    return {"steps": config.steps, "images": config.steps * config.batch_size, "seconds": result.seconds, "scales": scales}


def judge(run: Run, seconds: float) -> dict:
    preset, settings = JUDGE_PRESETS["cifar10-judge"], {}
    if run.tiny:
        preset, settings = replace(preset, dataset="cifar10-mini", widths=(8, 16, 16)), {"steps": 3, "batch_size": 50}
    if not (run.out / preset.name / "card.json").exists():
        train_judge(preset, run.out / preset.name, dtype="float16", resume=True, **settings)
    (run.out / preset.name / STATE_FILE).unlink(missing_ok=True)
    return read_card(run.out / preset.name)["quality"]


def attacks(run: Run, seconds: float) -> dict | None:
    """Six methods forget an automobile to UA 0.9; DiMRA at three rates, to 2,000 steps; the retrained twin beside them. Curves that
    attacks.csv has are not drawn again. None if the seconds are over before all are there."""
    table, ends, twin = run.out / "attacks.csv", time.monotonic() + seconds, run.out / f"cifar10-small-without-{TARGET}"
    data, pipe, rows = run.data(), load_pipeline(run.out / "cifar10-small"), read_rows(table)
    few = {"samples": 2, "num_inference_steps": 2, "evaluate_every": 2} if run.tiny else {"samples": 100, "num_inference_steps": 20}
    steps = 2 if run.tiny else ATTACK_STEPS
    for entry in (*METHODS[: 1 if run.tiny else None], *([RETRAINED] if twin.exists() else [])):
        settings = dict(entry) if isinstance(entry, dict) else {"method": entry}
        label, gone = " ".join(settings.values()), None
        done = {f"{row['learning_rate']:g}" for row in rows if row["method"] == label}
        for rate in (rate for rate in RATES[: 1 if run.tiny else None] if f"{rate:g}" not in done):
            if time.monotonic() > ends:
                return None
            gone = gone or (load_pipeline(twin) if entry == RETRAINED else forgotten(run, pipe, data, settings))
            curve = relearn(
                gone, data.without(TARGET), target=TARGET, steps=steps, learning_rate=rate, progress=False,
                **{"evaluate_every": steps // 10} | few,
            ).curve
            rows += curve.assign(method=label, learning_rate=rate, **provenance()).to_dict("records")
            write_rows(table, rows, float_format=None)
    return {"curves": len({(row["method"], row["learning_rate"]) for row in rows})}


def forgotten(run: Run, pipe, data, settings: dict):
    """The pipeline after a method with its settings, to UA 0.9."""
    steps, until = (2, None) if run.tiny else (300, 0.9)
    return unlearn(pipe, **settings, target=TARGET, data=data, steps=steps, until=until, progress=False)


def sizes(run: Run, seconds: float) -> dict:
    """A random network of Stable Diffusion 1.5's size: seconds and memory of one step of training, full weights, bf16."""
    from diffusers import UNet2DConditionModel

    small = {"block_out_channels": (32, 64), "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
             "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"), "cross_attention_dim": 32, "norm_num_groups": 8}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    unet = UNet2DConditionModel(**small if run.tiny else {"cross_attention_dim": 768}).to(device)
    side, words = (8, 32) if run.tiny else (64, 768)
    x, text = torch.randn(4, 4, side, side, device=device), torch.randn(4, 77, words, device=device)
    optimizer, times = torch.optim.AdamW(unet.parameters(), lr=1e-5), []
    for _ in range(2 if run.tiny else 8):
        started = time.monotonic()
        with torch.autocast(device, torch.bfloat16):
            loss = (unet(x, 500, encoder_hidden_states=text).sample.float() - x).square().mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        float(loss.detach())
        times.append(time.monotonic() - started)
    memory = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else None
    return {"parameters": sum(p.numel() for p in unet.parameters()), "seconds a step of 4": min(times), "GiB": memory}


BIG = {"batch_size": 512, "learning_rate": 1e-3, "warmup_steps": 1_000, "ema_decay": 0.9998}
STAGES: dict[str, tuple[float, Callable[[Run, float], dict | None]]] = {  # name -> share of the minutes, work
    "judge": (0.14, judge),
    "base": (0.22, lambda run, seconds: base(run, "cifar10-small", seconds, **BIG)),
    f"without-{TARGET}": (0.12, lambda run, seconds: base(run, "cifar10-small", seconds, TARGET, **BIG)),
    "without-horse": (0.12, lambda run, seconds: base(run, "cifar10-small", seconds, "horse", **BIG)),
    "attacks": (0.14, attacks),
    "pixels": (0.24, lambda run, seconds: base(run, "cifar10", seconds, learning_rate=4e-4, warmup_steps=500)),
    "sizes": (0.02, sizes),
}


def pack(out: Path) -> list[Path]:
    """OUT's results as an archive in pieces; a pixel model of the papers' size stays behind."""
    parts, archive = out / "parts", out / "all.tar.gz"
    parts.mkdir(exist_ok=True)
    for old in parts.iterdir():
        old.unlink()
    with tarfile.open(archive, "w:gz") as tar:
        for path in sorted(out.iterdir()):
            if path not in (parts, archive) and path.name != "cifar10":
                tar.add(path, path.name)
    with archive.open("rb") as file:
        for number, piece in enumerate(iter(lambda: file.read(PIECE), b"")):
            (parts / f"part-{number:02}").write_bytes(piece)
    archive.unlink()
    return sorted(parts.iterdir())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--only", nargs="+", choices=list(STAGES), default=list(STAGES))
    parser.add_argument("--tiny", action="store_true", help="a few steps of everything, to try the path")
    args = parser.parse_args()
    if not torch.cuda.is_available() and not args.tiny:
        parser.error("there is no CUDA device here: take one, or try the path with --tiny")
    args.out.mkdir(parents=True, exist_ok=True)
    check_settings(args.out, {"tiny": args.tiny})
    for name in args.only:
        share, work = STAGES[name]
        result = args.out / f"{name}.json"
        if result.exists():
            print(f"{name}: done before", flush=True)
            continue
        started = time.monotonic()
        content = work(Run(args.out, args.tiny), share * args.minutes * 60)
        if content is not None:
            write_atomically(result, json.dumps(content, indent=1).encode("utf-8"))
        said = "cut short: run this again, and it goes on" if content is None else json.dumps(content)[:600]
        print(f"{name}: {time.monotonic() - started:.0f} s\n{said}", flush=True)
        pack(args.out)
    print("\n".join(f"{path} {path.stat().st_size / 1e6:.1f} MB" for path in pack(args.out)))


if __name__ == "__main__":
    main()
