"""The options of a run: every mistake is named before any data is read, and the resolved config reads back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from messages import pattern

from remul_md.errors import InputError
from remul_md.models import MODELS, model_config_type
from remul_md.training.config import PUBLISHED, RunConfig, TrainConfig, dump_config, load_config, validated_config
from remul_md.training.sections import preset_names


def refused(overrides: Sequence[str], message: str) -> None:
    with pytest.raises(InputError, match=pattern(message)):
        load_config(None, overrides=overrides)


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.batchsize=4", "did you mean train.batch_size?"),
        ("train.lerning_rate=1", "did you mean train.learning_rate?"),
        ("data.molecul=ethanol", "did you mean data.molecule?"),
        ("model.cutof=4", "did you mean model.cutoff?"),
        ("trian.beta=1", "did you mean train?"),
        ("model.species=[1]", "unknown key model.species"),  # set from the data, never by hand
        ("model.energy_scale=2", "unknown key model.energy_scale"),
    ],
)
def test_unknown_keys_name_the_nearest(override: str, message: str) -> None:
    refused([override], message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.learning_rate=0", "train.learning_rate: ... got 0"),
        ("train.learning_rate=-1e-3", "train.learning_rate: ... got"),
        ("train.beta=-0.5", "train.beta: ... got -0.5"),
        ("train.ema_decay=1.0", "train.ema_decay: ... got 1.0"),
        ("train.n_steps=0", "train.n_steps: ... got 0"),
        ("train.batch_size=2.5", "train.batch_size: "),
        ("train.n_rotated=0", "train.n_rotated: ... got 0"),
        ("train.group=O(3)", "train.group: ... got 'O(3)'"),
        ("train.forces=auto", "train.forces: ... got 'auto'"),
        ("train.max_grad_norm=.nan", "train.max_grad_norm"),
        ("train.learning_rate=.inf", "train.learning_rate: ... got inf"),
        ("train.alpha=.nan", "train.alpha: ... got nan"),
        ("model.cutoff=.inf", "model.cutoff: ... got inf"),
        ("data.n_train=0", "data.n_train: ... got 0"),
        ("model.kind=mace", "model.kind: ... got 'mace'"),
        ("model.width=wide", "model.width: "),
        ("train.seed=-1", "train.seed: ... got -1"),
    ],
)
def test_values_out_of_range_are_named(override: str, message: str) -> None:
    refused([override], message)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["model.cutoff=-5"], "model.cutoff ... got -5.0"),
        (["model.n_layers=0"], "model.n_layers ... got 0"),
        (["model.width=30", "model.n_heads=7"], "model.width ... got 30 and 7"),
    ],
)
def test_ranges_of_the_model_are_checked_before_data(overrides: list[str], message: str) -> None:
    refused(["data.source=no/such/file.xyz", *overrides], message)  # the missing file is not even looked for


def test_options_that_exclude_each_other() -> None:
    refused(
        ["data.molecule=ethanol", "data.source=own.xyz"],
        "data.molecule (ethanol) and data.source (own.xyz)",
    )
    refused(["train.alpha=0", "train.beta=0"], "train.alpha and train.beta are both 0")
    refused(
        ["train.consistency_target=prediction", "train.beta=0"],
        "train.consistency_target=prediction",
    )
    refused(["train.n_steps=100", "train.warmup_steps=100"], "train.warmup_steps (100) ... train.n_steps (100)")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["beta_start=0.5"], "train.beta_start=0.5 has no effect"),
        (["ramp_steps=50", "weighting=gradual"], "train.ramp_steps=50 has no effect"),
        (["gradnorm_exponent=2"], "train.gradnorm_exponent=2.0 has no effect"),
        (["gradnorm_learning_rate=1", "weighting=linear"], "train.gradnorm_learning_rate=1.0 has no effect"),
        (["gradnorm_loss_floor=1"], "train.gradnorm_loss_floor=1.0 has no effect"),
        (
            ["weighting=gradual", "alpha=0"],
            "train.weighting=gradual ... alpha, beta",
        ),
        (["weighting=cosine", "beta=0"], "train.weighting=cosine ... beta"),
        (
            ["weighting=linear", "n_steps=300", "ramp_steps=301"],
            "train.ramp_steps (301) ... train.n_steps (300)",
        ),
        (
            ["estimator=one-forward", "alpha=0"],
            "train.estimator=one-forward ... alpha",
        ),
        (["estimator=one-forward", "weighting=linear"], "train.estimator=one-forward needs train.weighting=constant"),
        (["estimator=one-forward", "n_rotated=2"], "train.estimator=one-forward ... n_rotated"),
        (
            ["estimator=one-forward", "consistency_target=prediction"],
            "train.consistency_target=label, got 1 and prediction",
        ),
        (
            ["estimator=one-forward", "first_orientation=random"],
            "train.first_orientation=original, got random",
        ),
        (
            ["first_orientation=random", "alpha=0"],
            "train.first_orientation=random has no effect",
        ),
        (
            ["first_orientation=rotated"],
            "train.first_orientation: ... got 'rotated'",
        ),
        (["unlabelled_batch_size=-1"], "train.unlabelled_batch_size: ... got"),
        (
            ["unlabelled_batch_size=5", "consistency_target=label"],
            "train.unlabelled_batch_size=5 ... train.consistency_target=prediction, got label",
        ),
        (
            ["unlabelled_batch_size=5", "consistency_target=prediction"],
            "train.unlabelled_batch_size ... got None and 5",
        ),
        (["axis=[0, 0, 0]", "group=SO3"], "axis ... got [0.0, 0.0, 0.0]"),
        (["weighting=gradnorm"], "train.weighting: "),
        (["torque_weight=5", "forces=direct"], "train.torque_weight=5 needs conservative forces"),
        (["equivariance_from=0.5", "alpha=0"], "train.equivariance_from=0.5 ... got alpha=0, beta=1, torque_weight=0"),
        (["equivariance_from=0.5", "beta=0"], "train.equivariance_from=0.5 ... got alpha=1, beta=0, torque_weight=0"),
        (["equivariance_from=0.5", "weighting=cosine"], "train.weighting=constant ... got cosine and paired"),
        (["equivariance_from=0.5", "estimator=one-forward"], "train.estimator=paired, got constant and one-forward"),
        (["equivariance_from=1"], "train.equivariance_from: ... got"),
        (["force_loss=L2"], "train.force_loss: ... got 'L2'"),
    ],
)
def test_options_of_the_losses_that_do_not_fit_together(overrides: list[str], message: str) -> None:
    refused([f"train.{override}" for override in overrides], message)


@pytest.mark.parametrize(
    ("given", "published"),
    [
        ({}, []),
        ({"alpha": 0.5}, []),
        ({"alpha": 0}, ["beta", "first_orientation", "consistency_target", "equivariance_from"]),
        ({"estimator": "one-forward"}, ["beta", "first_orientation", "consistency_target", "equivariance_from"]),
        ({"weighting": "gradual"}, ["beta", "equivariance_from"]),
        (
            {"consistency_target": "label", "first_orientation": "original"},
            ["beta", "first_orientation", "consistency_target"],
        ),
        ({"alpha": 0, "torque_weight": 3.0}, ["beta", "first_orientation", "consistency_target", "equivariance_from"]),
        (PUBLISHED, list(PUBLISHED)),
    ],
)
def test_defaults_are_the_recipe_where_both_of_its_losses_are_trained(
    given: dict[str, Any], published: list[str]
) -> None:
    """What is dumped reads back: a default that was filled in is an option like any other."""
    recipe = {"beta": 10.0, "first_orientation": "random", "consistency_target": "prediction", "equivariance_from": 0.8}
    found = TrainConfig.model_validate(given)
    assert {name: getattr(found, name) for name in recipe} == {
        **recipe,
        **{name: PUBLISHED[name] for name in published},
    }
    assert TrainConfig.model_validate(found.model_dump()) == found


def test_unlabelled_frames_need_a_number_and_their_unit_needs_them() -> None:
    refused(["data.unlabelled=own.traj"], "got own.traj and 0")
    refused(["data.unlabelled_length_unit=Bohr"], "data.unlabelled_length_unit=Bohr has no effect")
    given = ["data.unlabelled=own.traj", "train.unlabelled_batch_size=5", "train.consistency_target=prediction"]
    assert load_config(None, overrides=given).data.unlabelled == "own.traj"


def test_options_of_the_losses_that_do_fit_together(tmp_path: Path) -> None:
    for chosen in (
        ["weighting=linear", "beta_start=0.5", "ramp_steps=50"],
        ["weighting=gradual", "gradnorm_exponent=0", "n_rotated=3", "consistency_target=prediction"],
        ["estimator=one-forward", "beta=0.25", "force_loss=mse"],
        ["group=SO3", "axis=[0, 1, 0.5]"],
        ["first_orientation=random", "beta=0"],
        ["first_orientation=random", "consistency_target=prediction", "weighting=gradual"],
    ):
        config = load_config(None, overrides=[f"train.{override}" for override in chosen])
        assert load_config(write(tmp_path, dump_config(config))) == config != RunConfig()


def test_several_mistakes_are_told_at_once() -> None:
    with pytest.raises(InputError) as caught:
        load_config(None, overrides=["train.bta=1", "data.n_train=-2"])
    assert "train.bta" in str(caught.value)
    assert "data.n_train" in str(caught.value)


@pytest.mark.parametrize("override", ["train.beta", "beta=0.5", "train.=1", "=1", "train.beta.x=1", "train.beta 0.5"])
def test_broken_overrides_are_explained(override: str) -> None:
    refused([override], f"SECTION.KEY=VALUE ... got {override!r}")


def test_overrides_are_yaml_and_the_last_one_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "train:\n  beta: 2.0\n  alpha: 0.25\n")
    overrides = ["train.beta=0.5", "train.beta=0.75", "train.patience=null", "train.learning_rate=3e-4"]
    config = load_config(path, overrides=[*overrides, "data.source=a=b.xyz", "data.allow_implausible=true"])
    assert (config.train.alpha, config.train.beta, config.train.patience) == (0.25, 0.75, None)
    assert config.train.learning_rate == 3e-4
    assert config.data.source == "a=b.xyz"
    assert config.data.allow_implausible is True
    refused(["train.beta=[1"], "--set 'train.beta=[1'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: [1\n", "run.yaml: is not valid YAML"),
        ("- train\n", "run.yaml: ... (data, model, pretrain, train), found a list"),
        ("beta\n", "found a str"),
        ("train: 5\n", "train"),
        (
            "train:\n  beta: 1\ndata:\n  molecules: x\n",
            "run.yaml: ... did you mean data.molecule",
        ),
        ("train:\n", "train"),
    ],
)
def test_broken_files_are_explained(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=pattern(message)):
        load_config(write(tmp_path, text))


def test_a_binary_file_is_no_config(tmp_path: Path) -> None:
    path = tmp_path / "potential.pt"
    path.write_bytes(b"PK\x03\x04\xff\xfe\x80")
    with pytest.raises(InputError, match=r"potential\.pt: byte 4 is .*, which is no UTF-8"):
        load_config(path)


def test_overriding_a_section_that_is_no_section(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=pattern("section 'train' ... 5")):
        load_config(write(tmp_path, "train: 5\n"), overrides=["train.beta=1"])


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    assert load_config(write(tmp_path, "# nothing yet\n")) == load_config(None) == RunConfig()


def test_a_missing_config_lists_the_presets() -> None:
    listed = ", ".join(preset_names())
    for name in ("etanol", "nowhere/run.yaml"):
        with pytest.raises(InputError, match=pattern(f"{name!r} ... presets: {listed}")):
            load_config(name)


def test_every_preset_loads_and_says_what_was_measured() -> None:
    from remul_md.data import presets

    folder = Path(presets.__path__[0])
    assert preset_names() == sorted(path.stem for path in folder.glob("*.yaml"))
    for name in preset_names():
        assert load_config(name) == load_config(folder / f"{name}.yaml")
        assert (folder / f"{name}.yaml").read_text().startswith("#"), f"{name}: the head must say what was measured"


def test_a_file_comes_before_a_preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ["mine", *preset_names()]:
        (tmp_path / name).write_text("train:\n  seed: 4321\n")
        assert load_config(name).train.seed == 4321


def test_the_resolved_config_reads_back(tmp_path: Path) -> None:
    overrides = ["data.source=own.xyz", "train.beta=0.125", "train.patience=7", "model.cutoff=4.75", "train.group=SO3"]
    config = load_config(None, overrides=overrides)
    text = dump_config(config)
    assert load_config(write(tmp_path, text)) == config
    assert config != RunConfig()
    # Every option stands in the file, so a run is decided by it alone and not by later defaults.
    resolved = yaml.safe_load(text)
    assert resolved["data"].keys() == type(config.data).model_fields.keys()
    assert resolved["train"].keys() == type(config.train).model_fields.keys()


@pytest.mark.parametrize("kind", sorted(MODELS))
def test_every_option_of_the_model_can_be_set(kind: str) -> None:
    model = load_config(None, overrides=[f"model.kind={kind}"]).model
    config_type = model_config_type(kind)
    expected = {field.name for field in fields(config_type)} - {"species", "energy_scale"}
    assert set(type(model).model_fields) == expected | {"kind"}
    default = config_type(species=(1,))
    assert {name: getattr(model, name) for name in expected} == {name: getattr(default, name) for name in expected}


def test_the_kind_of_model_chooses_its_options(tmp_path: Path) -> None:
    config = load_config(None, overrides=["model.width=64", "model.kind=painn"])  # in any order
    assert config.model.model_dump() == {"kind": "painn", "cutoff": 6.0, "width": 64, "n_layers": 3, "n_radial": 16}
    path = write(tmp_path, dump_config(config))
    assert load_config(path) == config
    assert load_config(path, overrides=["model.n_layers=2"]).model.n_layers == 2
    # A config that names no kind is the transformer's, so older files give the model that they gave.
    assert RunConfig().model == load_config(None, overrides=["model.kind=transformer"]).model
    assert load_config(None, overrides=["model.width=64"]).model.kind == "transformer"
    refused(
        ["model.kind=painn", "model.n_heads=4"],
        "model.kind=painn; did you mean model.n_radial? Known: cutoff, width, n_layers, n_radial, kind",
    )
    refused(["model.kind=painn", "model.width=wide"], "model.width: ")
    refused(["model.kind=painn", "model.cutoff=0"], "model.cutoff ... got 0.0")
    refused(["model.kind=null"], "model.kind: ... got None")
    refused(
        ["model.kind=[painn]"],
        "model.kind: ... got ['painn']",
    )
    with pytest.raises(InputError, match=pattern("model: ... got 5")):
        load_config(write(tmp_path, "model: 5\n"))


def test_runs_of_two_kinds_never_look_alike() -> None:
    """What identifies a run leaves out the defaults; a kind that is not the default one is always named."""
    overrides = ["model.width=64"]
    dumps = [
        load_config(None, overrides=[*overrides, f"model.kind={kind}"]).model_dump(exclude_defaults=True)["model"]
        for kind in ("transformer", "painn", "plain")
    ]
    assert dumps == [{"width": 64}, {"kind": "painn", "width": 64}, {"kind": "plain", "width": 64}]


def test_options_cannot_be_changed_afterwards() -> None:
    config = RunConfig()
    with pytest.raises(ValueError, match="frozen"):
        config.train.beta = 2.0


def test_sources_resolve() -> None:
    assert load_config(None).data.resolved_source == "rmd17/ethanol/train-01"
    assert load_config(None, overrides=["data.molecule=aspirin"]).data.resolved_source == "rmd17/aspirin/train-01"
    assert load_config(None, overrides=["data.source=own.xyz"]).data.resolved_source == "own.xyz"


def test_messages_name_where_the_values_come_from() -> None:
    with pytest.raises(InputError, match=r"^config\.yaml of a run: unknown key train\.bta"):
        validated_config({"train": {"bta": 1}}, origin="config.yaml of a run")


def test_defaults_lie_inside_their_ranges() -> None:
    """pydantic does not check defaults by itself."""
    assert validated_config(RunConfig().model_dump(), origin="the defaults") == RunConfig()
