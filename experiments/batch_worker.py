"""One worker of `run_batch.py`: carries out the runs that its standard input names, one a line, and
answers each with a line of JSON. Runs of one job line share their compiled functions.

    python experiments/batch_worker.py CORE[,CORE ...]
"""

import json
import os
import sys
import time
import traceback
from typing import Any

# Before JAX starts its threads: they keep to the cores of the process that starts them.
os.sched_setaffinity(0, set(map(int, sys.argv[1].split(","))))

from hydra import compose, initialize_config_dir  # noqa: E402
from hydra.core.hydra_config import HydraConfig  # noqa: E402
from omegaconf import open_dict  # noqa: E402

from qjax.core.exactness import use_exact_products  # noqa: E402
from qjax.launchers.jobs import final_accuracy, in_words  # noqa: E402
from qjax.train import CONF, plan  # noqa: E402
from qjax.training.programs import Programs  # noqa: E402

OVERRIDES = ("run.progress=false", "run.tensorboard=false")


def carry_out(overrides: list[str], programs: Programs) -> dict[str, Any]:
    """Accuracy, folder and seconds of a run, or its error in words."""
    begin = time.monotonic()
    try:
        config = compose("config", [*overrides, *OVERRIDES], return_hydra_config=True)
        HydraConfig.instance().set_config(config)
        with open_dict(config):
            del config["hydra"]
        planned = plan(config, programs)
        if not planned.finished:
            planned.carry_out()
        accuracy = final_accuracy(planned.folder)
    except Exception as error:
        traceback.print_exc()
        return {"error": in_words(error)}
    seconds = time.monotonic() - begin
    return {"accuracy": accuracy, "folder": str(planned.folder), "seconds": seconds}


def main() -> None:
    """Serves until its standard input ends."""
    use_exact_products()
    # Whatever a run prints goes to the log, so that answers stand alone.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    line, programs = None, Programs()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        for request in sys.stdin:
            job = json.loads(request)
            if job["line"] != line:
                line, programs = job["line"], Programs()
            print(json.dumps(job["overrides"]), file=sys.stderr, flush=True)
            answers.write(json.dumps(carry_out(job["overrides"], programs)) + "\n")
            answers.flush()


if __name__ == "__main__":
    main()
