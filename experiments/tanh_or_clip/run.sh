#!/usr/bin/env bash
# The runs of jobs.txt, one a core. Arguments are passed on: --workers 4, --set tanh:seed=0, --minutes 60 (see --help).
set -eu
cd "$(dirname "$0")/../.."
python experiments/run_batch.py experiments/tanh_or_clip/jobs.txt "$@"
