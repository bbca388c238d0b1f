"""Every group of the golden vectors is used by a test, or stands here with the reason why not."""

import json
from pathlib import Path

TESTS = Path(__file__).parents[1]
SETS = "calibration and post-training choose positions, thresholds and shares; no such choice here"
METHOD = "a method that is not built"
# A group that a test reads may stay here until somebody removes it: only the reverse is an error.
NOT_BUILT = {
    "choose_quantization_params": "scales come from quantizers, not from TFLite's converter",
    "pot_max_based": SETS,
    "pot_diffs_position": SETS,
    "pot_search_by_mse_and_kl": SETS,
    "calibration_histogram": SETS,
    "mxnet_entropy": SETS,
    "pytorch_observers": SETS,
    "dfq_cle": SETS,
    "dfq_clipped_normal_mean": SETS,
    "dfq_bias_correction": SETS,
    "dfq_bias_absorption": SETS,
    "zeroq_quantizer": SETS,
    "zeroq_pareto": SETS,
    "bops_per_output_position": "costs are counted in multiply-accumulates and bytes",
    "onnx_dynamic_quantize_linear": "a scale taken from the input at run time is a float",
    "vnq": METHOD,
    "clipq_example": METHOD,
    "uniq_k_quantile_gaussian": METHOD,
    "uniq_noise_example": METHOD,
    "nice_activation": METHOD,
    "nice_weight": METHOD,
    "nice_hardware_clamp": METHOD,
    "ibert": "transformers are not among the networks",
    "unified_int8_training": METHOD,
    "fp16_loss_scaling": "half precision is a setting of the training step, not of an integer",
}


def groups() -> set[str]:
    """Names of the groups; those with an underscore say how the others were made."""
    text = (TESTS / "vectors" / "golden_deployment.json").read_text(encoding="utf-8")
    sections = [part for part in json.loads(text).values() if isinstance(part, dict)]
    return {name for part in sections for name in part if not name.startswith("_")}


def test_every_group_is_used_or_has_a_reason():
    sources = [p.read_text(encoding="utf-8") for p in TESTS.rglob("*.py") if p != Path(__file__)]
    unused = {name for name in groups() if not any(f'"{name}"' in text for text in sources)}
    assert unused <= set(NOT_BUILT), f"no test reads {sorted(unused - set(NOT_BUILT))}"


def test_reasons_speak_of_groups_that_exist():
    assert set(NOT_BUILT) <= groups()
