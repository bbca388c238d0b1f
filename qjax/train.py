"""`python -m qjax.train +experiment=NAME [key=value ...]`: one run, from configuration to
record.
"""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import hydra
from flax import nnx
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from qjax.core.exactness import use_exact_products
from qjax.core.requantize import policy
from qjax.launchers.errors import plain_errors
from qjax.launchers.jobs import carry_out
from qjax.record import NOT_HASHED, config_hash, read
from qjax.results.summary import summary
from qjax.target import Target, check_words
from qjax.training.devices import agreed, connect, disconnect, first_process
from qjax.training.feed import Images
from qjax.training.gradient_bits import check_error
from qjax.training.hooks import CrossEntropy, Hooks
from qjax.training.planned import Planned, fresh
from qjax.training.precision import Precision
from qjax.training.programs import Programs
from qjax.training.run import trained_model
from qjax.training.spec import RunSpec, Settings
from qjax.training.step import StepSettings
from qjax.training.teacher import check_teacher

CONF = Path(__file__).resolve().parents[1] / "conf"


def build(config: DictConfig, programs: Programs | None = None) -> RunSpec:
    """A run's values from its resolved configuration.

    Args:
        config: resolvable.
        programs: where runs of the same data find it in memory; None to read it.

    Raises:
        ValueError: a field out of range, naming it, its value and the remedy.
    """
    target: Target | None = instantiate(config.get("target"), _convert_="all")
    data = _data(config, target, Programs() if programs is None else programs)
    arguments = {key: value for key, value in config.model.items() if key != "name"}
    model = partial(
        instantiate,
        arguments,
        in_features=data.shape[-1],
        classes=data.classes,
        _convert_="all",
    )
    recipe = instantiate(config.recipe, _convert_="all")
    recipe = recipe if target is None else target.placing(recipe)
    norm = instantiate(config.bn) if "bn" in config else None
    phases = tuple(instantiate(config.procedure, _convert_="all")["phases"])
    check_error(instantiate(config.get("error"), _convert_="all"), recipe, phases)
    return RunSpec(
        names=_names(config, data.name, target) | {"recipe": recipe.name},
        w_bits=config.w_bits,
        a_bits=config.a_bits,
        seed=config.seed,
        data=data,
        make_model=lambda: model(rngs=nnx.Rngs(config.seed)),
        recipe=recipe,
        phases=phases,
        settings=_settings(config, target),
        config=plain(config),
        hooks=instantiate(config.hooks, _convert_="all") if "hooks" in config else Hooks(),
        e_bits=config.get("e_bits"),
        g_bits=config.get("g_bits"),
        norm=norm if target is None else target.batch_norm(norm),
        target=target,
        load_teacher=cache(partial(load_teacher, data)),
    )


def _data(config: DictConfig, target: Target | None, programs: Programs) -> Any:
    """The data set, its pixels in the range that the target prescribes, else the chosen one."""
    names = ("data", "pixels", "target.pixels")
    parts = [OmegaConf.select(config, name) for name in names]
    chosen = json.dumps([part and OmegaConf.to_container(part, resolve=True) for part in parts])

    def reading() -> Any:
        data = instantiate(config.data)
        if target is not None and target.pixels is not None:
            return target.pixels(data)
        return instantiate(config.pixels)(data) if "pixels" in config else data

    return programs.get(("read", chosen), reading)


def load_teacher(data: Images, folder: str) -> nnx.Module:
    """The trained network of a run folder, as its configuration built it.

    Raises:
        ValueError: it was trained on other images than `data`.
    """
    from qjax.evaluate import stored_config  # which imports this module

    spec = build(stored_config(Path(folder), []))
    check_teacher(folder, spec.data, data)
    return trained_model(spec, Path(folder))[0]


def with_teachers(config: DictConfig) -> DictConfig:
    """The configuration with the hashes of the finished runs that it names as teachers: another
    teacher in the same folder makes another run.

    Raises:
        ValueError: a folder holds no finished run.
    """
    folders = [OmegaConf.select(phase, "teacher.folder") for phase in config.procedure.phases]
    try:
        hashes = [read(folder).config_hash for folder in folders if folder is not None]
    except FileNotFoundError as error:
        raise ValueError(f"Teacher.folder: {error}; name a finished run") from error
    if not hashes:
        return config
    config = config.copy()
    OmegaConf.set_struct(config, False)
    config.teachers = hashes
    return config


def _settings(config: DictConfig, target: Target | None) -> Settings:
    run = config.run
    rounding = run.policy if target is None else target.policy
    return Settings(
        batch_size=config.batch_size,
        policy=policy(rounding),
        policy_name=rounding,
        eval_batch=run.eval_batch,
        check_every=run.check_every,
        checkpoint_every=run.checkpoint_every,
        checkpoint_minutes=run.get("checkpoint_minutes", 30),
        diagnose_every=run.get("diagnose_every", 1),
        devices=run.get("devices", "auto"),
        steps_per_call=run.get("steps_per_call", "auto"),
        tensorboard=run.tensorboard,
        progress=run.progress,
        step=StepSettings(
            loss=CrossEntropy(config.get("label_smoothing", 0.0)),
            precision=Precision(
                config.get("precision", "float32"), config.get("loss_scale", "auto")
            ),
            average_decay=config.get("average_decay"),
        ),
        averaged=config.get("evaluate_average", False),
    )


