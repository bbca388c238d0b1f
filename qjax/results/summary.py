"""A finished run in a few lines, for the terminal."""

from pathlib import Path

from qjax.results.schema import read


def summary(folder: Path) -> str:
    """The result in a few lines."""
    record = read(folder)
    accuracy = record.accuracy
    forms = {k: accuracy[k] for k in ("float", "simulated", "integer")}
    share = {k: "-" if v is None else f"{100 * v:.2f} %" for k, v in forms.items()}
    lines = [
        f"accuracy   float {share['float']}   simulated {share['simulated']}   "
        f"integer {share['integer']}",
    ]
    if record.agreement["predictions"] is not None:
        codes = record.agreement["codes"].values()
        least = min(codes, default=1.0)
        floats = ", ".join(record.integer["float_layers"]) or "none"
        widest = max(record.integer["accumulator_bits"].values(), default=0)
        lines += [
            f"agreement  predictions {100 * record.agreement['predictions']:.3f} %   "
            f"codes at least {100 * least:.4f} % in every layer",
            f"integer    float-free {record.integer['float_free']}   float layers {floats}   "
            f"weights {record.integer['weight_bytes']:,} bytes   "
            f"accumulators up to {widest} bits",
        ]
    alarms = record.extra.get("alarms", [])
    lines += [
        f"alarm      {row['message']} ({row['phase']}, epoch {row['epoch']})" for row in alarms
    ]
    lines.append(f"seconds    {record.seconds:.1f} on {record.device}")
    return "\n".join(lines)