def plain(config: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain values."""
    values = OmegaConf.to_container(config, resolve=True)
    assert isinstance(values, dict)
    # How a sweep is carried out belongs to a run only where it changes the run's numbers.
    if not values.get("population", {}).get("stack"):
        values.pop("population", None)
    return {str(key): value for key, value in values.items()}


def _names(config: DictConfig, data: str, target: Target | None) -> dict[str, str]:
    """What the record calls things by, but for the recipe."""
    return {
        "experiment": config.experiment,
        "method": config.method,
        "data": _data_name(config, data),
        "model": _model_name(config),
        "target": "none" if target is None else target.name,
        # Records of before are without.
        **config.get("choices", {}),
    }


def _model_name(config: DictConfig) -> str:
    """The model's name in records; another width than the paper's is another model."""
    width = config.model.get("width")
    scaled = isinstance(width, float) and width != 1.0
    return f"{config.model.name}-x{width:g}" if scaled else config.model.name


def _data_name(config: DictConfig, name: str) -> str:
    """The set's name in records; a part of a set is not the set."""
    limits = (config.data.get("train_limit"), config.data.get("test_limit"))
    return f"{name}-limited" if any(limits) else name


def default_folder(config: DictConfig, spec: RunSpec) -> Path:
    """runs/EXPERIMENT/DATA-MODEL-BITS-SEED-HASH, the same for the same configuration; a target
    stands before the bits.
    """
    bits = f"w{spec.w_bits}a{spec.a_bits}"
    bits = bits if spec.target is None else f"{spec.target.name}-{bits}"
    tag = config_hash(spec.config)
    name = f"{spec.names['data']}-{spec.names['model']}-{bits}-s{spec.seed}-{tag}"
    return Path("runs") / config.experiment / name


def train(config: DictConfig) -> Path:
    """Carry out one configuration, unless a finished record of it exists; go on with an unfinished
    one.

    Returns:
        The record's folder.

    Raises:
        ValueError: a field out of range, or a folder that cannot be used.
    """
    planned = plan(config)
    if not agreed(planned.finished):
        planned.carry_out()
    elif first_process():
        print(f"{planned.folder} is finished; run.repeat=true trains it again in a new folder")
    return planned.folder


def plan(config: DictConfig, programs: Programs | None = None) -> Planned:
    """A configuration's run and the folder of its record; nothing is written yet.

    `programs` holds what runs like it share: data, compiled functions; None for its own.

    Raises:
        ValueError: a field out of range, or a folder that cannot be used.
    """
    if HydraConfig.initialized():
        check_words(HydraConfig.get().overrides.task, config.get("target", {}).get("name"))
    config = with_teachers(config)
    if config.run.resume:
        config = with_teachers(resumed(config))
    if config.run.get("distributed"):
        if HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN:
            raise ValueError(
                "run.distributed joins the processes of one run, but this is a sweep; leave -m out"
            )
        connect()
    stacked = config.get("population", {}).get("stack")
    if stacked and config.run.get("devices", 1) not in ("auto", 1):
        raise ValueError("population.stack steps on one device; leave run.devices=auto")
    spec = build(config, programs)
    folder = Path(config.run.folder or default_folder(config, spec))
    return Planned(spec, fresh(folder) if config.run.repeat else folder, programs)


def resumed(config: DictConfig) -> DictConfig:
    """The configuration in the folder that `run.resume` names, to go on with.

    Words that change no number (run.devices, run.progress) hold for what is left of it.

    Raises:
        ValueError: the folder holds no run, or other words of the command line ask for another
            configuration.
    """
    from qjax.evaluate import stored_config  # which imports this module

    folder = Path(config.run.resume)
    if not (folder / "config.yaml").exists():
        raise ValueError(f"run.resume: {folder} holds no run; name the folder of an unfinished one")
    stored = stored_config(folder, [])
    words = HydraConfig.get().overrides.task if HydraConfig.initialized() else []
    free = [word for word in words if word.lstrip("+").split("=")[0] in NOT_HASHED]
    others = [word for word in words if word not in free]
    if others and config_hash(plain(config)) != config_hash(plain(stored)):
        raise ValueError(
            f"run.resume goes on with the configuration in {folder}, but {' '.join(others)} asks "
            "for another; leave these words out, or start a new run without run.resume"
        )
    OmegaConf.set_struct(stored, False)
    stored.merge_with(OmegaConf.from_dotlist([word.lstrip("+") for word in free]))
    stored.run.folder, stored.run.repeat, stored.run.resume = str(folder), False, None
    return stored


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def main(config: DictConfig) -> float | None:
    """Entry point; a job of a sweep returns its accuracy to the sweeper."""
    use_exact_products()
    if HydraConfig.get().mode is RunMode.MULTIRUN:
        return carry_out(config, plan)
    with plain_errors():
        folder = train(config)
        if first_process():
            print(summary(folder))
            print(f"record: {folder}")
        disconnect()


if __name__ == "__main__":
    main()
